"""How the frames of a video are read: with decord or with PyAV, which give the same frames.

decord is faster, but it has three faults. Past the last decodable frame it repeats that frame without an error, it
decodes ahead of a slow consumer without bound, and it has rules of its own for which stream it reads, which way up and
in which size. So decord reads only files where a repeated frame is noticed and all decoded frames fit into
`DECORD_MAX_BYTES`, and each of its key frames must equal PyAV's to the pixel; PyAV reads all others.

Frames come with their times, in display order and upright. `extractors.video` explains why torch is not imported here.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av.filter
import numpy as np

from . import video as video_files
from .frame_folders import CONTAINER, probe_frames, read_frame_folder
from .seeking import decode_from_key_frame, match_times
from .video import (
    MATRICES,
    BrokenError,
    Limits,
    UnfaithfulError,
    VideoError,
    VideoFacts,
    decode_frames,
    open_video,
    orientation,
    stated_name,
)

DECODERS = ("auto", "decord", "pyav")

DECORD_MAX_BYTES = 256 * 2**20
"""Largest decoded video that decord may read, because decord may hold all of it in memory at once."""

COLOURS = ("tagged", "bt601")
"""How YUV becomes RGB: by the colour space that the file states, or always by BT.601."""

UNREADABLE_MATRICES = frozenset({"ycgco", "bt2020c", *MATRICES[MATRICES.index("smpte2085") :]})
"""What FFmpeg does not turn into RGB; decord takes most of them for BT.601."""


def probe(
    path: str | Path,
    limits: Limits = Limits(),
    *,
    fps: float | None = None,
    heartbeat: Callable[[], object] = lambda: None,
    **options: bool,
) -> VideoFacts:
    """Find out what a video file or a folder of numbered frames is.

    Args:
        path: the file or folder.
        limits: how large and long it may be.
        fps: frames per second of a folder of frames; a file states its own.
        heartbeat: called with every packet or picture, to show that the work goes on.
        options: the others of `extractors.video.probe`, which have no meaning for a folder.

    Raises:
        VideoError: as in `extractors.video.probe` and `extractors.frame_folders.probe_frames`.
    """
    path = Path(path)
    if path.is_dir():
        return probe_frames(path, limits, fps, heartbeat)
    return video_files.probe(path, limits, heartbeat=heartbeat, **options)


def check_decoder(decoder: str) -> None:
    """Refuse a decoder that does not exist or is not installed.

    Raises:
        ValueError: the decoder is unknown, or it is decord and decord is not installed.
    """
    if decoder not in DECODERS:
        raise ValueError(f"unknown decoder {decoder!r}; known are {', '.join(DECODERS)}")
    if decoder == "decord" and not _has_decord():
        raise ValueError("decord is not installed (it exists for Linux on x86-64 and for Windows): use --decoder auto")


def _has_decord() -> bool:
    return importlib.util.find_spec("decord") is not None


def choose_decoder(
    facts: VideoFacts,
    decoder: str = "auto",
    colours: str = "tagged",
    *,
    deinterlace: bool = False,
    is_sought: bool = False,
) -> tuple[str, str]:
    """Choose the decoder of a file.

    Args:
        facts: from `probe`.
        decoder: one of `DECODERS`.
        colours: one of `COLOURS`.
        deinterlace: whether interlaced frames are deinterlaced.
        is_sought: whether a part is read from the middle of the file.

    Returns:
        "decord", "pyav", or "pillow" for numbered frames; and the reason.

    Raises:
        VideoError: decord is asked for, but it would not give the right frames or might need too much memory; or a
            decoder is asked for to read numbered frames.
        ValueError: the decoder is unknown, or decord is asked for and not installed.
    """
    check_decoder(decoder)
    if facts.container == CONTAINER:
        if decoder != "auto":
            raise VideoError(f"{facts.path} holds numbered frames, which Pillow reads; use --decoder auto")
        return "pillow", "a folder of numbered frames"
    if decoder == "pyav":
        return "pyav", "it was asked for"
    if not _has_decord():
        return "pyav", "decord is not installed"
    obstacle = "decord reads files from their start" if is_sought else _decord_obstacle(facts, colours, deinterlace)
    if decoder == "decord":
        if obstacle:
            raise VideoError(f"decord cannot read {facts.path}: {obstacle}; use --decoder auto")
        return "decord", "it was asked for"
    return ("pyav", obstacle) if obstacle else ("decord", "decord is faithful on this kind of file")


def _decord_obstacle(facts: VideoFacts, colours: str, deinterlace: bool) -> str | None:
    """Why decord must not read a file; None if it may."""
    if colours != "tagged":
        return f"decord cannot read colours as {colours}, which the recipe asks for"
    if facts.codec not in ("h264", "hevc") or facts.pixel_format not in ("yuv420p", "yuvj420p"):
        return f"decord is faithful on 8-bit 4:2:0 H.264 and HEVC only, this is {facts.codec} {facts.pixel_format}"
    if facts.width % 2 or facts.height % 2:
        return f"decord is faithful on even sizes only, this is {facts.width} x {facts.height}"
    if not {"mp4", "matroska"} & set(facts.container.split(",")):
        return f"decord is faithful on MP4 and Matroska only, this is {facts.container}"
    if facts.matrix in UNREADABLE_MATRICES:
        return f"decord takes the matrix {facts.matrix} for another one"
    if facts.is_mirrored or (facts.rotation and "matroska" in facts.container):
        return "decord neither mirrors frames nor turns those of Matroska"
    if facts.has_twin_stream:
        return "another video stream has frames of the same size, and decord may read that one"
    if deinterlace and facts.is_interlaced:
        return "decord cannot deinterlace"
    if facts.num_discarded:
        return f"decord ignores the edit list, which leaves out {facts.num_discarded} packets"
    if facts.damage:
        return "the file is damaged"
    if not facts.has_timestamps:
        return "the file has no timestamps"
    if facts.num_restarts:
        return "the file's timestamps restart"
    if facts.decoded_bytes > DECORD_MAX_BYTES:
        return (
            f"decord may hold the whole decoded video in memory, {facts.decoded_bytes / 2**20:.0f} MiB, "
            f"and {DECORD_MAX_BYTES / 2**20:.0f} MiB are allowed"
        )
    return None


def read_frames(
    video: str | Path | VideoFacts,
    decoder: str = "auto",
    *,
    wanted: np.ndarray | None = None,
    seek_times: np.ndarray | None = None,
    colours: str = "tagged",
    deinterlace: bool = False,
    limits: Limits = Limits(),
    heartbeat: Callable[[], object] = lambda: None,
    on_concealed: Callable[[float], object] = lambda time_s: None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Read a video's frames.

    Args:
        video: the file, or its facts from `probe`.
        decoder: one of `DECODERS`.
        wanted: the frames to yield, as ascending indices or as (N,) bool; all if None. The file is read to its end in
            any case, so that damage is noticed, unless `seek_times` are given.
        seek_times: seconds at which the frames from the first wanted one to the last one are shown; PyAV then reads
            these only, from the key frame before them.
        colours: one of `COLOURS`.
        deinterlace: interpolate the frames of an interlaced video, with FFmpeg's bwdif, so that each shows one moment.
        limits: how large the frames may be.
        heartbeat: called with every frame, wanted or not.
        on_concealed: called for every frame in which FFmpeg concealed damage, with its seconds after the first frame.

    Yields:
        Time of presentation in seconds, and (H, W, 3) uint8 RGB.

    Raises:
        BrokenError: decoding breaks off; the frames before are yielded first.
        VideoError: the file cannot be read, or it is damaged and `probe` was called without `allow_partial`.
        UnfaithfulError: the number of frames is not the one that the packets announce, or decord reports damage or
            gives other frames than PyAV.
    """
    facts = video if isinstance(video, VideoFacts) else probe(video, limits, heartbeat=heartbeat)
    is_wanted = np.zeros(len(facts.times), bool)
    is_wanted[slice(None) if wanted is None else wanted] = True
    if facts.container == CONTAINER:
        frames = read_frame_folder(facts.path, is_wanted, heartbeat)
    elif seek_times is not None:
        frames = _sought_frames(facts, is_wanted, seek_times, colours, deinterlace, limits, heartbeat, on_concealed)
    elif choose_decoder(facts, decoder, colours, deinterlace=deinterlace)[0] == "decord":
        frames = _decord_frames(facts, is_wanted, limits, heartbeat)
    else:
        frames = _pyav_frames(facts, is_wanted, colours, deinterlace, limits, heartbeat, on_concealed)
    for index, frame in frames:
        yield float(facts.times[index]), frame


