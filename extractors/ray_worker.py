"""A worker of a Ray cluster, on its own node: a backbone and readers that extract what the driver sends.

`extractors.ray_cluster` is the driver's side.
"""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

import numpy as np

from .backbone import Backbone
from .extract import Extraction, Finished, extract_many, suitable_readers
from .reader import Reader
from .reading import Video
from .work import Work

REPORT_S = 5.0
"""How long `RayWorker.report` waits."""


@dataclass(eq=False)
class _Call:
    """A video that the driver has sent and waits for."""

    number: int
    finished: Future[Finished] = field(default_factory=Future)
    part: tuple[float, float] = (0.0, 0.0)


class RayWorker:
    """Extracts videos as `extract_many` does. Ray calls the methods in threads, several at once.

    Args:
        work: how it extracts.
        device: the backbone's device.
        cores: of the node, that are for this worker.
    """

    def __init__(self, work: Work, device: str, cores: int) -> None:
        self._work, self._device, self._cores = work, device, cores
        self._videos: SimpleQueue[Video] = SimpleQueue()
        self._calls: dict[Video, _Call] = {}
        self._broken: RuntimeError | None = None
        """Why nothing is extracted any more."""
        self._lock = threading.Lock()
        """Held to add a call or to break off, so that no call is left waiting."""

    def load(self) -> tuple[dict[str, Any], int]:
        """Load the backbone; return what its features are made with, and the number of readers."""
        if self._work.folder is not None and not self._work.folder.exists():
            raise ValueError(f"it does not see the videos' folder {self._work.folder}")
        backbone, made_with = self._work.load(self._device)
        num_readers = self._work.num_readers or suitable_readers(backbone, self._cores)
        readers = [self._work.make_reader(num_readers) for _ in range(num_readers)]
        threading.Thread(target=self._run, args=[backbone, readers], daemon=True).start()
        return made_with, num_readers

    def extract(self, number: int, video: Video) -> tuple[dict[str, Any], Extraction | Exception]:
        """Extract a video, which has this number in reports; return its facts and what came of it (`Finished`)."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            call = self._calls[video] = _Call(number)
        self._videos.put(video)
        finished = call.finished.result()
        outcome = finished.outcome
        if isinstance(outcome, Extraction):  # Ray sends an array, but no file that is mapped
            outcome = replace(outcome, features=np.array(outcome.features))
        return finished.facts, outcome

    def report(self) -> dict[int, tuple[float, float]]:
        """Wait a little; return for each video that is under way the seconds that are done, and all its seconds."""
        time.sleep(REPORT_S)
        return {call.number: call.part for call in list(self._calls.values())}

    def _run(self, backbone: Backbone, readers: list[Reader]) -> None:
        """Extract what is sent, for as long as the process lives."""
        run = extract_many(
            iter(self._videos.get, None),
            backbone,
            readers=readers,
            batch_clips=self._work.batch_clips,
            classify=self._work.classify,
            on_progress=self._note,
        )
        try:
            for finished in run:
                self._calls.pop(finished.video).finished.set_result(finished)
        except BaseException as error:
            with self._lock:
                self._broken = RuntimeError(f"extraction broke off: {error!r}")  # so the driver replaces this worker
                for call in self._calls.values():
                    call.finished.set_exception(self._broken)

    def _note(self, video: Video, *part: float) -> None:
        self._calls[video].part = part  # type: ignore[assignment]
