"""One video in, one feature array out, as a stream: memory does not grow with the video.

Another process decodes (`extractors.reader`). A background thread takes the frames wanted from it, resizes and crops
them, and hands over whole clips through a short queue, while this thread runs the backbone on them. Only the features
are kept, and those in a file without a name.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from queue import Full, Queue
from typing import IO, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .backbone import Backbone
from .clips import Selection, select
from .reader import Reader, ReaderError
from .recipes import Recipe
from .video import BrokenError, UnfaithfulError, VideoError, VideoFacts, choose_decoder

T = TypeVar("T")

CLIPS_AHEAD = 2
"""Clips that may wait for the backbone, or a batch of them if that is more."""
WORTH_SAYING_S = 0.1
"""A shorter time missing at a video's end is not spoken of."""


@dataclass(frozen=True)
class Extraction:
    """What a backbone saw in one video, T clips."""

    features: np.ndarray
    """(T, C) float32; its memory is a file's, which is gone when the array is."""
    clip_times: np.ndarray
    """(T, 2) start and end of each clip, in seconds after the first frame."""
    probabilities: np.ndarray | None
    """(T, classes) float32 if classes were asked for."""
    record: dict[str, Any]
    """What was read, by whom and how long it took, ready for JSON."""


def extract(
    path: str | Path,
    backbone: Backbone,
    *,
    decoder: str = "auto",
    batch_clips: int | None = None,
    classify: bool = False,
    allow_partial: bool = False,
    reader: Reader | None = None,
    on_progress: Callable[[float, float], None] | None = None,
) -> Extraction:
    """Extract the clip features of one video.

    Args:
        path: The video file.
        backbone: From `load_backbone`.
        decoder: "auto", "decord" or "pyav".
        batch_clips: Clips in one pass of the backbone; 1 on a CPU and 8 on a GPU if None.
        classify: Also return the class probabilities of each clip.
        allow_partial: Of a damaged video, extract the clips before it breaks off.
        reader: Reads the video; one for this video alone if None.
        on_progress: Called after each batch with the seconds of video done and in all.

    Raises:
        VideoError: The video cannot be used; the message says why.
        ValueError: The decoder is unknown or not installed, or `batch_clips` is less than 1.
    """
    if batch_clips is None:
        batch_clips = 8 if backbone.device.startswith("cuda") else 1
    if batch_clips < 1:
        raise ValueError(f"At least 1 clip goes into a batch, not {batch_clips}.")
    started = time.perf_counter()
    with ExitStack() as stack:
        reader = reader or stack.enter_context(Reader())
        facts, selection = _plan(reader.probe(path, allow_partial=allow_partial), backbone.recipe)
        name, reason = choose_decoder(facts, decoder, backbone.recipe.colours)
        try:
            extraction = _extract(facts, selection, name, backbone, reader, batch_clips, classify, on_progress)
        except VideoError as error:
            another_way = (
                isinstance(error, UnfaithfulError)
                or (isinstance(error, ReaderError) and name == "decord")
                or (isinstance(error, BrokenError) and allow_partial)
            )
            if decoder == "decord" or not another_way:
                raise
            name, reason = "pyav", f"the first reading failed: {error}"
            facts, selection = _plan(reader.probe(path, by_decoding=True, allow_partial=allow_partial), backbone.recipe)
            extraction = _extract(facts, selection, name, backbone, reader, batch_clips, classify, on_progress)
    extraction.record["stage_seconds"]["wall"] = round(time.perf_counter() - started, 3)
    return replace(extraction, record={"decoder": name, "decoder_reason": reason} | extraction.record)


def _plan(facts: VideoFacts, recipe: Recipe) -> tuple[VideoFacts, Selection]:
    """What to read of a video, and its facts without the times, which nothing asks for after this."""
    if facts.damage and not facts.is_partial:
        raise VideoError(facts.damage)
    selection = select(facts.times, recipe.fps, recipe.clip_frames)
    if len(selection.frames) == 0:
        raise VideoError(
            f"{facts.path} is too short: it lasts {facts.duration_s:.2f} s, and one clip of the recipe {recipe.name} "
            f"takes {recipe.clip_s:.2f} s ({recipe.clip_frames} frames at {recipe.fps:g} a second)."
        )
    return facts.without_times(), selection


