"""Run a protocol: train a head on every split and predict the routines that it has not seen.

Baselines are fitted on the same splits, and their predictions stand beside the head's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.labels import LabelSet
from ..models.head import HeadConfig, HeadNetwork, Recipe
from ..models.predict import Prediction, predict
from . import conformal
from .baselines import Baselines
from .examples import Dataset, Examples
from .splits import Split
from .training import EpochProgress, fit

ConfigFactory = Callable[..., HeadConfig]
"""Makes a head's configuration from `feature_dim`, `targets`, `ranges` and `num_actions`."""


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
class Outcome:
    """The results of a protocol's trainings with one seed."""

    network: HeadNetwork
    """The head of the last split."""
    radii: dict[str, float]
    """Half-width in points of that head's intervals at `conformal.LEVEL`, by target; absent where unknown."""
    predictions: list[dict[str, Any]]
    """One entry for each evaluated routine and target, in the label files' order."""
    curves: list[dict[str, Any]]
    """One entry for each epoch of each training: `split`, `epoch` and the losses."""


def count_trainings(splits: Iterable[Split]) -> int:
    """Return how many heads a protocol trains; splits of one name share one."""
    return len({name for split in splits for name in (split.name, *(inner.name for inner in split.calibration))})


def run_seeds(
    splits: Mapping[int, Sequence[Split]],
    dataset: Dataset,
    training: HeadTraining,
    *,
    on_epoch: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run a protocol with several seeds.

    Args:
        splits: the splits of each seed.
        dataset: as for `run_protocol`, like the further arguments.

    Returns:
        The first seed's head and radii; the predictions and curves of all seeds, which say their `seed` where there
        are several (curves always).
    """
    outcomes = {
        seed: run_protocol(of_seed, dataset, training, seed=seed, on_epoch=on_epoch) for seed, of_seed in splits.items()
    }
    several = len(outcomes) > 1
    return replace(
        next(iter(outcomes.values())),
        predictions=[
            {**({"seed": seed} if several else {}), **entry} for seed, x in outcomes.items() for entry in x.predictions
        ],
        curves=[{"seed": seed, **entry} for seed, x in outcomes.items() for entry in x.curves],
    )


def run_protocol(
    splits: Sequence[Split],
    dataset: Dataset,
    training: HeadTraining,
    *,
    seed: int = 0,
    with_baselines: bool = True,
    on_epoch: Callable[[], object] = lambda: None,
) -> Outcome:
    """Train a head on every split and predict what it is evaluated on.

    Args:
        splits: from `make_splits`.
        dataset: the labels and the routines that the splits index.
        training: what to train, and how.
        seed: of the trainings.
        with_baselines: whether baselines are fitted on the same splits, and stand beside the head's predictions.
        on_epoch: called after every epoch of every training.

    Raises:
        ValueError: the routines of a split teach nothing.
    """
    baselines = Baselines(dataset.examples, dataset.labels) if with_baselines else None
    run = _Run(dataset, training, seed, baselines, on_epoch)
    entries = [entry for split in splits for entry in run.predictions_of(split)]
    entries.sort(key=lambda entry: entry[0])
    return Outcome(run.network_of(splits[-1]), run.radii_of(splits[-1]), [entry for _, entry in entries], run.curves)


class _Run:
    """The trainings of one protocol and seed, each made when it is first needed."""

    def __init__(
        self,
        dataset: Dataset,
        training: HeadTraining,
        seed: int,
        baselines: Baselines | None,
        on_epoch: Callable[[], object],
    ) -> None:
        self.labels, self.examples = dataset.labels, dataset.examples
        self.training, self.seed, self.baselines, self.on_epoch = training, seed, baselines, on_epoch
        self.groups = self.examples.groups()
        self.curves: list[dict[str, Any]] = []
        self._networks: dict[str, HeadNetwork] = {}
        self._predictions: dict[tuple[str, bytes], dict[str, Prediction]] = {}

    def network_of(self, split: Split) -> HeadNetwork:
        """Return the head trained on a split."""
        if split.name not in self._networks:
            self._networks[split.name] = self._train(split)
        return self._networks[split.name]

    def radii_of(self, split: Split) -> dict[str, float]:
        """Return the half-width of the split's intervals by target, from its calibration trainings."""
        errors = np.concatenate([np.empty((0, len(self.labels.targets))), *map(self._errors, split.calibration)])
        radii = {target: conformal.radius(errors[:, m]) for m, target in enumerate(self.labels.targets)}
        return {target: points for target, points in radii.items() if np.isfinite(points)}

    def predictions_of(self, split: Split) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        """Yield an entry for each routine and target that the split is evaluated on, with its place in the order."""
        self.network_of(split)  # the final head has nothing to predict, and is trained all the same
        if len(split.evaluated) == 0:
            return
        routines, radii, predicted = self.examples.at(split.evaluated), self.radii_of(split), self._predict(split)
        baselines = {} if self.baselines is None else self.baselines.predict(split.training, split.evaluated)
        for m, target in enumerate(self.labels.targets):
            columns = _columns(predicted[target], radii.get(target), self.labels.ranges.get(target))
            columns |= {name: scores[:, m] for name, scores in baselines.items()}
            for i, row in enumerate(routines.rows):
                if target in row.scores:
                    index = int(split.evaluated[i])
                    values = {name: column[i].item() for name, column in columns.items()}
                    yield (index, m), {**self._about(index), "target": target, "true": row.scores[target], **values}

    def _train(self, split: Split) -> HeadNetwork:
        def note(done: EpochProgress) -> None:
            self.curves.append({"split": split.name, "epoch": done.epoch, **done.losses})
            self.on_epoch()

        routines = self.examples.at(split.training)
        return fit(
            routines.features,
            routines.scores,
            routines.actions,
            config=self.training.config_for(routines, self.labels),
            recipe=self.training.recipe,
            seed=self.seed,
            device=self.training.device,
            on_progress=note,
        )

    def _errors(self, split: Split) -> np.ndarray:  # (evaluated, targets)
        predicted = self._predict(split)
        scores = self.examples.scores[split.evaluated]
        return np.stack([predicted[target].score for target in self.labels.targets], axis=1) - scores

    def _predict(self, split: Split) -> dict[str, Prediction]:
        """Predict what a split is evaluated on, once: its errors may make several intervals."""
        key = split.name, split.evaluated.tobytes()
        if key not in self._predictions:
            routines = self.examples.at(split.evaluated)
            self._predictions[key] = predict(self.network_of(split), routines.features, routines.actions)
        return self._predictions[key]

    def _about(self, index: int) -> dict[str, str]:
        row = self.examples.rows[index]
        return {
            "video": row.video,
            "action": row.action or "",
            **({} if self.groups is None else {"group": self.groups[index]}),
            **({} if row.event is None else {"event": row.event}),
        }


def _columns(
    predicted: Prediction, radius: float | None, score_range: tuple[float, float] | None
) -> dict[str, np.ndarray]:
    """Return a head's columns of one target's predictions, an entry a routine."""
    columns = {"predicted": predicted.score, "grade": predicted.grade}
    if predicted.subgrade is not None:
        columns["subgrade"] = predicted.subgrade
    if radius is not None:
        columns["low"], columns["high"] = conformal.interval(predicted.score, radius, score_range)
    return columns
