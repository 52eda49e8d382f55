"""Read a part of a long video without decoding what comes before it.

Decoding starts at the key frame before the part. Seeking is not exact in every container, so each frame must be shown
at the time that the scan of the whole file gives for it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .opening import decode_frames, open_video
from .video import Limits, UnfaithfulError

BACK_S = (0.0, 2.0, 20.0)
"""How many seconds before the part to look for a key frame, until one is found."""
TIME_TOLERANCE_S = 1e-4


def decode_from_key_frame(
    path: Path, before_s: float, limits: Limits, heartbeat: Callable[[], object]
) -> Iterator[Any]:
    """Decode a video from a key frame on that is shown at `before_s` or earlier.

    Frames before that key frame in display order are left out: they may refer to frames that were not decoded.

    Args:
        path: the file.
        before_s: a presentation time in seconds.
        limits: how large the frames may be.
        heartbeat: called with every packet.

    Yields:
        `av.VideoFrame`s in display order.

    Raises:
        UnfaithfulError: no such key frame was found by seeking.
        BrokenError: decoding breaks off.
    """
    for back_s in BACK_S:
        with open_video(path, limits) as (container, stream):
            container.seek(int((before_s - back_s) / stream.time_base), stream=stream)
            frames = decode_frames(path, container, stream, heartbeat)
            key_frame = next((frame for frame in frames if frame.key_frame), None)
            if key_frame is not None and key_frame.time <= before_s + TIME_TOLERANCE_S:
                yield key_frame
                yield from frames
                return
    raise UnfaithfulError(f"{path} cannot be read from the middle: no key frame is found before {before_s:.2f} s")


def match_times(path: Path, frames: Iterator[Any], times: np.ndarray) -> Iterator[Any]:
    """The frames that are shown at these times; frames before them are left out.

    Args:
        path: the file.
        frames: decoded frames in display order.
        times: (M,) seconds, those of M frames in a row.

    Raises:
        UnfaithfulError: another frame lies between these, or one is missing.
    """
    num_found = 0
    for frame in frames:
        if frame.time < times[0] - TIME_TOLERANCE_S:
            continue
        if abs(frame.time - times[num_found]) > TIME_TOLERANCE_S:
            break
        yield frame
        num_found += 1
        if num_found == len(times):
            return
    raise UnfaithfulError(f"{path} gives other frames from the middle than from its start, after {times[0]:.2f} s")
