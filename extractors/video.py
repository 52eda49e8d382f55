"""Open a video file and yield its frames with their times, in display order and orientation.

Two decoders read the same frames. decord is the faster one; but past the decodable end it hands out the last frame
again, and it decodes ahead of a slow consumer without bound. So it reads the files where neither can go unnoticed, and
PyAV reads all others.

The frames' times come from a scan of the container's packets, without decoding: presentation times in ascending
order, packets that an edit list discards left out; the n-th frame decoded is shown at the n-th time. Where decoding
does not bear the scan out, `probe(path, by_decoding=True)` finds the times the slow way.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""Endings, in lower case, of the files that a search of a folder takes for videos."""

DECODERS = ("auto", "decord", "pyav")

DECORD_MAX_BYTES = 2**30
"""Most that a file may take decoded for decord to read it, because decord may hold all of it at once."""


class VideoError(ValueError):
    """This one video cannot be used; the message is the whole sentence."""


class UnfaithfulError(VideoError):
    """The decoder did not give the frames that the scan of the file announced; a slower way of reading may."""


@dataclass(frozen=True)
class VideoFacts:
    """What a video file is, from its headers, its packets and its first frame."""

    path: Path
    container: str
    codec: str
    pixel_format: str
    width: int
    """In pixels, as displayed."""
    height: int
    rotation: int
    """Degrees counter-clockwise by which decoded frames are turned to be displayed: 0, 90, 180 or 270."""
    times: np.ndarray
    """(N,) seconds at which the frames are shown, ascending."""
    end_s: float
    """When the last frame ends."""
    stated_end_s: float
    """When the video ends by the container's own word; `end_s` where it says nothing."""
    num_discarded: int
    """Packets that an edit list leaves out."""
    has_timestamps: bool
    """False where the file has none, so that `times` rest on the rate it states."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.end_s - float(self.times[0])

    @property
    def decoded_bytes(self) -> int:
        """Size of all the frames as RGB."""
        return len(self.times) * self.height * self.width * 3

    @property
    def damage(self) -> str | None:
        """A sentence if more than max(0.5 s, 2%) of the stated duration is missing at the end."""
        stated_s = self.stated_end_s - float(self.times[0])
        if stated_s - self.duration_s <= max(0.5, 0.02 * stated_s):
            return None
        return f"{self.path} breaks off: it can be read up to {self.duration_s:.2f} s of {stated_s:.2f} s."

    def to_json(self) -> dict[str, Any]:
        """The facts for a record: all but the path, with the number of frames in place of their times."""
        facts = {name: value for name, value in vars(self).items() if name not in ("path", "times")}
        rate = round(len(self.times) / self.duration_s, 3) if self.duration_s else None
        return facts | {"num_frames": len(self.times), "frames_per_s": rate, "start_s": float(self.times[0])}


def probe(path: str | Path, *, by_decoding: bool = False) -> VideoFacts:
    """Find out what a video file is.

    Args:
        path: The file.
        by_decoding: Take the frames' times from decoding all of it instead of from its packets.

    Raises:
        VideoError: It cannot be opened, holds no video, or cannot be decoded.
    """
    path = Path(path)
    pts, last_duration, num_discarded = _scan_packets(path)
    with _open(path) as (container, stream):
        frames = _decode(path, container, stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(f"{path} holds no frame that can be decoded.")
        if by_decoding or not pts or first.pts != pts[0]:
            pts = _ascending([first.pts, *(frame.pts for frame in frames)])
        times = _times(path, stream, pts)
        frame_s = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        end_s = float(times[-1]) + (last_duration * float(stream.time_base) or frame_s)
        rotation = round(first.rotation / 90) * 90 % 360
        height, width = (first.height, first.width) if rotation % 180 == 0 else (first.width, first.height)
        return VideoFacts(
            path=path,
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.format.name,
            width=width,
            height=height,
            rotation=rotation,
            times=times,
            end_s=end_s,
            stated_end_s=_stated_end_s(container, stream) or end_s,
            num_discarded=num_discarded,
            has_timestamps=None not in pts,
        )


def choose_decoder(facts: VideoFacts, decoder: str = "auto") -> tuple[str, str]:
    """Decide who reads a file.

    Args:
        facts: From `probe`.
        decoder: "auto", or the one that is asked for.

    Returns:
        "decord" or "pyav", and the reason.

    Raises:
        VideoError: decord is asked for and would not read this file faithfully within bounds.
        ValueError: The decoder is unknown, or decord is asked for and not installed.
    """
    if decoder not in DECODERS:
        raise ValueError(f'There is no decoder "{decoder}"; known are {", ".join(DECODERS)}.')
    if decoder == "pyav":
        return "pyav", "it was asked for"
    if importlib.util.find_spec("decord") is None:
        if decoder == "decord":
            raise ValueError(
                "decord is not installed (it exists for Linux on x86-64 and for Windows): use --decoder auto."
            )
        return "pyav", "decord is not installed"
    obstacle = _decord_obstacle(facts)
    if decoder == "decord":
        if obstacle:
            raise VideoError(f"decord cannot read {facts.path}: {obstacle}; use --decoder auto.")
        return "decord", "it was asked for"
    return ("pyav", obstacle) if obstacle else ("decord", "decord is faithful on this kind of file")


def read_frames(
    video: str | Path | VideoFacts, decoder: str = "auto", *, wanted: np.ndarray | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Read a video's frames.

    Args:
        video: The file, or what `probe` said of it.
        decoder: "auto", "decord" or "pyav".
        wanted: Ascending indices of the frames to yield; all by default. The file is read to its end either way.

    Yields:
        Time of presentation in seconds and (H, W, 3) uint8 RGB.

    Raises:
        VideoError: The file cannot be read, or breaks off; what comes before the break is yielded first.
        UnfaithfulError: Another number of frames came than the file's packets announce.
    """
    facts = video if isinstance(video, VideoFacts) else probe(video)
    name, _ = choose_decoder(facts, decoder)
    is_wanted = np.zeros(len(facts.times), bool)
    is_wanted[slice(None) if wanted is None else wanted] = True
    for index, frame in (_decord_frames if name == "decord" else _pyav_frames)(facts, is_wanted):
        yield float(facts.times[index]), frame


