"""Independent trainings, in this process or in several. Each finished one becomes a file, so a run can stop and go on.

On a CPU every training has one thread. Sums that are split among threads round differently, so results would otherwise
depend on the number of cores; several trainings at a time use the cores better anyway. On a GPU trainings take turns.
"""

import functools
import io
import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import joblib
import numpy as np
import safetensors.torch
from joblib.externals import loky
from threadpoolctl import threadpool_limits

from ..data.files import write_atomic
from ..data.labels import LabelSet
from ..models.head import HeadConfig, HeadNetwork, Recipe
from ..models.predict import predict
from .baselines import Baselines
from .examples import Dataset, Examples
from .splits import Split
from .training import EpochProgress, fit

ConfigFactory = Callable[..., HeadConfig]
"""Makes a head's configuration from `feature_dim`, `targets`, `ranges` and `num_actions`."""
ALONE_S = 10.0
"""Trainings that take longer together go on in several processes, which take seconds to start."""
POLL_S = 0.5
SUFFIX = ".npz"


@dataclass(frozen=True)
class HeadTraining:
    """What is trained on every split, and how."""

    make_config: ConfigFactory
    recipe: Recipe
    device: str = "cpu"

    def config_for(self, training: Examples, labels: LabelSet) -> HeadConfig:
        """Return the configuration of a head for these training routines.

        Scores without rules (csv) get the range of the training scores.

        Raises:
            ValueError: the scores of a target do not vary, so that nothing can be learnt.
        """
        ranges = []
        for target, column in zip(labels.targets, training.scores.T, strict=True):
            scores = column[~np.isnan(column)]
            if len(scores) == 0 or (target not in labels.ranges and scores.min() == scores.max()):
                raise ValueError(
                    f"the training videos' {target} has fewer than two different values; nothing can be learnt"
                )
            ranges.append(labels.ranges.get(target) or (float(scores.min()), float(scores.max())))
        return self.make_config(
            feature_dim=training.features[0].shape[1],
            targets=labels.targets,
            ranges=tuple(ranges),
            num_actions=0 if training.actions is None else len(labels.actions),
        )


@dataclass(frozen=True)
class Job:
    """One training, and the routines to predict after it, both as indices of routines."""

    seed: int
    split: str
    """The name of its splits."""
    training: np.ndarray
    evaluated: np.ndarray
    """In ascending order."""
    with_baselines: bool
    """Whether baselines are fitted on the same routines."""
    keeps_network: bool

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.seed} {self.split}{SUFFIX}"


@dataclass(frozen=True)
class Finished:
    """What a training leaves."""

    columns: dict[str, np.ndarray]
    """`(evaluated, targets)` by name: `predicted`, `grade`, `subgrade` and the baselines' scores."""
    curves: list[dict[str, Any]]
    """An entry for each epoch: `epoch` and the losses."""
    network: bytes
    """The weights as a safetensors file; empty where the job does not keep them."""


def make_jobs(splits: Mapping[int, Sequence[Split]], *, with_baselines: bool = True) -> list[Job]:
    """Return the trainings of the splits of each seed; splits of one name and seed share one.

    The weights of the first seed's last split are kept.
    """
    first_seed = next(iter(splits))
    jobs = []
    for seed, of_seed in splits.items():
        alike: dict[str, list[Split]] = {}
        for outer in of_seed:
            for split in (outer, *outer.calibration):
                alike.setdefault(split.name, []).append(split)
        in_figures = {split.name for split in of_seed if len(split.evaluated)}
        jobs += [
            Job(
                seed,
                name,
                same[0].training,
                np.unique(np.concatenate([split.evaluated for split in same])),
                with_baselines and name in in_figures,
                seed == first_seed and name == of_seed[-1].name,
            )
            for name, same in alike.items()
        ]
    return jobs


