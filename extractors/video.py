"""What a video file is: its facts, the limits it must respect, and what is missing from it.

`probe` scans the container's packets without decoding them. The sorted presentation times of the packets are the times
of the frames: the n-th decoded frame is shown at the n-th time. Packets that an edit list discards do not count. Where
the first frame contradicts the scan, and with `by_decoding=True`, all frames are decoded for their times instead.

A malicious file can hang or crash a decoder or exhaust the memory. `extractors.reader` therefore runs this module and
`extractors.decoders` in another process. Neither imports torch, so that this process starts fast and stays small.
"""

import math
import re
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from .cutting import Cutter, RunLengths

VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""Lower-case suffixes of the files that a folder search treats as videos."""

FIELD_ORDERS = ("unknown", "progressive", "tt", "bb", "tb", "bt")
"""FFmpeg's names by number: t is the top field and b the bottom one, first as stored and then as shown."""

MATRICES = (
    *(
        "gbr",
        "bt709",
        "unknown",
        "reserved",
        "fcc",
        "bt470bg",
        "smpte170m",
        "smpte240m",
        "ycgco",
        "bt2020nc",
        "bt2020c",
    ),
    *("smpte2085", "chroma-derived-nc", "chroma-derived-c", "ictcp", "ipt-c2", "ycgco-re", "ycgco-ro"),
)
"""FFmpeg's names of the matrices by their numbers in ISO/IEC 23091-2."""

TRANSFERS = (
    *("reserved", "bt709", "unknown", "reserved", "gamma22", "gamma28", "smpte170m", "smpte240m", "linear", "log100"),
    *("log316", "iec61966-2-4", "bt1361e", "iec61966-2-1", "bt2020-10", "bt2020-12", "smpte2084", "smpte428"),
    "arib-std-b67",
)
"""FFmpeg's names of the transfer characteristics by their numbers in ISO/IEC 23091-2."""

GENERATED_COMMENT = "generated routine of cofinal"
"""What a generated routine says in its comment tag (`data.routines`), so that heads trained on it are known."""

RESTART_S = 0.5
"""A larger backward step of the decoding timestamps is a restart: recordings were joined into one file."""


@dataclass(frozen=True)
class Limits:
    """Upper limits; a video beyond them is refused before memory is allocated for it."""

    max_pixels: int = 8192 * 4320
    """Width times height of a frame."""
    max_duration_s: float = 12 * 3600.0

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max-pixels must be at least 1, not {self.max_pixels}")
        if not self.max_duration_s > 0:
            raise ValueError(f"max-duration must be more than 0 seconds, not {self.max_duration_s:g}")

    def check_size(self, path: Path, width: int, height: int) -> None:
        """Raise VideoError if frames of this size in pixels are too large."""
        if width * height > self.max_pixels:
            raise VideoError(
                f"{path} has frames of {width} x {height}, {width * height} pixels, and {self.max_pixels} are allowed "
                "(--max-pixels)"
            )

    def check_duration(self, path: Path, duration_s: float) -> None:
        """Raise VideoError if a video of this duration is too long."""
        if duration_s > self.max_duration_s:
            raise VideoError(
                f"{path} lasts {duration_s:.2f} s, and {self.max_duration_s:g} s are allowed (--max-duration)"
            )


TAKE_PART = "--allow-partial uses the part that can be decoded"
TAKE_GAPS = "--allow-gaps takes the pause as a still"
"""What the user can do about damage."""


class VideoError(ValueError):
    """One video cannot be used; the message names it and the reason."""


class BrokenError(VideoError):
    """Decoding failed in the middle of the file; the frames before the failure are good."""


