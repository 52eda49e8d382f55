"""The one thread that scores: uploads wait in the library's queue for its loaded backbone."""

import itertools
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ..console import format_duration, one_sentence, print_message
from ..report import Served, render_report
from ..scoring import Scorer
from .library import Library, Result

WAIT_AFTER_ERROR_S = 10.0


class _StoppedError(Exception):
    """The server stops; the video goes back into the queue."""


@dataclass
class Progress:
    """How far the scoring of one video is."""

    stage: str = "loading"
    done_s: float = 0
    """Seconds of video."""
    total_s: float | None = None
    since: float = field(default_factory=time.monotonic)
    """When the stage began."""
    at: float = field(default_factory=time.monotonic)
    """When `done_s` was reached."""

    def as_json(self) -> dict[str, Any]:
        """Return what a page shows: a sentence, and the share that is done where it is known."""
        if not self.total_s:
            return {"text": self.stage, "share": None}
        share = min(self.done_s / self.total_s, 1)
        text = f"{self.stage}: {self.done_s:.0f} of {self.total_s:.0f} s of video"
        if share > 0:
            left_s = max(0, (self.at - self.since) * (1 - share) / share - (time.monotonic() - self.at))
            text += f", {format_duration(left_s)} left"
        return {"text": text, "share": round(share, 3)}


class Worker(threading.Thread):
    """Scores queued videos one after another, until it is stopped.

    Args:
        scorer: with its backbone loaded.
        library: where the queue is.
    """

    def __init__(self, scorer: Scorer, library: Library) -> None:
        super().__init__(name="scoring", daemon=True)
        self.progress: tuple[str, Progress] | None = None
        """Id and progress of the video that is being scored."""
        self._versions = itertools.count(time.time_ns() // 1000)
        self.version = next(self._versions)
        """Grows with every change of the list, which pages then fetch again; also from one server to the next."""
        self._scorer, self._library = scorer, library
        self._wake = threading.Event()
        self._is_stopping = False

    def changed(self) -> None:
        """Say that the list has changed; there may be something to score."""
        self.version = next(self._versions)
        self._wake.set()

    def stop(self) -> None:
        """Put the video that is being scored back into the queue, and end."""
        self._is_stopping = True
        self._wake.set()
        self.join(timeout=30)

    def run(self) -> None:
        while not self._is_stopping:
            try:
                self._next()
            except (OSError, sqlite3.Error) as error:
                print_message(f"error: the list of results cannot be written ({one_sentence(error)}); trying again")
                time.sleep(WAIT_AFTER_ERROR_S)

    def _next(self) -> None:
        """Score the next video, or wait for one."""
        self._wake.clear()
        result = self._library.next_queued()
        if result is None:
            self._wake.wait()
            return
        self.version = next(self._versions)
        self._score(result)
        self.progress = None
        self.version = next(self._versions)

    def _score(self, result: Result) -> None:
        self.progress = result.id, Progress()
        path = self._library.videos / result.file
        try:
            scored = self._scorer.score(
                path, name=result.name, action=result.action, thumbnails=True, on_stage=self._on_stage
            )
            self._on_stage("reporting", 0, None)
            page = f"/results/{result.id}"
            report = render_report(scored, self._scorer.head, Served(f"{page}/video", f"{page}/panel"))
            self._library.finish(result.id, scored.score, report)
        except _StoppedError:
            self._library.put_back(result.id)
        except Exception as error:  # whatever goes wrong with one video, the server goes on
            if self._is_stopping:
                return  # the next server finds it
            message = one_sentence(error).replace(str(path), result.name)
            print_message(f"failed: {message}")
            self._library.fail(result.id, message)

    def _on_stage(self, stage: str, done_s: float, total_s: float | None) -> None:
        if self._is_stopping:
            raise _StoppedError
        assert self.progress is not None
        id, before = self.progress
        since = before.since if before.stage == stage else time.monotonic()
        self.progress = id, Progress(stage, done_s, total_s, since)
