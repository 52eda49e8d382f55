"""Mutated real files: each gives an error with a reason, or exactly the clips that its decodable frames allow."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import plain_decoding
import pytest
from cheap_backbone import colours

from cofinal.extractors.clips import select
from cofinal.extractors.extract import extract
from cofinal.extractors.reader import Reader, ReaderError
from cofinal.extractors.video import VideoError

SOURCES = (
    "action/arm_wrestling.mp4",
    "action/flipping_pancake.mkv",
    "awkward/74_claimed_56_decode.mp4",
    "awkward/av1.mkv",
    "awkward/edit_list_30_claimed_25_decode.mp4",
    "awkward/hevc_10bit.mp4",
    "awkward/odd_size_vp9.mp4",
    "awkward/starts_at_8s.mp4",
    "awkward/two_video_streams.mp4",
    "awkward/unordered_timestamps.mov",
)
CLIP_FRAMES = 4


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, swap two chunks, or blank one."""
    data = np.frombuffer(content, np.uint8).copy()
    size = len(data)
    chunk = int(rng.integers(1, size // 8))
    a, b = (int(at) for at in rng.integers(0, size - chunk, 2))
    match int(rng.integers(5)):
        case 0 | 1:  # twice as likely, because it most often leaves a file that opens
            places = rng.integers(0, size, int(rng.integers(1, 40)))
            data[places] ^= np.uint8(1) << rng.integers(0, 8, len(places)).astype(np.uint8)
        case 2:
            return data[: int(rng.integers(size // 10, size))].tobytes()
        case 3:
            one, other = data[a : a + chunk].copy(), data[b : b + chunk].copy()
            data[a : a + chunk], data[b : b + chunk] = other, one
        case 4:
            data[a : a + chunk] = 0
    return data.tobytes()


def run(num_files: int, shared: Path, folder: Path) -> Counter[str]:
    """Extract mutated files, check each outcome, and count the kinds of outcome."""
    ends: Counter[str] = Counter()
    backbone = colours(clip_frames=CLIP_FRAMES)
    context = get_context("spawn")
    with Reader(stall_timeout_s=20.0) as reader:
        opinions = ProcessPoolExecutor(1, context)
        for seed in range(num_files):
            source = shared / "videos" / SOURCES[seed % len(SOURCES)]
            path = folder / f"{seed}{source.suffix}"
            path.write_bytes(mutated(source.read_bytes(), np.random.default_rng(seed)))
            try:
                times, is_broken = opinions.submit(plain_decoding.decodable_times, str(path)).result()
            except BrokenProcessPool:
                ends["crashes a decoder"] += 1
                opinions, times, is_broken = ProcessPoolExecutor(1, context), np.empty(0), True
            ends["tried"] += 1
            ends["decode a frame"] += len(times) > 0
            allow_partial = seed // len(SOURCES) % 2 == 1
            try:
                extraction = extract(path, backbone, allow_partial=allow_partial, reader=reader)
            except VideoError as error:
                reason = str(error)
                assert reason.startswith(str(path)), reason
                assert "\n" not in reason
                ends["failed with a reason"] += 1
                if isinstance(error, ReaderError):
                    ends["given up" if "given up" in reason else "of these by the end of the reading process"] += 1
                continue
            assert allow_partial or not is_broken, path
            num_frames = extraction.record["frames_decoded"]
            if num_frames != len(times):  # frames after a hole in the middle are left out
                assert extraction.record["partial"], path
                assert times[num_frames] - times[num_frames - 1] > 2 * np.median(np.diff(times)), path
            expected = select(times[:num_frames], backbone.recipe.fps, CLIP_FRAMES)
            np.testing.assert_allclose(extraction.clip_times, expected.clip_times, err_msg=str(path))
            assert len(extraction.features) == len(expected.frames)
            ends["succeeded"] += 1
            ends["of these in part"] += extraction.record["partial"]
            ends["of these with frames made up in part"] += bool(extraction.record["concealed_frames"])
        opinions.shutdown()
    assert ends["tried"] == num_files == ends["failed with a reason"] + ends["succeeded"]
    assert ends["decode a frame"] >= num_files / 2
    return ends


@pytest.mark.shared
def test_60_mutated_files(shared: Path, tmp_path: Path) -> None:
    ends = run(60, shared, tmp_path)
    assert ends["given up"] == 0
    assert min(ends["failed with a reason"], ends["succeeded"], ends["of these in part"]) > 0


@pytest.mark.shared
@pytest.mark.slow
def test_500_mutated_files(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ends = run(500, shared, tmp_path)
    assert ends["given up"] == 0
    with capsys.disabled():
        print(f"\n500 mutated files: {', '.join(f'{end} {count}' for end, count in ends.items())}")