class UnfaithfulError(VideoError):
    """The decoder did not give the frames that the scan announced; a slower way of reading may give them."""


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
    """Degrees counter-clockwise by which decoded frames are turned for display: 0, 90, 180 or 270."""
    is_mirrored: bool
    """Whether decoded frames are mirrored left to right for display, before they are turned."""
    sample_aspect_ratio: str
    """Width of a stored pixel to its height, as "16:15"; "1:1" if the file states none."""
    field_order: str
    """One of `FIELD_ORDERS`; interlaced video is not "progressive" or "unknown"."""
    matrix: str
    """How YUV becomes RGB as the file states it, one of `MATRICES`."""
    transfer: str
    """How light becomes values as the file states it, one of `TRANSFERS`."""
    num_video_streams: int
    """Video streams in the file, without cover pictures."""
    is_generated: bool
    """Whether the file says that it is a generated routine of this program."""
    times: np.ndarray
    """(N,) seconds at which the frames are shown, ascending."""
    end_s: float
    """End of the last frame."""
    stated_end_s: float
    """End of the video as the container states it; `end_s` if it states none."""
    num_discarded: int
    """Packets that an edit list discards."""
    longest_run: int
    """Most frames between two places where the video can be cut (`extractors.cutting`); 0 if packets and frames differ.
    """
    num_restarts: int
    """How often the file's timestamps restart; `times` continue across restarts."""
    has_timestamps: bool
    """False if the file has no timestamps, so that `times` follow from the frame rate that it states."""
    paused_s: float
    """Seconds of pauses in a source that otherwise keeps its pace: missing, or stills with `allow_gaps`."""
    damage: str | None
    """A sentence if decoding breaks off, or if more than max(0.5 s, 2%) of the stated duration is missing."""
    remedy: str | None
    """What the user can do about the damage: the option that uses the file nevertheless."""
    is_partial: bool
    """Whether the file is damaged and `times` are those of its usable part; reading stops after that part."""

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel to its height as displayed; 1 if it differs by less than 1%, which is rounding."""
        width, height = map(int, self.sample_aspect_ratio.split(":"))
        aspect = width / height if self.rotation % 180 == 0 else height / width
        return aspect if abs(aspect - 1) >= 0.01 else 1.0

    @property
    def is_interlaced(self) -> bool:
        """Whether a frame holds two fields that were taken at different times."""
        return self.field_order not in ("progressive", "unknown")

    @property
    def failure(self) -> str:
        """The damage, with what can be done about it."""
        return f"{self.damage}; {self.remedy}"

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.end_s - float(self.times[0])

    @property
    def frame_bytes(self) -> int:
        """Size of a frame as RGB."""
        return self.height * self.width * 3

    def check_complete(self, num_frames: int) -> None:
        """Raise an error if the file is damaged, or if it gave another number of frames than its packets announce."""
        if self.damage and not self.is_partial:
            raise VideoError(self.failure)
        if num_frames != len(self.times):
            raise UnfaithfulError(f"{self.path} announces {len(self.times)} frames, and {num_frames} come out of it")

    def without_times(self) -> "VideoFacts":
        """The same facts with the first frame's time for all frames: an array that takes no memory."""
        return replace(self, times=np.broadcast_to(self.times[0], len(self.times)))

    def to_json(self) -> dict[str, Any]:
        """The facts for a record: without the path, and with the number of frames in place of their times."""
        facts = {name: value for name, value in vars(self).items() if name not in ("path", "times")}
        rate = round(len(self.times) / self.duration_s, 3) if self.duration_s else None
        return facts | {"num_frames": len(self.times), "frames_per_s": rate, "start_s": float(self.times[0])}


