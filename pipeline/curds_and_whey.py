"""Let judges' scores of one target borrow from those of the others: curds and whey (Breiman and Friedman 1997).

Two scores of one routine (say TES and PCS) share most of what a video can show, and each carries noise of its own. How
much of each is best believed is what held-out predictions tell: how the true scores of a target are best mixed from
the predictions of all. A linear method whose scores are mixed so is as good as one whose predictions are; the head
is taught the mixed scores. On Fis-V TES comes to be about half PCS, and PCS stays what it is.

The shares are not negative and sum to 1: a few routines, of which held-out predictions tell nothing, can thus not turn
a score into its opposite, nor shrink it away.

Shape legend: N routines, M targets.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

PULL = 0.05, 10.0
"""How strongly each target is drawn to its own score, as a share of the routines and in routines: it keeps targets that
are sums of others, or judged on few routines, near what they are."""


def borrow(said: np.ndarray, scores: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Scores to teach a head.

    Args:
        said: held-out predictions for the training routines (N, M) in points.
        scores: their true scores (N, M) in points, NaN where unknown.
        ranges: lowest and highest possible score of each target in points.

    Returns:
        (N, M) in points, within the ranges; as they are rows of which a score is unknown, and targets that do not vary
        or of which the predictions tell nothing, as those of a few routines may.
    """
    known = ~np.isnan(scores).any(1)
    if not known.any():
        return scores
    centre, spread = scores[known].mean(0), scores[known].std(0)
    spread[spread == 0] = np.inf
    true, said = ((x[known] - centre) / spread for x in (scores, said))
    told = np.flatnonzero((said * true).sum(0) > 0).tolist()
    if len(told) < 2:
        return scores
    true, said = true[:, told], said[:, told]
    pull = np.eye(len(told)) * (PULL[0] * len(true) + PULL[1]) ** 0.5
    taught = scores.copy()
    for m, target in enumerate(told):
        share = nnls(np.vstack([said, pull]), np.append(true[:, m], pull[m]))[0]
        mixed = centre[target] + spread[target] * (true @ share / share.sum())
        taught[known, target] = mixed.clip(*ranges[target])
    return taught
