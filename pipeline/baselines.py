"""The baselines shown beside every head: training mean, ridge, and kernel ridge on the evidence of the default head.

Every scaler and bandwidth is fitted on the training routines; the penalties are fixed.

Shape legend: N training routines, Q test routines, M targets, T clips, C feature, S statistics.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..models.cofinal import CoFInAlConfig, SummaryTokens
from ..models.kernel_ridge import KernelRidge, mix_targets
from ..models.neighbourhood import summarise_routine
from .examples import Examples

BASELINES = ("mean", "ridge", "kernel_ridge")
"""The baselines by the names of the results contract."""
RIDGE_PENALTY = 0.3
"""Penalty of ridge regression, times the number of standardised columns."""


class Baselines:
    """All baselines on one set of routines.

    A baseline knows the mean score of each action, as a head may.

    Args:
        examples: all routines.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.moments = np.stack([*map(summarise_routine, examples.features)])

    def predict(self, training: NDArray, test: NDArray) -> dict[str, NDArray]:
        """Fit every baseline on some routines and predict others.

        Args:
            training: indices of the training routines.
            test: indices (Q,) of the test routines.

        Returns:
            Predicted scores (Q, M) in points by name of the baseline.
        """
        scores = self.examples.scores[training]
        offsets, test_offsets = self._action_means(training, test)
        residuals = scores - offsets
        return {
            "mean": test_offsets,
            "ridge": test_offsets + ridge(self.moments[training], residuals, self.moments[test]),
            "kernel_ridge": test_offsets + self._kernel_ridge(training, residuals, test),
        }

    def _action_means(self, training: NDArray, test: NDArray) -> tuple[NDArray, NDArray]:
        """Return the training mean of each routine's action (N, M) and (Q, M); of all where an action has no score."""
        scores, actions = self.examples.scores, self.examples.actions
        overall = np.nanmean(scores[training], axis=0)
        means = np.tile(overall, (len(scores), 1))
        if actions is not None:
            for action in np.unique(actions[training]):
                of_action = scores[training[actions[training] == action]]
                counts = (~np.isnan(of_action)).sum(0)
                mean_scores = np.nansum(of_action, axis=0) / np.maximum(counts, 1)
                means[actions == action] = np.where(counts > 0, mean_scores, overall)
        return means[training], means[test]

    def _kernel_ridge(self, training: NDArray, residuals: NDArray, test: NDArray) -> NDArray:
        """Kernel ridge regression with target mixing on the default head's coordinates of the routines."""
        num_span = min(CoFInAlConfig.num_coordinates, len(training) - 1)
        tokens = SummaryTokens(self.examples.features[0].shape[1], num_span, num_actions=0)
        with torch.no_grad():
            places = tokens.fit(self._clips(training), None)[0].sum(1).double().numpy()
            test_places = tokens([*map(tokens.compress, self._clips(test))], None).sum(1).double().numpy()
        unlimited = [(-np.inf, np.inf)] * residuals.shape[1]
        mixed = mix_targets(KernelRidge(places, residuals).leave_one_out, residuals, unlimited)
        return KernelRidge(places, mixed).predict(test_places)

    def _clips(self, rows: NDArray) -> list[torch.Tensor]:
        return [torch.from_numpy(np.asarray(self.examples.features[row], np.float32)) for row in rows]


def ridge(train: NDArray, scores: NDArray, test: NDArray) -> NDArray:
    """Ridge regression of each target on standardised columns.

    Args:
        train: columns (N, 2 C) of the training routines: mean and standard deviation over the clips.
        scores: their true scores (N, M) in points, NaN where unknown.
        test: columns (Q, 2 C) of the test routines.

    Returns:
        Predicted scores (Q, M) in points.
    """
    predicted = np.empty((len(test), scores.shape[1]))
    for m, column in enumerate(scores.T):
        known = ~np.isnan(column)
        model = make_pipeline(StandardScaler(), Ridge(RIDGE_PENALTY * train.shape[1]))
        predicted[:, m] = model.fit(train[known], column[known]).predict(test)
    return predicted
