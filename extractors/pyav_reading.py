"""Frames as PyAV decodes them, in display order and upright: of a whole file, or of a part that is sought."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import av.filter
import numpy as np

from .opening import decode_frames, open_video, orientation
from .seeking import decode_from_key_frame, match_times
from .video import MATRICES, BrokenError, Limits, UnfaithfulError, VideoError, VideoFacts, stated_name

UNREADABLE_MATRICES = frozenset({"ycgco", "bt2020c", *MATRICES[MATRICES.index("smpte2085") :]})
"""What FFmpeg does not turn into RGB; decord takes most of them for BT.601."""


def read_with_pyav(
    facts: VideoFacts,
    is_wanted: np.ndarray,
    seek_times: np.ndarray | None,
    colours: str,
    deinterlace: bool,
    limits: Limits,
    heartbeat: Callable[[], object],
    on_concealed: Callable[[float], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices; the arguments are those of `extractors.decoders.read_frames`."""
    deinterlace = deinterlace and facts.is_interlaced
    if seek_times is None:
        frames = _all_frames(facts, deinterlace, limits, heartbeat)
    else:
        frames = _sought_frames(facts, int(is_wanted.argmax()), seek_times, deinterlace, limits, heartbeat)
    start_s, upright = None, Upright(facts, colours)
    for index, frame in frames:
        time_s = frame.time or 0.0
        start_s = time_s if start_s is None else start_s
        if frame.is_corrupt:
            on_concealed(time_s - start_s)
        upright.follow(frame)
        if index < len(is_wanted) and is_wanted[index]:
            yield index, upright.image(frame)


def _all_frames(
    facts: VideoFacts, deinterlace: bool, limits: Limits, heartbeat: Callable[[], object]
) -> Iterator[tuple[int, Any]]:
    """All decoded frames with their indices; of a damaged file those before the damage."""
    num_frames = 0
    with open_video(facts.path, limits, one_thread=facts.is_partial) as (container, stream):
        frames = decode_frames(facts.path, container, stream, heartbeat)
        for frame in _deinterlaced(frames) if deinterlace else frames:
            yield num_frames, frame
            num_frames += 1
            if facts.is_partial and num_frames == len(facts.times):  # the damage comes next
                return
    facts.check_complete(num_frames)


def _sought_frames(
    facts: VideoFacts,
    first: int,
    times: np.ndarray,
    deinterlace: bool,
    limits: Limits,
    heartbeat: Callable[[], object],
) -> Iterator[tuple[int, Any]]:
    """The decoded frames that are shown at some times in a row, with their indices from `first` on."""
    # interpolation needs the frame before the first one too
    before_s = times[0] - (0.001 if deinterlace and first else 0.0)
    frames = decode_from_key_frame(facts.path, before_s, limits, heartbeat)
    matched = match_times(facts.path, _deinterlaced(frames) if deinterlace else frames, times)
    for index, frame in enumerate(matched, start=first):
        if index == first and orientation(frame) not in ((0, False), (facts.rotation, facts.is_mirrored)):
            raise UnfaithfulError(f"{facts.path} changes its orientation midway")
        yield index, frame


class Upright:
    """Turns the frames that PyAV decodes into RGB as it is displayed: PyAV itself neither mirrors nor turns."""

    def __init__(self, facts: VideoFacts, colours: str) -> None:
        self._path, self._colours = facts.path, colours
        self._displayed = facts.rotation, facts.is_mirrored
        # the angle of the first frame is not in the facts: a mirrored one's differs from its rotation
        self._angle: int | None = None if facts.rotation or facts.is_mirrored else 0

    def follow(self, frame: Any) -> None:
        """Look at the next frame, because the orientation may change.

        A frame without an angle keeps the last one: a bitstream may state its orientation at key frames only.
        """
        if frame.rotation and frame.rotation != self._angle:
            if self._angle is not None:  # else it is that of the first frame
                self._displayed = orientation(frame)
            self._angle = frame.rotation

    def image(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        matrix = stated_name(MATRICES, frame.colorspace)
        if self._colours == "bt601":
            # the same matrix twice makes FFmpeg ignore the file's tag, as the OpenCV of the published features did
            rgb = frame.reformat(format="rgb24", src_colorspace="ITU601", dst_colorspace="ITU601")
        elif matrix not in UNREADABLE_MATRICES:
            rgb = frame.reformat(format="rgb24")
        elif matrix == "bt2020c":  # differs a little from the matrix that FFmpeg knows
            rgb = frame.reformat(format="rgb24", src_colorspace="BT2020", dst_colorspace="BT2020")
        else:
            raise VideoError(
                f"{self._path} has colours of the matrix {matrix}, which FFmpeg cannot turn into RGB; convert it to "
                "BT.709"
            )
        rotation, is_mirrored = self._displayed
        image = rgb.to_ndarray()
        return np.rot90(image[:, ::-1] if is_mirrored else image, rotation // 90)


def _deinterlaced(frames: Iterator[Any]) -> Iterator[Any]:
    """As many frames, each of those that are marked as interlaced interpolated from its first field."""
    graph: Any = None
    size, failure = None, None

    def ready() -> Iterator[Any]:
        with suppress(BlockingIOError, EOFError):
            while graph is not None:
                yield graph.pull()

    try:
        for frame in frames:
            if size != (frame.width, frame.height, frame.format.name):
                if graph is not None:
                    graph.push(None)  # the filter keeps one frame back
                    yield from ready()
                size = frame.width, frame.height, frame.format.name
                graph = av.filter.Graph()
                source = graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                )
                graph.link_nodes(
                    source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
                )
                graph.configure()
            graph.push(frame)
            yield from ready()
    except BrokenError as error:  # the frames before it are good
        failure = error
    if graph is not None:
        graph.push(None)
        yield from ready()
    if failure:
        raise failure
