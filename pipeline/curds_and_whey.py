"""Let judges' scores of one target borrow from those of the others: curds and whey (Breiman and Friedman 1997).

Two scores of one routine (say TES and PCS) share most of what a video can show, and each carries noise of its own. How
much of each is best believed is what held-out predictions tell: a linear map from the predictions of all targets to
the true scores of each. A linear method whose scores are mapped so is as good as one whose predictions are; the head
is taught the mapped scores. On Fis-V TES comes to be about half PCS, and PCS stays what it is.

Shape legend: N routines, S statistics, C feature, M targets.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.baselines import leave_one_out

PULL = 0.05
"""How strongly the map is drawn to the identity, as a share of the routines: it keeps targets that are sums of others,
or judged on few routines, near what they are."""


def borrow(summaries: np.ndarray, scores: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Scores to teach a head.

    Args:
        summaries: statistics of the training routines (N, S, C).
        scores: their true scores (N, M) in points, NaN where unknown.
        ranges: lowest and highest possible score of each target in points.

    Returns:
        (N, M) in points, within the ranges; rows of which a score is unknown as they are.
    """
    known = ~np.isnan(scores).any(1)
    spread = scores[known].std(0)
    if scores.shape[1] == 1 or known.sum() < 2 or not spread.all():
        return scores
    centre = scores[known].mean(0)
    true = (scores[known] - centre) / spread
    said = (leave_one_out(summaries[known], scores[known]) - centre) / spread
    pull = PULL * len(true)
    identity = np.eye(len(spread))
    mix = np.linalg.solve(said.T @ said + pull * identity, said.T @ true + pull * identity)  # (M, M)
    low, high = np.transpose(ranges)
    taught = scores.copy()
    taught[known] = np.clip(centre + spread * (true @ mix), low, high)
    return taught
