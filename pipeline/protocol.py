"""How a head is judged: only ever on videos that its training part did not hold, beside simple baselines.

`official`  train on the train split, test once on the test split.
`cv`        cut the training videos into folds, predict each fold by a head (and baselines) fitted on the others,
            then fit the head that is kept on all of them. Figures are of the pooled out-of-fold predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold

from data.labels import LabelRow, LabelSet
from models.grading import GradingConfig, GradingNetwork
from models.head_types import CONFIGS
from pipeline.baselines import BASELINES
from pipeline.console import progress
from pipeline.evaluation import average, evaluate
from pipeline.training import TrainingRecipe, fit, predict


@dataclass(frozen=True)
class Examples:
    """Judged features in memory."""

    rows: list[LabelRow]
    features: list[np.ndarray]
    """Of each row, `(clips, C)`."""
    pooled: np.ndarray
    """`(rows, statistics, C)`, the same over each row's clips, for the baselines."""
    scores: np.ndarray
    """`(rows, targets)` in points, NaN where a target was not judged."""
    actions: np.ndarray | None
    """Index of each row's action; None where there is only one."""

    def at(self, chosen: np.ndarray) -> "Examples":
        """Return some of the rows."""
        return Examples(
            [self.rows[i] for i in chosen],
            [self.features[i] for i in chosen],
            self.pooled[chosen],
            self.scores[chosen],
            None if self.actions is None else self.actions[chosen],
        )

    def groups(self) -> list[str] | None:
        """Return each row's group, a row without one being its own; None where no row has one."""
        if not any(row.group for row in self.rows):
            return None
        return [f"group {row.group}" if row.group else f"row {row.where}" for row in self.rows]


@dataclass(frozen=True)
class Part:
    """One training and the videos it is judged on."""

    training: Examples
    judged: Examples | None
    """None for the training of the head that is kept after cross-validation."""


def parts_of(examples: Examples, protocol: str, *, folds: int, seed: int) -> tuple[str, list[Part]]:
    """Cut examples into trainings and what each is judged on; the last part's head is the one to keep.

    Args:
        examples: all judged features, with their splits.
        protocol: "official", "cv", or "auto": official where the test split has features.
        folds: of the cross-validation.
        seed: of the cut into folds.

    Returns:
        The protocol, resolved, and its parts.

    Raises:
        ValueError: too few videos for the protocol.
    """
    in_test = np.array([row.split == "test" for row in examples.rows])
    training, test = examples.at(np.flatnonzero(~in_test)), examples.at(np.flatnonzero(in_test))
    if protocol == "auto":
        protocol = "official" if len(test.rows) >= 2 else "cv"
    if len(training.rows) < 2:
        raise ValueError(f"{len(training.rows)} training videos have features; a head needs at least 2")
    if protocol == "official":
        if len(test.rows) < 2:
            raise ValueError(
                f"the official protocol tests on the test split, of which {len(test.rows)} videos have features; "
                "extract them or use --protocol cv"
            )
        return protocol, [Part(training, test)]
    every = np.arange(len(training.rows))
    held_out = fold_rows(len(every), folds, seed=seed, groups=training.groups())
    parts = [Part(training.at(np.setdiff1d(every, fold)), training.at(fold)) for fold in held_out]
    return protocol, [*parts, Part(training, None)]


def fold_rows(num_rows: int, folds: int, *, seed: int, groups: Sequence[str] | None = None) -> list[np.ndarray]:
    """Cut rows into folds at random, rows of one group staying together.

    Args:
        num_rows: N.
        folds: number of folds.
        seed: of the cut.
        groups: group of each row (N,), say its skater; None: every row is its own.

    Returns:
        The held-out rows of each fold, in order: together every row once.

    Raises:
        ValueError: there are fewer rows, or groups, than folds.
    """
    what, distinct = ("videos", num_rows) if groups is None else ("groups", len(set(groups)))
    if not 2 <= folds <= distinct:
        raise ValueError(f"{distinct} {what} cannot be cut into {folds} folds: ask for 2 to {distinct} folds")
    kind = KFold if groups is None else GroupKFold
    cut = kind(folds, shuffle=True, random_state=seed)
    return [held_out for _, held_out in cut.split(np.empty(num_rows), groups=groups)]


