"""How the frames of a video are read: with decord or with PyAV, which give the same frames.

decord is faster, but it has two faults. Past the last decodable frame it repeats that frame without an error, and it
decodes ahead of a slow consumer without bound. So decord reads only files where a repeated frame is noticed and all
decoded frames fit into `DECORD_MAX_BYTES`; PyAV reads all others.

Frames come with their times, in display order and upright. `extractors.video` explains why torch is not imported here.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .video import Limits, UnfaithfulError, VideoError, VideoFacts, decode_frames, open_video, probe

DECODERS = ("auto", "decord", "pyav")

DECORD_MAX_BYTES = 256 * 2**20
"""Largest decoded video that decord may read, because decord may hold all of it in memory at once."""

COLOURS = ("tagged", "bt601")
"""How YUV becomes RGB: by the colour space that the file states, or always by BT.601."""


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


def choose_decoder(facts: VideoFacts, decoder: str = "auto", colours: str = "tagged") -> tuple[str, str]:
    """Choose the decoder of a file.

    Args:
        facts: from `probe`.
        decoder: one of `DECODERS`.
        colours: one of `COLOURS`.

    Returns:
        "decord" or "pyav", and the reason.

    Raises:
        VideoError: decord is asked for, but it would not give the right frames or might need too much memory.
        ValueError: the decoder is unknown, or decord is asked for and not installed.
    """
    check_decoder(decoder)
    if decoder == "pyav":
        return "pyav", "it was asked for"
    if not _has_decord():
        return "pyav", "decord is not installed"
    obstacle = _decord_obstacle(facts, colours)
    if decoder == "decord":
        if obstacle:
            raise VideoError(f"decord cannot read {facts.path}: {obstacle}; use --decoder auto")
        return "decord", "it was asked for"
    return ("pyav", obstacle) if obstacle else ("decord", "decord is faithful on this kind of file")


def _decord_obstacle(facts: VideoFacts, colours: str) -> str | None:
    """Why decord must not read a file; None if it may."""
    if colours != "tagged":
        return f"decord cannot read colours as {colours}, which the recipe asks for"
    if facts.codec not in ("h264", "hevc") or facts.pixel_format not in ("yuv420p", "yuvj420p"):
        return f"decord is faithful on 8-bit 4:2:0 H.264 and HEVC only, this is {facts.codec} {facts.pixel_format}"
    if facts.width % 2 or facts.height % 2:
        return f"decord is faithful on even sizes only, this is {facts.width} x {facts.height}"
    if not {"mp4", "matroska"} & set(facts.container.split(",")):
        return f"decord is faithful on MP4 and Matroska only, this is {facts.container}"
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
    colours: str = "tagged",
    limits: Limits = Limits(),
    heartbeat: Callable[[], object] = lambda: None,
    on_concealed: Callable[[float], object] = lambda time_s: None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Read a video's frames.

    Args:
        video: the file, or its facts from `probe`.
        decoder: one of `DECODERS`.
        wanted: the frames to yield, as ascending indices or as (N,) bool; all if None. The file is read to its end in
            any case, so that damage is noticed.
        colours: one of `COLOURS`.
        limits: how large the frames may be.
        heartbeat: called with every frame, wanted or not.
        on_concealed: called for every frame in which FFmpeg concealed damage, with its seconds after the first frame.

    Yields:
        Time of presentation in seconds, and (H, W, 3) uint8 RGB.

    Raises:
        BrokenError: decoding breaks off; the frames before are yielded first.
        VideoError: the file cannot be read, or it is damaged and `probe` was called without `allow_partial`.
        UnfaithfulError: the number of frames is not the one that the packets announce, or decord reports damage.
    """
    facts = video if isinstance(video, VideoFacts) else probe(video, limits, heartbeat=heartbeat)
    name, _ = choose_decoder(facts, decoder, colours)
    is_wanted = np.zeros(len(facts.times), bool)
    is_wanted[slice(None) if wanted is None else wanted] = True
    if name == "decord":
        frames = _decord_frames(facts, is_wanted, limits, heartbeat)
    else:
        frames = _pyav_frames(facts, is_wanted, colours, limits, heartbeat, on_concealed)
    for index, frame in frames:
        yield float(facts.times[index]), frame


def _pyav_frames(
    facts: VideoFacts,
    is_wanted: np.ndarray,
    colours: str,
    limits: Limits,
    heartbeat: Callable[[], object],
    on_concealed: Callable[[float], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices, read with PyAV."""
    index, start_s = -1, 0.0
    # the same matrix twice makes FFmpeg ignore the file's tag, as the OpenCV of the published features did
    matrix = {"src_colorspace": "ITU601", "dst_colorspace": "ITU601"} if colours == "bt601" else {}
    with open_video(facts.path, limits, one_thread=facts.is_partial) as (container, stream):
        for index, frame in enumerate(decode_frames(facts.path, container, stream, heartbeat)):
            start_s = start_s if index else frame.time or 0.0
            if frame.is_corrupt:
                on_concealed((frame.time or 0.0) - start_s)
            if index < len(is_wanted) and is_wanted[index]:
                image = frame.reformat(format="rgb24", **matrix).to_ndarray()
                yield index, np.rot90(image, facts.rotation // 90)  # unlike decord, PyAV does not rotate
            if facts.is_partial and index + 1 == len(is_wanted):  # the damage comes next
                return
    _check_complete(facts, index + 1)


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
        _check_complete(facts, len(reader))
        before = last = np.empty(0)
        for index in range(len(reader)):
            with _decord_errors_are_unfaithful(facts.path):
                before, last = last, reader.next().asnumpy()
            heartbeat()
            if is_wanted[index]:
                yield index, last
    # the last two frames are equal: a still picture, or a repeated frame in place of a missing one; PyAV counts them
    if np.array_equal(before, last):
        with open_video(facts.path, limits) as (container, stream):
            _check_complete(facts, sum(1 for _ in decode_frames(facts.path, container, stream, heartbeat)))


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
        raise VideoError(facts.damage)
    if num_frames != len(facts.times):
        raise UnfaithfulError(f"{facts.path} announces {len(facts.times)} frames, and {num_frames} come out of it")