class Trainer:
    """Trains on the routines of a dataset and writes a file for each training.

    Args:
        dataset: the labels and routines that jobs index.
        training: what to train, and how.
        folder: where the files go.
    """

    def __init__(self, dataset: Dataset, training: HeadTraining, folder: Path) -> None:
        self.dataset, self.training, self.folder = dataset, training, folder

    @property
    def epochs(self) -> int:
        """Epochs of each training."""
        return self.training.recipe.epochs

    def left(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the trainings that have no file yet."""
        return [job for job in jobs if not (self.folder / job.file).exists()]

    @functools.cached_property
    def _baselines(self) -> Baselines:
        return Baselines(self.dataset.examples, self.dataset.labels)

    def config_of(self, job: Job) -> HeadConfig:
        """Return the configuration of a job's network."""
        routines = self.dataset.examples.at(job.training)
        return replace(self.training.config_for(routines, self.dataset.labels), num_training=len(routines))

    def train(self, job: Job, on_epoch: Callable[[], object]) -> None:
        """Train, predict and write the file."""
        with threadpool_limits(1) if self.training.device == "cpu" else nullcontext():
            done = self._train(job, on_epoch)
        content = io.BytesIO()
        arrays: dict[str, Any] = {**done.columns, "curves": np.array(json.dumps(done.curves))}
        np.savez(content, **arrays, network=np.frombuffer(done.network, np.uint8))
        write_atomic(self.folder / job.file, content.getvalue())

    def read(self, job: Job) -> Finished:
        """Read the file of a finished training."""
        with np.load(self.folder / job.file) as file:
            arrays = dict(file)
        curves, network = json.loads(str(arrays.pop("curves"))), arrays.pop("network").tobytes()
        return Finished(arrays, curves, network)

    def network_of(self, job: Job) -> HeadNetwork:
        """Return the network of a finished training that keeps it."""
        network = self.config_of(job).build()
        network.load_state_dict(safetensors.torch.load(self.read(job).network), assign=True)
        return network.eval()

    def _train(self, job: Job, on_epoch: Callable[[], object]) -> Finished:
        curves: list[dict[str, Any]] = []

        def note(done: EpochProgress) -> None:
            curves.append({"epoch": done.epoch, **done.losses})
            on_epoch()

        routines = self.dataset.examples.at(job.training)
        network = fit(
            routines.features,
            routines.scores,
            routines.actions,
            config=self.config_of(job),
            recipe=self.training.recipe,
            seed=job.seed,
            device=self.training.device,
            on_progress=note,
        )
        tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        weights = safetensors.torch.save(tensors) if job.keeps_network else b""
        return Finished(self._columns(job, network), curves, weights)

    def _columns(self, job: Job, network: HeadNetwork) -> dict[str, np.ndarray]:
        if len(job.evaluated) == 0:
            return {}
        routines = self.dataset.examples.at(job.evaluated)
        predictions = list(predict(network, routines.features, routines.actions).values())
        columns = {
            "predicted": np.stack([one.score for one in predictions], axis=1),
            "grade": np.stack([one.grade for one in predictions], axis=1),
        }
        if network.config.num_subgrades:
            columns["subgrade"] = np.stack([one.subgrade for one in predictions if one.subgrade is not None], axis=1)
        return columns | (self._baselines.predict(job.training, job.evaluated) if job.with_baselines else {})


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
    if processes > 1 and workers is None:
        try:
            _run_here(jobs, trainer, on_epochs, limit_s=ALONE_S)
        except _TimeIsUpError:
            _run_in_pool(jobs, trainer, processes, on_epochs)
    elif processes > 1:
        _run_in_pool(jobs, trainer, processes, on_epochs)
    else:
        _run_here(jobs, trainer, on_epochs)


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
        initargs=(routines, trainer.training, trainer.folder, epochs),
        env={"OMP_NUM_THREADS": "1"},  # or each process would make a thread a core before it is told not to
    )
    try:
        with _without_interrupts():
            running = {pool.submit(_train_in_worker, job) for job in left}
        while running:
            finished, running = wait(running, POLL_S)
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


def _start_worker(routines: Path, training: HeadTraining, folder: Path, epochs: Path) -> None:
    global _worker, _epochs
    # "c": arrays are the file's pages, shared by all processes, and copied only if something writes to them
    _worker = Trainer(joblib.load(routines, mmap_mode="c"), training, folder)
    _epochs = epochs.open("ab", buffering=0)


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
