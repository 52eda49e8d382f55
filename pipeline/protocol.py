"""How a head is judged: only ever on videos that its training part did not hold, beside simple baselines.

`official`  train on the train split, test once on the test split.
`cv`        cut the training videos into folds, predict each fold by a head (and baselines) fitted on the others,
            then fit the head that is kept on all of them. Figures are of the pooled out-of-fold predictions.

A prediction interval takes its width from held-out errors inside the training part of the head that it belongs to. The
head that is kept after cross-validation has them for nothing: those of the folds. For fold k they are those of heads
that leave out fold k and one other fold, on that other fold; the head without folds i and k serves both folds, so K
folds take K (K - 1) / 2 more trainings. The official protocol cuts its train split into folds for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold

from ..data.labels import LabelRow, LabelSet
from ..models.checkpoint import check_size
from ..models.ensemble import Ensemble
from ..models.grading import GradingConfig, GradingNetwork
from ..models.head_types import CONFIGS
from . import conformal
from .baselines import BASELINES
from .console import progress
from .evaluation import average, evaluate, over_seeds, r_l2, srcc
from .training import EpochProgress, TargetPrediction, TrainingRecipe, fit, predict

MEMBER_STRIDE = 1000
"""From the seed of one network of an ensemble to the next one's."""


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

    def groups(self, chosen: np.ndarray) -> list[str] | None:
        """Return the group of some of the rows, a row without one being its own; None where none of them has one."""
        rows = [self.rows[i] for i in chosen]
        if not any(row.group for row in rows):
            return None
        return [f"group {row.group}" if row.group else f"row {row.where}" for row in rows]


@dataclass(frozen=True)
class Part:
    """One training and the videos it is judged on, both as indices of rows."""

    name: str
    """What it was trained on; parts of one name and seed are one training."""
    training: np.ndarray
    judged: np.ndarray
    """Empty for the training of the head that is kept after cross-validation."""
    calibration: tuple["Part", ...] = ()
    """Trainings on less of the same videos, judged on the rest of them: their errors make this one's intervals."""


@dataclass(frozen=True)
class Outcome:
    """What the trainings of a protocol came to."""

    network: GradingNetwork | Ensemble
    """The head to keep: of the first seed's last part."""
    radii: dict[str, float]
    """Points to either side of its scores that make an interval at `conformal.LEVEL`, by target, where known."""
    predictions: list[dict[str, Any]]
    """One entry for each seed, judged video and target, in the label files' order."""
    curves: list[dict[str, Any]]
    """One entry for each epoch of each training: `seed`, `part`, `member`, `epoch` and the losses."""


def parts_of(
    examples: Examples, protocol: str, *, folds: int, seed: int, intervals: bool = False
) -> tuple[str, list[Part]]:
    """Cut examples into trainings and what each is judged on; the last part's head is the one to keep.

    Args:
        examples: all judged features, with their splits.
        protocol: "official", "cv", or "auto": official where the test split has features.
        folds: of the cross-validation, or of that inside the train split which the official protocol's intervals take.
        seed: of the cut into folds.
        intervals: whether predictions shall have intervals.

    Returns:
        The protocol, resolved, and its parts.

    Raises:
        ValueError: too few videos for the protocol or the intervals.
    """
    in_test = np.array([row.split == "test" for row in examples.rows])
    training, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
    if protocol == "auto":
        protocol = "official" if len(test) >= 2 else "cv"
    if len(training) < 2:
        raise ValueError(f"{len(training)} training videos have features; a head needs at least 2")
    if protocol == "official" and len(test) < 2:
        raise ValueError(
            f"the official protocol tests on the test split, of which {len(test)} videos have features; "
            "extract them or use --protocol cv"
        )
    if protocol == "official" and not intervals:
        return protocol, [Part("all", training, test)]

    cut = fold_rows(len(training), folds, seed=seed, groups=examples.groups(training))
    held_out = {fold: training[rows] for fold, rows in enumerate(cut, start=1)}

    def without(*left_out: int, judged: int) -> Part:
        rows = np.setdiff1d(training, np.concatenate([held_out[fold] for fold in left_out]))
        return Part(f"without {' and '.join(map(str, sorted(left_out)))}", rows, held_out[judged])

    outer = [without(fold, judged=fold) for fold in held_out]
    if protocol == "official":
        parts = [Part("all", training, test, tuple(outer))]
    else:
        parts = [*outer, Part("all", training, np.array([], dtype=int), tuple(outer))]
    if intervals and protocol == "cv":
        if folds < 3:
            raise ValueError("--intervals leaves out two folds at a time: ask for at least 3 folds")
        for fold, part in enumerate(outer, start=1):
            inner = tuple(without(fold, other, judged=other) for other in held_out if other != fold)
            parts[fold - 1] = replace(part, calibration=inner)
    for part in parts if intervals else ():
        rows = np.concatenate([inner.judged for inner in part.calibration])
        known = int((~np.isnan(examples.scores[rows])).sum(0).min())
        if known < conformal.FEWEST:
            raise ValueError(
                f"intervals at {conformal.LEVEL:.0%} take at least {conformal.FEWEST} judged videos inside each "
                f"training part, and one has {known}; leave --intervals out"
            )
    return protocol, parts


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
    plans: Mapping[int, Sequence[Part]],
    examples: Examples,
    labels: LabelSet,
    *,
    head_type: str = "cofinal",
    members: int = 1,
    recipe: TrainingRecipe,
    device: str,
) -> Outcome:
    """Train every part, predict what it is judged on.

    Args:
        plans: parts by seed, which is that of the training, too; of heads that are only kept, the first is trained.
        examples: the rows that the parts mean.
        labels: their targets, ranges and actions.
        head_type: what to train.
        members: networks to train for each part, from seeds of their own; of several, predictions have an `ensemble`,
            which intervals are of, beside the first one's.
        recipe: how to train.
        device: torch device.

    Raises:
        ValueError: a training part from which nothing can be learnt, or a head too large to be read again.
    """
    first = next(iter(plans))
    kept = examples.at(plans[first][-1].training)
    check_size(replace(_head_config(head_type, kept, labels), num_remembered=len(kept.rows)), members)
    plans = {seed: [x for x in parts if len(x.judged) or seed == first] for seed, parts in plans.items()}
    names = [{x.name for part in parts for x in (part, *part.calibration)} for parts in plans.values()]
    with progress("epochs") as bar:
        task = bar.add_task("training", total=recipe.epochs * members * sum(map(len, names)))
        outcomes = [
            _run_seed(
                seed, parts, examples, labels, head_type, members, recipe, device, lambda: bar.update(task, advance=1)
            )
            for seed, parts in plans.items()
        ]
    predictions = [
        {**({"seed": seed} if len(plans) > 1 else {}), **entry}
        for seed, outcome in zip(plans, outcomes, strict=True)
        for entry in outcome.predictions
    ]
    return replace(outcomes[0], predictions=predictions, curves=[row for x in outcomes for row in x.curves])


