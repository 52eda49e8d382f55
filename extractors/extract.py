"""From one video to one feature array, as a stream: memory does not grow with the video.

Another process decodes (`extractors.reader`). A background thread resizes and crops the frames and puts whole clips
into a short queue. The calling thread runs the backbone on them. Only the features are kept, in an unnamed temporary
file.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from queue import Full, Queue
from typing import IO, Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from .approximations import frame_warnings, signal_warnings
from .backbone import Backbone
from .clips import Selection, frames_of_segment
from .decoders import choose_decoder
from .reader import Reader, ReaderError
from .recipes import RECIPES, Recipe
from .shots import Shots
from .thumbnails import Thumbnail, ThumbnailTaker
from .video import TAKE_GAPS, TAKE_PART, BrokenError, UnfaithfulError, VideoError, VideoFacts

T = TypeVar("T")

CLIPS_AHEAD = 2
"""Clips that may wait for the backbone; one batch if that is more."""

SEGMENT_ROUNDS_S = 0.5
"""How far the stated end of a segment in seconds may lie beyond the video, because people round it."""


@dataclass(frozen=True)
class Extraction:
    """The features of one video with T clips."""

    features: np.ndarray
    """(T, C) float32, mapped from a temporary file that is deleted with the array."""
    clip_times: np.ndarray
    """(T, 2) start and end of each clip, in seconds after the first frame."""
    probabilities: np.ndarray | None
    """(T, num_classes) float32 if classes were asked for."""
    record: dict[str, Any]
    """What was read, with which decoder, and how long it took, ready for JSON."""
    thumbnails: list[Thumbnail] = field(default_factory=list)
    """Small pictures in order of time if they were asked for."""


def extract(
    path: str | Path,
    backbone: Backbone,
    *,
    segment: tuple[float, float, str] | None = None,
    fps: float | None = None,
    decoder: str = "auto",
    batch_clips: int | None = None,
    classify: bool = False,
    thumbnails: bool = False,
    allow_partial: bool = False,
    allow_gaps: bool = False,
    deinterlace: bool = False,
    display_aspect: bool = False,
    reader: Reader | None = None,
    on_progress: Callable[[float, float], None] | None = None,
) -> Extraction:
    """Extract the clip features of one video, or of a segment of it.

    Args:
        path: the video file, or a folder of numbered frames.
        backbone: from `load_backbone`.
        segment: start, end, and "seconds" or "frames" (`extractors.clips.frames_of_segment`); None for the whole video.
        fps: frames per second of a folder of numbered frames.
        decoder: "auto", "decord" or "pyav".
        batch_clips: clips in one pass of the backbone; None for 1 on a CPU and 8 on a GPU.
        classify: also return the class probabilities of each clip.
        thumbnails: also return small pictures of the video.
        allow_partial: extract the clips before the damage of a damaged video.
        allow_gaps: take a pause in a video that otherwise keeps its pace as a still, not as damage.
        deinterlace: interpolate the frames of an interlaced video, so that each shows one moment.
        display_aspect: stretch frames whose pixels are not square, as a player does.
        reader: reads the video; None for a new one that is closed afterwards.
        on_progress: called after each batch with the seconds of video that are done, and with those of the whole video.

    Raises:
        VideoError: the video cannot be used; the message gives the reason.
        ValueError: the decoder is unknown or not installed, `batch_clips` is less than 1, or the temporary folder or
            the shared memory is full.
    """
    if batch_clips is None:
        batch_clips = 8 if backbone.device.startswith("cuda") else 1
    if batch_clips < 1:
        raise ValueError(f"batch-clips must be at least 1, not {batch_clips}")
    started = time.perf_counter()
    with ExitStack() as stack, _naming_the_remedy(allow_partial):
        reader = reader or stack.enter_context(Reader())
        run = partial(
            _extract,
            backbone=backbone,
            reader=reader,
            batch_clips=batch_clips,
            classify=classify,
            thumbnails=thumbnails,
            deinterlace=deinterlace,
            display_aspect=display_aspect,
            on_progress=on_progress,
        )
        probe = partial(reader.probe, path, allow_partial=allow_partial, allow_gaps=allow_gaps, fps=fps)
        plan = _plan(probe(is_cut=segment is not None), backbone.recipe, segment)
        name, reason = choose_decoder(
            plan.facts,
            decoder,
            backbone.recipe.colours,
            deinterlace=deinterlace,
            is_sought=plan.seek_times is not None,
        )
        try:
            extraction = run(plan, name)
        except VideoError as error:
            may_work_with_pyav = (
                isinstance(error, UnfaithfulError)
                or (isinstance(error, ReaderError) and name == "decord")
                or (isinstance(error, BrokenError) and allow_partial)
            )
            if may_work_with_pyav and decoder == "decord":
                raise type(error)(f"{error}; use --decoder auto") from error
            if not may_work_with_pyav:
                raise
            name, reason = "pyav", f"the first reading failed: {error}"
            plan = _plan(probe(by_decoding=True), backbone.recipe, segment)
            extraction = run(replace(plan, seek_times=None), name)
    extraction.record["stage_seconds"]["wall"] = round(time.perf_counter() - started, 3)
    return replace(extraction, record={"decoder": name, "decoder_reason": reason} | extraction.record)


@contextmanager
def _naming_the_remedy(allow_partial: bool) -> Iterator[None]:
    """Let a failure that --allow-partial would avoid say so."""
    try:
        yield
    except BrokenError as error:
        if allow_partial:
            raise
        raise BrokenError(f"{error}; {TAKE_PART}") from error


@dataclass(frozen=True)
class _Plan:
    """What is read of a file."""

    facts: VideoFacts
    """Without the times, which nothing needs afterwards."""
    selection: Selection
    start_s: float
    """Where the clips or the segment start, whichever is first, in seconds after the first frame."""
    end_s: float
    """End of the segment, or of the video."""
    segment: dict[str, Any] | None
    """For the record of a segment: start, end, unit, and the first and last frame of its clips."""
    seek_times: np.ndarray | None
    """Seconds at which the frames from the first selected one to the last one are shown, if they are sought."""


def _plan(facts: VideoFacts, recipe: Recipe, segment: tuple[float, float, str] | None) -> _Plan:
    """Choose the frames that the clips need."""
    if facts.damage and not facts.is_partial:
        raise VideoError(facts.failure)
    part = _part(facts, segment)
    selection = recipe.select(facts.times, part)
    start_s = float(facts.times[part[0]] - facts.times[0])
    end_s = float((facts.times[part[1]] if part[1] < len(facts.times) else facts.end_s) - facts.times[0])
    if len(selection.frames) == 0:
        remedy = f"; {facts.remedy}" if facts.paused_s and facts.remedy == TAKE_GAPS else ""
        fitting = [other.name for other in RECIPES.values() if len(other.select(facts.times, part).frames)]
        raise VideoError(
            f"{_describe(facts, segment)} is too short: it lasts {end_s - start_s:.2f} s, and one clip of the recipe "
            f"{recipe.name} takes {recipe.timeline}{remedy}; "
            + (f"recipes that fit are {', '.join(fitting)} (--recipe)" if fitting else "no recipe fits it")
        )
    first, last = int(selection.frames[0, 0]), int(selection.frames[-1, -1])
    can_seek = segment is not None and facts.has_timestamps and not (facts.num_restarts or facts.is_partial)
    return _Plan(
        facts.without_times(),
        selection,
        min(start_s, float(selection.clip_times[0, 0])),
        end_s,
        segment and dict(zip(("start", "end", "unit"), segment, strict=True), first_frame=first, last_frame=last),
        facts.times[first : last + 1].copy() if can_seek else None,
    )


def _part(facts: VideoFacts, segment: tuple[float, float, str] | None) -> tuple[int, int]:
    """The first frame of a segment, and that after its last one."""
    if segment is None:
        return 0, len(facts.times)
    first, last = frames_of_segment(facts.times, segment)
    is_beyond = last > len(facts.times) or (
        segment[2] == "seconds" and segment[1] > facts.duration_s + SEGMENT_ROUNDS_S
    )
    if is_beyond or first >= last:
        raise VideoError(
            f"{_describe(facts, segment)} {'ends after the video' if is_beyond else 'holds no frame'}: the video has "
            f"{len(facts.times)} frames in {facts.duration_s:.2f} s; correct its start and end"
        )
    return first, last


def _describe(facts: VideoFacts, segment: tuple[float, float, str] | None) -> str:
    """The file, or a segment of it, for messages."""
    if segment is None:
        return str(facts.path)
    start, end, unit = segment
    return f"the segment {start:.10g} to {end:.10g} {unit} of {facts.path}"


def _extract(
    plan: _Plan,
    decoder: str,
    *,
    backbone: Backbone,
    reader: Reader,
    batch_clips: int,
    classify: bool,
    thumbnails: bool,
    deinterlace: bool,
    display_aspect: bool,
    on_progress: Callable[[float, float], None] | None,
) -> Extraction:
    """Read the selected frames and run the backbone on their clips."""
    facts, selection = plan.facts, plan.selection
    recipe = backbone.recipe
    seconds = {"read": 0.0, "backbone": 0.0}
    num_clips, num_done = len(selection.frames), 0
    probabilities = []
    pixel_aspect = facts.pixel_aspect if display_aspect else 1.0
    frames = reader.read_frames(
        facts,
        decoder,
        wanted=np.unique(selection.frames),
        seek_times=plan.seek_times,
        colours=recipe.colours,
        deinterlace=deinterlace,
    )
    shots = Shots()
    taker = ThumbnailTaker(selection.clip_times, facts.pixel_aspect) if thumbnails else None
    clips = _timed(_make_clips(frames, selection, recipe, pixel_aspect, shots, taker), seconds, "read")
    with (
        closing(in_background(clips, ahead=max(CLIPS_AHEAD, batch_clips))) as ready,
        # features are appended with `write` and mapped at the end: a mapped file on a full disk kills the process
        tempfile.TemporaryFile() as file,
    ):
        try:
            while batch := list(islice(ready, batch_clips)):
                before = time.perf_counter()
                batch_features, batch_probabilities = backbone.features_and_classes(torch.stack(batch))
                seconds["backbone"] += time.perf_counter() - before
                _write(batch_features, file, facts.path)
                num_done += len(batch)
                if classify:
                    probabilities.append(batch_probabilities)
                if on_progress:
                    done_s = float(selection.clip_times[num_done - 1, 1])
                    on_progress(done_s - plan.start_s, plan.end_s - plan.start_s)
        except BaseException:
            reader.abandon()  # else `closing` waits until the thread has its next frame
            raise
        assert num_done == num_clips
        # "c": copy on write, so that a caller may change the array
        features = np.memmap(file, np.float32, "c", shape=(num_clips, backbone.feature_dim))
    return Extraction(
        features=features,
        clip_times=selection.clip_times,
        probabilities=np.concatenate(probabilities) if classify else None,
        record={
            "container": facts.to_json(),
            "frames_decoded": len(facts.times) if plan.seek_times is None else len(plan.seek_times),
            "clips": len(selection.frames),
            "duration_s": round(plan.end_s - plan.start_s, 3),
            **({"segment": plan.segment} if plan.segment else {}),
            "partial": facts.is_partial,
            "deinterlaced": deinterlace and facts.is_interlaced,
            "pixel_aspect": round(pixel_aspect, 4),
            "clip_grid_s": _grid(selection.clip_times),
            "cuts_s": shots.cuts_s,
            "stills_s": shots.stills_s,
            "stage_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "concealed_frames": reader.concealed[0],
            "warnings": [
                *frame_warnings(facts, selection, recipe, *reader.concealed, pixel_aspect),
                *signal_warnings(facts, recipe, deinterlace, display_aspect),
            ],
        },
        thumbnails=taker.taken if taker else [],
    )


def _grid(clip_times: np.ndarray) -> list[float] | None:
    """Return start and length of the first clip and the step to the next one, if all clips (T, 2) follow from them."""
    start, end = clip_times[0]
    step = clip_times[1, 0] - start if len(clip_times) > 1 else end - start
    expected = clip_times[0] + step * np.arange(len(clip_times))[:, None]
    is_regular = np.allclose(clip_times, expected, rtol=0, atol=1e-3)
    return [round(float(x), 6) for x in (start, end - start, step)] if is_regular else None


def _write(features: np.ndarray, file: IO[bytes], path: Path) -> None:
    """Append features to the temporary file of the video `path`."""
    try:
        file.write(features.tobytes())
        file.flush()
    except OSError as error:
        raise ValueError(
            f"{tempfile.gettempdir()} cannot hold the features of {path} ({error.strerror}): make room there, or set "
            "TMPDIR to another folder"
        ) from error


def _make_clips(
    frames: Iterator[np.ndarray],
    selection: Selection,
    recipe: Recipe,
    pixel_aspect: float,
    shots: Shots,
    taker: ThumbnailTaker | None,
) -> Iterator[Tensor]:
    """The clips of a video in order, each (F, H, W, 3) uint8; `shots` and `taker` see every frame of them once.

    Every frame is prepared once: what a clip shares with the one before is copied from there.
    """
    newest = -1  # the last frame that was read
    before, before_shows = torch.empty(0), np.empty(0, np.int32)
    with one_thread():
        # `shows`: (F,) ascending, with repetitions
        for shows, (start_s, end_s) in zip(selection.frames, selection.clip_times, strict=True):
            clip = torch.empty((recipe.clip_frames, *recipe.size, 3), dtype=torch.uint8)
            num_filled = int(np.searchsorted(shows, newest, side="right"))
            if num_filled:
                clip[:num_filled] = before[np.searchsorted(before_shows, shows[:num_filled])]
            for _, repetitions in groupby(shows[num_filled:]):
                frame, num_shown = next(frames), len(list(repetitions))
                image = recipe.apply(frame, pixel_aspect)
                time_s = float(start_s + num_filled * (end_s - start_s) / recipe.clip_frames)
                shots.see(image.numpy(), time_s)
                if taker:
                    taker.show(frame, time_s)
                clip[num_filled : num_filled + num_shown] = image
                num_filled += num_shown
            newest, before, before_shows = shows[-1], clip, shows
            yield clip
        assert next(frames, None) is None, "no other frames were asked for"
    shots.end()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use a single thread in the calling thread.

    The calling thread prepares frames while another one runs the backbone. With several threads each, they would wait
    for each other. `torch.set_num_threads` would change the number also for threads that use torch for the first time
    meanwhile, so OpenMP, whose threads torch uses, is told instead.
    """
    torch.get_num_threads()  # the first use sets this thread's number, which would undo the limit
    with threadpool_limits(1, user_api="openmp"):
        yield


def _timed(items: Iterator[T], seconds: dict[str, float], stage: str) -> Generator[T, None, None]:
    """Yield the same items and add the time that making them takes to `seconds[stage]`."""
    while True:
        before = time.perf_counter()
        item = next(items, None)
        seconds[stage] += time.perf_counter() - before
        if item is None:
            return
        yield item


def in_background(items: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """Yield the same items, made in a background thread; at most `ahead` of them wait for the consumer.

    An exception in the thread is raised here. Closing this iterator stops the thread.
    """
    queue: Queue[T | BaseException | None] = Queue(ahead)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not stopped.is_set():  # a put without a timeout would wait for a consumer that is gone
            with suppress(Full):
                return queue.put(item, timeout=0.05)

    def work() -> None:
        try:
            with closing(items):  # here, because it may hold settings of this thread
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
