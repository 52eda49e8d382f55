"""Find out what a video file is.

The packets of the container are scanned without decoding them. The sorted presentation times of the packets are the
times of the frames: the n-th decoded frame is shown at the n-th time. Packets that an edit list discards do not count.
Where the first frame contradicts the scan, and with `by_decoding=True`, all frames are decoded for their times instead.
"""

import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av.error
from av.stream import Disposition

from .cutting import Cutter, RunLengths
from .opening import decode_frames, open_video, orientation, stated_span
from .timeline import Timeline, Timestamps, holes, missing
from .video import (
    FIELD_ORDERS,
    GENERATED_COMMENT,
    MATRICES,
    TAKE_GAPS,
    TAKE_PART,
    TRANSFERS,
    BrokenError,
    Limits,
    VideoError,
    VideoFacts,
    stated_name,
)


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
        timeline = Timeline.of(path, container, stream, shown, others_end_s)
        limits.check_duration(path, timeline.end_s - float(timeline.times[0]))
        # where either has no timestamps, packets and frames cannot be compared, and none counts as not shown
        announced_s = timeline.times
        if packets.times is not None and shown.times is not None:
            announced_s = packets.times * float(stream.time_base)
        lost_s = holes(announced_s, timeline.times, timeline.allowed_s, are_pauses_holes=False)
        lost_or_paused_s = holes(announced_s, timeline.times, timeline.allowed_s)
        holes_s = lost_s if allow_gaps else lost_or_paused_s
        would_gaps_do = not damage and not missing(path, timeline, lost_s)
        damage = damage or missing(path, timeline, holes_s)
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


def _scan_packets(
    path: Path, limits: Limits, heartbeat: Callable[[], object]
) -> tuple[Timestamps, int, int, float | None]:
    """Read all packets without decoding them.

    Returns:
        The timestamps of the packets that are shown, the number of those that an edit list discards, the frames of the
        longest run, and the time in seconds of the last packet of the other streams: None if the container states the
        video's own duration.
    """
    num_discarded, others_end_s = 0, None
    # an error that ends the scan is left to the decoding, which runs into it again
    with open_video(path, limits) as (container, stream), suppress(av.error.FFmpegError):
        shown, runs = Timestamps(stream), RunLengths(Cutter.of(stream))
        _, _, is_own = stated_span(container, stream)
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
) -> tuple[Timestamps, str | None]:
    """The timestamps of decoded frames, and with `allow_partial` the sentence of a failure that ended the decoding."""
    shown = Timestamps(stream)
    try:
        for frame in frames:
            shown.add(frame.pts, frame.pts if is_joined else None, frame.duration)
    except BrokenError as error:
        if not allow_partial:
            raise
        return shown, str(error)
    return shown, None


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


def _field_order(stream: Any, first: Any) -> str:
    """One of `FIELD_ORDERS`; where the codec states none, that of the first frame."""
    name = stated_name(FIELD_ORDERS, stream.codec_context.field_order)
    return "tt" if first.interlaced_frame and name in ("unknown", "progressive") else name


def _num_video_streams(container: Any) -> int:
    """How many video streams there are, cover pictures left out."""
    return sum(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)