def _run_seed(
    seed: int,
    parts: Sequence[Part],
    examples: Examples,
    labels: LabelSet,
    head_type: str,
    members: int,
    recipe: TrainingRecipe,
    device: str,
    on_epoch: Callable[[], None],
) -> Outcome:
    heads: dict[str, list[GradingNetwork]] = {}
    curves: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []

    def train(part: Part, member: int) -> GradingNetwork:
        def note(done: EpochProgress) -> None:
            curves.append({"seed": seed, "part": part.name, "member": member, "epoch": done.epoch, **done.losses})
            on_epoch()

        training = examples.at(part.training)
        return fit(
            training.features,
            training.scores,
            training.actions,
            config=_head_config(head_type, training, labels),
            recipe=recipe,
            seed=seed + MEMBER_STRIDE * (member - 1),
            device=device,
            on_progress=note,
        )

    def networks_of(part: Part) -> list[GradingNetwork]:
        if part.name not in heads:
            heads[part.name] = [train(part, member) for member in range(1, members + 1)]
        return heads[part.name]

    def head_of(part: Part) -> GradingNetwork | Ensemble:
        networks = networks_of(part)
        return networks[0] if members == 1 else Ensemble(networks)

    def errors(part: Part) -> np.ndarray:  # (judged, targets)
        judged = examples.at(part.judged)
        said = predict(head_of(part), judged.features, judged.actions)
        return np.stack([said[target].score for target in labels.targets], axis=1) - judged.scores

    grouped = examples.groups(np.arange(len(examples.rows)))
    for part in parts:
        network = head_of(part)
        missed = np.concatenate([np.empty((0, len(labels.targets))), *map(errors, part.calibration)])
        radii = {target: conformal.radius(missed[:, i]) for i, target in enumerate(labels.targets)}
        radii = {target: points for target, points in radii.items() if np.isfinite(points)}
        if len(part.judged):
            judged = examples.at(part.judged)
            said = predict(networks_of(part)[0], judged.features, judged.actions)
            together = predict(network, judged.features, judged.actions) if members > 1 else None
            groups = None if grouped is None else [grouped[i] for i in part.judged]
            predictions += _predictions(said, together, radii, examples.at(part.training), judged, groups, labels)
    place = {row.where: i for i, row in enumerate(labels.rows)}
    predictions.sort(key=lambda entry: (place[entry["where"]], labels.targets.index(entry["target"])))
    without_place = [{name: value for name, value in entry.items() if name != "where"} for entry in predictions]
    return Outcome(network, radii, without_place, curves)


