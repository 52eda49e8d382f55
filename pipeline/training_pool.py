"""Run independent trainings: a few in this process, many in one process for each core. The results are the same.

On a GPU trainings take turns.
"""

import itertools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import joblib
from joblib.externals import loky

from .trainings import HeadTraining, Job, Trainer

ALONE_S = 10.0
"""Trainings that take longer together go on in several processes, which take seconds to start."""
POLL_S = 0.5


def run_jobs(
    jobs: Sequence[Job],
    trainer: Trainer,
    *,
    workers: int | None = None,
    on_epochs: Callable[[int], object] = lambda done: None,
) -> None:
    """Run all trainings that have no file yet.

    Args:
        jobs: the trainings.
        trainer: what runs them.
        workers: processes; None for one a core where the trainings take long. The results are the same.
        on_epochs: called with the number of epochs done, those of earlier runs included.

    Raises:
        ValueError: the routines of a training teach nothing.
        OSError: a process was killed.
    """
    left = trainer.left(jobs)
    on_epochs((len(jobs) - len(left)) * trainer.epochs)
    processes = 1 if trainer.training.device != "cpu" else min(workers or loky.cpu_count(), len(left))
    if processes <= 1:
        _run_here(jobs, trainer, on_epochs)
        return
    if workers is None:
        with suppress(_TimeIsUpError):
            _run_here(jobs, trainer, on_epochs, limit_s=ALONE_S)
            return
    _run_in_pool(jobs, trainer, processes, on_epochs)


class _TimeIsUpError(Exception):
    """The trainings take long."""


def _run_here(
    jobs: Sequence[Job], trainer: Trainer, on_epochs: Callable[[int], object], limit_s: float = math.inf
) -> None:
    """Run trainings one after the other.

    Raises:
        _TimeIsUpError: two trainings or more are left after `limit_s` seconds; one of them was given up.
    """
    end = time.monotonic() + limit_s
    left = trainer.left(jobs)
    for place, job in enumerate(left, start=len(jobs) - len(left)):
        done = itertools.count(place * trainer.epochs + 1)

        def note(job: Job = job, done: Iterator[int] = done) -> None:
            on_epochs(next(done))
            if time.monotonic() > end and job is not left[-1]:
                raise _TimeIsUpError

        trainer.train(job, note)


def _run_in_pool(jobs: Sequence[Job], trainer: Trainer, processes: int, on_epochs: Callable[[int], object]) -> None:
    """Run trainings in several processes, which share the routines in memory."""
    left = trainer.left(jobs)
    routines, epochs = trainer.folder / "routines", trainer.folder / "epochs"
    joblib.dump(trainer.dataset, routines)
    epochs.write_bytes(b"")
    pool = loky.ProcessPoolExecutor(
        processes,
        timeout=None,
        initializer=_start_worker,
        initargs=(routines, trainer.training, trainer.folder, epochs, os.getpid()),
        env={"OMP_NUM_THREADS": "1"},  # or each process would make a thread a core before it is told not to
    )
    waiting, running = iter(left), set[Future[None]]()
    try:
        while True:
            with _without_interrupts():
                # one more than there are processes, so that none is idle; loky stumbles over many when it is shut down
                next_ones = itertools.islice(waiting, processes + 1 - len(running))
                running |= {pool.submit(_train_in_worker, job) for job in next_ones}
            if not running:
                break
            finished, running = wait(running, POLL_S, FIRST_COMPLETED)
            for future in finished:
                future.result()
            on_epochs((len(jobs) - len(left)) * trainer.epochs + epochs.stat().st_size)
    except BrokenProcessPool:
        raise OSError(
            "a training process was killed, perhaps because memory ran out; --workers with a smaller number needs less"
        ) from None
    finally:
        pool.shutdown(kill_workers=True)


_worker: Trainer
_epochs: IO[bytes]


def _start_worker(routines: Path, training: HeadTraining, folder: Path, epochs: Path, parent: int) -> None:
    global _worker, _epochs
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # "c": arrays are the file's pages, shared by all processes, and copied only if something writes to them
    _worker = Trainer(joblib.load(routines, mmap_mode="c"), training, folder)
    _epochs = epochs.open("ab", buffering=0)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: if that was killed, it could not end its workers."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


def _train_in_worker(job: Job) -> None:
    _worker.train(job, lambda: _epochs.write(b"."))  # the file's size is the number of epochs of all processes


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that are started inside ignore Ctrl-C, which a terminal sends to them too: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
