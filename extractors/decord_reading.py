"""Frames as decord decodes them, segment by segment.

decord is fast, but it has three faults. It decodes ahead of a slow consumer without bound. Past the last decodable
frame it repeats that frame without an error. And it has rules of its own for which stream it reads, which way up and in
which size. So it never sees the file: PyAV copies the packets of one segment, undecoded, into an MP4 in memory, and
decord reads that. No more than one segment is decoded at a time, and its reader is gone before the next one's is made.

Each cut is proven: the first frame of a segment, as decord gives it, must equal what PyAV makes of its packet alone.
The segment before ends with that frame too, and there decord has decoded it after all that comes before.
"""

import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from .cutting import Cutter, cut_into_runs, cut_into_segments
from .opening import open_video
from .pyav_reading import Upright
from .video import Limits, UnfaithfulError, VideoFacts

JOINED_BYTES = 128 * 2**20
"""Decoded size up to which short runs are joined, because each segment takes time to open."""


def read_with_decord(
    facts: VideoFacts, is_wanted: np.ndarray, memory_bytes: int, limits: Limits, heartbeat: Callable[[], object]
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices; the arguments are those of `extractors.decoders.read_frames`."""
    index, ending, shows_what_is_up = 0, None, facts.rotation == 0
    max_frames = min(JOINED_BYTES, memory_bytes) // facts.frame_bytes
    with (
        _damage_reports(facts.path) as check_reports,
        open_video(facts.path, limits, one_thread=True) as (container, stream),
    ):
        upright = Upright(facts, "tagged")
        packets = (packet for packet in container.demux(stream) if packet.size)
        for segment, ends_with_next in cut_into_segments(cut_into_runs(packets, Cutter.of(stream)), max_frames):
            first = _decode_alone(facts, stream, segment[0], upright)
            shows_what_is_up |= not np.array_equal(first, first[::-1, ::-1])
            if ending is not None:
                _check_equal(facts, index, ending, first)
            for position, frame in enumerate(_decode_segment(facts, stream, segment)):
                heartbeat()
                if position == 0:
                    _check_equal(facts, index, frame, first)
                if ends_with_next and position == len(segment) - 1:
                    ending = frame
                    break
                if index < len(is_wanted) and is_wanted[index]:
                    yield index, frame
                index += 1
            check_reports()
    facts.check_complete(index)
    if not shows_what_is_up:
        raise UnfaithfulError(f"the key frames of {facts.path} do not show which way up decord's frames are")


def _decode_segment(facts: VideoFacts, stream: Any, packets: list[Any]) -> Iterator[np.ndarray]:
    """Decode packets with decord."""
    file = _as_mp4(stream, packets)
    decord = _import_decord()
    with _decord_errors_are_unfaithful(facts.path):
        # num_threads=0: one thread per core
        # fault_tol=1: at most one frame may be repeated in place of a missing one, which is checked below
        reader = decord.VideoReader(file, num_threads=0, fault_tol=1)
    if len(reader) != len(packets):
        raise UnfaithfulError(f"decord finds {len(reader)} of {len(packets)} packets of {facts.path}")
    before = last = np.empty(0)
    for number in range(1, len(packets) + 1):
        with _decord_errors_are_unfaithful(facts.path):
            before, last = last, reader.next().asnumpy()
        if number == len(packets) and np.array_equal(before, last):
            _check_still(facts, file, len(packets), last)
        yield last


def _as_mp4(stream: Any, packets: list[Any]) -> io.BytesIO:
    """Copy packets into an MP4 in memory, with a frame a millisecond: its times are not used."""
    file, order = io.BytesIO(), np.argsort(np.argsort([packet.pts for packet in packets], kind="stable"))
    delay = int((np.arange(len(packets)) - order).max())  # a packet is decoded before it is shown
    if any(packet.is_keyframe for packet in packets[1 : delay + 1]):
        # decord's FFmpeg drops the frames that it holds back when the decoding starts and the next key frame comes
        raise UnfaithfulError(f"decord would lose frames between two key frames that are {delay} frames apart or less")
    # an edit list for the delay would make decord leave out frames
    with av.open(file, "w", format="mp4", options={"use_editlist": "0"}) as container:
        copied = container.add_stream_from_template(stream)
        for position, packet in enumerate(packets):
            # copies, because the first packet of the next segment is used twice
            copy = av.Packet(bytes(packet))
            copy.time_base, copy.dts, copy.pts = Fraction(1, 1000), position, int(order[position]) + delay
            # decord finds no frame before the first key frame, and not every file calls its first frame one
            copy.duration, copy.is_keyframe, copy.stream = 1, packet.is_keyframe or position == 0, copied
            container.mux(copy)
    file.seek(0)
    return file


def _decode_alone(facts: VideoFacts, stream: Any, packet: Any, upright: Upright) -> np.ndarray:
    """The picture of a packet that needs no others, decoded with PyAV."""
    codec = stream.codec_context
    try:
        (frame,) = codec.decode(packet) + codec.decode(None)
    except (av.error.FFmpegError, ValueError) as error:
        raise UnfaithfulError(f"a key frame of {facts.path} cannot be decoded alone") from error
    codec.flush_buffers()
    upright.follow(frame)
    return upright.image(frame)


def _check_equal(facts: VideoFacts, index: int, frame: np.ndarray, expected: np.ndarray) -> None:
    """Raise UnfaithfulError if decord's frame is not PyAV's: its size or orientation changes, or the cut is wrong."""
    if not np.array_equal(frame, expected):
        raise UnfaithfulError(
            f"decord gives another frame {index} of {facts.path}, {frame.shape[1]} x {frame.shape[0]}, than PyAV, "
            f"{expected.shape[1]} x {expected.shape[0]}"
        )


def _check_still(facts: VideoFacts, file: io.BytesIO, num_frames: int, last: np.ndarray) -> None:
    """Raise UnfaithfulError unless PyAV too ends a segment with two frames that both equal decord's last one.

    If not, decord repeats a frame in place of a missing one.
    """
    file.seek(0)
    with av.open(file, "r") as container:
        frames = deque(enumerate(container.decode(video=0), 1), maxlen=2)
    upright = Upright(facts, "tagged")
    if frames[-1][0] != num_frames or not all(np.array_equal(upright.image(frame), last) for _, frame in frames):
        raise UnfaithfulError(f"{facts.path} announces {num_frames} frames in a part, and {frames[-1][0]} come out")


@contextmanager
def _decord_errors_are_unfaithful(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decord's own errors have no common base class
        raise UnfaithfulError(f"decord gave up on {path} ({type(error).__name__})") from error


@contextmanager
def _damage_reports(path: Path) -> Iterator[Callable[[], None]]:
    """Collect what FFmpeg reports on standard error, because decord itself is silent about damage.

    Yields:
        A function that raises UnfaithfulError if there is a report.
    """
    with tempfile.TemporaryFile() as reports:
        # file descriptor 2, because FFmpeg does not write through `sys.stderr`
        stderr = os.dup(2)
        os.dup2(reports.fileno(), 2)

        def check() -> None:
            reports.seek(0)
            if first := reports.readline(200).decode(errors="replace").strip():
                raise UnfaithfulError(f"decord met damage in {path}: {first}")
            reports.seek(0, os.SEEK_END)

        try:
            yield check
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _import_decord() -> Any:
    # decord reads this variable at import: how often it polls a slow decoder for the last frames before it gives up
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "65536")
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    return decord