def _head_config(head_type: str, training: Examples, labels: LabelSet) -> GradingConfig:
    """What to build for a training part; scores without rules (csv) range as far as the part's own."""
    ranges = []
    for target, column in zip(labels.targets, training.scores.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) == 0 or (target not in labels.ranges and known.min() == known.max()):
            raise ValueError(
                f"the training videos' {target} has fewer than two different values; nothing can be learnt"
            )
        ranges.append(labels.ranges.get(target) or (float(known.min()), float(known.max())))
    return CONFIGS[head_type](
        feature_dim=training.features[0].shape[1],
        targets=labels.targets,
        ranges=tuple(ranges),
        num_actions=0 if training.actions is None else len(labels.actions),
    )


def _predictions(
    said: Mapping[str, TargetPrediction],
    together: Mapping[str, TargetPrediction] | None,
    radii: Mapping[str, float],
    training: Examples,
    judged: Examples,
    groups: Sequence[str] | None,
    labels: LabelSet,
) -> list[dict[str, Any]]:
    entries = []
    for column, target in enumerate(labels.targets):
        simple = _baselines(training, column, judged)
        verdict = said[target]
        beside = {} if together is None else {"ensemble": together[target].score}
        if target in radii:
            kept = beside.get("ensemble", verdict.score)
            low, high = conformal.interval(kept, radii[target], labels.ranges.get(target))
            beside |= {"low": low, "high": high}
        for i, row in enumerate(judged.rows):
            if target not in row.scores:
                continue
            entries.append(
                {
                    "where": row.where,
                    "video": row.video,
                    "action": row.action or "",
                    **({} if groups is None else {"group": groups[i]}),
                    **({} if row.event is None else {"event": row.event}),
                    "target": target,
                    "true": row.scores[target],
                    "predicted": float(verdict.score[i]),
                    "grade": int(verdict.grade[i]),
                    **({} if verdict.subgrade is None else {"subgrade": int(verdict.subgrade[i])}),
                    **{name: float(values[i]) for name, values in (beside | simple).items()},
                }
            )
    return entries


def _baselines(training: Examples, column: int, judged: Examples) -> dict[str, np.ndarray]:
    """What the baselines say of one target (judged,): they know the usual score of each action, as the head may."""
    known = np.flatnonzero(~np.isnan(training.scores[:, column]))
    scores = training.scores[known, column]
    usual, of_judged = (np.full(len(x), scores.mean()) for x in (known, judged.rows))
    if training.actions is not None and judged.actions is not None:
        acted = training.actions[known]
        for action in np.unique(acted):
            of_action = scores[acted == action].mean()
            usual[acted == action], of_judged[judged.actions == action] = of_action, of_action
    return {
        name: of_judged + baseline(training.pooled[known], scores - usual, judged.pooled)
        for name, baseline in BASELINES.items()
    }


def summarise(predictions: Sequence[dict[str, Any]], *, by_action: bool = True) -> dict[str, Any]:
    """Return the figures of predictions in the form of the results contract.

    Args:
        predictions: entries of `run`.
        by_action: one result for each action and target (`Ball/Total`), not one a target over all actions.

    Returns:
        `targets`, `average`, `baselines` and, of several networks a head, `ensemble`; of several seeds means over
        them, with `std`.
    """
    by_key: dict[str, list[dict[str, Any]]] = {}
    for entry in predictions:
        action = entry["action"] if by_action else ""
        by_key.setdefault(f"{action}/{entry['target']}" if action else entry["target"], []).append(entry)
    seeds = len({entry.get("seed") for entry in predictions})

    def column(key: str, name: str) -> np.ndarray:  # (seeds, routines): every seed judges the same ones, in one order
        return np.array([entry[name] for entry in by_key[key]]).reshape(seeds, -1)

    def evaluated(key: str, name: str, **beside: Any) -> dict[str, Any]:
        known = {field: column(key, field)[0].tolist() for field in ("group", "event") if field in by_key[key][0]}
        return evaluate(
            column(key, "true")[0],
            column(key, name),
            groups=known.get("group"),
            events=known.get("event"),
            **beside,
        )

    def averaged(seed: int) -> dict[str, float]:
        pairs = [(column(key, "true")[seed], column(key, "predicted")[seed]) for key in by_key]
        return average([{"srcc": srcc(*pair), "r_l2": r_l2(*pair)} for pair in pairs])

    kept = "ensemble" if "ensemble" in predictions[0] else "predicted"

    def figures(name: str) -> dict[str, Any]:
        found = {}
        for key, entries in by_key.items():
            bounds = (column(key, "low"), column(key, "high")) if name == kept and "low" in entries[0] else None
            found[key] = evaluated(key, name, bounds=bounds)
        return found

    return {
        "targets": figures("predicted"),
        **({"ensemble": figures("ensemble")} if kept == "ensemble" else {}),
        "average": over_seeds([averaged(seed) for seed in range(seeds)]),
        "baselines": {name: {key: evaluated(key, name) for key in by_key} for name in BASELINES},
    }