def probe(
    path: str | Path,
    limits: Limits = Limits(),
    *,
    by_decoding: bool = False,
    allow_partial: bool = False,
    allow_gaps: bool = False,
    heartbeat: Callable[[], object] = lambda: None,
) -> VideoFacts:
    """Find out what a video file is.

    Args:
        path: the file.
        limits: how large and long it may be.
        by_decoding: take the frames' times from decoding all frames instead of from the packets.
        allow_partial: accept a damaged file, with the frames that can be decoded before the damage.
        allow_gaps: take a pause in a source that otherwise keeps its pace as a still, not as damage.
        heartbeat: called with every packet, to show that the work goes on.

    Raises:
        BrokenError: decoding all frames breaks off, and `allow_partial` is not set.
        VideoError: the file cannot be opened, holds no video, cannot be decoded, or is too large or too long.
    """
    path = Path(path)
    packets, num_discarded, longest_run, others_end_s = _scan_packets(path, limits, heartbeat)
    with open_video(path, limits, one_thread=by_decoding) as (container, stream):
        frames = decode_frames(path, container, stream, heartbeat)
        first = next(frames, None)
        if first is None:
            raise VideoError(_why_no_frame(path, stream.codec_context, limits))
        shown, damage = packets, None
        # a different first time shows that the scan is wrong: packets before the first key frame, AVI's decoding times
        if by_decoding or not len(packets) or first.pts != packets.first:
            is_joined = packets.num_restarts > 0
            shown, damage = _decode_timestamps(stream, chain([first], frames), is_joined, allow_partial)
        timeline = _Timeline.of(path, container, stream, shown, others_end_s)
        limits.check_duration(path, timeline.end_s - float(timeline.times[0]))
        # where either has no timestamps, packets and frames cannot be compared, and none counts as not shown
        announced_s = timeline.times
        if packets.times is not None and shown.times is not None:
            announced_s = packets.times * float(stream.time_base)
        lost_s = _holes(announced_s, timeline.times, timeline.allowed_s, are_pauses_holes=False)
        lost_or_paused_s = _holes(announced_s, timeline.times, timeline.allowed_s)
        holes_s = lost_s if allow_gaps else lost_or_paused_s
        would_gaps_do = not damage and not _missing(path, timeline, lost_s)
        damage = damage or _missing(path, timeline, holes_s)
        if damage and allow_partial:
            if not by_decoding:  # packets do not show how many frames come before the damage
                return probe(
                    path, limits, by_decoding=True, allow_partial=True, allow_gaps=allow_gaps, heartbeat=heartbeat
                )
            timeline = timeline.before(holes_s)
        rotation, is_mirrored = orientation(first)
        is_turned = rotation % 180 != 0
        aspect = stream.sample_aspect_ratio or Fraction(1)  # the container's, else the codec's
        return VideoFacts(
            path=path,
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.format.name,
            width=first.height if is_turned else first.width,
            height=first.width if is_turned else first.height,
            rotation=rotation,
            is_mirrored=is_mirrored,
            sample_aspect_ratio=f"{aspect.numerator}:{aspect.denominator}",
            field_order=_field_order(stream, first),
            matrix=stated_name(MATRICES, first.colorspace),
            transfer=stated_name(TRANSFERS, first.color_trc),
            num_video_streams=_num_video_streams(container),
            is_generated=GENERATED_COMMENT in container.metadata.values(),
            times=timeline.times,
            end_s=timeline.end_s,
            stated_end_s=timeline.stated_end_s,
            num_discarded=num_discarded,
            longest_run=longest_run if shown is packets else 0,
            num_restarts=shown.num_restarts,
            has_timestamps=shown.times is not None,
            paused_s=float((lost_or_paused_s - lost_s).sum()),
            damage=damage,
            remedy=(TAKE_GAPS if would_gaps_do else TAKE_PART) if damage else None,
            is_partial=allow_partial and damage is not None,
        )


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
        start_s, end_s, _ = _stated_span(container, stream)
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


def _why_no_frame(path: Path, codec: Any, limits: Limits) -> str:
    """A sentence for a file without a frame that can be decoded."""
    if not codec.width and not _is_picture_within(path, limits):
        return f"{path} holds no frame that can be decoded within {limits.max_pixels} pixels (--max-pixels)"
    return f"{path} holds no frame that can be decoded: this FFmpeg cannot decode its {codec.codec.canonical_name}"


def _is_picture_within(path: Path, limits: Limits) -> bool:
    """Whether the file is a picture whose header states a size within the limits; FFmpeg gives none that it refuses."""
    from PIL import Image  # imported here, because few files need it

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return picture.width * picture.height <= limits.max_pixels
    except (OSError, Image.DecompressionBombError):
        return False


