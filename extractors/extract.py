"""From videos to feature arrays, as a stream: memory does not grow with the videos.

For each reader another process decodes and a thread makes clips (`extractors.reading_threads`). The calling thread runs
the backbone on batches of them, which may hold clips of several videos. Only the features are kept, in an unnamed
temporary file for each video.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from .backbone import Backbone
from .batches import Pending
from .reader import Reader
from .reading import Reading, Task, Video
from .reading_threads import Clip, End, ReadingThreads
from .thumbnails import Thumbnail

CLIPS_AHEAD = 2
"""Clips of each reader that may wait for the backbone; one batch if that is more."""
MOST_READERS = 16
"""That are chosen by the number of cores."""

OnProgress = Callable[[Video, float, float], None]


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
    thumbnails: list[Thumbnail]
    """Small pictures in order of time if they were asked for."""


@dataclass(frozen=True)
class Finished:
    """A video that is extracted, or that cannot be."""

    video: Video
    facts: dict[str, Any]
    """What the video's `find_facts` returned."""
    outcome: Extraction | Exception

    def extraction(self) -> Extraction:
        """The extraction; an error is raised."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def extract(
    path: str | Path,
    backbone: Backbone,
    *,
    batch_clips: int | None = None,
    classify: bool = False,
    reader: Reader | None = None,
    on_progress: Callable[[float, float], None] | None = None,
    **how: Any,
) -> Extraction:
    """Extract the clip features of one video, or of a segment of it.

    Args:
        path: the video file, or a folder of numbered frames.
        backbone: from `load_backbone`.
        batch_clips: clips in one pass of the backbone; None for what suits the device.
        classify: also return the class probabilities of each clip.
        reader: reads the video; None for a new one that is closed afterwards.
        on_progress: called after each batch with the seconds of video that are done, and with those of the whole video.
        how: the other fields of `Video`.

    Raises:
        VideoError: the video cannot be used; the message gives the reason.
        ValueError: the decoder is unknown or not installed, `batch_clips` is less than 1, or the temporary folder, the
            shared memory or the GPU's memory is full.
    """

    def show(_: Video, done_s: float, total_s: float) -> None:
        if on_progress:
            on_progress(done_s, total_s)

    with ExitStack() as stack:
        readers = [reader or stack.enter_context(Reader())]
        run = extract_many(
            [Video(path, **how)],
            backbone,
            readers=readers,
            batch_clips=batch_clips,
            classify=classify,
            on_progress=show,
        )
        (finished,) = stack.enter_context(closing(run))
        return finished.extraction()


def suitable_readers(backbone: Backbone, cores: int | None = None) -> int:
    """Number of readers that suits a backbone: one beside a backbone on the CPU, else the cores but one, at most 16.

    Args:
        backbone: from `load_backbone`.
        cores: those that it may use; None for all that this process may use.
    """
    if backbone.device == "cpu":
        return 1
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores - 1, 1), MOST_READERS)


def extract_many(
    videos: Iterable[Video],
    backbone: Backbone,
    *,
    readers: Sequence[Reader],
    batch_clips: int | None = None,
    classify: bool = False,
    on_progress: OnProgress | None = None,
) -> Generator[Finished, None, None]:
    """Extract the clip features of many videos; clips of several of them share a batch.

    Args:
        videos: the next one is asked for when a reader is free, by its thread.
        backbone: from `load_backbone`.
        readers: each reads one video at a time, in a thread and a process of its own. Close them afterwards.
        batch_clips: clips in one pass of the backbone; None for what suits the device.
        classify: also return the class probabilities of each clip.
        on_progress: called after each batch for each video in it, with the seconds of the video that are done, and with
            those of the whole video.

    Yields:
        Each video, as soon as it is done or has failed. Close the generator to end sooner.

    Raises:
        ValueError: `batch_clips` is less than 1.
    """
    if batch_clips is None:
        batch_clips = backbone.batch_clips
    if batch_clips < 1:
        raise ValueError(f"batch-clips must be at least 1, not {batch_clips}")
    ahead = max(CLIPS_AHEAD * len(readers), batch_clips)
    with (
        closing(_Computing(backbone, batch_clips, classify, on_progress)) as computing,
        closing(ReadingThreads(videos, readers, backbone.recipe, ahead)) as threads,
    ):
        while not threads.are_done:
            item = threads.take(wait=not computing.has_work)
            if isinstance(item, Clip):
                yield from computing.add(item)
            elif isinstance(item, End):
                yield from computing.end(item)
            else:
                yield from computing.go_on()
        while computing.has_work:
            yield from computing.go_on()


class _Computing:
    """Makes batches of clips, runs the backbone on them and gives each video its features.

    A CPU computes a batch when it is full or a video ends, so that with one reader the batches are always the same. A
    GPU has up to two batches under way; one that is not full goes only when the GPU has nothing else to do.
    """

    def __init__(self, backbone: Backbone, batch_clips: int, classify: bool, on_progress: OnProgress | None) -> None:
        self._backbone, self._batch_clips, self._classify = backbone, batch_clips, classify
        self._on_progress = on_progress
        self._waiting: list[Clip] = []
        self._under_way: deque[tuple[list[Clip], Pending, float]] = deque()
        """With the seconds that starting them took."""
        self._outputs: dict[Task, _Output] = {}
        self._overlaps = backbone.batches_in_flight > 1

    @property
    def has_work(self) -> bool:
        """Whether `go_on` has something to do while no clip comes."""
        return bool(self._under_way) or (self._overlaps and bool(self._waiting))

    def add(self, clip: Clip) -> Iterator[Finished]:
        """Take a clip."""
        self._waiting.append(clip)
        if len(self._waiting) == self._batch_clips:
            yield from self._submit()

    def end(self, end: End) -> Iterator[Finished]:
        """Take the end of a video."""
        if not self._overlaps:
            yield from self._submit()
        if end.error is not None:
            yield from self._fail([end.task], end.error)
        else:
            yield from self._finish_if_complete(end.task)

    def go_on(self) -> Iterator[Finished]:
        """Wait for the oldest batch under way, or start one that is not full."""
        if self._under_way:
            yield from self._receive()
        else:
            yield from self._submit()

    def _submit(self) -> Iterator[Finished]:
        batch, self._waiting = [clip for clip in self._waiting if not clip.reading.is_void], []
        if not batch:
            return
        started = time.perf_counter()
        try:
            pending = self._backbone.submit([clip.pixels for clip in batch])
        except Exception as error:
            yield from self._fail(dict.fromkeys(clip.reading.task for clip in batch), error)
            return
        self._under_way.append((batch, pending, time.perf_counter() - started))
        while len(self._under_way) >= self._backbone.batches_in_flight:
            yield from self._receive()

    def _receive(self) -> Iterator[Finished]:
        batch, pending, seconds = self._under_way.popleft()
        started = time.perf_counter()
        try:
            features, probabilities = pending.result()
        except Exception as error:
            yield from self._fail(dict.fromkeys(clip.reading.task for clip in batch), error)
            return
        seconds += time.perf_counter() - started
        for reading, places in groupby(range(len(batch)), key=lambda place: batch[place].reading):
            if not reading.is_void:
                rows = list(places)
                yield from self._write(reading, features[rows], probabilities[rows], seconds * len(rows) / len(batch))

    def _write(
        self, reading: Reading, features: np.ndarray, probabilities: np.ndarray, seconds: float
    ) -> Iterator[Finished]:
        """Give clips of a video their features."""
        task = reading.task
        output = self._outputs.get(task)
        if output is not None and output.reading is not reading:  # an earlier one, which has failed
            output.close()
            output = None
        try:
            if output is None:
                output = self._outputs[task] = _Output(reading, self._backbone.feature_dim, self._classify)
            output.write(features, probabilities, seconds)
        except (OSError, ValueError) as error:
            yield from self._fail([task], error)
            return
        if self._on_progress:
            self._on_progress(task.video, *output.progress())
        yield from self._finish_if_complete(task)

    def _finish_if_complete(self, task: Task) -> Iterator[Finished]:
        output = self._outputs.get(task)
        if output is not None and output.is_complete:
            task.is_over = True
            del self._outputs[task]
            yield Finished(task.video, task.facts, output.extraction())

    def _fail(self, tasks: Iterable[Task], error: Exception) -> Iterator[Finished]:
        for task in tasks:
            if not task.is_over:
                task.is_over = True
                if task in self._outputs:
                    self._outputs.pop(task).close()
                yield Finished(task.video, task.facts, error)

    def close(self) -> None:
        """Drop what is not finished."""
        for output in self._outputs.values():
            output.close()


class _Output:
    """The features of a reading so far."""

    def __init__(self, reading: Reading, feature_dim: int, classify: bool) -> None:
        self.reading, self._seconds = reading, 0.0
        self._feature_dim, self._classify = feature_dim, classify
        self._num_done, self._num_clips = 0, len(reading.plan.selection.frames)
        self._probabilities: list[np.ndarray] = []
        # features are appended with `write` and mapped at the end: a mapped file on a full disk kills the process
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 `close` closes it

    def write(self, features: np.ndarray, probabilities: np.ndarray, seconds: float) -> None:
        """Append the features and probabilities of the next clips, which took the backbone these seconds."""
        try:
            self._file.write(features.tobytes())
            self._file.flush()
        except OSError as error:
            raise ValueError(
                f"{tempfile.gettempdir()} cannot hold the features of {self.reading.plan.facts.path} "
                f"({error.strerror}): make room there, or set TMPDIR to another folder"
            ) from error
        self._num_done += len(features)
        self._seconds += seconds
        if self._classify:
            self._probabilities.append(probabilities)

    def progress(self) -> tuple[float, float]:
        """Seconds of the video that are done, and those of the whole video."""
        plan = self.reading.plan
        done_s = float(plan.selection.clip_times[self._num_done - 1, 1])
        return done_s - plan.start_s, plan.end_s - plan.start_s

    @property
    def is_complete(self) -> bool:
        """Whether all is read and computed."""
        return self.reading.record is not None and self._num_done == self._num_clips

    def extraction(self) -> Extraction:
        """The features of the whole video."""
        reading = self.reading
        assert reading.record is not None, "it is complete"
        # "c": copy on write, so that a caller may change the array
        features = np.memmap(self._file, np.float32, "c", shape=(self._num_clips, self._feature_dim))
        self.close()
        seconds = {
            "read": reading.seconds,
            "backbone": self._seconds,
            "wall": time.perf_counter() - reading.task.started,
        }
        return Extraction(
            features=features,
            clip_times=reading.plan.selection.clip_times,
            probabilities=np.concatenate(self._probabilities) if self._classify else None,
            record={
                "decoder": reading.decoder,
                "decoder_reason": reading.decoder_reason,
                **reading.record,
                "stage_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            },
            thumbnails=reading.thumbnails,
        )

    def close(self) -> None:
        """Close the temporary file, which deletes it unless the features are mapped from it."""
        self._file.close()
