"""The rule of `extractors.clips`, for any timestamps and any rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofinal.extractors.clips import frame_of_tick, select, select_last

gaps = st.lists(st.floats(0.0, 0.3), max_size=300)
rates = st.floats(1, 60)


def at_rate(rate: float, num_frames: int, start: float = 0.0) -> np.ndarray:
    return start + np.arange(num_frames) / rate


@given(gaps, rates, st.floats(-10, 1e5))
def test_order_is_kept_and_frames_repeat_only_where_the_source_is_slower(
    gaps: list[float], fps: float, start: float
) -> None:
    times = start + np.concatenate([[0.0], np.cumsum(gaps)])
    shown = frame_of_tick(times, fps)

    assert (np.diff(shown) >= 0).all()
    assert shown[0] >= 0
    assert shown[-1] <= len(times) - 1
    assert len(shown) == np.ceil((times[-1] - times[0]) * fps - 0.5).clip(0) + 1
    repeated = shown[1:][np.diff(shown) == 0]
    assert (times[repeated + 1] - times[repeated] > (1 - 1e-6) / fps).all()


@given(gaps, rates)
def test_a_tick_shows_its_nearest_frame_or_else_the_last_one_before_it(gaps: list[float], fps: float) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    shown = frame_of_tick(times, fps)
    position = (times - times[0]) * fps
    for tick, frame in enumerate(shown):
        own = np.flatnonzero(np.ceil(position - 0.5) == tick)
        if len(own):
            assert frame in own
            assert abs(position[frame] - tick) <= np.abs(position[own] - tick).min() + 1e-9
        else:
            assert frame == np.flatnonzero(position < tick).max()


@given(st.floats(1, 120), st.integers(1, 500), st.floats(0, 1e4), st.randoms(use_true_random=False))
def test_a_source_of_the_recipes_rate_is_taken_frame_by_frame(rate, num_frames, start, random) -> None:
    exact = at_rate(rate, num_frames, start)
    jittered = np.sort(exact + [random.uniform(-0.24, 0.24) / rate for _ in range(num_frames)])
    for times in (exact, jittered):
        assert frame_of_tick(times, rate).tolist() == list(range(num_frames))


@pytest.mark.parametrize("rate", [25, 24, 30, 30000 / 1001, 50, 60000 / 1001])
def test_times_rounded_to_milliseconds_change_nothing(rate: float) -> None:
    exact = at_rate(rate, 3000)
    assert frame_of_tick(exact.round(3), rate).tolist() == list(range(3000))


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (50, [0, 2, 4, 6, 8, 10, 12]),
        (12.5, [0, 0, 1, 1, 2, 2, 3]),
        (100, [0, 4, 8, 12, 16, 20, 24]),
        (37.5, [0, 2, 3, 5, 6, 8, 9]),  # of two frames equally near, the later one
    ],
)
def test_other_rates_at_25(rate: float, expected: list[int]) -> None:
    assert frame_of_tick(at_rate(rate, 100), 25)[:7].tolist() == expected


def test_faster_sources_drop_frames_and_slower_ones_repeat_frames() -> None:
    shown = frame_of_tick(at_rate(30000 / 1001, 3000), 25)
    assert len(np.unique(shown)) == len(shown) == 2503  # the last frame is at tick 2501.7
    shown = frame_of_tick(at_rate(24, 2400), 25)
    assert (len(shown), len(np.unique(shown))) == (2500, 2400)


def test_a_gap_shows_the_frame_before_it() -> None:
    assert frame_of_tick(np.array([0, 0.04, 0.2, 0.24]), 25).tolist() == [0, 1, 1, 1, 1, 2, 3]
    assert frame_of_tick(np.array([0, 0.04, 0.05, 0.2]), 25).tolist() == [0, 1, 2, 2, 2, 3]


@given(st.integers(1, 2000), st.integers(1, 64), st.floats(0, 100))
def test_clips_are_whole_consecutive_and_centred(num_frames: int, clip_frames: int, start: float) -> None:
    selection = select(at_rate(25, num_frames, start), 25, clip_frames)
    num_clips, remainder = divmod(num_frames, clip_frames)
    head = remainder // 2
    assert selection.frames.shape == (num_clips, clip_frames)
    assert selection.frames.ravel().tolist() == list(range(head, head + num_clips * clip_frames))
    assert selection.clip_times.shape == (num_clips, 2)
    np.testing.assert_allclose(selection.clip_times[:, 0], (head + clip_frames * np.arange(num_clips)) / 25)
    np.testing.assert_allclose(np.diff(selection.clip_times, axis=1), clip_frames / 25)
    assert selection.num_repeated == 0


@given(gaps, st.integers(1, 20), st.integers(1, 30), st.data())
def test_overlapping_clips_are_those_of_one_timeline(gaps: list[float], clip_frames: int, stride: int, data) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    first = data.draw(st.integers(0, len(times) - 1))
    last = data.draw(st.integers(first + 1, len(times)))
    selection = select(times, 25, clip_frames, stride=stride, part=(first, last))
    shown = first + frame_of_tick(times[first:last], 25)

    num_clips = (len(shown) - clip_frames) // stride + 1 if len(shown) >= clip_frames else 0
    assert selection.frames.shape == (num_clips, clip_frames)
    head = (len(shown) - clip_frames) % stride // 2
    for index, clip in enumerate(selection.frames):
        start = head + index * stride
        assert clip.tolist() == shown[start : start + clip_frames].tolist()
        np.testing.assert_allclose(selection.clip_times[index, 0], times[first] - times[0] + start / 25)
    np.testing.assert_allclose(np.diff(selection.clip_times, axis=1), clip_frames / 25, atol=1e-9)
    if num_clips:
        assert selection.num_ticks == (num_clips - 1) * stride + clip_frames
        left = len(shown) - head - selection.num_ticks
        assert 0 <= left - head <= 1  # dropped evenly, one more at the tail


@given(st.integers(1, 400), st.integers(1, 60), st.data())
def test_the_last_frames_are_taken_once_or_spread_evenly(num_frames: int, rate: int, data) -> None:
    total, clip_frames, stride = 103, 16, 10
    last = data.draw(st.integers(1, num_frames))
    selection = select_last(at_rate(rate, num_frames), total, clip_frames, stride=stride, part=(last - 1, last))
    if last < clip_frames:
        assert selection.frames.shape == (0, clip_frames)
        return
    assert selection.frames.shape == (10, clip_frames)
    assert selection.frames[0, 0] == max(0, last - total)
    assert selection.frames[-1, -1] == last - 1
    assert (np.diff(selection.frames, axis=1) >= 0).all()
    assert selection.num_repeated == max(0, total - last)
    assert selection.num_ticks == total
    if last >= total:  # the starts of MUSDL's code
        assert (selection.frames[:, 0] - (last - total)).tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 87]
        np.testing.assert_allclose(np.diff(selection.clip_times, axis=1), clip_frames / rate)
