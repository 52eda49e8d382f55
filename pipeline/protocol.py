"""Run a protocol: train a head on every split and predict the routines that it has not seen.

Baselines are fitted on the same splits, and their predictions stand beside the head's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..models.head import HeadNetwork
from . import conformal
from .baselines import BASELINES
from .examples import Dataset
from .splits import Split
from .training_pool import run_jobs
from .trainings import Finished, HeadTraining, Job, Trainer, make_jobs


@dataclass(frozen=True)
class Outcome:
    """The results of a protocol's trainings."""

    network: HeadNetwork
    """The head of the first seed's last split."""
    radii: dict[str, float]
    """Half-width in points of that head's intervals at `conformal.LEVEL`, by target and sum; absent where unknown."""
    predictions: list[dict[str, Any]]
    """One entry for each seed, evaluated routine and target, in the label files' order."""
    curves: list[dict[str, Any]]
    """One entry for each epoch of each training: `seed`, `split`, `epoch` and the losses."""


def run_protocol(
    splits: Sequence[Split], dataset: Dataset, training: HeadTraining, *, seed: int = 0, **how: Any
) -> Outcome:
    """Run a protocol with one seed; see `run_seeds`."""
    return run_seeds({seed: splits}, dataset, training, **how)


def run_seeds(
    splits: Mapping[int, Sequence[Split]],
    dataset: Dataset,
    training: HeadTraining,
    *,
    with_baselines: bool = True,
    folder: Path | None = None,
    workers: int | None = None,
    on_epochs: Callable[[int], object] = lambda done: None,
) -> Outcome:
    """Train a head on every split and predict what it is evaluated on.

    Args:
        splits: from `make_splits`, by seed.
        dataset: the labels and the routines that the splits index.
        training: what to train, and how.
        with_baselines: whether baselines are fitted on the same splits, and stand beside the head's predictions.
        folder: where finished trainings are kept; those that it holds are not run again. None to keep none.
        workers: as for `run_jobs`, like `on_epochs`.

    Returns:
        The results; predictions say their `seed` where there are several.

    Raises:
        ValueError: the routines of a split teach nothing.
    """
    jobs = make_jobs(splits, with_baselines=with_baselines)
    with TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        trainer = Trainer(dataset, training, Path(place))
        run_jobs(jobs, trainer, workers=workers, on_epochs=on_epochs)
        finished = {(job.seed, job.split): (job, trainer.read(job)) for job in jobs}
        network = trainer.network_of(next(job for job in jobs if job.keeps_network))
    of_seeds = {
        seed: _OfSeed(dataset, {name: done for (of, name), done in finished.items() if of == seed}) for seed in splits
    }
    first_seed, of_first = next(iter(splits.items()))
    return Outcome(
        network,
        of_seeds[first_seed].radii_of(of_first[-1]),
        [
            {**({"seed": seed} if len(splits) > 1 else {}), **entry}
            for seed, of_seed in splits.items()
            for entry in of_seeds[seed].entries(of_seed)
        ],
        [{"seed": job.seed, "split": job.split, **entry} for job, done in finished.values() for entry in done.curves],
    )


class _OfSeed:
    """What the finished trainings of one seed say of its splits."""

    def __init__(self, dataset: Dataset, finished: dict[str, tuple[Job, Finished]]) -> None:
        self.labels, self.examples, self.finished = dataset.labels, dataset.examples, finished
        self.groups = self.examples.groups()

    def entries(self, splits: Sequence[Split]) -> list[dict[str, Any]]:
        """Return an entry for each routine and target that the splits are evaluated on, in the routines' order."""
        entries = [entry for split in splits if len(split.evaluated) for entry in self._entries_of(split)]
        return [entry for _, entry in sorted(entries, key=lambda entry: entry[0])]

    def radii_of(self, split: Split) -> dict[str, float]:
        """Return the half-width of the split's intervals by target and sum, from its calibration trainings."""
        errors = np.concatenate([np.empty((0, len(self.labels.targets))), *map(self._errors, split.calibration)])
        of_targets = dict(zip(self.labels.targets, errors.T, strict=True))
        of_sums = {one.target: one.value(of_targets) for one in self.labels.sums}  # the sum of errors is the sum's
        radii = {target: conformal.radius(values) for target, values in (of_targets | of_sums).items()}
        return {target: points for target, points in radii.items() if np.isfinite(points)}

    def _entries_of(self, split: Split) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        """Yield the entries of a split, each with its place in the order."""
        radii, columns = self.radii_of(split), self._columns(split)
        for m, target in enumerate(self.labels.targets):
            of_target: dict[str, np.ndarray] = {
                name: columns[name][:, m] for name in ("predicted", "grade", "subgrade") if name in columns
            }
            if target in radii:
                span = self.labels.ranges.get(target)
                of_target["low"], of_target["high"] = conformal.interval(of_target["predicted"], radii[target], span)
            of_target |= {name: columns[name][:, m] for name in BASELINES if name in columns}
            for i, index in enumerate(split.evaluated.tolist()):
                scores = self.examples.rows[index].scores
                if target in scores:
                    values = {name: column[i].item() for name, column in of_target.items()}
                    yield (index, m), {**self._about(index), "target": target, "true": scores[target], **values}

    def _errors(self, split: Split) -> np.ndarray:  # (evaluated, targets)
        return self._columns(split)["predicted"] - self.examples.scores[split.evaluated]

    def _columns(self, split: Split) -> dict[str, np.ndarray]:
        """Return the predictions for what a split is evaluated on: its training may have predicted more."""
        job, done = self.finished[split.name]
        rows = np.searchsorted(job.evaluated, split.evaluated)
        return {name: column[rows] for name, column in done.columns.items()}

    def _about(self, index: int) -> dict[str, str]:
        row = self.examples.rows[index]
        return {
            "video": row.video,
            "action": row.action or "",
            **({} if self.groups is None else {"group": self.groups[index]}),
            **({} if row.event is None else {"event": row.event}),
        }
