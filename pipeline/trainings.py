"""The trainings of a protocol, independent of each other. A finished one becomes a file, so a run can stop and go on.

On a CPU every training has one thread: sums that are split among threads round differently, so results would otherwise
depend on the number of cores.
"""

import functools
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
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
            ValueError: a target has no score, or without a range only one; nothing can be learnt then.
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
        return Baselines(self.dataset.examples)

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
        weights = b""
        if job.keeps_network:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
            weights = safetensors.torch.save(tensors)
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
