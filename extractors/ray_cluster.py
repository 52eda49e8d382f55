"""Extraction on the nodes of a Ray cluster, with the code that extracts on one machine.

The driver is this process. It hands out videos and takes features back through Ray's object store; it runs no backbone.
A worker (`extractors.ray_worker`) is a Ray actor with a backbone and readers of its own: one for each GPU of the
cluster, or without GPUs one for each node, because a backbone on a CPU uses all cores.

If a worker dies, alone or with its node, the videos that it had are tried again: each alone in a worker, and elsewhere
if there is another place. So a video that ends its worker fails by itself, and not the videos beside it.
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .extract import MOST_READERS, Extraction, Finished, OnProgress
from .ray_nodes import Place, connection, device_of_cluster, how_it_died, one_line, places
from .ray_worker import RayWorker
from .reading import Video
from .video import VideoError
from .work import Work

logger = logging.getLogger(__name__)

RETRIES = 2
"""How often a video that was with a worker when it died is tried again."""
DEATHS_IN_A_ROW = 4
"""After so many with no video finished in between, a place is left out, unless it is the last one."""
NEW_NODES_S = 10.0
"""How often the driver looks for nodes that have joined."""
PATIENCE_S = 30.0
"""After so long a worker that Ray has not started no longer counts as one of the most that are wanted."""
LET_CHILDREN_END = {"RAY_kill_child_processes_on_worker_exit": "false"}
"""Otherwise Ray kills what frees the readers' shared memory; the readers end by themselves."""


class WorkerError(VideoError):
    """The workers that extracted this video died, or no worker is left."""


@dataclass(eq=False)
class _Job:
    """A video on its way through the cluster."""

    video: Video
    deaths: int
    """How many workers died that had it, also in earlier runs."""
    died_at: set[Place] = field(default_factory=set)


@dataclass(eq=False)
class _Worker:
    """A worker as the driver sees it."""

    place: Place
    host: str
    actor: Any
    num_cores: int
    patience_ends: float
    """When it has waited long for Ray to start it, which needs its cores and GPU; infinite once it has started."""
    waits_long: bool = False
    room: int = 0
    """Videos that it takes at once; 0 until its backbone is loaded."""
    jobs: dict[int, _Job] = field(default_factory=dict)
    is_over: bool = False

    @property
    def has_room(self) -> bool:
        """Whether it takes another video. One that was with a worker that died is alone."""
        return len(self.jobs) < self.room and not any(job.deaths for job in self.jobs.values())


