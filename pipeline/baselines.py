"""Baselines to be shown beside every head: training mean, ridge and kernel ridge on pooled clip features.

Each takes training and test routines, pooled by `pool`, and returns scores for the test routines; every scaler and
bandwidth is fitted on the training routines, the penalties are fixed.

Shape legend: N training routines, M test routines, T clips, C feature, S = 5 statistics.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RIDGE_PENALTY = 0.3
"""Of ridge regression, times the number of standardised columns."""
KERNEL_PENALTY = 0.03
"""Of kernel ridge regression."""


def pool(features: Sequence[NDArray]) -> NDArray:
    """Statistics of clip features over each routine.

    Args:
        features: clip features of each routine, N arrays (T, C).

    Returns:
        (N, S, C): mean, standard deviation, 10th and 90th percentile, mean absolute difference from clip to clip.
    """
    return np.stack([_statistics(x.astype(np.float64)) for x in features])


def mean(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """The training mean for every routine: what a model has to beat to have learnt anything.

    Args:
        train: pooled features of the training routines (N, S, C).
        scores: their true scores (N,) in points.
        test: pooled features of the test routines (M, S, C).

    Returns:
        Predicted scores (M,) in points.
    """
    return np.full(len(test), scores.mean())


def ridge(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """Ridge regression on mean and standard deviation over the clips; arguments as `mean`."""
    fitted, asked = (x[:, :2].reshape(len(x), -1) for x in (train, test))  # (N, 2C), (M, 2C)
    centre, spread = fitted.mean(0), fitted.std(0)
    spread[spread == 0] = 1
    fitted, asked = (fitted - centre) / spread, (asked - centre) / spread
    columns = fitted.shape[1]
    return _solve(fitted @ fitted.T / columns, asked @ fitted.T / columns, scores, RIDGE_PENALTY)


def kernel_ridge(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """Kernel ridge regression, the mean of one Gaussian kernel a statistic; arguments as `mean`.

    Each kernel's bandwidth is the median squared distance among the training routines.
    """
    within, across = [], []
    for statistic in range(train.shape[1]):
        fitted, asked = train[:, statistic], test[:, statistic]
        distance = _squared_distance(fitted, fitted)
        bandwidth = np.median(distance) or 1.0
        within.append(np.exp(-distance / bandwidth))
        across.append(np.exp(-_squared_distance(asked, fitted) / bandwidth))
    return _solve(np.mean(within, axis=0), np.mean(across, axis=0), scores, KERNEL_PENALTY)


BASELINES: dict[str, Callable[[NDArray, NDArray, NDArray], NDArray]] = {
    "mean": mean,
    "ridge": ridge,
    "kernel_ridge": kernel_ridge,
}
"""The baselines by the names of the results contract."""


def _statistics(clips: NDArray) -> NDArray:
    """(S, C) of clips (T, C)."""
    low, high = np.percentile(clips, [10, 90], axis=0)
    change = np.abs(np.diff(clips, axis=0)).mean(0) if len(clips) > 1 else np.zeros(clips.shape[1])
    return np.stack([clips.mean(0), clips.std(0), low, high, change])


def _squared_distance(a: NDArray, b: NDArray) -> NDArray:
    """(M, N) of a (M, C) and b (N, C)."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def _solve(within: NDArray, across: NDArray, scores: NDArray, penalty: float) -> NDArray:
    """Dual ridge regression around the training mean: kernels (N, N) and (M, N), scores (N,) -> (M,)."""
    centre = scores.mean()
    weights = np.linalg.solve(within + penalty * np.eye(len(scores)), scores - centre)
    return centre + across @ weights
