"""Baselines to be shown beside every head: training mean, ridge and kernel ridge on pooled clip features.

Each takes training and test routines, pooled by `pool`, and returns scores for the test routines; every scaler and
bandwidth is fitted on the training routines, the penalties are fixed.

Shape legend: N training routines, Q test routines, M targets, T clips, C feature, S statistics (`pool` makes 5).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..models.temporal_fusion import summarise

POOLED = [0, 1, 2, 3, 5]
"""Which of the head's statistics."""
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
    return np.stack([summarise(torch.from_numpy(x).double())[POOLED].numpy() for x in features])


def mean(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """The training mean for every routine: what a model has to beat to have learnt anything.

    Args:
        train: pooled features of the training routines (N, S, C).
        scores: their true scores (N,) in points.
        test: pooled features of the test routines (Q, S, C).

    Returns:
        Predicted scores (Q,) in points.
    """
    return np.full(len(test), scores.mean())


def ridge(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """Ridge regression on mean and standard deviation over the clips; arguments as `mean`."""
    fitted, asked = (x[:, :2].reshape(len(x), -1) for x in (train, test))  # (N, 2C), (M, 2C)
    model = make_pipeline(StandardScaler(), Ridge(RIDGE_PENALTY * fitted.shape[1]))
    return model.fit(fitted, scores).predict(asked)


def kernel_ridge(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """Kernel ridge regression, the mean of one Gaussian kernel a statistic; arguments as `mean`.

    Each kernel's bandwidth is the median squared distance among the training routines.
    """
    model = KernelRidge(alpha=KERNEL_PENALTY, kernel="precomputed")
    model.fit(_kernel(train, train), scores - scores.mean())
    return scores.mean() + model.predict(_kernel(test, train))


BASELINES: dict[str, Callable[[NDArray, NDArray, NDArray], NDArray]] = {
    "mean": mean,
    "ridge": ridge,
    "kernel_ridge": kernel_ridge,
}
"""The baselines by the names of the results contract."""


def _kernel(asked: NDArray, fitted: NDArray) -> NDArray:
    """(Q, N) of statistics (Q, S, C) and (N, S, C)."""
    kernels = []
    for statistic in range(fitted.shape[1]):
        bandwidth = np.median(euclidean_distances(fitted[:, statistic], squared=True)) or 1.0
        kernels.append(rbf_kernel(asked[:, statistic], fitted[:, statistic], gamma=1 / bandwidth))
    return np.mean(kernels, axis=0)
