"""Threads that read videos ahead of the backbone, each with a reader of its own, into one short queue."""

import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

from torch import Tensor

from .reader import Reader, ReaderError
from .reading import Reading, Task, Video, read_video
from .recipes import Recipe

logger = logging.getLogger(__name__)

READINGS = 3
"""How many times a video is read that ends the process which reads it: a new process may do better."""
POLL_S = 0.05
"""How often a thread that waits for room in the queue looks whether it is to stop."""


@dataclass(frozen=True)
class Clip:
    """A clip that waits for the backbone."""

    reading: Reading
    pixels: Tensor
    """(F, H, W, 3) uint8."""


@dataclass(frozen=True)
class End:
    """A video is read, or cannot be; its clips are before this in the queue."""

    task: Task
    error: Exception | None = None


class ReadingThreads:
    """Reads videos in the background; close it after use.

    Args:
        videos: asked for the next one by the thread that will read it.
        readers: one for each thread.
        recipe: how frames become clips.
        ahead: clips that may wait.
    """

    def __init__(self, videos: Iterable[Video], readers: Sequence[Reader], recipe: Recipe, ahead: int) -> None:
        self._videos, self._asking = iter(videos), threading.Lock()
        self._recipe, self._readers = recipe, readers
        self._queue: Queue[Clip | End | BaseException | None] = Queue(ahead)
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=[reader], name="read-clips", daemon=True) for reader in readers
        ]
        self._num_running = len(self._threads)
        for thread in self._threads:
            thread.start()

    def take(self, *, wait: bool) -> Clip | End | None:
        """The next item; None if all videos are read, or without `wait` if there is none now.

        Raises:
            BaseException: what ended a thread and is no single video's fault.
        """
        while self._num_running:
            try:
                item = self._queue.get(wait)
            except Empty:
                return None
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                return item
            self._num_running -= 1
        return None

    @property
    def are_done(self) -> bool:
        """Whether all videos are read and taken."""
        return self._num_running == 0

    def close(self) -> None:
        """Stop the threads, in the middle of videos too."""
        self._stopped.set()
        for thread, reader in zip(self._threads, self._readers, strict=True):
            while thread.is_alive():
                reader.abandon()  # again and again, because the thread may have begun another reading meanwhile
                thread.join(POLL_S)

    def _work(self, reader: Reader) -> None:
        try:
            while (task := self._next_task()) is not None:
                self._read(task, reader)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _next_task(self) -> Task | None:
        with self._asking:
            video = None if self._stopped.is_set() else next(self._videos, None)
        return None if video is None else Task(video)

    def _read(self, task: Task, reader: Reader) -> None:
        try:
            with ExitStack() as stack:
                stack.callback(task.video.release)
                task.facts = task.video.find_facts()
                self._read_clips(task, reader, READINGS)
        except Exception as error:
            self._put(End(task, error))
        else:
            self._put(End(task))

    def _read_clips(self, task: Task, reader: Reader, readings: int) -> None:
        """Put the clips of a video into the queue; read it again, in a new process, if it has ended the process."""
        try:
            with closing(read_video(task, reader, self._recipe)) as clips:
                for reading, pixels in clips:
                    self._put(Clip(reading, pixels))
                    if self._stopped.is_set() or task.is_over:
                        return
        except ReaderError as error:
            if self._stopped.is_set() or task.is_over:
                return
            if readings == 1:
                raise ReaderError(f"{error} (read {READINGS} times)") from error
            logger.info("%s; it is read again", error)
            self._read_clips(task, reader, readings - 1)

    def _put(self, item: Clip | End | BaseException | None) -> None:
        while not self._stopped.is_set():  # a put without a timeout would wait for a consumer that is gone
            with suppress(Full):
                return self._queue.put(item, timeout=POLL_S)
