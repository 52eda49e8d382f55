"""The baselines shown beside every head: training mean, ridge and kernel ridge on pooled clip features.

Each baseline takes training and test routines, pooled by `pool`, and returns scores for the test routines. Every scaler
and bandwidth is fitted on the training routines; the penalties are fixed.

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
"""The rows of the head's statistics that `pool` returns."""
RIDGE_PENALTY = 0.3
"""Penalty of ridge regression, times the number of standardised columns."""
KERNEL_PENALTY = 0.03
"""Penalty of kernel ridge regression."""


def pool(features: Sequence[NDArray]) -> NDArray:
    """Statistics of clip features over each routine.

    Args:
        features: clip features of each routine, N arrays (T, C).

    Returns:
        (N, S, C): mean, standard deviation, 10th and 90th percentile, mean absolute difference from clip to clip.
    """
    return np.stack([summarise(torch.from_numpy(x).double())[POOLED].numpy() for x in features])


def mean(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """The training mean for every routine: a model that does not beat it has learnt nothing.

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
    train_columns, test_columns = (x[:, :2].reshape(len(x), -1) for x in (train, test))  # (N, 2C), (Q, 2C)
    model = make_pipeline(StandardScaler(), Ridge(RIDGE_PENALTY * train_columns.shape[1]))
    return model.fit(train_columns, scores).predict(test_columns)


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


class Baselines:
    """All baselines on one set of routines, whose clip features are pooled once.

    A baseline knows the mean score of each action, as a head may.

    Args:
        features: clip features of each routine, N arrays (T, C).
        scores: true scores (N, M) in points, NaN where a target has no score.
        actions: index of each routine's action (N,); None where there is only one.
    """

    def __init__(self, features: Sequence[NDArray], scores: NDArray, actions: NDArray | None) -> None:
        self.pooled, self.scores, self.actions = pool(features), scores, actions

    def predict(self, training: NDArray, test: NDArray) -> dict[str, NDArray]:
        """Fit every baseline on some routines and predict others.

        Args:
            training: indices of the training routines.
            test: indices (Q,) of the test routines.

        Returns:
            Predicted scores (Q, M) in points by name of the baseline.
        """
        predicted = {name: np.empty((len(test), self.scores.shape[1])) for name in BASELINES}
        for target in range(self.scores.shape[1]):
            rows = training[~np.isnan(self.scores[training, target])]
            offsets, test_offsets = self._action_means(rows, test, target)
            residuals = self.scores[rows, target] - offsets
            for name, baseline in BASELINES.items():
                predicted[name][:, target] = test_offsets + baseline(self.pooled[rows], residuals, self.pooled[test])
        return predicted

    def _action_means(self, training: NDArray, test: NDArray, target: int) -> tuple[NDArray, NDArray]:
        """Return the training mean of each routine's action, of all actions where training has none of it."""
        scores = self.scores[training, target]
        offsets, test_offsets = (np.full(len(rows), scores.mean()) for rows in (training, test))
        if self.actions is not None:
            for action in np.unique(self.actions[training]):
                mean_score = scores[self.actions[training] == action].mean()
                offsets[self.actions[training] == action] = mean_score
                test_offsets[self.actions[test] == action] = mean_score
        return offsets, test_offsets


def _kernel(test: NDArray, train: NDArray) -> NDArray:
    """Kernel (Q, N) between pooled routines (Q, S, C) and (N, S, C)."""
    kernels = []
    for statistic in range(train.shape[1]):
        bandwidth = np.median(euclidean_distances(train[:, statistic], squared=True)) or 1.0
        kernels.append(rbf_kernel(test[:, statistic], train[:, statistic], gamma=1 / bandwidth))
    return np.mean(kernels, axis=0)