def _extract(
    facts: VideoFacts,
    selection: Selection,
    decoder: str,
    backbone: Backbone,
    reader: Reader,
    batch_clips: int,
    classify: bool,
    on_progress: Callable[[float, float], None] | None,
) -> Extraction:
    recipe = backbone.recipe
    torch.get_num_threads()  # which makes this thread's number its own; see `one_thread`
    seconds = {"read": 0.0, "backbone": 0.0}
    num_clips, num_done = len(selection.frames), 0
    probabilities = []
    clips = _timed(_read_clips(facts, decoder, selection, recipe, reader), seconds, "read")
    with (
        closing(in_background(clips, ahead=max(CLIPS_AHEAD, batch_clips))) as ready,
        tempfile.TemporaryFile() as file,  # a mapped array from the start would crash the run on a full disk
    ):
        try:
            while batch := list(islice(ready, batch_clips)):
                before = time.perf_counter()
                batch_features, batch_probabilities = backbone.features_and_classes(torch.stack(batch))
                seconds["backbone"] += time.perf_counter() - before
                _keep(batch_features, file, facts.path)
                num_done += len(batch)
                if classify:
                    probabilities.append(batch_probabilities)
                if on_progress:
                    on_progress(float(selection.clip_times[num_done - 1, 1]), facts.duration_s)
        except BaseException:
            reader.abandon()  # or the thread would be waited for until it has its next frame
            raise
        assert num_done == num_clips
        features = np.memmap(file, np.float32, "c", shape=(num_clips, backbone.feature_dim))
    return Extraction(
        features=features,
        clip_times=selection.clip_times,
        probabilities=np.concatenate(probabilities) if classify else None,
        record={
            "container": facts.to_json(),
            "frames_decoded": len(facts.times),
            "clips": len(selection.frames),
            "duration_s": round(facts.duration_s, 3),
            "partial": facts.is_partial,
            "stage_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "concealed_frames": reader.concealed[0],
            "warnings": _warnings(facts, selection, recipe, *reader.concealed),
        },
    )


def _keep(features: np.ndarray, file: IO[bytes], path: Path) -> None:
    try:
        file.write(features.tobytes())
        file.flush()
    except OSError as error:
        raise ValueError(
            f"{tempfile.gettempdir()} cannot hold the features of {path} ({error.strerror}): make room there, or name "
            "another folder in TMPDIR."
        ) from error


def _read_clips(
    facts: VideoFacts, decoder: str, selection: Selection, recipe: Recipe, reader: Reader
) -> Iterator[Tensor]:
    """The clips of a video one after the other, (F, H, W, 3) uint8."""
    num_filled = 0
    frames = reader.read_frames(facts, decoder, wanted=np.unique(selection.frames), colours=recipe.colours)
    with one_thread():
        for frame, (_, times_shown) in zip(frames, groupby(selection.frames.flat), strict=True):
            image = recipe.apply(frame)
            for _ in times_shown:
                if num_filled == 0:  # a whole clip at once: frames kept singly would leave the heap full of holes
                    clip = torch.empty((recipe.clip_frames, *image.shape), dtype=torch.uint8)
                clip[num_filled] = image
                num_filled = (num_filled + 1) % recipe.clip_frames
                if num_filled == 0:
                    yield clip


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread in this one, which runs beside the backbone's: they would wait for each other.

    Threads that first use torch meanwhile get one, too; `_extract` has asked before, so that its own is not among them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _warnings(
    facts: VideoFacts, selection: Selection, recipe: Recipe, num_concealed: int, concealed_s: float
) -> list[str]:
    warnings = []
    if facts.is_partial:
        warnings.append(f"only a part of it was used (--allow-partial): {facts.damage}")
    elif (missing_s := facts.stated_end_s - facts.end_s) > WORTH_SAYING_S:
        warnings.append(f"the last {missing_s:.2f} s that the file states are not in it")
    if selection.num_repeated:
        warnings.append(
            f"the video is slower than the recipe's {recipe.fps:g} frames a second: {selection.num_repeated} of "
            f"{selection.frames.size} frames repeat the one before"
        )
    if recipe.pads(facts.height, facts.width):
        warnings.append(f"the frame is narrower than the crop of {recipe.name}: black is added at its sides")
    if num_concealed:
        warnings.append(
            f"parts of {num_concealed} frames are damaged and were made up by the decoder, first at {concealed_s:.2f} s"
        )
    if facts.num_restarts:
        warnings.append(
            f"the file's timestamps start again {facts.num_restarts} times, as if recordings had been joined: they are "
            "taken to follow each other"
        )
    if not facts.has_timestamps:
        warnings.append("the file has no timestamps: its frames are timed by the rate it states")
    return warnings


def _timed(items: Iterator[T], seconds: dict[str, float], stage: str) -> Iterator[T]:
    """The same items; the time it takes to make them is added to a stage's."""
    while True:
        before = time.perf_counter()
        item = next(items, None)
        seconds[stage] += time.perf_counter() - before
        if item is None:
            return
        yield item


def in_background(items: Iterator[T], ahead: int) -> Generator[T, None, None]:
    """The same items, made in a thread, where at most `ahead` of them wait for the consumer.

    What the thread raises is raised here; closing this iterator stops the thread.
    """
    queue: Queue[T | BaseException | None] = Queue(ahead)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(Full):
                return queue.put(item, timeout=0.05)

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="read-clips", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