class RayCluster:
    """A Ray cluster whose workers extract videos; use it in a `with` statement.

    Args:
        address: of a running cluster, "host:port" or "auto"; "local" to start one on this machine that ends with the
            `with` statement.
        work: how the workers extract.
        device: "auto", "cpu" or "cuda"; "auto" means the GPUs if the cluster has any.
        most_workers: start no more than so many.

    Raises:
        ValueError: this process uses Ray already, the cluster cannot be reached or lacks the device, or no worker can
            load the backbone.
    """

    def __init__(self, address: str, work: Work, *, device: str, most_workers: int) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"with Ray each worker has its own GPU: the device is auto, cpu or cuda, not {device}")
        self._address, self._work, self._device, self._most_workers = address, work, device, most_workers
        self.made_with: dict[str, Any] | None = None
        """What all workers' features are made with, as the first one's `Load` returned it."""
        self._workers: dict[Place, _Worker] = {}
        self._left_out: dict[Place, str] = {}
        self._deaths: Counter[Place] = Counter()
        self._events: SimpleQueue[tuple[_Worker, str, int, Future[Any]]] = SimpleQueue()
        """Answers of workers: the method, a video's number, and what came."""
        self._fresh: Iterator[Video] | None = None
        """The videos that no worker has had yet; None if there are no more."""
        self._again: deque[_Job] = deque()
        """Those that were with a worker when it died."""
        self._tries: Callable[[Video], int]
        self._on_death: Callable[[Video], None]
        self._num_open = self._num_sent = 0
        self._look_at = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> "RayCluster":
        with ExitStack() as stack:
            stack.enter_context(connection(self._address))
            self._device = device_of_cluster(self._device)
            while not self.num_ready:
                for _ in self._wait(None):
                    raise AssertionError("no video was handed out")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            ray.kill(worker.actor)
        self._stack.close()

    @property
    def num_ready(self) -> int:
        """Number of workers that have loaded their backbone."""
        return sum(worker.room > 0 for worker in self._workers.values())

    def extract_many(
        self,
        videos: Iterable[Video],
        *,
        on_progress: OnProgress | None = None,
        tries: Callable[[Video], int],
        on_death: Callable[[Video], None],
    ) -> Generator[Finished, None, None]:
        """Extract the clip features of many videos; as `extractors.extract.extract_many`.

        Args:
            videos: the next one is asked for when a worker has room for it.
            on_progress: called every few seconds for each video that is under way.
            tries: from a video to how many workers died in earlier runs that had it.
            on_death: called for each video that a worker had when it died.

        Yields:
            Each video, as soon as it is done or has failed.

        Raises:
            WorkerError: no worker is left.
        """
        self._fresh, self._tries, self._on_death = iter(videos), tries, on_death
        self._hand_out(*self._workers.values())
        while self._num_open or self._fresh is not None:
            yield from self._wait(on_progress)

    def _hand_out(self, *workers: _Worker) -> None:
        """Give workers the videos that they have room for."""
        for worker in workers:
            while worker.has_room and (job := self._next_job(worker)) is not None:
                self._num_sent += 1
                worker.jobs[self._num_sent] = job
                self._ask(worker, "extract", self._num_sent, self._num_sent, job.video)

    def _next_job(self, worker: _Worker) -> _Job | None:
        if not worker.jobs:  # a video that is tried again is alone
            ready = {other.place for other in self._workers.values() if other.room}
            for job in self._again:
                if worker.place not in job.died_at or ready <= job.died_at:
                    self._again.remove(job)
                    return job
        for video in self._fresh or ():
            job = _Job(video, self._tries(video))
            self._num_open += 1
            if not job.deaths or not worker.jobs:
                return job
            self._again.append(job)
        self._fresh = None
        return None

    def _ask(self, worker: _Worker, method: str, number: int = 0, *arguments: object) -> None:
        answer = getattr(worker.actor, method).remote(*arguments).future()
        answer.add_done_callback(lambda done: self._events.put((worker, method, number, done)))

    def _wait(self, on_progress: OnProgress | None) -> Iterator[Finished]:
        """Wait for an answer and act on it."""
        if time.monotonic() >= self._look_at:
            self._start_workers()
        try:
            worker, method, number, answer = self._events.get(timeout=NEW_NODES_S)
        except Empty:
            return
        if worker.is_over:
            return
        error = answer.exception()
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            logger.debug("a worker on node %s: %s", worker.host, error)
            yield from self._bury(worker, how_it_died(worker.place[0], worker.host))
        elif method == "__ray_ready__":
            worker.patience_ends, worker.waits_long = math.inf, False
        elif method == "load":
            self._take_in(worker, error or answer.result())
        elif method == "report":
            for number, part in answer.result().items():
                if on_progress and part[1] and number in worker.jobs:
                    on_progress(worker.jobs[number].video, *part)
            self._ask(worker, "report")
        else:
            yield from self._finish(worker, number, *(({}, error) if error else answer.result()))

    def _start_workers(self) -> None:
        """Start workers where none is, also on nodes that have joined."""
        self._look_at = time.monotonic() + NEW_NODES_S
        self._find_waiting()
        for place, host, cores, num_gpus in places(self._device):
            num_workers = sum(not worker.waits_long for worker in self._workers.values())
            if place in self._workers or place in self._left_out or num_workers >= self._most_workers:
                continue
            actor = (
                ray.remote(RayWorker)
                .options(
                    num_cpus=cores,
                    num_gpus=num_gpus,
                    max_concurrency=(self._work.num_readers or MOST_READERS) + 2,  # all videos, and a report
                    scheduling_strategy=NodeAffinitySchedulingStrategy(place[0], soft=False),
                    runtime_env={"env_vars": LET_CHILDREN_END},
                )
                .remote(self._work, self._device, cores)
            )
            worker = self._workers[place] = _Worker(place, host, actor, cores, time.monotonic() + PATIENCE_S)
            self._ask(worker, "__ray_ready__")
            self._ask(worker, "load")
        if not self._workers:
            reasons = "; ".join(dict.fromkeys(self._left_out.values())) or "it has no nodes for them"
            if self.made_with is None:
                raise ValueError(f"the Ray cluster has no workers ({reasons})")
            raise WorkerError(f"the Ray cluster has no workers left ({reasons}); run the same command again to go on")

    def _find_waiting(self) -> None:
        """Find workers that Ray does not start, because something else uses their cores or GPU; say so once."""
        for worker in self._workers.values():
            if not worker.waits_long and time.monotonic() >= worker.patience_ends:
                worker.waits_long = True
                logger.warning(
                    "warning: node %s gets no videos yet: a worker needs %d of its cores%s, and Ray has not started it "
                    "for %.0f seconds; `ray status` shows what is in use",
                    worker.host,
                    worker.num_cores,
                    " and a GPU" if self._device == "cuda" else "",
                    PATIENCE_S,
                )

    def _take_in(self, worker: _Worker, loaded: Any) -> None:
        """Let a worker that has loaded its backbone begin; leave out one that cannot or whose features would differ."""
        if isinstance(loaded, Exception):
            return self._leave_out(worker, one_line(loaded))
        made_with, num_readers = loaded
        if self.made_with is None:
            self.made_with = made_with
        for key, value in self.made_with.items():
            if made_with[key] != value:
                return self._leave_out(
                    worker, f"its features would differ: {key} is {made_with[key]!r} there and {value!r} elsewhere"
                )
        worker.room = num_readers + 1  # no reader waits for its next video
        self._ask(worker, "report")
        self._hand_out(worker)

    def _leave_out(self, worker: _Worker, reason: str) -> None:
        self._left_out[worker.place] = f"node {worker.host}: {reason}"
        self._remove(worker)
        if self._workers:
            logger.warning("warning: node %s gets no videos: %s", worker.host, reason)

    def _remove(self, worker: _Worker) -> None:
        worker.is_over = True
        self._workers.pop(worker.place, None)
        ray.kill(worker.actor)
        self._look_at = 0.0

    def _finish(
        self, worker: _Worker, number: int, facts: dict[str, Any], outcome: Extraction | BaseException
    ) -> Iterator[Finished]:
        """Take what a worker has made of a video."""
        if not isinstance(outcome, Extraction | VideoError | ValueError | OSError):
            # no fault of the video, as far as is known: a broken GPU would otherwise fail one video after another
            yield from self._bury(worker, f"on node {worker.host}: {one_line(outcome)}")
            return
        self._deaths[worker.place] = 0
        self._num_open -= 1
        job = worker.jobs.pop(number)
        self._hand_out(worker)  # before the driver spends time on what is finished
        yield Finished(job.video, facts, outcome)

    def _bury(self, worker: _Worker, reason: str) -> Iterator[Finished]:
        """Try the videos of a worker that is dead or broken again, unless that was done often enough."""
        self._remove(worker)
        self._deaths[worker.place] += 1
        if self._deaths[worker.place] >= DEATHS_IN_A_ROW and (self.num_ready or not worker.room):
            self._leave_out(worker, f"{DEATHS_IN_A_ROW} workers in a row died ({reason})")
        given_up: list[_Job] = []
        for job in worker.jobs.values():
            job.deaths += 1
            job.died_at.add(worker.place)
            (given_up if job.deaths > RETRIES else self._again).append(job)
        self._hand_out(*self._workers.values())  # before the driver spends time on the deaths
        for job in worker.jobs.values():
            self._on_death(job.video)
        for job in given_up:
            self._num_open -= 1
            message = f"{job.video.path} is given up: {RETRIES + 1} workers died while they had it, the last {reason}"
            facts: dict[str, Any] = {}
            with suppress(OSError, ValueError):
                facts = job.video.find_facts()
            yield Finished(job.video, facts, WorkerError(message))
