"""Kernel ridge regression with held-out predictions in closed form, and target mixing.

The head mixes its targets by it, and as a regression of its own it is the baseline beside every head.

Shape legend: N training routines, Q other routines, R coordinates of a routine, M targets.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.distance import cdist

BANDWIDTH = 2.0
"""Of the Gaussian kernel, in median squared distances between training routines."""
PENALTY = 0.01
"""Of the squared weights; a routine's similarity to itself is 1."""
PULL = 0.05, 10.0
"""How strongly each target is drawn to its own score, as a share of the routines and in routines. It keeps targets that
are sums of others, or scored on few routines, close to their own scores."""


class KernelRidge:
    """Kernel ridge regression of all targets, fitted when it is made.

    Args:
        places: coordinates (N, R) of the training routines.
        scores: their true scores (N, M), NaN where unknown.
    """

    def __init__(self, places: np.ndarray, scores: np.ndarray) -> None:
        self.places = places
        squared = cdist(places, places, "sqeuclidean")
        distances = squared[np.triu_indices(len(places), 1)]
        self.width = BANDWIDTH * (float(np.median(distances)) or 1.0)
        similarity = np.exp(-squared / self.width)
        self.means, self.weights = np.zeros(scores.shape[1]), np.zeros(scores.shape)
        self.leave_one_out = np.zeros(scores.shape)
        """(N, M): the prediction for each training routine by a regression on all others, with the bandwidth and the
        mean score of all."""
        for m, column in enumerate(scores.T):
            known = ~np.isnan(column)
            self.means[m] = column[known].mean()
            residuals = column[known] - self.means[m]
            inverse = np.linalg.inv(similarity[np.ix_(known, known)] + PENALTY * np.eye(known.sum()))
            self.weights[known, m] = inverse @ residuals
            self.leave_one_out[:, m] = self.means[m] + similarity @ self.weights[:, m]
            # without a routine, its own residual becomes weight / diagonal of the inverse (Cawley and Talbot 2004)
            self.leave_one_out[known, m] = column[known] - self.weights[known, m] / inverse.diagonal()

    def predict(self, places: np.ndarray) -> np.ndarray:
        """Return predicted scores (Q, M) for routines at other places (Q, R)."""
        return self.means + np.exp(-cdist(places, self.places, "sqeuclidean") / self.width) @ self.weights


def mix_targets(held_out: np.ndarray, scores: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Mix each target's scores with those of the others ("curds and whey", Breiman and Friedman 1997).

    Two scores of one routine (for example TES and PCS) share most of what a video can show, and each has noise of its
    own. The shares of the mixture are those that best predict the true scores from the held-out predictions. Shares are
    not negative and sum to 1, so a few routines cannot turn a score into its opposite.

    Args:
        held_out: held-out predictions (N, M) in points.
        scores: true scores (N, M) in points, NaN where unknown.
        ranges: lowest and highest possible score of each target in points.

    Returns:
        Scores to learn (N, M) in points, within the ranges. Routines without all scores keep their own, and so do
        targets that do not vary or that the predictions do not rank.
    """
    known = ~np.isnan(scores).any(1)
    if not known.any():
        return scores
    centre, spread = scores[known].mean(0), scores[known].std(0)
    spread[spread == 0] = np.inf
    true, predicted = ((x[known] - centre) / spread for x in (scores, held_out))
    ranked = np.flatnonzero((predicted * true).sum(0) > 0)
    if len(ranked) < 2:
        return scores
    true, predicted = true[:, ranked], predicted[:, ranked]
    pull = np.eye(len(ranked)) * (PULL[0] * len(true) + PULL[1]) ** 0.5
    mixed = scores.copy()
    for m, target in enumerate(ranked.tolist()):
        shares = nnls(np.vstack([predicted, pull]), np.append(true[:, m], pull[m]))[0]
        mixture = centre[target] + spread[target] * (true @ shares / shares.sum())
        mixed[known, target] = mixture.clip(*ranges[target])
    return mixed
