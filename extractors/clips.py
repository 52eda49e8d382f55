"""From the times of a video's frames to its clips: pure arithmetic.

The rule: time starts at the first frame, and tick k of the recipe is at k / fps. Every frame belongs to its nearest
tick, or to the earlier of two equally near ones. A tick shows the nearest of its frames. A tick without frames shows
the last frame before it, as a player would. The last tick is the tick of the last frame.

Three properties follow. Frames stay in order. A frame is repeated only where the next one comes more than one tick
later, so where the source is slower than the recipe. A source at the recipe's rate is taken frame by frame, even if its
timestamps jitter by less than half a tick, as rounded timestamps do.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Selection:
    """The frames of a video that its clips need."""

    frames: np.ndarray
    """(T, F) int32: index in display order of the frame that each of T clips shows at each of its F ticks."""
    clip_times: np.ndarray
    """(T, 2) float: start and end of each clip, in seconds after the first frame."""
    num_repeated: int
    """Number of ticks that repeat a frame, because the source is slower than the recipe there."""


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


def select(times: np.ndarray, fps: float, clip_frames: int) -> Selection:
    """Choose the frames of a video and cut them into clips that do not overlap.

    The remainder that fills no whole clip is dropped, half of it at each end; if it is odd, one more at the tail. A
    video shorter than a clip has no clips.

    Args:
        times: (N,) seconds at which the frames are shown, ascending, N at least 1.
        fps: frames per second in a clip.
        clip_frames: frames in a clip.
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
