"""Open a video file and yield its frames with their times, in display order and orientation.

Two decoders read the same frames. decord is the faster one; but past the decodable end it hands out the last frame
again, and it decodes ahead of a slow consumer without bound. So it reads the files where neither can go unnoticed or
too far, and PyAV reads all others.

The frames' times come from a scan of the container's packets, without decoding: presentation times in ascending
order, packets that an edit list discards left out; the n-th frame decoded is shown at the n-th time. Where decoding
does not bear the scan out, `probe(path, by_decoding=True)` finds the times the slow way.

What is here can hang, crash or eat memory if a file is made for it: `extractors.reader` runs it in another process.
So neither torch nor anything that needs it is imported here.
"""

import importlib.util
import math
import os
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
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

RESTART_S = 0.5
"""Timestamps that fall back by more, in the order of decoding, start again: recordings were joined into one file."""

DECORD_MAX_BYTES = 256 * 2**20
"""Most that a file may take decoded for decord to read it, because decord may hold all of it at once."""

COLOURS = ("tagged", "bt601")
"""How YUV becomes RGB: by the colour space that the file states, or by BT.601 whatever it states."""


@dataclass(frozen=True)
class Limits:
    """Where a video is refused before anything is allocated for it."""

    max_pixels: int = 8192 * 4320
    """Width times height of a frame."""
    max_duration_s: float = 12 * 3600.0

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max-pixels must be at least 1, not {self.max_pixels}.")
        if not self.max_duration_s > 0:
            raise ValueError(f"max-duration must be more than 0 seconds, not {self.max_duration_s:g}.")

    def check_size(self, path: Path, width: int, height: int) -> None:
        """Raise VideoError if frames of this size in pixels are too large."""
        if width * height > self.max_pixels:
            raise VideoError(
                f"{path} has frames of {width} x {height}, {width * height} pixels, and {self.max_pixels} are allowed "
                "(--max-pixels)."
            )

    def check_duration(self, path: Path, duration_s: float) -> None:
        """Raise VideoError if a video of this duration is too long."""
        if duration_s > self.max_duration_s:
            raise VideoError(
                f"{path} lasts {duration_s:.2f} s, and {self.max_duration_s:g} s are allowed (--max-duration)."
            )


class VideoError(ValueError):
    """This one video cannot be used; the message is the whole sentence."""


