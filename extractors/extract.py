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

from .backbone import Backbone
from .clips import Selection, select
from .decoders import choose_decoder
from .reader import Reader, ReaderError
from .recipes import Recipe
from .shots import Shots
from .thumbnails import Thumbnail, ThumbnailTaker
from .video import TAKE_GAPS, TAKE_PART, BrokenError, UnfaithfulError, VideoError, VideoFacts

T = TypeVar("T")

CLIPS_AHEAD = 2
"""Clips that may wait for the backbone; one batch if that is more."""
HDR_TRANSFERS = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
MISSING_WARNING_S = 0.1
"""A shorter end that is missing is not warned of."""


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
    """Extract the clip features of one video.

    Args:
        path: the video file.
        backbone: from `load_backbone`.
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
        probe = partial(reader.probe, path, allow_partial=allow_partial, allow_gaps=allow_gaps)
        facts, selection = _select_frames(probe(), backbone.recipe)
        name, reason = choose_decoder(facts, decoder, backbone.recipe.colours, deinterlace=deinterlace)
        try:
            extraction = run(facts, selection, name)
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
            facts, selection = _select_frames(probe(by_decoding=True), backbone.recipe)
            extraction = run(facts, selection, name)
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


def _select_frames(facts: VideoFacts, recipe: Recipe) -> tuple[VideoFacts, Selection]:
    """The frames that the clips need, and the facts without the times, which nothing needs afterwards."""
    if facts.damage and not facts.is_partial:
        raise VideoError(facts.failure)
    selection = select(facts.times, recipe.fps, recipe.clip_frames)
    if len(selection.frames) == 0:
        remedy = f"; {facts.remedy}" if facts.paused_s and facts.remedy == TAKE_GAPS else ""
        raise VideoError(
            f"{facts.path} is too short: it lasts {facts.duration_s:.2f} s, and one clip of the recipe {recipe.name} "
            f"takes {recipe.clip_s:.2f} s ({recipe.clip_frames} frames at {recipe.fps:g} per second){remedy}"
        )
    return facts.without_times(), selection


def _extract(
    facts: VideoFacts,
    selection: Selection,
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
    recipe = backbone.recipe
    seconds = {"read": 0.0, "backbone": 0.0}
    num_clips, num_done = len(selection.frames), 0
    probabilities = []
    pixel_aspect = facts.pixel_aspect if display_aspect else 1.0
    frames = reader.read_frames(
        facts, decoder, wanted=np.unique(selection.frames), colours=recipe.colours, deinterlace=deinterlace
    )
    shots = Shots()
    taker = ThumbnailTaker(selection, recipe, facts.pixel_aspect) if thumbnails else None
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
                    on_progress(float(selection.clip_times[num_done - 1, 1]), facts.duration_s)
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
            "frames_decoded": len(facts.times),
            "clips": len(selection.frames),
            "duration_s": round(facts.duration_s, 3),
            "partial": facts.is_partial,
            "deinterlaced": deinterlace and facts.is_interlaced,
            "pixel_aspect": round(pixel_aspect, 4),
            "first_clip_s": round(float(selection.clip_times[0, 0]), 3),
            "clip_s": round(recipe.clip_s, 6),
            "cuts_s": shots.cuts_s,
            "stills_s": shots.stills_s,
            "stage_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "concealed_frames": reader.concealed[0],
            "warnings": [
                *_warnings(facts, selection, recipe, *reader.concealed, pixel_aspect),
                *_signal_warnings(facts, recipe, deinterlace, display_aspect),
            ],
        },
        thumbnails=taker.taken if taker else [],
    )


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
    """The clips of a video in order, each (F, H, W, 3) uint8; `shots` and `taker` see every frame of them."""
    start_s, tick = float(selection.clip_times[0, 0]), 0
    with one_thread():
        # indices ascend and may repeat: `groupby` gives one group for each wanted frame, as often as it is shown
        for frame, (_, repetitions) in zip(frames, groupby(selection.frames.flat), strict=True):
            image = recipe.apply(frame, pixel_aspect)
            shots.see(image.numpy(), start_s + tick / recipe.fps)
            for _ in repetitions:
                place = tick % recipe.clip_frames
                if place == 0:  # one allocation per clip, because one per frame would fragment the heap
                    clip = torch.empty((recipe.clip_frames, *image.shape), dtype=torch.uint8)
                clip[place] = image
                if taker:
                    taker.show(frame, tick)
                tick += 1
                if place == recipe.clip_frames - 1:
                    yield clip
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


def _warnings(
    facts: VideoFacts,
    selection: Selection,
    recipe: Recipe,
    num_concealed: int,
    concealed_s: float,
    pixel_aspect: float = 1.0,
) -> list[str]:
    """Every approximation in the frames of a video and in their times, one sentence each."""
    warnings = []
    if facts.is_partial:
        warnings.append(f"only a part of the video was used (--allow-partial): {facts.damage}")
    elif (missing_s := facts.stated_end_s - facts.end_s) > MISSING_WARNING_S:
        warnings.append(f"the last {missing_s:.2f} s of the stated duration are missing")
    if selection.num_repeated:
        warnings.append(
            f"the video is slower than the recipe's {recipe.fps:g} frames per second: {selection.num_repeated} of "
            f"{selection.frames.size} frames repeat the one before"
        )
    if facts.paused_s and not facts.damage:
        warnings.append(f"the video pauses for {facts.paused_s:.2f} s: a pause is taken as a still (--allow-gaps)")
    if recipe.pads(facts.height, facts.width * pixel_aspect):
        warnings.append(f"the frame is narrower than the crop of {recipe.name}: black is added at its sides")
    if num_concealed:
        warnings.append(
            f"the decoder concealed damaged parts of {num_concealed} frames, the first at {concealed_s:.2f} s"
        )
    if facts.num_restarts:
        warnings.append(
            f"the file's timestamps restart {facts.num_restarts} times, as in joined recordings: each part is timed as "
            "following the one before"
        )
    if not facts.has_timestamps:
        warnings.append("the file has no timestamps: its frames are timed by the stated frame rate")
    return warnings


def _signal_warnings(facts: VideoFacts, recipe: Recipe, deinterlace: bool, display_aspect: bool) -> list[str]:
    """What a player does with the signal of a video and the features do not, or were asked to do, one sentence each."""
    warnings = []
    if facts.num_video_streams > 1:
        warnings.append(
            f"the file has {facts.num_video_streams} video streams: only the one of {facts.width} x {facts.height} is "
            "read, which players choose"
        )
    if facts.pixel_aspect != 1:
        shape = f"{facts.width} x {facts.height} frames have pixels of {facts.sample_aspect_ratio}"
        done = (
            "they are stretched to square ones (--display-aspect)"
            if display_aspect
            else "they are taken as square, as for the published features (--display-aspect stretches them)"
        )
        warnings.append(f"{shape}: {done}")
    if facts.is_interlaced:
        done = (
            "its frames are deinterlaced (--deinterlace)"
            if deinterlace
            else "a frame shows two moments in alternate lines (--deinterlace interpolates one)"
        )
        warnings.append(f"the video is interlaced: {done}")
    if facts.transfer in HDR_TRANSFERS:
        warnings.append(
            f"the video is HDR ({HDR_TRANSFERS[facts.transfer]}): it is taken as SDR, so colours are paler than shown"
        )
    if facts.matrix == "bt2020c" and recipe.colours == "tagged":
        warnings.append("the colours are BT.2020 of constant luminance: they are taken as of non-constant luminance")
    return warnings


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
