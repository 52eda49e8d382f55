"""How the frames of a video are read: with decord or with PyAV, which give the same frames.

`choose_decoder` says which of them reads a file, and `read_frames` reads it. Frames come with their times, in display
order and upright. `extractors.video` explains why torch is not imported here.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from . import probing
from .decord_reading import read_with_decord
from .frame_folders import CONTAINER, probe_frames, read_frame_folder
from .memory import DECODER_BYTES
from .pyav_reading import UNREADABLE_MATRICES, read_with_pyav
from .video import Limits, VideoError, VideoFacts

DECODERS = ("auto", "decord", "pyav")

FASTER_PIXELS = 854 * 480
"""Frames up to which one reader is faster with decord: it turns large frames into RGB slowly (benchmarks/README.md)."""

COLOURS = ("tagged", "bt601")
"""How YUV becomes RGB: by the colour space that the file states, or always by BT.601."""


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
        options: the others of `extractors.probing.probe`, which have no meaning for a folder.

    Raises:
        VideoError: as in `extractors.probing.probe` and `extractors.frame_folders.probe_frames`.
    """
    path = Path(path)
    if path.is_dir():
        return probe_frames(path, limits, fps, heartbeat)
    return probing.probe(path, limits, heartbeat=heartbeat, **options)


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
    memory_bytes: int = DECODER_BYTES,
) -> tuple[str, str]:
    """Choose the decoder of a file.

    Args:
        facts: from `probe`.
        decoder: one of `DECODERS`.
        colours: one of `COLOURS`.
        deinterlace: whether interlaced frames are deinterlaced.
        is_sought: whether a part is read from the middle of the file.
        memory_bytes: how much decord may decode at once.

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
    obstacle = (
        "decord reads files from their start"
        if is_sought
        else _decord_obstacle(facts, colours, deinterlace) or _memory_obstacle(facts, memory_bytes)
    )
    if decoder == "decord":
        if obstacle:
            raise VideoError(f"decord cannot read {facts.path}: {obstacle}; use --decoder auto")
        return "decord", "it was asked for"
    if obstacle is None and facts.width * facts.height > FASTER_PIXELS:
        obstacle = f"decord is slower than PyAV on frames of {facts.width} x {facts.height}"
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
    if facts.is_mirrored:
        return "decord does not mirror frames"
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
    if not facts.longest_run:
        return "the file's packets do not show its frames"
    return None


def _memory_obstacle(facts: VideoFacts, memory_bytes: int) -> str | None:
    """Why decord would need too much memory; None if it would not."""
    needed_bytes = facts.longest_run * facts.frame_bytes
    if needed_bytes <= memory_bytes:
        return None
    return (
        f"decord decodes up to {facts.longest_run} frames at once, from one key frame to the next, which take "
        f"{needed_bytes / 2**20:.0f} MiB, and {memory_bytes / 2**20:.0f} MiB are allowed (--decoder-memory)"
    )


def read_frames(
    video: str | Path | VideoFacts,
    decoder: str = "auto",
    *,
    wanted: np.ndarray | None = None,
    seek_times: np.ndarray | None = None,
    colours: str = "tagged",
    deinterlace: bool = False,
    memory_bytes: int = DECODER_BYTES,
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
        memory_bytes: how much decord may decode at once.
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
    elif (
        seek_times is None
        and choose_decoder(facts, decoder, colours, deinterlace=deinterlace, memory_bytes=memory_bytes)[0] == "decord"
    ):
        frames = read_with_decord(facts, is_wanted, memory_bytes, limits, heartbeat)
    else:
        frames = read_with_pyav(facts, is_wanted, seek_times, colours, deinterlace, limits, heartbeat, on_concealed)
    for index, frame in frames:
        yield float(facts.times[index]), frame