def _pyav_frames(facts: VideoFacts, is_wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    index = -1
    with _open(facts.path) as (container, stream):
        for index, frame in enumerate(_decode(facts.path, container, stream)):
            if index < len(is_wanted) and is_wanted[index]:
                image = frame.to_ndarray(format="rgb24")
                yield index, np.ascontiguousarray(np.rot90(image, facts.rotation // 90))
    _check_complete(facts, index + 1)


def _decord_frames(facts: VideoFacts, is_wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    decord = _import_decord()
    with _unfaithful_if_raising(facts.path):
        # fault_tol=1: at most one frame is handed out again for one that is missing; that one is looked for below
        reader = decord.VideoReader(str(facts.path), num_threads=0, fault_tol=1)
    _check_complete(facts, len(reader))
    before = last = np.empty(0)
    for index in range(len(reader)):
        with _unfaithful_if_raising(facts.path):
            before, last = last, reader.next().asnumpy()
        if is_wanted[index]:
            yield index, last
    if np.array_equal(before, last):
        with _open(facts.path) as (container, stream):
            _check_complete(facts, sum(1 for _ in _decode(facts.path, container, stream)))


@contextmanager
def _unfaithful_if_raising(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decord's own errors have no common base
        raise UnfaithfulError(f"decord gave up on {path} ({type(error).__name__}).") from error


def _import_decord() -> Any:
    # read by decord when it is imported: how often it asks a slow decoder for the last frames before it gives up
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "65536")
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_obstacle(facts: VideoFacts) -> str | None:
    """Why decord is not to read a file, if it is not."""
    if facts.codec not in ("h264", "hevc") or facts.pixel_format not in ("yuv420p", "yuvj420p"):
        return f"decord is faithful on 8-bit 4:2:0 H.264 and HEVC only, this is {facts.codec} {facts.pixel_format}"
    if facts.width % 2 or facts.height % 2:
        return f"decord is faithful on even sizes only, this is {facts.width} x {facts.height}"
    if not {"mp4", "matroska"} & set(facts.container.split(",")):
        return f"decord is faithful on MP4 and Matroska only, this is {facts.container}"
    if facts.num_discarded:
        return f"decord does not know the edit list, which leaves out {facts.num_discarded} packets"
    if facts.damage or not facts.has_timestamps:
        return "the file is damaged" if facts.damage else "the file has no timestamps"
    if facts.decoded_bytes > DECORD_MAX_BYTES:
        return (
            f"decord may hold all of it decoded, {facts.decoded_bytes / 2**20:.0f} MiB, "
            f"and {DECORD_MAX_BYTES / 2**20:.0f} MiB are allowed"
        )
    return None


def _check_complete(facts: VideoFacts, num_frames: int) -> None:
    if facts.damage:
        raise VideoError(facts.damage)
    if num_frames != len(facts.times):
        raise UnfaithfulError(f"{facts.path} announces {len(facts.times)} frames, and {num_frames} come out of it.")


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, closed at the end."""
    try:
        container = av.open(str(path.absolute()), metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be read as a video: {error.strerror}.") from error
    with container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise VideoError(f"{path} holds no video, only {len(container.streams)} other streams.")
        stream.thread_type = "AUTO"
        yield container, stream


def _scan_packets(path: Path) -> tuple[list[int | None], int, int]:
    """Presentation times of the packets shown, the duration of the last of them, and how many are not shown."""
    shown: list[tuple[int | None, int]] = []
    num_discarded = 0
    with _open(path) as (container, stream), suppress(av.error.FFmpegError):  # decoding will meet the error again
        for packet in container.demux(stream):
            if packet.is_discard:
                num_discarded += 1
            elif packet.size:
                shown.append((packet.pts, packet.duration or 0))
    pts = _ascending([pts for pts, _ in shown])
    last_duration = next((duration for at, duration in shown if at == pts[-1]), 0)
    return pts, last_duration, num_discarded


def _ascending(pts: list[int | None]) -> list[int | None]:
    """Presentation times in order, or as many times None if one is missing."""
    known = sorted(p for p in pts if p is not None)
    return [*known] if len(known) == len(pts) else [None] * len(pts)


def _times(path: Path, stream: Any, pts: list[int | None]) -> np.ndarray:
    """Seconds at which frames are shown, by their timestamps or else by the rate that the file states."""
    if None not in pts:
        return np.array(pts, float) * float(stream.time_base)
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise VideoError(f"{path} states neither when its frames are shown nor how many a second.")
    return np.arange(len(pts)) / float(rate)


def _decode(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """The stream's frames; packets before the first whole frame may be broken, as in a recording cut anywhere."""
    num_frames, start_s, frame = 0, 0.0, None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet else []
        except av.error.FFmpegError as error:
            if frame is None:
                continue
            at = "" if frame.time is None else f", at {frame.time - start_s:.2f} s"
            raise VideoError(f"{path} breaks off after {num_frames} frames{at} ({error.strerror}).") from error
        if packet is None:
            return
        for frame in frames:
            start_s = start_s if num_frames else frame.time or 0.0
            num_frames += 1
            yield frame


def _stated_end_s(container: Any, stream: Any) -> float | None:
    """When the stream ends by its header, by Matroska's tag, or else the container by its header."""
    if stream.duration:
        return float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
    tag = re.match(r"(\d+):(\d+):(\d+(\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration:
        return float((container.start_time or 0) + container.duration) / av.time_base
    return None
