"""Conformal prediction intervals: the error to expect of a score, from errors on other routines (Vovk et al. 2005).

An interval is score +- radius. The radius is a quantile of absolute errors on held-out routines: each was scored by a
head that was trained on the other folds of a cross-validation. The interval is put around the score of a head that is
trained on all folds (cross-conformal, Vovk 2015). Coverage is near the nominal one where new routines resemble the
training routines and one fold more makes little difference to a head. It is not guaranteed, as it would be with a
calibration set that no head is trained on.
"""

import math

import numpy as np

LEVEL = 0.9
"""The nominal coverage of all prediction intervals."""
FEWEST = math.ceil(LEVEL / (1 - LEVEL) - 1e-9)
"""The fewest errors for an interval at `LEVEL`: with fewer, the quantile lies beyond the largest error."""


def radius(errors: np.ndarray, level: float = LEVEL) -> float:
    """Conformal quantile of absolute errors: the k-th smallest of n, k = ceil((n + 1) level).

    Args:
        errors: errors (N,) in points; NaN where there is no true score.
        level: nominal coverage.

    Returns:
        Points to either side of a score; infinite where k > n.
    """
    ordered = np.sort(np.abs(errors[~np.isnan(errors)]))
    k = math.ceil(round((len(ordered) + 1) * level, 9))  # rounded, because 0.9 n is not an exact float
    return float(ordered[k - 1]) if k <= len(ordered) else math.inf


def interval(score: np.ndarray, points: float, span: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends (N,) of intervals around scores (N,).

    Args:
        score: in points.
        points: half-width of the intervals, in points.
        span: lowest and highest score that the rules allow, to which the ends are cut; None where there are no rules.
    """
    low, high = span or (-math.inf, math.inf)
    return np.maximum(score - points, low), np.minimum(score + points, high)
