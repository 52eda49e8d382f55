"""When the frames of a video are shown, and what is missing of its stated duration."""

import math
from array import array
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .opening import stated_span
from .video import VideoError

RESTART_S = 0.5
"""A larger backward step of the decoding timestamps is a restart: recordings were joined into one file."""


class Timestamps:
    """Presentation times of frames or packets, as integers in the stream's time base."""

    def __init__(self, stream: Any) -> None:
        self.num_restarts = 0
        self._pts = array("q")  # not a list: an hour of video has some 100,000 of them
        self._last: tuple[float, int] = (-math.inf, 0)  # the latest presentation time and its duration
        self._all_known = True
        self._restart = RESTART_S / float(stream.time_base or 1)
        self._order: float = -math.inf
        self._shift = 0

    def add(self, pts: int | None, order: int | None, duration: int | None) -> None:
        """Add one frame or packet.

        Args:
            pts: its presentation time.
            order: the value that ascends unless the timestamps restart: the decoding time of a packet. None if no
                restart is possible: the frames of a damaged file come in any order.
            duration: how long it is shown.
        """
        self._all_known &= pts is not None
        if pts is None:
            self._pts.append(0)  # keeps the count
            return
        if order is not None:
            if order < self._order - self._restart:
                self.num_restarts += 1
                self._shift = int(self._last[0]) + (self._last[1] or 1) - pts  # continue after the latest one
            self._order = order
        self._pts.append(pts + self._shift)
        if self._pts[-1] > self._last[0]:
            self._last = self._pts[-1], duration or 0

    def __len__(self) -> int:
        return len(self._pts)

    @cached_property
    def times(self) -> np.ndarray | None:
        """(N,) int64, ascending; None if one is missing. It shares the memory of `_pts`: call `add` only before."""
        if not (self._all_known and self._pts):
            return None
        times = np.frombuffer(self._pts, np.int64)
        times.sort()
        return times

    @property
    def first(self) -> int | None:
        return None if self.times is None else int(self.times[0])

    @property
    def last_duration(self) -> int:
        """Duration of the frame that is shown last; 0 if unknown."""
        return self._last[1] if self._all_known else 0


@dataclass(frozen=True)
class Timeline:
    """When the frames are shown, and what the container states about it, in seconds."""

    times: np.ndarray
    """(N,) ascending."""
    end_s: float
    stated_start_s: float
    stated_end_s: float

    @classmethod
    def of(cls, path: Path, container: Any, stream: Any, shown: Timestamps, others_end_s: float | None) -> "Timeline":
        times = _times(path, stream, shown)
        start_s = float(times[0])
        end_s = float(times[-1]) + (shown.last_duration * float(stream.time_base) or _mean_gap(times))
        stated_start_s, stated_end_s, _ = stated_span(container, stream)
        stated_start_s = start_s if stated_start_s is None else min(start_s, stated_start_s)
        timeline = cls(times, end_s, stated_start_s, stated_end_s or end_s)
        if others_end_s is not None:  # the container states the end of all streams; what one of them reaches is there
            missing_s = timeline.stated_end_s - max(others_end_s, end_s)
            timeline = replace(timeline, stated_end_s=end_s + max(0.0, missing_s))
        return timeline

    @property
    def stated_s(self) -> float:
        """The stated duration."""
        return self.stated_end_s - self.stated_start_s

    @property
    def allowed_s(self) -> float:
        """How much of the stated duration may be missing: containers round, and many streams start or end early."""
        return max(0.5, 0.02 * self.stated_s)

    def before(self, holes_s: np.ndarray) -> "Timeline":
        """The part before more than `allowed_s` is missing in holes; all if there is no such place."""
        is_beyond = holes_s.cumsum() > self.allowed_s
        if not is_beyond.any():
            return self
        times = self.times[: int(is_beyond.argmax()) + 1]
        return replace(self, times=times, end_s=float(times[-1]) + _mean_gap(self.times))


def _times(path: Path, stream: Any, timestamps: Timestamps) -> np.ndarray:
    """Seconds at which the frames are shown: from their timestamps, or else from the frame rate of the header."""
    if timestamps.times is not None:
        return timestamps.times * float(stream.time_base)
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise VideoError(f"{path} has neither timestamps nor a frame rate")
    return np.arange(len(timestamps)) / float(rate)


def _mean_gap(times: np.ndarray) -> float:
    """Mean seconds from one frame to the next; 0 for a single frame."""
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0


def holes(announced: np.ndarray, shown: np.ndarray, allowed_s: float, *, are_pauses_holes: bool = True) -> np.ndarray:
    """Find where frames are missing between two others.

    There are two signs of missing frames. One is two or more packets in a row that show nothing; a single one is
    normal, as the second field of an interlaced picture or a frame that only others refer to. The other sign is a pause
    of more than `allowed_s` and more than ten usual gaps, in a source with a steady rate. A source without a steady
    rate (slides, a screen recording) shows a still during a pause. A rate is steady if at most 1% of the gaps, or one
    gap, exceed twice the median gap.

    Args:
        announced: (M,) seconds at which the packets are shown, ascending.
        shown: (N,) seconds at which the decoded frames are shown, ascending.
        allowed_s: longest pause that is never a hole.
        are_pauses_holes: whether the second sign counts.

    Returns:
        (N - 1,) seconds missing after each frame but the last; 0 where the next frame follows as it should.
    """
    gaps = np.diff(shown)
    if len(gaps) == 0:
        return gaps
    # (N - 1,) packets strictly between the times of two frames in a row
    packets_in_gap = np.searchsorted(announced, shown[1:], "left") - np.searchsorted(announced, shown[:-1], "right")
    usual_s = float(np.median(gaps))
    is_steady = are_pauses_holes and (gaps > 2 * usual_s).sum() <= max(1, len(gaps) // 100)
    is_hole = (packets_in_gap >= 2) | (is_steady & (gaps > max(allowed_s, 10 * usual_s)))
    frame_s = float(np.median(np.diff(announced))) if len(announced) > 1 else usual_s
    return np.where(is_hole, gaps - frame_s, 0.0)


def missing(path: Path, timeline: Timeline, holes_s: np.ndarray) -> str | None:
    """A sentence if more of the stated duration is missing than is allowed."""
    head_s = float(timeline.times[0]) - timeline.stated_start_s
    tail_s = timeline.stated_end_s - timeline.end_s
    middle_s = float(holes_s.sum())
    if head_s + middle_s + tail_s <= timeline.allowed_s:
        return None
    # name the place where most is missing
    stated = f"of {timeline.stated_s:.2f} s"
    if tail_s >= max(head_s, middle_s):
        readable_s = timeline.end_s - timeline.stated_start_s
        return f"{path} breaks off: it can be read up to {readable_s:.2f} s {stated}"
    if head_s > middle_s:
        return f"{path} is damaged: {head_s:.2f} s {stated} at its start cannot be decoded"
    after_s = timeline.times[int(holes_s.argmax())] - timeline.stated_start_s
    return f"{path} is damaged: {middle_s:.2f} s {stated} are missing in its middle, after {after_s:.2f} s"
