"""Run a protocol: train a head on every split and predict the routines that it has not seen.

Baselines are fitted on the same splits, and their predictions stand beside the head's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.labels import LabelRow, LabelSet
from ..models.ensemble import Ensemble
from ..models.grading import GradingConfig, GradingNetwork
from . import conformal
from .baselines import Baselines
from .examples import Dataset, Examples
from .splits import Split
from .training import EpochProgress, TargetPrediction, TrainingRecipe, fit, predict

MEMBER_STRIDE = 1000
"""From the seed of one network of an ensemble to the seed of the next one."""

ConfigFactory = Callable[..., GradingConfig]
"""Makes a head's configuration from `feature_dim`, `targets`, `ranges` and `num_actions`."""


@dataclass(frozen=True)
class HeadTraining:
    """What is trained on every split, and how."""

    make_config: ConfigFactory
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    members: int = 1
    """Networks a head. Of several, predictions have an `ensemble` beside the first network's `predicted`."""
    device: str = "cpu"

    def config_for(self, training: Examples, labels: LabelSet) -> GradingConfig:
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

    network: GradingNetwork | Ensemble
    """The head of the last split."""
    radii: dict[str, float]
    """Half-width in points of that head's intervals at `conformal.LEVEL`, by target; absent where unknown."""
    predictions: list[dict[str, Any]]
    """One entry for each evaluated routine and target, in the label files' order."""
    curves: list[dict[str, Any]]
    """One entry for each epoch of each training: `split`, `member`, `epoch` and the losses."""


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
    on_epoch: Callable[[], object] = lambda: None,
) -> Outcome:
    """Train a head on every split and predict what it is evaluated on.

    Args:
        splits: from `make_splits`.
        dataset: the labels and the routines that the splits index.
        training: what to train, and how.
        seed: of the trainings.
        on_epoch: called after every epoch of every training.

    Raises:
        ValueError: the routines of a split teach nothing.
    """
    labels, examples = dataset.labels, dataset.examples
    heads: dict[str, list[GradingNetwork]] = {}
    curves: list[dict[str, Any]] = []

    def train(split: Split, member: int) -> GradingNetwork:
        def note(progress: EpochProgress) -> None:
            curves.append({"split": split.name, "member": member, "epoch": progress.epoch, **progress.losses})
            on_epoch()

        routines = examples.at(split.training)
        return fit(
            routines.features,
            routines.scores,
            routines.actions,
            config=training.config_for(routines, labels),
            recipe=training.recipe,
            seed=seed + MEMBER_STRIDE * (member - 1),
            device=training.device,
            on_progress=note,
        )

    def networks_of(split: Split) -> list[GradingNetwork]:
        if split.name not in heads:
            heads[split.name] = [train(split, member) for member in range(1, training.members + 1)]
        return heads[split.name]

    def head_of(split: Split) -> GradingNetwork | Ensemble:
        networks = networks_of(split)
        return networks[0] if len(networks) == 1 else Ensemble(networks)

    def errors_on(split: Split) -> np.ndarray:  # (evaluated, targets)
        routines = examples.at(split.evaluated)
        predicted = predict(head_of(split), routines.features, routines.actions)
        return np.stack([predicted[target].score for target in labels.targets], axis=1) - routines.scores

    baselines = Baselines(examples.features, examples.scores, examples.actions)
    entries: list[tuple[int, int, dict[str, Any]]] = []
    for split in splits:
        errors = np.concatenate([np.empty((0, len(labels.targets))), *map(errors_on, split.calibration)])
        radii = {target: conformal.radius(errors[:, m]) for m, target in enumerate(labels.targets)}
        radii = {target: points for target, points in radii.items() if np.isfinite(points)}
        networks, head = networks_of(split), head_of(split)
        if len(split.evaluated) == 0:
            continue
        routines = examples.at(split.evaluated)
        predicted = predict(networks[0], routines.features, routines.actions)
        ensemble = predict(head, routines.features, routines.actions) if len(networks) > 1 else None
        simple = baselines.predict(split.training, split.evaluated)
        for m, target in enumerate(labels.targets):
            columns = _columns(
                predicted[target], None if ensemble is None else ensemble[target], radii.get(target), labels, target
            )
            columns |= {name: values[:, m] for name, values in simple.items()}
            for i, row in enumerate(routines.rows):
                if target in row.scores:
                    values = {name: column[i].item() for name, column in columns.items()}
                    entries.append(
                        (int(split.evaluated[i]), m, {"target": target, "true": row.scores[target], **values})
                    )
    groups = examples.groups()
    predictions = [
        {**_about(examples.rows[i], None if groups is None else groups[i]), **entry}
        for i, _, entry in sorted(entries, key=lambda entry: entry[:2])
    ]
    return Outcome(head, radii, predictions, curves)


def _columns(
    predicted: TargetPrediction,
    ensemble: TargetPrediction | None,
    radius: float | None,
    labels: LabelSet,
    target: str,
) -> dict[str, np.ndarray]:
    """Return a head's columns of one target's predictions, an entry a routine."""
    columns = {"predicted": predicted.score, "grade": predicted.grade}
    if predicted.subgrade is not None:
        columns["subgrade"] = predicted.subgrade
    if ensemble is not None:
        columns["ensemble"] = ensemble.score
    if radius is not None:
        centre = predicted.score if ensemble is None else ensemble.score
        columns["low"], columns["high"] = conformal.interval(centre, radius, labels.ranges.get(target))
    return columns


def _about(row: LabelRow, group: str | None) -> dict[str, str]:
    """Return what a prediction's entry says of its routine."""
    return {
        "video": row.video,
        "action": row.action or "",
        **({} if group is None else {"group": group}),
        **({} if row.event is None else {"event": row.event}),
    }