class BrokenError(VideoError):
    """Decoding failed in the middle of the file; what comes before is good."""


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
    num_restarts: int
    """How often the file's timestamps start again; `times` go on from where they were."""
    has_timestamps: bool
    """False where the file has none, so that `times` rest on the rate it states."""
    damage: str | None
    """A sentence if decoding breaks off, or if more than max(0.5 s, 2%) of the stated duration is missing."""
    is_partial: bool
    """Whether `times` are those that can be had of a damaged file, and reading stops after them."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.end_s - float(self.times[0])

    @property
    def decoded_bytes(self) -> int:
        """Size of all the frames as RGB."""
        return len(self.times) * self.height * self.width * 3

    def without_times(self) -> "VideoFacts":
        """The same with the first frame's time for all, which takes no memory; an hour's times take a megabyte."""
        return replace(self, times=np.broadcast_to(self.times[0], len(self.times)))

    def to_json(self) -> dict[str, Any]:
        """The facts for a record: all but the path, with the number of frames in place of their times."""
        facts = {name: value for name, value in vars(self).items() if name not in ("path", "times")}
        rate = round(len(self.times) / self.duration_s, 3) if self.duration_s else None
        return facts | {"num_frames": len(self.times), "frames_per_s": rate, "start_s": float(self.times[0])}


def probe(
    path: str | Path,
    limits: Limits = Limits(),
    *,
    by_decoding: bool = False,
    allow_partial: bool = False,
    alive: Callable[[], object] = lambda: None,
) -> VideoFacts:
    """Find out what a video file is.

    Args:
        path: The file.
        limits: How large and long it may be.
        by_decoding: Take the frames' times from decoding all of it instead of from its packets.
        allow_partial: Of a damaged file take what can be decoded before it breaks off.
        alive: Called with every packet, to show that this goes on.

    Raises:
        BrokenError: Decoding all of it breaks off, and it is not `allow_partial`.
        VideoError: It cannot be opened, holds no video, cannot be decoded, or is too large or long.
    """
    path = Path(path)
    packets, num_discarded = _scan_packets(path, limits, alive)
    announced = packets.times
    with _open(path, limits, one_thread=by_decoding) as (container, stream):
        frames = _decode(path, container, stream, alive)
        first = next(frames, None)
        if first is None:
            within = "" if stream.codec_context.width else f" within {limits.max_pixels} pixels (--max-pixels)"
            raise VideoError(f"{path} holds no frame that can be decoded{within}.")
        damage = None
        if by_decoding or not len(packets) or first.pts != packets.first:
            is_joined = packets.num_restarts > 0
            packets = _Timestamps(stream)
            try:
                for frame in chain([first], frames):
                    packets.add(frame.pts, frame.pts if is_joined else None, frame.duration)
            except BrokenError as error:
                if not allow_partial:
                    raise
                damage = str(error)
        time_base = float(stream.time_base)
        times = _times(path, stream, packets)
        frame_s = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        end_s = float(times[-1]) + (packets.last_duration * time_base or frame_s)
        limits.check_duration(path, end_s - float(times[0]))
        stated_start_s, stated_end_s = _stated_span(container, stream)
        stated_start_s = min(float(times[0]), float(times[0]) if stated_start_s is None else stated_start_s)
        stated_end_s = stated_end_s or end_s
        allowed_s = max(0.5, 0.02 * (stated_end_s - stated_start_s))
        announced_s = times if announced is None or packets.times is None else announced * time_base
        holes_s = _holes(announced_s, times, allowed_s)
        if damage is None:
            damage = _missing(path, times, end_s, holes_s, stated_start_s, stated_end_s, allowed_s)
        if damage and allow_partial and not by_decoding:  # packets do not say how many frames come before the damage
            return probe(path, limits, by_decoding=True, allow_partial=True, alive=alive)
        if damage and allow_partial and (too_many := holes_s.cumsum() > allowed_s).any():
            times = times[: int(too_many.argmax()) + 1]
            end_s = float(times[-1]) + frame_s
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
            stated_end_s=stated_end_s,
            num_discarded=num_discarded,
            num_restarts=packets.num_restarts,
            has_timestamps=packets.times is not None,
            damage=damage,
            is_partial=allow_partial and damage is not None,
        )


def check_decoder(decoder: str) -> None:
    """Refuse a decoder that nobody knows or that is not here.

    Raises:
        ValueError: The decoder is unknown, or is decord and not installed.
    """
    if decoder not in DECODERS:
        raise ValueError(f'There is no decoder "{decoder}"; known are {", ".join(DECODERS)}.')
    if decoder == "decord" and not _has_decord():
        raise ValueError("decord is not installed (it exists for Linux on x86-64 and for Windows): use --decoder auto.")


def _has_decord() -> bool:
    return importlib.util.find_spec("decord") is not None


def choose_decoder(facts: VideoFacts, decoder: str = "auto", colours: str = "tagged") -> tuple[str, str]:
    """Decide who reads a file.

    Args:
        facts: From `probe`.
        decoder: "auto", or the one that is asked for.
        colours: One of `COLOURS`.

    Returns:
        "decord" or "pyav", and the reason.

    Raises:
        VideoError: decord is asked for and would not read this file faithfully within bounds.
        ValueError: The decoder is unknown, or decord is asked for and not installed.
    """
    check_decoder(decoder)
    if decoder == "pyav":
        return "pyav", "it was asked for"
    if not _has_decord():
        return "pyav", "decord is not installed"
    obstacle = _decord_obstacle(facts, colours)
    if decoder == "decord":
        if obstacle:
            raise VideoError(f"decord cannot read {facts.path}: {obstacle}; use --decoder auto.")
        return "decord", "it was asked for"
    return ("pyav", obstacle) if obstacle else ("decord", "decord is faithful on this kind of file")


def read_frames(
    video: str | Path | VideoFacts,
    decoder: str = "auto",
    *,
    wanted: np.ndarray | None = None,
    colours: str = "tagged",
    limits: Limits = Limits(),
    alive: Callable[[], object] = lambda: None,
    concealed: Callable[[float], object] = lambda time_s: None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Read a video's frames.

    Args:
        video: The file, or what `probe` said of it.
        decoder: "auto", "decord" or "pyav".
        wanted: The frames to yield, as ascending indices or (N,) bool; all by default. The file is read to its end
            either way.
        colours: One of `COLOURS`.
        limits: How large the frames may be.
        alive: Called with every frame, wanted or not.
        concealed: Called for every frame of which FFmpeg made up a damaged part, with its seconds after the first one.

    Yields:
        Time of presentation in seconds and (H, W, 3) uint8 RGB.

    Raises:
        BrokenError: Decoding breaks off; what comes before the break is yielded first.
        VideoError: The file cannot be read, or something is missing at its end, and `probe` was not told to allow it.
        UnfaithfulError: Another number of frames came than the file's packets announce.
    """
    facts = video if isinstance(video, VideoFacts) else probe(video, limits, alive=alive)
    name, _ = choose_decoder(facts, decoder, colours)
    is_wanted = np.zeros(len(facts.times), bool)
    is_wanted[slice(None) if wanted is None else wanted] = True
    if name == "decord":
        frames = _decord_frames(facts, is_wanted, limits, alive)
    else:
        frames = _pyav_frames(facts, is_wanted, colours, limits, alive, concealed)
    for index, frame in frames:
        yield float(facts.times[index]), frame


