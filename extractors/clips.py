"""From the times of a video's frames to its clips: pure arithmetic.

The rule. Time starts at the first frame, and the recipe's rate lays ticks over it: tick k is at k / fps. Every frame
belongs to the tick nearest to it (the earlier one where two are equally near). A tick shows the nearest of its
frames; a tick without frames shows the last frame before it, as a player would. The last tick is the one that the last
frame belongs to.

It follows that frames stay in order; that a frame is shown twice only where the next one comes more than one tick
later, that is where the source is slower than the recipe; and that a source of the recipe's own rate is taken frame by
frame, even if its timestamps jitter by less than half a tick, as rounded ones do.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Selection:
    """The frames wanted of a video, clip by clip."""

    frames: np.ndarray
    """(T, F) int32: which frame, counted in display order, each of the T clips shows at each of its F ticks."""
    clip_times: np.ndarray
    """(T, 2) float: start and end of each clip, in seconds after the first frame."""
    num_repeated: int
    """Ticks that repeat a frame, because the source is slower than the recipe there."""


def frame_of_tick(times: np.ndarray, fps: float) -> np.ndarray:
    """The frame shown at each tick.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        fps: Ticks a second.

    Returns:
        (number of ticks,) indices into `times`, ascending.
    """
    position = (times - times[0]) * fps  # in ticks
    tick = np.ceil(position - 0.5).astype(np.int64)  # (N,) the tick each frame belongs to
    ticks = np.arange(tick[-1] + 1)
    first = np.searchsorted(tick, ticks, side="left")  # (number of ticks,) the first frame of a tick that has some
    latest = np.searchsorted(tick, ticks, side="right") - 1  # the last frame of this tick or of those before
    halfway = (position[1:] + position[:-1]) / 2
    nearest = np.clip(np.searchsorted(halfway, ticks, side="right"), first, latest)
    return np.where(tick[latest] == ticks, nearest, latest)


def select(times: np.ndarray, fps: float, clip_frames: int) -> Selection:
    """Choose the frames of a video and cut them into clips that do not overlap.

    What is left over after the last whole clip is dropped evenly from head and tail, of an odd number one more at the
    tail. With less than one clip's worth of frames there are no clips.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        fps: Frames wanted a second.
        clip_frames: Frames in a clip.
    """
    shown = frame_of_tick(times, fps)
    num_clips, remainder = divmod(len(shown), clip_frames)
    head = remainder // 2
    shown = shown[head : head + num_clips * clip_frames]
    starts = (head + clip_frames * np.arange(num_clips)) / fps
    return Selection(
        frames=shown.reshape(num_clips, clip_frames).astype(np.int32),
        clip_times=np.stack([starts, starts + clip_frames / fps], axis=1),
        num_repeated=int((np.diff(shown) == 0).sum()),
    )
