"""Which routines a head is trained on and which it is evaluated on: never the same ones.

`official`  train on the train split, test once on the test split.
`cv`        cut the training videos into folds and predict each fold by a head that is trained on the others. Then the
            final head is trained on all of them.

A prediction interval takes its width from held-out errors inside the training part of its head. For the final head of a
cross-validation these are the errors of the folds, at no extra cost. For fold k they are the errors of heads that leave
out fold k and one other fold, on that other fold. The head without folds i and k serves both folds, so K folds
take K (K - 1) / 2 more trainings. The official protocol cuts its train split into folds for its intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import GroupKFold, KFold

from . import conformal
from .examples import Examples

FOLDS = 5
"""Where neither the user nor the dataset says otherwise."""


@dataclass(frozen=True)
class Split:
    """One training and the routines it is evaluated on, both as indices of routines."""

    name: str
    """What it is trained on; splits of one name and seed share one training."""
    training: np.ndarray
    evaluated: np.ndarray
    """Empty for the final head of a cross-validation."""
    calibration: tuple["Split", ...] = ()
    """Trainings on parts of `training`, evaluated on the rest of it: their errors make the intervals."""


def make_splits(
    examples: Examples, protocol: str, *, folds: int | None, seed: int, intervals: bool = False
) -> tuple[str, list[Split]]:
    """Cut examples into trainings and what each is evaluated on; the last split's head is the final one.

    Args:
        examples: all scored features, with their splits.
        protocol: "official", "cv", or "auto": official where the test split has features of at least two videos.
        folds: number of folds; None for those that the dataset publishes, or else five. The official protocol uses
            them for intervals only.
        seed: of the cut into folds.
        intervals: whether every prediction gets an interval.

    Returns:
        The protocol ("official" or "cv") and its splits.

    Raises:
        ValueError: too few videos for the protocol or the intervals.
    """
    in_test = np.array([row.split == "test" for row in examples.rows])
    training, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
    if protocol == "auto":
        protocol = "official" if len(test) >= 2 else "cv"
    _check_sizes(protocol, len(training), len(test))
    if protocol == "official" and not intervals:
        return protocol, [Split("all", training, test)]

    cut = examples.at(training).published_folds() if folds is None else None
    if cut is None:
        cut = cut_folds(len(training), folds or FOLDS, seed=seed, groups=examples.at(training).groups())
    held_out = [training[rows] for rows in cut]
    outer = [_without(training, held_out, [fold], evaluated=fold) for fold in range(len(held_out))]
    if protocol == "official":
        splits = [Split("all", training, test, tuple(outer))]
    else:
        final = Split("all", training, np.array([], dtype=int), tuple(outer))
        splits = [*(_with_calibration(training, held_out, outer) if intervals else outer), final]
    if intervals:
        for split in splits:
            _check_calibration(examples, split)
    return protocol, splits


def _without(training: np.ndarray, held_out: list[np.ndarray], left_out: list[int], *, evaluated: int) -> Split:
    """Return the split that trains without some folds and evaluates on one of them."""
    rows = np.setdiff1d(training, np.concatenate([held_out[fold] for fold in left_out]))
    numbers = " and ".join(str(fold + 1) for fold in sorted(left_out))
    return Split(f"without {numbers}", rows, held_out[evaluated])


def _with_calibration(training: np.ndarray, held_out: list[np.ndarray], outer: list[Split]) -> list[Split]:
    """Give the split of every fold the trainings that leave out one fold more."""
    if len(held_out) < 3:
        raise ValueError("--intervals leaves out two folds at a time: ask for at least 3 folds")
    calibrated = []
    for fold, split in enumerate(outer):
        others = [other for other in range(len(held_out)) if other != fold]
        inner = tuple(_without(training, held_out, [fold, other], evaluated=other) for other in others)
        calibrated.append(replace(split, calibration=inner))
    return calibrated


def _check_sizes(protocol: str, num_training: int, num_test: int) -> None:
    if num_training < 2:
        raise ValueError(f"{num_training} training videos have features; a head needs at least 2")
    if protocol == "official" and num_test < 2:
        raise ValueError(
            f"the official protocol tests on the test split, of which {num_test} videos have features; "
            "extract them or use --protocol cv"
        )


def _check_calibration(examples: Examples, split: Split) -> None:
    """Refuse a split with too few held-out scores for an interval."""
    rows = np.concatenate([inner.evaluated for inner in split.calibration])
    scored = int((~np.isnan(examples.scores[rows])).sum(0).min())
    if scored < conformal.FEWEST:
        raise ValueError(
            f"intervals at {conformal.LEVEL:.0%} take at least {conformal.FEWEST} scored videos inside each "
            f"training part, and one has {scored}; leave --intervals out"
        )


def cut_folds(num_rows: int, folds: int, *, seed: int, groups: Sequence[str] | None = None) -> list[np.ndarray]:
    """Cut rows into folds at random; rows of one group stay together.

    Args:
        num_rows: number of rows N.
        folds: number of folds.
        seed: of the cut.
        groups: group of each row (N,), for example its skater; None if every row is its own group.

    Returns:
        The held-out rows of each fold, in order: together every row once.

    Raises:
        ValueError: there are fewer rows, or groups, than folds.
    """
    unit, count = ("videos", num_rows) if groups is None else ("groups", len(set(groups)))
    if count < 2:
        raise ValueError("all videos are of one group, and folds need two or more")
    if not 2 <= folds <= count:
        allowed = "2" if count == 2 else f"2 to {count}"
        raise ValueError(f"{count} {unit} cannot be cut into {folds} folds: ask for {allowed}, with --folds")
    splitter = (KFold if groups is None else GroupKFold)(folds, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(np.empty(num_rows), groups=groups)]