def _pyav_frames(
    facts: VideoFacts,
    is_wanted: np.ndarray,
    colours: str,
    limits: Limits,
    alive: Callable[[], object],
    concealed: Callable[[float], object],
) -> Iterator[tuple[int, np.ndarray]]:
    index, start_s = -1, 0.0
    matrix = {"src_colorspace": "ITU601", "dst_colorspace": "ITU601"} if colours == "bt601" else {}
    with _open(facts.path, limits, one_thread=facts.is_partial) as (container, stream):
        for index, frame in enumerate(_decode(facts.path, container, stream, alive)):
            start_s = start_s if index else frame.time or 0.0
            if frame.is_corrupt:
                concealed((frame.time or 0.0) - start_s)
            if index < len(is_wanted) and is_wanted[index]:
                image = frame.reformat(format="rgb24", **matrix).to_ndarray()
                yield index, np.rot90(image, facts.rotation // 90)
            if facts.is_partial and index + 1 == len(is_wanted):
                return
    _check_complete(facts, index + 1)


def _decord_frames(
    facts: VideoFacts, is_wanted: np.ndarray, limits: Limits, alive: Callable[[], object]
) -> Iterator[tuple[int, np.ndarray]]:
    decord = _import_decord()
    with _unfaithful_if_it_complains(facts.path):
        with _unfaithful_if_raising(facts.path):
            # fault_tol=1: at most one frame is handed out again for one that is missing; that one is looked for below
            reader = decord.VideoReader(str(facts.path.absolute()), num_threads=0, fault_tol=1)
        _check_complete(facts, len(reader))
        before = last = np.empty(0)
        for index in range(len(reader)):
            with _unfaithful_if_raising(facts.path):
                before, last = last, reader.next().asnumpy()
            alive()
            if is_wanted[index]:
                yield index, last
    if np.array_equal(before, last):
        with _open(facts.path, limits) as (container, stream):
            _check_complete(facts, sum(1 for _ in _decode(facts.path, container, stream, alive)))


@contextmanager
def _unfaithful_if_raising(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decord's own errors have no common base
        raise UnfaithfulError(f"decord gave up on {path} ({type(error).__name__}).") from error


@contextmanager
def _unfaithful_if_it_complains(path: Path) -> Iterator[None]:
    """decord does not say that it made up parts of frames, but what it writes to standard error does."""
    with tempfile.TemporaryFile() as complaints:
        stderr = os.dup(2)
        os.dup2(complaints.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        complaints.seek(0)
        if first := complaints.readline(200).decode(errors="replace").strip():
            raise UnfaithfulError(f"decord met damage in {path}: {first}.")


def _import_decord() -> Any:
    # read by decord when it is imported: how often it asks a slow decoder for the last frames before it gives up
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "65536")
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    return decord


def _decord_obstacle(facts: VideoFacts, colours: str) -> str | None:
    """Why decord is not to read a file, if it is not."""
    if colours != "tagged":
        return f"decord cannot read colours as {colours}, which the recipe asks for"
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
    if facts.num_restarts:
        return "the file's timestamps start again"
    if facts.decoded_bytes > DECORD_MAX_BYTES:
        return (
            f"decord may hold all of it decoded, {facts.decoded_bytes / 2**20:.0f} MiB, "
            f"and {DECORD_MAX_BYTES / 2**20:.0f} MiB are allowed"
        )
    return None


def _check_complete(facts: VideoFacts, num_frames: int) -> None:
    if facts.damage and not facts.is_partial:
        raise VideoError(facts.damage)
    if num_frames != len(facts.times):
        raise UnfaithfulError(f"{facts.path} announces {len(facts.times)} frames, and {num_frames} come out of it.")


@contextmanager
def _open(path: Path, limits: Limits, *, one_thread: bool = False) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, closed at the end.

    Several threads are faster; but where decoding breaks off, they lose the frames that they have begun.
    """
    options = {"protocol_whitelist": "file", "max_pixels": str(limits.max_pixels)}  # for what opening itself decodes
    try:
        container = av.open(str(path.absolute()), metadata_errors="ignore", options=options)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be read as a video: {error.strerror}.") from error
    with container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise VideoError(f"{path} holds no video, only {len(container.streams)} other streams.")
        if stream.codec_context is None:
            raise VideoError(f"{path} holds video of a codec that FFmpeg does not know.")
        limits.check_size(path, stream.codec_context.width, stream.codec_context.height)
        start_s, end_s = _stated_span(container, stream)
        limits.check_duration(path, (end_s or 0.0) - (start_s or 0.0))
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}  # frames may grow further on
        stream.thread_type = "AUTO"
        if one_thread:
            stream.thread_count = 1
        yield container, stream


class _Timestamps:
    """Presentation times of frames or packets, as integers in the stream's time base."""

    def __init__(self, stream: Any) -> None:
        self.num_restarts = 0
        self._pts = array("q")  # not a list: there are some 100,000 in an hour
        self._last: tuple[float, int] = (-math.inf, 0)
        self._all_known = True
        self._restart = RESTART_S / float(stream.time_base or 1)
        self._order: float = -math.inf
        self._shift = 0

    def add(self, pts: int | None, order: int | None, duration: int | None) -> None:
        """Add one; `order` is what should ascend from one to the next, of packets the time of decoding.

        Without it nothing starts again: frames of a damaged file come in any order.
        """
        self._all_known &= pts is not None
        if pts is None:
            self._pts.append(0)
            return
        if order is not None:
            if order < self._order - self._restart:
                self.num_restarts += 1
                self._shift = int(self._last[0]) + (self._last[1] or 1) - pts
            self._order = order
        self._pts.append(pts + self._shift)
        if self._pts[-1] > self._last[0]:
            self._last = self._pts[-1], duration or 0

    def __len__(self) -> int:
        return len(self._pts)

    @cached_property
    def times(self) -> np.ndarray | None:
        """(N,) in ascending order; None if one is missing. None is added after this is asked for."""
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
        """Of the one shown last."""
        return self._last[1] if self._all_known else 0


def _scan_packets(path: Path, limits: Limits, alive: Callable[[], object]) -> tuple[_Timestamps, int]:
    """When the packets are shown, and how many are not shown."""
    num_discarded = 0
    with _open(path, limits) as (container, stream), suppress(av.error.FFmpegError):  # decoding will meet it again
        shown = _Timestamps(stream)
        for packet in container.demux(stream):
            alive()
            if packet.is_discard:
                num_discarded += 1
            elif packet.size:
                shown.add(packet.pts, packet.dts, packet.duration)
    return shown, num_discarded


def _times(path: Path, stream: Any, timestamps: _Timestamps) -> np.ndarray:
    """Seconds at which frames are shown, by their timestamps or else by the rate that the file states."""
    if timestamps.times is not None:
        return timestamps.times * float(stream.time_base)
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise VideoError(f"{path} states neither when its frames are shown nor how many a second.")
    return np.arange(len(timestamps)) / float(rate)


def _holes(announced: np.ndarray, shown: np.ndarray, allowed_s: float) -> np.ndarray:
    """For how many seconds after each frame frames are missing; (N - 1,), 0 where the next one follows as it should.

    They are missing where two or more packets in a row show nothing: one alone is no hole, but half a picture, or one
    that only others refer to. And they are missing where a source that keeps its pace stops for more than is allowed
    and for ten frames: one that does not keep it, as slides and screen recordings do not, means a still. It keeps its
    pace if all but a hundredth of its frames, or all but one, last less than two usual ones.
    """
    gaps = np.diff(shown)
    if len(gaps) == 0:
        return gaps
    packets_in_gap = np.searchsorted(announced, shown[1:], "left") - np.searchsorted(announced, shown[:-1], "right")
    usual_s = float(np.median(gaps))
    keeps_pace = (gaps > 2 * usual_s).sum() <= max(1, len(gaps) // 100)
    is_hole = (packets_in_gap >= 2) | (keeps_pace & (gaps > max(allowed_s, 10 * usual_s)))
    frame_s = float(np.median(np.diff(announced))) if len(announced) > 1 else usual_s
    return np.where(is_hole, gaps - frame_s, 0.0)


def _missing(
    path: Path,
    times: np.ndarray,
    end_s: float,
    holes_s: np.ndarray,
    stated_start_s: float,
    stated_end_s: float,
    allowed_s: float,
) -> str | None:
    """A sentence if more is missing of the stated duration than is allowed."""
    start_s, stated_s = float(times[0]), stated_end_s - stated_start_s
    head_s, tail_s, middle_s = start_s - stated_start_s, stated_end_s - end_s, float(holes_s.sum())
    if head_s + middle_s + tail_s <= allowed_s:
        return None
    if tail_s >= max(head_s, middle_s):
        return f"{path} breaks off: it can be read up to {end_s - stated_start_s:.2f} s of {stated_s:.2f} s."
    if head_s > middle_s:
        return f"{path} is damaged: {head_s:.2f} s of {stated_s:.2f} s at its start cannot be decoded."
    at_s = times[int(holes_s.argmax())] - stated_start_s
    return f"{path} is damaged: {middle_s:.2f} s of {stated_s:.2f} s are missing in its middle, after {at_s:.2f} s."


def _decode(path: Path, container: Any, stream: Any, alive: Callable[[], object]) -> Iterator[Any]:
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
            raise BrokenError(f"{path} breaks off after {num_frames} frames{at} ({error.strerror}).") from error
        alive()
        if packet is None:
            return
        for frame in frames:
            start_s = start_s if num_frames else frame.time or 0.0
            num_frames += 1
            yield frame


def _stated_span(container: Any, stream: Any) -> tuple[float | None, float | None]:
    """When the stream starts and ends by its header, by Matroska's tag, or else the container by its header."""
    start_s = None if stream.start_time is None else stream.start_time * float(stream.time_base)
    if stream.duration:
        return start_s, (start_s or 0.0) + stream.duration * float(stream.time_base)
    tag = re.match(r"(\d+):(\d+):(\d+(\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return start_s, int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration:
        return start_s, float((container.start_time or 0) + container.duration) / av.time_base
    return start_s, None
