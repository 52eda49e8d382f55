"""Conformal prediction intervals: how far a score may be off, from how far others were (Vovk et al. 2005).

An interval is score +- radius, the radius a quantile of the absolute errors on routines that their heads never saw.
These heads are trained on the folds of a cross-validation, and the interval lies around the score of one that is
trained on all of them (cross-conformal, Vovk 2015): coverage is near the nominal one where a new routine is like those
and a fold more or less makes little difference to a head, but it is not guaranteed, as it is of one calibration part.
"""

import math

import numpy as np

LEVEL = 0.9
"""The nominal coverage of all prediction intervals."""
FEWEST = math.ceil(LEVEL / (1 - LEVEL) - 1e-9)
"""Errors that an interval at `LEVEL` takes: of fewer, the quantile lies beyond the largest."""


def radius(errors: np.ndarray, level: float = LEVEL) -> float:
    """Conformal quantile of absolute errors: the k-th smallest of n, k = ceil((n + 1) level).

    Args:
        errors: errors (N,) in points; those that are NaN (a score was not judged) do not count.
        level: nominal coverage.

    Returns:
        Points to either side of a score; infinite where k > n.
    """
    ordered = np.sort(np.abs(errors[~np.isnan(errors)]))
    k = math.ceil(round((len(ordered) + 1) * level, 9))  # 0.9 n is no exact float
    return float(ordered[k - 1]) if k <= len(ordered) else math.inf


def interval(score: np.ndarray, points: float, span: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends (N,) of the intervals of `points` to either side of scores (N,).

    Args:
        score: in points.
        points: to either side.
        span: lowest and highest score that the rules know, beyond which no end lies; None where there are no rules.
    """
    low, high = span or (-math.inf, math.inf)
    return np.maximum(score - points, low), np.minimum(score + points, high)
