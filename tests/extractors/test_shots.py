"""Cuts and stills are found while frames pass by; fast cameras and flashes are neither."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cofinal.extractors.shots import REACH, Shots


def picture(seed: int) -> np.ndarray:
    """A picture of soft blobs (64, 400, 3)."""
    blobs = gaussian_filter(np.random.default_rng(seed).normal(size=(64, 400, 3)), (6, 6, 0))
    return (127 + 60 * blobs / blobs.std()).clip(0, 255).astype(np.uint8)


def pan(seed: int, num_frames: int, speed: int) -> list[np.ndarray]:
    """Frames (64, 64, 3) of a camera that pans over a picture."""
    return [picture(seed)[:, speed * i : speed * i + 64] for i in range(num_frames)]


def shots_of(frames: list[np.ndarray]) -> Shots:
    shots = Shots()
    for index, frame in enumerate(frames):
        shots.see(frame, index / 25)
    shots.end()
    return shots


@pytest.mark.parametrize("speed", [1, 3])
@pytest.mark.parametrize("at", [REACH, 40, 76])
def test_a_cut_is_found_where_it_is(speed: int, at: int) -> None:
    shots = shots_of(pan(0, at, speed) + pan(1, 80 - at, speed))
    assert shots.cuts_s == [at / 25]
    assert shots.stills_s == []


def test_a_fast_camera_and_a_flash_are_no_cuts() -> None:
    frames = pan(0, 20, 12)
    assert shots_of(frames).cuts_s == []
    flashed = [*frames[:9], np.full_like(frames[9], 255), *frames[10:]]
    assert shots_of(flashed).cuts_s == []


def test_a_still_lasts_a_second_or_more() -> None:
    noisy = np.random.default_rng(0)
    moving, still = pan(0, 30, 2), picture(3)[:, :64] // 2
    frames = [*moving, *(still + noisy.integers(0, 2, still.shape, dtype=np.uint8) for _ in range(50)), *moving]
    shots = shots_of(frames)
    assert shots.stills_s == [[30 / 25, 79 / 25]]
    assert shots.cuts_s == [30 / 25, 80 / 25]
    assert shots_of([*moving, *[still] * 25, *moving]).stills_s == []
    assert shots_of([still] * 30).stills_s == [[0, 29 / 25]]


def test_one_frame_has_neither() -> None:
    shots = shots_of(pan(0, 1, 1))
    assert (shots.cuts_s, shots.stills_s) == ([], [])
