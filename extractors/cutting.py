"""Where H.264 and HEVC video can be cut, and its packets between two cuts.

A cut is a key frame after which nothing refers to what comes before it, except for pictures that are shown before that
key frame (leading pictures). These are the IDR pictures of H.264 and HEVC and the CRA pictures of HEVC, by ITU-T H.264
and H.265. A key frame of H.264 that is no IDR picture is not a cut: containers call many pictures key frames. A run is
the packets from one cut to the next.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

LAST_SLICE = {"h264": 5, "hevc": 31}
"""The NAL units with types up to this number hold picture data; those of H.264 start at 1."""
CUTS = {"h264": (5,), "hevc": (19, 20, 21)}
"""The types of the NAL units of IDR and CRA pictures."""
LENGTH_AT = {"h264": 4, "hevc": 21}
"""The byte of a decoder's configuration (avcC, hvcC) whose lowest two bits say in how many bytes lengths are stored."""


@dataclass(frozen=True)
class Cutter:
    """Finds the cuts of a stream."""

    codec: str
    """FFmpeg's name."""
    length_bytes: int
    """How many bytes state the size of a NAL unit; 0 if the stream cannot be cut."""

    @classmethod
    def of(cls, stream: Any) -> "Cutter":
        """The cutter of a PyAV stream; one that finds no cuts unless the stream is stored as in MP4 and Matroska."""
        codec, stated = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
        place = LENGTH_AT.get(codec, 0)
        is_known = place and len(stated) > place and stated[0] == 1
        return cls(codec, (stated[place] & 3) + 1 if is_known else 0)

    def cut(self, packet: Any) -> bytes | None:
        """What a packet states before its first picture data (sizes, colours, orientation); None if it is no cut."""
        if not (packet.is_keyframe and self.length_bytes):
            return None
        content, place = memoryview(packet), 0
        while place + self.length_bytes < len(content):
            header = place + self.length_bytes
            kind = content[header] & 31 if self.codec == "h264" else content[header] >> 1
            if (kind or self.codec == "hevc") and kind <= LAST_SLICE[self.codec]:
                return bytes(content[:place]) if kind in CUTS[self.codec] else None
            place = header + int.from_bytes(content[place:header], "big")
        return None


def cut_into_runs(packets: Iterable[Any], cutter: Cutter) -> Iterator[tuple[bytes, list[Any]]]:
    """Cut packets in the order of decoding into runs, each with what `Cutter.cut` gives for its first packet."""
    run: list[Any] = []
    stated = b""
    for packet in packets:
        if (begins := cutter.cut(packet)) is not None:
            if run:
                yield stated, run
            run, stated = [], begins
        run.append(packet)
    if run:
        yield stated, run


class RunLengths:
    """Counts the frames of each run without keeping its packets."""

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self._cut_pts = self._before = self._now = self._longest = 0

    def add(self, packet: Any) -> None:
        """Count the next packet in the order of decoding."""
        if self._cutter.cut(packet) is not None:
            self._longest = self.longest
            self._cut_pts, self._before, self._now = packet.pts or 0, self._now, 1
        elif self._before and (packet.pts or 0) < self._cut_pts:
            self._before += 1  # a leading picture
        else:
            self._now += 1

    @property
    def longest(self) -> int:
        """Most frames of a run, with the first frame of the next one."""
        return max(self._longest, self._before + 1, self._now)


def cut_into_segments(runs: Iterable[tuple[bytes, list[Any]]], max_frames: int) -> Iterator[tuple[list[Any], bool]]:
    """Join runs to segments that can be decoded alone.

    Each segment but the last ends with the first packet of the next one and that one's leading pictures, which refer to
    both. So its last frame is the next one's first frame. Runs are joined only if they state the same.

    Args:
        runs: from `cut_into_runs`.
        max_frames: how many frames joined runs may have; a single run may have more.

    Yields:
        The packets of a segment in the order of decoding, and whether it ends with the first frame of the next one.
    """
    segment: list[Any] = []
    stated_first = None
    for stated, run in runs:
        first = run[0]
        leading = [packet for packet in run[1:] if packet.pts < first.pts]
        if segment and (stated != stated_first or len(segment) + len(run) > max_frames):
            yield [*segment, first, *leading], True
            segment = []
        if not segment:
            stated_first = stated
            run = [packet for packet in run if packet.pts >= first.pts]
        segment += run
    yield segment, False