def run(
    parts: Sequence[Part],
    labels: LabelSet,
    *,
    head_type: str = "cofinal",
    recipe: TrainingRecipe,
    seed: int,
    device: str,
) -> tuple[GradingNetwork, list[dict[str, Any]]]:
    """Train every part, predict what it is judged on.

    Returns:
        The last part's network, and one entry for each judged video and target, in the label files' order.
    """
    predictions: list[dict[str, Any]] = []
    with progress("epochs") as bar:
        task = bar.add_task("training", total=recipe.epochs * len(parts))
        for part in parts:
            network = fit(
                part.training.features,
                part.training.scores,
                part.training.actions,
                config=_head_config(head_type, part.training, labels),
                recipe=recipe,
                seed=seed,
                device=device,
                on_progress=lambda done: bar.update(task, advance=1),
            )
            if part.judged is not None:
                predictions += _predictions(network, part.training, part.judged, labels)
    place = {row.where: i for i, row in enumerate(labels.rows)}
    predictions.sort(key=lambda entry: (place[entry.pop("where")], labels.targets.index(entry["target"])))
    return network, predictions


def _head_config(head_type: str, training: Examples, labels: LabelSet) -> GradingConfig:
    """What to build for a training part; scores without rules (csv) range as far as the part's own."""
    ranges = []
    for target, column in zip(labels.targets, training.scores.T, strict=True):
        low, high = labels.ranges.get(target) or (float(np.nanmin(column)), float(np.nanmax(column)))
        if not low < high:
            raise ValueError(
                f"the training videos' {target} has fewer than two different values; nothing can be learnt"
            )
        ranges.append((low, high))
    return CONFIGS[head_type](
        feature_dim=training.features[0].shape[1],
        targets=labels.targets,
        ranges=tuple(ranges),
        num_actions=0 if training.actions is None else len(labels.actions),
    )


def _predictions(
    network: GradingNetwork, training: Examples, judged: Examples, labels: LabelSet
) -> list[dict[str, Any]]:
    entries = []
    said = predict(network, judged.features, judged.actions)
    for column, target in enumerate(labels.targets):
        known = np.flatnonzero(~np.isnan(training.scores[:, column]))
        simple = {
            name: baseline(training.pooled[known], training.scores[known, column], judged.pooled)
            for name, baseline in BASELINES.items()
        }
        verdict = said[target]
        for i, row in enumerate(judged.rows):
            if target not in row.scores:
                continue
            entries.append(
                {
                    "where": row.where,
                    "video": row.video,
                    "action": row.action or "",
                    "target": target,
                    "true": row.scores[target],
                    "predicted": float(verdict.score[i]),
                    "grade": int(verdict.grade[i]),
                    **({} if verdict.subgrade is None else {"subgrade": int(verdict.subgrade[i])}),
                    **{name: float(values[i]) for name, values in simple.items()},
                }
            )
    return entries


def summarise(predictions: Sequence[dict[str, Any]], *, by_action: bool = True) -> dict[str, Any]:
    """Return the figures of predictions in the form of the results contract.

    Args:
        predictions: entries of `run`.
        by_action: one result for each action and target (`Ball/Total`), not one a target over all actions.

    Returns:
        `targets`, `average` and `baselines`.
    """
    by_key: dict[str, list[dict[str, Any]]] = {}
    for entry in predictions:
        action = entry["action"] if by_action else ""
        by_key.setdefault(f"{action}/{entry['target']}" if action else entry["target"], []).append(entry)

    def figures(column: str) -> dict[str, Any]:
        return {
            key: evaluate(np.array([e["true"] for e in entries]), np.array([e[column] for e in entries]))
            for key, entries in by_key.items()
        }

    targets = figures("predicted")
    return {
        "targets": targets,
        "average": average(list(targets.values())),
        "baselines": {name: figures(name) for name in BASELINES},
    }
