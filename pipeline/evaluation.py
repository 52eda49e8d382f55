"""Figures that compare predicted with true scores; always finite numbers.

SRCC is Spearman's rank correlation, 0 for constant predictions. R-l2 is the relative L2 error of the AQA literature,
100/N sum(((s - s^) / (max s - min s))^2), with the range of the evaluated true scores.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 1000
"""How often the bootstrap draws the routines."""
SMALLEST_EVENT = 4
"""The fewest routines for which an event's rank correlation has a positive weight."""


def srcc(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation of two (N,) arrays; 0 where one of them is constant."""
    return float(_rank_correlation(np.asarray(truth), np.asarray(predicted)))


def r_l2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Relative L2 error, x100. Where all true scores are equal, their range counts as one point."""
    return 100 * _mean_square(truth, predicted) / _squared_range(np.asarray(truth, dtype=np.float64))


def mae(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute error in points."""
    return float(np.abs(np.asarray(truth, dtype=np.float64) - predicted).mean())


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean squared error in points."""
    return _mean_square(truth, predicted) ** 0.5


def pearson(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation of two (N,) arrays; 0 where one of them is constant."""
    centred = [x - x.mean() if np.ptp(x) else np.zeros(len(x)) for x in map(np.asarray, (truth, predicted))]
    return float(_correlation(*centred))


def srcc_within_events(truth: np.ndarray, predicted: np.ndarray, events: Sequence[str]) -> float | None:
    """Spearman's rank correlation within each event, averaged in Fisher's z with the weights n - 3.

    1 / (n - 3) is the variance of z over n routines, so events of at least 4 count.

    Args:
        truth: true scores (N,).
        predicted: predicted scores (N,).
        events: the event of each routine (N,).

    Returns:
        The average, None where no event has 4 routines.
    """
    total = weights = 0.0
    for event in dict.fromkeys(events):
        rows = np.flatnonzero(np.asarray(events) == event)
        n = len(rows)
        if n >= SMALLEST_EVENT:
            total += (n - 3) * _fisher_z(srcc(truth[rows], predicted[rows]), n)
            weights += n - 3
    return float(np.tanh(total / weights)) if weights else None


def fisher_average(correlations: Sequence[float], sizes: Sequence[int]) -> float:
    """Average of rank correlations in Fisher's z, each over so many routines; equal ones are their own average."""
    if len(set(correlations)) == 1:
        return correlations[0]
    return float(np.tanh(np.mean([_fisher_z(*one) for one in zip(correlations, sizes, strict=True)])))


def bootstrap(
    truth: np.ndarray,
    predicted: np.ndarray,
    groups: Sequence[str] | None = None,
) -> dict[str, list[float]]:
    """Percentile bootstrap intervals at 95%, over routines or over groups of them.

    Args:
        truth: true scores (N,) in points.
        predicted: predicted scores (S, N) of S trainings; each resample takes the same routines from all of them and
            averages their figures.
        groups: the group of each routine (N,), for example its skater. With groups, whole groups are drawn, because
            routines of one group are alike.

    Returns:
        `[low, high]` of "srcc", "r_l2" and "mae". R-l2 uses the range of all routines in every resample.
    """
    return {name: _bounds(x, 0.95) for name, x in _resampled(truth, predicted, groups).items()}


def difference(
    truth: np.ndarray,
    predicted: np.ndarray,
    other: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
) -> dict[str, tuple[float, list[float]]]:
    """Difference between the figures of two models, with paired bootstrap intervals.

    Args:
        truth: true scores (N,) in points.
        predicted: predicted scores (S, N) of S trainings of the first model.
        other: predicted scores (S, N) of the second model.
        groups: as for `bootstrap`; each resample takes the same routines from both models.
        level: share of the resamples inside an interval.

    Returns:
        Mean difference and `[low, high]` of "srcc", "r_l2" and "mae".
    """
    first, second = (_resampled(truth, x, groups) for x in (predicted, other))
    differences = {}
    for name, figure in (("srcc", srcc), ("r_l2", r_l2), ("mae", mae)):
        mean = np.mean([figure(truth, a) - figure(truth, b) for a, b in zip(predicted, other, strict=True)])
        differences[name] = float(mean), _bounds(first[name] - second[name], level)
    return differences


def evaluate(
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
    groups: Sequence[str] | None = None,
    events: Sequence[str] | None = None,
) -> dict[str, Any]:
    """All figures of one target, in the form of the results contract.

    Args:
        truth: true scores (N,) in points.
        predicted: predicted scores (S, N) in points, a row for each of S trainings with different seeds.
        bounds: lower and upper ends (S, N) of their prediction intervals, in points.
        groups: the group of each routine (N,), for `bootstrap`.
        events: the event of each routine (N,), for `srcc_within_events`.

    Returns:
        `{"srcc", "pearson", "r_l2", "mae", "rmse", "n", "intervals": {"srcc": [low, high], "r_l2", "mae"}}`, the
        intervals at 95%; with bounds "coverage" (share of true scores within them) and "width" (mean, in points); with
        events "srcc_within_events" where an event is large enough. For several trainings their means, with "std".

    Raises:
        ValueError: there is no routine, or a prediction is not finite.
    """
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if len(truth) == 0:
        raise ValueError("there is no routine with a true score to evaluate on")
    if not np.isfinite(predicted).all():
        raise ValueError(f"{(~np.isfinite(predicted)).sum()} of {predicted.size} predictions are not finite numbers")
    of_trainings = []
    for training, scores in enumerate(predicted):
        figures = {
            "srcc": srcc(truth, scores),
            "pearson": pearson(truth, scores),
            "r_l2": r_l2(truth, scores),
            "mae": mae(truth, scores),
            "rmse": rmse(truth, scores),
        }
        if bounds is not None:
            low, high = bounds[0][training], bounds[1][training]
            figures |= {
                "coverage": float(((low <= truth) & (truth <= high)).mean()),
                "width": float((high - low).mean()),
            }
        if events is not None and (within := srcc_within_events(truth, scores, events)) is not None:
            figures["srcc_within_events"] = within
        of_trainings.append(figures)
    return over_seeds(of_trainings) | {"n": len(truth), "intervals": bootstrap(truth, predicted, groups)}


def over_seeds(of_seeds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean of each figure over the trainings of several seeds; with more than one, `std` holds standard deviations."""
    columns = {name: [figures[name] for figures in of_seeds] for name in of_seeds[0]}
    means: dict[str, Any] = {name: statistics.fmean(values) for name, values in columns.items()}
    if len(of_seeds) > 1:
        means["std"] = {name: statistics.stdev(values) for name, values in columns.items()}
    return means


def average(targets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Average several results of `evaluate`: Fisher-z mean of SRCC, arithmetic mean of R-l2."""
    return {
        "srcc": fisher_average([target["srcc"] for target in targets], [target["n"] for target in targets]),
        "r_l2": float(np.mean([target["r_l2"] for target in targets])),
    }


def _fisher_z(correlation: float, size: int) -> float:
    """Fisher's z of a rank correlation over so many routines.

    That of a perfect order is infinite, so one counts as 1 - 6 / (n (n^2 - 1)), half a swap of neighbours short of it.
    """
    limit = 1 - 6 / (size * (size**2 - 1)) if size > 1 else 0
    return float(np.arctanh(np.clip(correlation, -limit, limit)))


def _resampled(truth: np.ndarray, predicted: np.ndarray, groups: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Figures (resamples,) of drawn routines, each the mean over the trainings' predictions (S, N)."""
    _, group = np.unique(range(len(truth)) if groups is None else groups, return_inverse=True)
    num_groups = group.max() + 1
    chosen = np.random.default_rng(0).integers(0, num_groups, (RESAMPLES, num_groups))
    draws = np.stack([np.bincount(row, minlength=num_groups) for row in chosen])
    weights = draws[:, group].astype(np.float64)  # (resamples, N): how often each routine was drawn
    errors = predicted - truth
    square, absolute = np.square(errors).mean(0), np.abs(errors).mean(0)
    true_ranks = _centred_ranks(truth, weights)
    correlations = [_correlation(true_ranks, _centred_ranks(scores, weights), weights) for scores in predicted]
    sizes = weights.sum(1)
    return {
        "srcc": np.mean(correlations, axis=0),
        "r_l2": 100 * (weights @ square) / sizes / _squared_range(truth),
        "mae": (weights @ absolute) / sizes,
    }


def _centred_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ranks (resamples, N) of values (N,) that occur as often as the weights (resamples, N) say; mean rank 0."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    of_value = np.add.reduceat(weights[:, order], starts, axis=1)  # (resamples, distinct values)
    ranks = of_value.cumsum(1) - (of_value - 1) / 2  # ties share the mean of their ranks
    return ranks[:, place] - (weights.sum(1, keepdims=True) + 1) / 2


def _bounds(drawn: np.ndarray, level: float) -> list[float]:
    return np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).tolist()


def _mean_square(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.square(np.asarray(truth, dtype=np.float64) - predicted).mean())


def _squared_range(truth: np.ndarray) -> float:
    return float(np.ptp(truth) or 1.0) ** 2


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation (...) along the last axis of (..., N) arrays; 0 where one of them is constant."""
    return _correlation(*(rankdata(x, axis=-1) - (x.shape[-1] + 1) / 2 for x in (a, b)))


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Correlation (...) along the last axis of centred (..., N) arrays; 0 where one of them is 0 all over."""
    norm = np.sqrt((weights * a**2).sum(-1) * (weights * b**2).sum(-1))
    return np.clip((weights * a * b).sum(-1) / np.where(norm > 0, norm, 1), -1, 1)
