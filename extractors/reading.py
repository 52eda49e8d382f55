"""One video -> its clips, in the thread that reads it.

Another process decodes (`extractors.reader`). The thread resizes and crops the frames and makes whole clips of them.
Where the first reading fails and PyAV may succeed, PyAV reads the video once more.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from .approximations import frame_warnings, signal_warnings
from .clips import Selection
from .decoders import choose_decoder
from .plan import Plan, make_plan
from .reader import Reader, ReaderError
from .recipes import Recipe
from .shots import Shots
from .thumbnails import Thumbnail, ThumbnailTaker
from .video import TAKE_PART, BrokenError, UnfaithfulError, VideoError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Video:
    """A video to extract, and how it is read."""

    path: str | Path
    """The file, or a folder of numbered frames."""
    segment: tuple[float, float, str] | None = None
    """Start, end, and "seconds" or "frames" (`extractors.clips.frames_of_segment`); None for the whole video."""
    fps: float | None = None
    """Frames per second of a folder of numbered frames."""
    decoder: str = "auto"
    """"auto", "decord" or "pyav"."""
    allow_partial: bool = False
    """Extract the clips before the damage of a damaged video."""
    allow_gaps: bool = False
    """Take a pause in a video that otherwise keeps its pace as a still, not as damage."""
    deinterlace: bool = False
    """Interpolate the frames of an interlaced video, so that each shows one moment."""
    display_aspect: bool = False
    """Stretch frames whose pixels are not square, as a player does."""
    thumbnails: bool = False
    """Also take small pictures."""
    find_facts: Callable[[], dict[str, Any]] = dict
    """Called before the video is read, by the thread that reads it."""
    release: Callable[[], None] = lambda: None
    """Called by the same thread when it has read the video, or cannot."""


@dataclass(eq=False)
class Task:
    """A video on its way through the program."""

    video: Video
    started: float = field(default_factory=time.perf_counter)
    facts: dict[str, Any] = field(default_factory=dict)
    """What the video's `find_facts` has returned."""
    reading: "Reading | None" = None
    """The one that counts: an earlier one has failed."""
    is_over: bool = False


@dataclass(eq=False)
class Reading:
    """One reading of a video."""

    task: Task
    plan: Plan
    decoder: str
    decoder_reason: str
    seconds: float = 0.0
    """Spent on reading and preparing frames so far."""
    thumbnails: list[Thumbnail] = field(default_factory=list)
    """Small pictures in order of time if they were asked for, once all is read."""
    record: dict[str, Any] | None = None
    """What was read, ready for JSON; None until all is read."""

    @property
    def is_void(self) -> bool:
        """Whether nobody waits for its clips."""
        return self.task.is_over or self.task.reading is not self


def read_video(task: Task, reader: Reader, recipe: Recipe) -> Generator[tuple[Reading, Tensor], None, None]:
    """Read a video.

    Yields:
        Clips in order, each (F, H, W, 3) uint8, and the reading that made them. A second reading starts with the first
        clip.

    Raises:
        VideoError: the video cannot be used; the message gives the reason.
        ValueError: the decoder is unknown or not installed, or the shared memory is full.
    """
    video = task.video
    read = partial(_read, task, reader=reader, recipe=recipe)
    with _naming_the_remedy(video.allow_partial):
        probe = partial(
            reader.probe, video.path, allow_partial=video.allow_partial, allow_gaps=video.allow_gaps, fps=video.fps
        )
        plan = make_plan(probe(is_cut=video.segment is not None), recipe, video.segment)
        is_sought = plan.seek_times is not None
        name, reason = choose_decoder(
            plan.facts,
            video.decoder,
            recipe.colours,
            deinterlace=video.deinterlace,
            is_sought=is_sought,
            memory_bytes=reader.decoder_bytes,
        )
        try:
            yield from read(plan, name, reason)
        except VideoError as error:
            may_work_with_pyav = (
                isinstance(error, UnfaithfulError)
                or (isinstance(error, ReaderError) and name == "decord")
                or (isinstance(error, BrokenError) and video.allow_partial)
            )
            if may_work_with_pyav and video.decoder == "decord":
                raise type(error)(f"{error}; use --decoder auto") from error
            if not may_work_with_pyav:
                raise
            plan = make_plan(probe(by_decoding=True), recipe, video.segment)
            yield from read(replace(plan, seek_times=None), "pyav", f"the first reading failed: {error}")


@contextmanager
def _naming_the_remedy(allow_partial: bool) -> Iterator[None]:
    """Let a failure that --allow-partial would avoid say so."""
    try:
        yield
    except BrokenError as error:
        if allow_partial:
            raise
        raise BrokenError(f"{error}; {TAKE_PART}") from error


def _read(
    task: Task, plan: Plan, decoder: str, reason: str, *, reader: Reader, recipe: Recipe
) -> Iterator[tuple[Reading, Tensor]]:
    """Read the frames of a plan."""
    video, facts, selection = task.video, plan.facts, plan.selection
    task.reading = reading = Reading(task, plan, decoder, reason)
    pixel_aspect = facts.pixel_aspect if video.display_aspect else 1.0
    frames = reader.read_frames(
        facts,
        decoder,
        wanted=np.unique(selection.frames),
        seek_times=plan.seek_times,
        colours=recipe.colours,
        deinterlace=video.deinterlace,
    )
    shots = Shots()
    taker = ThumbnailTaker(selection.clip_times, facts.pixel_aspect) if video.thumbnails else None
    for clip in _timed(_make_clips(frames, selection, recipe, pixel_aspect, shots, taker), reading):
        yield reading, clip
    reading.thumbnails = taker.taken if taker else []
    reading.record = {
        "container": facts.to_json(),
        "frames_decoded": len(facts.times) if plan.seek_times is None else len(plan.seek_times),
        "clips": len(selection.frames),
        "duration_s": round(plan.end_s - plan.start_s, 3),
        **({"segment": plan.segment} if plan.segment else {}),
        "partial": facts.is_partial,
        "deinterlaced": video.deinterlace and facts.is_interlaced,
        "pixel_aspect": round(pixel_aspect, 4),
        "clip_grid_s": _grid(selection.clip_times),
        "cuts_s": shots.cuts_s,
        "stills_s": shots.stills_s,
        "concealed_frames": reader.concealed[0],
        "warnings": [
            *frame_warnings(facts, selection, recipe, *reader.concealed, pixel_aspect),
            *signal_warnings(facts, recipe, video.deinterlace, video.display_aspect),
        ],
    }


def _grid(clip_times: np.ndarray) -> list[float] | None:
    """Return start and length of the first clip and the step to the next one, if all clips (T, 2) follow from them."""
    start, end = clip_times[0]
    step = clip_times[1, 0] - start if len(clip_times) > 1 else end - start
    expected = clip_times[0] + step * np.arange(len(clip_times))[:, None]
    is_regular = np.allclose(clip_times, expected, rtol=0, atol=1e-3)
    return [round(float(x), 6) for x in (start, end - start, step)] if is_regular else None


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


def _timed(items: Iterator[T], reading: Reading) -> Generator[T, None, None]:
    """Yield the same items and add the time that making them takes to `reading.seconds`."""
    while True:
        before = time.perf_counter()
        item = next(items, None)
        reading.seconds += time.perf_counter() - before
        if item is None:
            return
        yield item
