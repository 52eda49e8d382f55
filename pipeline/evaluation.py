"""The figures by which predicted scores are judged; always finite numbers.

SRCC is Spearman's rank correlation, 0 for constant predictions. R-l2 is the relative L2 error of the AQA literature,
100/N sum(((s - s^) / (max s - min s))^2), its range that of the evaluated true scores.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata


def srcc(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation of two (N,) arrays; 0 where one of them is constant."""
    return float(_rank_correlation(np.asarray(truth)[None], np.asarray(predicted)[None])[0])


def r_l2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Relative L2 error, x100. Where all true scores are equal, their range counts as one point."""
    truth = np.asarray(truth, dtype=np.float64)
    return 100 * _mean_square(truth, predicted) / float(np.ptp(truth) or 1.0) ** 2


def mae(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean absolute error in points."""
    return float(np.abs(np.asarray(truth, dtype=np.float64) - predicted).mean())


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean squared error in points."""
    return _mean_square(truth, predicted) ** 0.5


def fisher_average(correlations: Sequence[float]) -> float:
    """Average of correlations in Fisher's z; one that is +-1 counts as just short of it."""
    limit = 1 - 1e-12
    return float(np.tanh(np.arctanh(np.clip(correlations, -limit, limit)).mean()))


def bootstrap_srcc(
    truth: np.ndarray, predicted: np.ndarray, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of SRCC over routines."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    rows = np.random.default_rng(seed).integers(0, len(truth), (resamples, len(truth)))
    low, high = np.quantile(_rank_correlation(truth[rows], predicted[rows]), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def evaluate(truth: np.ndarray, predicted: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """All figures of one target, in the form of the results contract.

    Args:
        truth: true scores (N,) in points; rows that are NaN are left out.
        predicted: predicted scores (N,) in points.
        seed: of the bootstrap.

    Returns:
        `{"srcc", "r_l2", "mae", "rmse", "n", "intervals": {"srcc": [low, high]}}`, the interval at 95%.

    Raises:
        ValueError: no row has a true score, or a prediction is not finite.
    """
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    known = ~np.isnan(truth)
    truth, predicted = truth[known], predicted[known]
    if len(truth) == 0:
        raise ValueError("there is no routine with a true score to evaluate on")
    if not np.isfinite(predicted).all():
        raise ValueError(f"{(~np.isfinite(predicted)).sum()} of {len(predicted)} predictions are not finite numbers")
    return {
        "srcc": srcc(truth, predicted),
        "r_l2": r_l2(truth, predicted),
        "mae": mae(truth, predicted),
        "rmse": rmse(truth, predicted),
        "n": len(truth),
        "intervals": {"srcc": list(bootstrap_srcc(truth, predicted, seed=seed))},
    }


def average(targets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over several results of `evaluate`: Fisher-z mean of SRCC, arithmetic mean of R-l2."""
    return {
        "srcc": fisher_average([target["srcc"] for target in targets]),
        "r_l2": float(np.mean([target["r_l2"] for target in targets])),
    }


def _mean_square(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.square(np.asarray(truth, dtype=np.float64) - predicted).mean())


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of (R, N) with the same row of another; 0 where a row is constant."""
    a, b = (rankdata(x, axis=1) - (x.shape[1] + 1) / 2 for x in (a, b))  # ranks, centred exactly
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.clip((a * b).sum(1) / np.where(norm > 0, norm, 1), -1, 1)
