"""From the times of a video's frames to its clips: pure arithmetic.

The rule: time starts at the first frame, and tick k of the recipe is at k / fps. Every frame belongs to its nearest
tick, or to the earlier of two equally near ones. A tick shows the nearest of its frames. A tick without frames shows
the last frame before it, as a player would. The last tick is the tick of the last frame.

Three properties follow. Frames stay in order. A frame is repeated only where the next one comes more than one tick
later, so where the source is slower than the recipe. A source at the recipe's rate is taken frame by frame, even if its
timestamps jitter by less than half a tick, as rounded timestamps do.

Clips follow each other or overlap. A recipe may instead take a fixed number of the source's own frames, at whatever
rate (`select_last`).
"""

from dataclasses import dataclass

import numpy as np

SEGMENT_TOLERANCE_S = 0.001


@dataclass(frozen=True)
class Selection:
    """The frames of a video that its clips need."""

    frames: np.ndarray
    """(T, F) int32: index in display order of the frame that each of T clips shows at each of its F ticks."""
    clip_times: np.ndarray
    """(T, 2) float: start and end of each clip, in seconds after the first frame."""
    num_ticks: int
    """Number of ticks from the start of the first clip to the end of the last one."""
    num_repeated: int
    """Number of those that repeat a frame, because the source has fewer frames than the recipe there."""


def frame_of_tick(times: np.ndarray, fps: float) -> np.ndarray:
    """The frame shown at each tick.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        fps: ticks per second.

    Returns:
        (K,) indices into `times`, ascending, for K ticks.
    """
    position = (times - times[0]) * fps  # (N,) in ticks
    tick = np.ceil(position - 0.5).astype(np.int64)  # (N,) each frame's tick; of two equally near ones the earlier
    ticks = np.arange(tick[-1] + 1)  # (K,)
    first = np.searchsorted(tick, ticks, side="left")  # (K,) the first frame of a tick that has frames
    latest = np.searchsorted(tick, ticks, side="right") - 1  # (K,) the last frame of this tick or of earlier ones
    # the nearest frame to a tick changes halfway between two frames; clipping keeps it among the tick's own frames
    halfway = (position[1:] + position[:-1]) / 2  # (N - 1,)
    nearest = np.clip(np.searchsorted(halfway, ticks, side="right"), first, latest)
    return np.where(tick[latest] == ticks, nearest, latest)


def frames_of_segment(times: np.ndarray, segment: tuple[float, float, str]) -> tuple[int, int]:
    """The frames of a part of a video.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        segment: start, end and unit. In "seconds", counted from the first frame, it holds the frames that are shown at
            start or later and before end, to the millisecond, to which Matroska rounds. In "frames" it holds those
            from number start up to, but without, number end; the first frame of the video has the number 0.

    Returns:
        The index of its first frame, and that after its last one. The second may exceed N or not exceed the first.
    """
    start, end, unit = segment
    if unit == "frames":
        return round(start), round(end)
    first, last = np.searchsorted(times - times[0], (start - SEGMENT_TOLERANCE_S, end - SEGMENT_TOLERANCE_S))
    return int(first), int(last)


def select(
    times: np.ndarray,
    fps: float,
    clip_frames: int,
    *,
    stride: int | None = None,
    part: tuple[int, int] | None = None,
) -> Selection:
    """Choose the frames of a video, or of a part of it, and cut them into clips.

    The remainder that fills no whole clip is dropped, half of it at each end; if it is odd, one more at the tail. A
    video shorter than a clip has no clips.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        fps: frames per second in a clip.
        clip_frames: frames in a clip.
        stride: ticks from the start of a clip to that of the next one; None for clips that follow each other.
        part: the index of the first frame, and that after the last one; None for all frames.
    """
    stride = stride or clip_frames
    first, last = part or (0, len(times))
    shown = first + frame_of_tick(times[first:last], fps)  # (K,)
    tick_s = times[first] - times[0] + np.arange(len(shown) + 1) / fps  # (K + 1,)
    num_left = len(shown) - clip_frames
    starts = num_left % stride // 2 + np.arange(0, num_left + 1, stride)
    return _clips(shown, tick_s, starts, clip_frames)


def select_last(
    times: np.ndarray, num_frames: int, clip_frames: int, *, stride: int, part: tuple[int, int] | None = None
) -> Selection:
    """Choose the last frames of a video, or of a part of it, each once, and cut them into clips.

    If the part has fewer frames, those before it are taken too. If even the video has fewer up to there, they are
    spread evenly over `num_frames` ticks, so that some are repeated. The first clip starts with the first of these
    ticks, and one more clip ends with the last one if the others do not.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        num_frames: how many frames to take.
        clip_frames: frames in a clip, at most `num_frames`.
        stride: frames from the start of a clip to that of the next one.
        part: the index of the first frame, and that after the last one; None for all frames.
    """
    last = len(times) if part is None else part[1]
    first = max(0, last - num_frames)
    shown = np.linspace(first, last - 1, num_frames).astype(np.int64)  # (K,) rounded down, as in the code of MUSDL
    tick_s = times[shown] - times[0]
    tick_s = np.append(tick_s, tick_s[-1] + (tick_s[-1] - tick_s[0]) / max(1, num_frames - 1))  # (K + 1,)
    num_left = num_frames - clip_frames
    starts = np.union1d(np.arange(0, num_left + 1, stride), num_left)
    return _clips(shown, tick_s, starts if last >= clip_frames else starts[:0], clip_frames)


def _clips(shown: np.ndarray, tick_s: np.ndarray, starts: np.ndarray, clip_frames: int) -> Selection:
    """Cut clips out of ticks.

    Args:
        shown: (K,) the frame of each tick.
        tick_s: (K + 1,) start of each tick, and end of the last one, in seconds.
        starts: (T,) the first tick of each clip, ascending.
        clip_frames: F, ticks in a clip.
    """
    used = shown[starts[0] : starts[-1] + clip_frames] if len(starts) else shown[:0]
    return Selection(
        frames=shown[starts[:, None] + np.arange(clip_frames)].astype(np.int32),
        clip_times=np.stack([tick_s[starts], tick_s[starts + clip_frames]], axis=1),
        num_ticks=len(used),
        num_repeated=int((np.diff(used) == 0).sum()),
    )