def _pyav_frames(
    facts: VideoFacts,
    is_wanted: np.ndarray,
    colours: str,
    deinterlace: bool,
    limits: Limits,
    heartbeat: Callable[[], object],
    on_concealed: Callable[[float], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices, read with PyAV."""
    index, start_s, upright = -1, 0.0, _Upright(facts, colours)
    with open_video(facts.path, limits, one_thread=facts.is_partial) as (container, stream):
        frames = decode_frames(facts.path, container, stream, heartbeat)
        for index, frame in enumerate(_deinterlaced(frames) if deinterlace and facts.is_interlaced else frames):
            start_s = start_s if index else frame.time or 0.0
            if frame.is_corrupt:
                on_concealed((frame.time or 0.0) - start_s)
            upright.follow(frame)
            if index < len(is_wanted) and is_wanted[index]:
                yield index, upright.image(frame)
            if facts.is_partial and index + 1 == len(is_wanted):  # the damage comes next
                return
    _check_complete(facts, index + 1)


def _sought_frames(
    facts: VideoFacts,
    is_wanted: np.ndarray,
    times: np.ndarray,
    colours: str,
    deinterlace: bool,
    limits: Limits,
    heartbeat: Callable[[], object],
    on_concealed: Callable[[float], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices, read with PyAV from the key frame before them."""
    first, upright = int(is_wanted.argmax()), _Upright(facts, colours)
    deinterlace = deinterlace and facts.is_interlaced
    # interpolation needs the frame before the first one too
    before_s = times[0] - (0.001 if deinterlace and first else 0.0)
    frames = decode_from_key_frame(facts.path, before_s, limits, heartbeat)
    frames = _deinterlaced(frames) if deinterlace else frames
    for index, frame in enumerate(match_times(facts.path, frames, times), start=first):
        if index == first and orientation(frame) not in ((0, False), (facts.rotation, facts.is_mirrored)):
            raise UnfaithfulError(f"{facts.path} changes its orientation midway")
        upright.follow(frame)
        if frame.is_corrupt:
            on_concealed(frame.time - times[0])
        if is_wanted[index]:
            yield index, upright.image(frame)


class _Upright:
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


def _decord_frames(
    facts: VideoFacts, is_wanted: np.ndarray, limits: Limits, heartbeat: Callable[[], object]
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices, read with decord."""
    decord = _import_decord()
    with _damage_reports_are_errors(facts.path):
        with _decord_errors_are_unfaithful(facts.path):
            # num_threads=0: one thread per core
            # fault_tol=1: at most one frame may be repeated in place of a missing one, which is checked below
            reader = decord.VideoReader(str(facts.path.absolute()), num_threads=0, fault_tol=1)
            times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        _check_complete(facts, len(reader))
        proof = _Proof(facts, _key_frames(facts, times - times[0], limits, heartbeat))
        before = last = np.empty(0)
        for index in range(len(reader)):
            with _decord_errors_are_unfaithful(facts.path):
                before, last = last, reader.next().asnumpy()
            heartbeat()
            proof.check(index, last)
            if is_wanted[index]:
                yield index, last
        proof.check_finished()
    # the last two frames are equal: a still picture, or a repeated frame in place of a missing one; PyAV counts them
    if np.array_equal(before, last):
        with open_video(facts.path, limits) as (container, stream):
            _check_complete(facts, sum(1 for _ in decode_frames(facts.path, container, stream, heartbeat)))


def _key_frames(
    facts: VideoFacts, times_s: np.ndarray, limits: Limits, heartbeat: Callable[[], object]
) -> Iterator[tuple[int, np.ndarray]]:
    """The frames that can be decoded without others, read with PyAV, with their indices.

    Args:
        facts: of the file.
        times_s: (N,) seconds of all frames after the first one.
        limits: how large the frames may be.
        heartbeat: called with every packet.
    """
    start_s, upright = None, _Upright(facts, "tagged")
    with open_video(facts.path, limits) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        try:
            for frame in decode_frames(facts.path, container, stream, heartbeat):
                start_s = frame.time if start_s is None else start_s
                index = int(np.abs(times_s - (frame.time - start_s)).argmin())
                upright.follow(frame)
                yield index, upright.image(frame)
        except BrokenError as error:  # whether the video breaks off shows when all frames are decoded
            raise UnfaithfulError(f"a key frame cannot be decoded alone: {error}") from error


class _Proof:
    """Checks that decord's frames are the file's own: of the same stream, size and orientation as PyAV's key frames.

    All of these can change at key frames only. Key frames are few, so comparing them costs little.
    """

    def __init__(self, facts: VideoFacts, key_frames: Iterator[tuple[int, np.ndarray]]) -> None:
        self._facts, self._key_frames = facts, key_frames
        self._next = next(key_frames, None)
        self._shows_what_is_up = facts.rotation == 0

    def check(self, index: int, frame: np.ndarray) -> None:
        """Compare one of decord's frames, which come in order; raise UnfaithfulError if it is not the file's."""
        if self._next is None or index < self._next[0]:
            if index == 0:
                raise UnfaithfulError(f"{self._facts.path} has no key frame first, to compare decord's frames with")
            return
        expected = self._next[1]
        if index > self._next[0] or frame.shape != expected.shape or not np.array_equal(frame, expected):
            raise UnfaithfulError(
                f"decord gives another frame {index} of {self._facts.path}, {frame.shape[1]} x {frame.shape[0]}, than "
                f"PyAV, {expected.shape[1]} x {expected.shape[0]}"
            )
        self._shows_what_is_up |= not np.array_equal(frame, frame[::-1, ::-1])
        self._next = next(self._key_frames, None)

    def check_finished(self) -> None:
        """Raise UnfaithfulError if key frames are left, or if none shows which way up the video is."""
        if self._next is not None or not self._shows_what_is_up:
            raise UnfaithfulError(f"the key frames of {self._facts.path} do not show whether decord's frames are right")


@contextmanager
def _decord_errors_are_unfaithful(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decord's own errors have no common base class
        raise UnfaithfulError(f"decord gave up on {path} ({type(error).__name__})") from error


@contextmanager
def _damage_reports_are_errors(path: Path) -> Iterator[None]:
    """Raise UnfaithfulError if FFmpeg reports damage on standard error: decord itself is silent about it."""
    with tempfile.TemporaryFile() as reports:
        # file descriptor 2, because FFmpeg does not write through `sys.stderr`
        stderr = os.dup(2)
        os.dup2(reports.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        reports.seek(0)
        if first := reports.readline(200).decode(errors="replace").strip():
            raise UnfaithfulError(f"decord met damage in {path}: {first}")


def _import_decord() -> Any:
    # decord reads this variable at import: how often it polls a slow decoder for the last frames before it gives up
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "65536")
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    return decord


def _check_complete(facts: VideoFacts, num_frames: int) -> None:
    """Raise an error if a file is damaged, or if it gave another number of frames than its packets announce."""
    if facts.damage and not facts.is_partial:
        raise VideoError(facts.failure)
    if num_frames != len(facts.times):
        raise UnfaithfulError(f"{facts.path} announces {len(facts.times)} frames, and {num_frames} come out of it")
