"""Open a video file with PyAV and decode its frames."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from .video import BrokenError, Limits, VideoError


@contextmanager
def open_video(path: Path, limits: Limits, *, one_thread: bool = False) -> Iterator[tuple[Any, Any]]:
    """Open a file with PyAV; it is closed at the end of the `with` block.

    Args:
        path: the file.
        limits: how large and long it may be.
        one_thread: decode in one thread. Several threads are faster, but they lose the frames that they have begun
            where decoding breaks off.

    Yields:
        The container and its best video stream.

    Raises:
        VideoError: the file cannot be opened, holds no video that FFmpeg knows, or is too large or too long.
    """
    # only local files, because a playlist can link to the network; max_pixels here, because opening decodes frames
    options = {"protocol_whitelist": "file", "max_pixels": str(limits.max_pixels)}
    try:
        # an absolute path, because FFmpeg reads a name such as `http:x` as a URL; tags need not be UTF-8
        container = av.open(str(path.absolute()), metadata_errors="ignore", options=options)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be read as a video: {error.strerror}") from error
    with container:
        stream: Any = container.streams.best("video")  # the first one may be a thumbnail
        if stream is None:
            raise VideoError(f"{path} holds no video, only {len(container.streams)} other streams")
        if stream.codec_context is None:
            raise VideoError(f"{path} holds video of a codec that FFmpeg does not know")
        limits.check_size(path, stream.codec_context.width, stream.codec_context.height)
        start_s, end_s, _ = stated_span(container, stream)
        limits.check_duration(path, (end_s or 0.0) - (start_s or 0.0))  # before a scan of all packets
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}  # later frames may be larger
        stream.thread_type = "AUTO"
        if one_thread:
            stream.thread_count = 1
        yield container, stream


def decode_frames(path: Path, container: Any, stream: Any, heartbeat: Callable[[], object]) -> Iterator[Any]:
    """Decode a stream with PyAV.

    Args:
        path: the file, for messages.
        container: from `open_video`.
        stream: from `open_video`.
        heartbeat: called with every packet.

    Yields:
        The stream's `av.VideoFrame`s in display order.

    Raises:
        BrokenError: decoding fails after the first frame.
    """
    num_frames, start_s, frame = 0, 0.0, None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet else []
        except av.error.FFmpegError as error:
            # a recording cut at any point starts with packets that refer to frames before the cut
            if frame is None:
                continue
            at = "" if frame.time is None else f", at {frame.time - start_s:.2f} s"
            raise BrokenError(f"{path} breaks off after {num_frames} frames{at} ({error.strerror})") from error
        heartbeat()
        if packet is None:
            return
        for frame in frames:
            start_s = start_s if num_frames else frame.time or 0.0
            num_frames += 1
            yield frame


def orientation(frame: Any) -> tuple[int, bool]:
    """How a decoded frame is displayed.

    `frame.rotation` is not enough, because it is an angle for mirrored frames too. This function keeps the frame alive
    until Python's next garbage collection, so call it for few frames.

    Returns:
        The degrees counter-clockwise by which it is turned: 0, 90, 180 or 270; and whether it is mirrored left to right
        before that.
    """
    stated = frame.side_data.get("DISPLAYMATRIX")
    if stated is None:
        return 0, False
    # a stored pixel (right, down) is displayed at (a * right + c * down, b * right + d * down)
    a, b, _, c, d = np.frombuffer(bytes(stated), np.int32)[:5].tolist()
    is_mirrored = a * d - b * c < 0
    if is_mirrored:
        a, b = -a, -b
    degrees = math.degrees(math.atan2(c - b, a + d))
    return round(degrees / 90) * 90 % 360, is_mirrored  # files may state any angle; only quarter turns are applied


def stated_span(container: Any, stream: Any) -> tuple[float | None, float | None, bool]:
    """Start and end in seconds, from the stream's header, else from Matroska's tag, else from the container's.

    Returns:
        Start, end, and whether the end is the stream's own or there is no other stream.
    """
    start_s = None if stream.start_time is None else stream.start_time * float(stream.time_base)
    # FFmpeg gives ASF's streams the duration of the file
    if stream.duration and container.format.name != "asf":
        return start_s, (start_s or 0.0) + stream.duration * float(stream.time_base), True
    tag = re.match(r"(\d+):(\d+):(\d+(\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return start_s, int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]), True
    is_own = len(container.streams) == 1
    if container.duration:
        return start_s, float((container.start_time or 0) + container.duration) / av.time_base, is_own
    return start_s, None, is_own