class _Timestamps:
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


def _scan_packets(
    path: Path, limits: Limits, heartbeat: Callable[[], object]
) -> tuple[_Timestamps, int, int, float | None]:
    """Read all packets without decoding them.

    Returns:
        The timestamps of the packets that are shown, the number of those that an edit list discards, the frames of the
        longest run, and the time in seconds of the last packet of the other streams: None if the container states the
        video's own duration.
    """
    num_discarded, others_end_s = 0, None
    # an error that ends the scan is left to the decoding, which runs into it again
    with open_video(path, limits) as (container, stream), suppress(av.error.FFmpegError):
        shown, runs = _Timestamps(stream), RunLengths(Cutter.of(stream))
        _, _, is_own = _stated_span(container, stream)
        for packet in container.demux(stream) if is_own else container.demux():
            heartbeat()
            if packet.stream_index != stream.index:
                if packet.pts is not None:
                    others_end_s = max(others_end_s or 0.0, float(packet.pts * packet.time_base))
            elif packet.is_discard:
                num_discarded += 1
            elif packet.size:  # PyAV ends the stream with an empty packet
                shown.add(packet.pts, packet.dts, packet.duration)
                runs.add(packet)
    return shown, num_discarded, runs.longest, others_end_s


def _decode_timestamps(
    stream: Any, frames: Iterable[Any], is_joined: bool, allow_partial: bool
) -> tuple[_Timestamps, str | None]:
    """The timestamps of decoded frames, and with `allow_partial` the sentence of a failure that ended the decoding."""
    shown = _Timestamps(stream)
    try:
        for frame in frames:
            shown.add(frame.pts, frame.pts if is_joined else None, frame.duration)
    except BrokenError as error:
        if not allow_partial:
            raise
        return shown, str(error)
    return shown, None


@dataclass(frozen=True)
class _Timeline:
    """When the frames are shown, and what the container states about it, in seconds."""

    times: np.ndarray
    """(N,) ascending."""
    end_s: float
    stated_start_s: float
    stated_end_s: float

    @classmethod
    def of(cls, path: Path, container: Any, stream: Any, shown: _Timestamps, others_end_s: float | None) -> "_Timeline":
        times = _times(path, stream, shown)
        start_s = float(times[0])
        end_s = float(times[-1]) + (shown.last_duration * float(stream.time_base) or _mean_gap(times))
        stated_start_s, stated_end_s, _ = _stated_span(container, stream)
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

    def before(self, holes_s: np.ndarray) -> "_Timeline":
        """The part before more than `allowed_s` is missing in holes; all if there is no such place."""
        is_beyond = holes_s.cumsum() > self.allowed_s
        if not is_beyond.any():
            return self
        times = self.times[: int(is_beyond.argmax()) + 1]
        return replace(self, times=times, end_s=float(times[-1]) + _mean_gap(self.times))


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


def _field_order(stream: Any, first: Any) -> str:
    """One of `FIELD_ORDERS`; where the codec states none, that of the first frame."""
    name = stated_name(FIELD_ORDERS, stream.codec_context.field_order)
    return "tt" if first.interlaced_frame and name in ("unknown", "progressive") else name


def stated_name(names: tuple[str, ...], number: int) -> str:
    """The name of a number that a file states, from `MATRICES` or the like; "unknown" if the number is a newer one."""
    return names[number] if number < len(names) else "unknown"


def _num_video_streams(container: Any) -> int:
    """How many video streams there are, cover pictures left out."""
    return sum(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)


def _times(path: Path, stream: Any, timestamps: _Timestamps) -> np.ndarray:
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


def _holes(announced: np.ndarray, shown: np.ndarray, allowed_s: float, *, are_pauses_holes: bool = True) -> np.ndarray:
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


def _missing(path: Path, timeline: _Timeline, holes_s: np.ndarray) -> str | None:
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


def _stated_span(container: Any, stream: Any) -> tuple[float | None, float | None, bool]:
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
