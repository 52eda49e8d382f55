"""What a video file is: its facts, the limits that it must respect, and the errors of reading it.

A malicious file can hang or crash a decoder or exhaust the memory. `extractors.reader` therefore runs
`extractors.probing` and `extractors.decoders` in another process. Neither imports torch, so that this process starts
fast and stays small.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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


def stated_name(names: tuple[str, ...], number: int) -> str:
    """The name of a number that a file states, from `MATRICES` or the like; "unknown" if the number is a newer one."""
    return names[number] if number < len(names) else "unknown"
