"""Coupling and decoupling of scores (CoFInAl, section 3.5): score <-> coarse grade + position within the grade.

The axis of a target is cut at `edges` into G consecutive grades. Each grade carries K sub-grades whose values run
evenly from its lower edge (first) to its upper edge (last), so neighbouring grades agree at the edge they share and
every score of the range, both ends included, can be expressed.

    couple:    score = sum_g p_g (edge_g + span_g * position_g),   position_g = sum_k q_gk * k/(K-1)
    decouple:  the p and q of a known score; coupling them again gives the score back

Shape legend: B batch, G grades, K sub-grades.
"""

import numpy as np
import torch
from torch import Tensor

MIN_SPAN = 0.2
"""The narrowest grade, as a share of an equal span: quantiles of tied scores would otherwise coincide."""


def grade_edges(scores: np.ndarray, score_range: tuple[float, float], num_grades: int) -> np.ndarray:
    """Cut the score axis so that each grade holds about as many of the scores.

    Args:
        scores: known scores (N,) in points, those of the training part.
        score_range: lowest and highest possible score in points; they become the outer edges.
        num_grades: G.

    Returns:
        Edges (G+1,) in points, strictly increasing.
    """
    low, high = score_range
    inner = np.quantile(scores, np.arange(1, num_grades) / num_grades)
    spans = np.diff([low, *inner, high]) / (high - low)
    spans = np.maximum(spans, MIN_SPAN / num_grades)
    edges = low + (high - low) * np.concatenate(([0.0], np.cumsum(spans) / spans.sum()))
    edges[-1] = high
    return edges


def couple(coarse: Tensor, fine: Tensor, edges: Tensor) -> Tensor:
    """Scores in points from probabilities.

    Args:
        coarse: of each grade (..., G).
        fine: of each sub-grade within its grade (..., G, K).
        edges: (..., G+1) in points.

    Returns:
        (...,) in points.
    """
    values = torch.linspace(0, 1, fine.shape[-1], device=fine.device, dtype=fine.dtype)
    position = fine @ values  # (..., G)
    return (coarse * (edges[..., :-1] + edges.diff() * position)).sum(-1)


def decouple(
    scores: Tensor, edges: Tensor, num_subgrades: int, *, softness: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Coarse and fine targets of known scores.

    A score's place within its grade is shared between the two nearest sub-grades. To a grade that lies wholly below
    the score the score is its last sub-grade, to one above it its first.

    Args:
        scores: (...,) in points, within the edges.
        edges: (..., G+1) in points.
        num_subgrades: K.
        softness: standard deviation (...,) of a judge's error in points: the coarse target is the share of each grade
            in a normal distribution around the score. Near 0, all lies on the score's own grade.

    Returns:
        Coarse target (..., G) and fine target (..., G, K), each summing to 1 over its last axis.
    """
    scores = scores[..., None]
    place = ((scores - edges[..., :-1]) / edges.diff()).clamp(0, 1)  # (..., G)
    softness = torch.as_tensor(softness).clamp(min=1e-9)[..., None]
    coarse = torch.special.ndtr((edges - scores) / softness).diff()
    coarse = coarse / coarse.sum(-1, keepdim=True)
    step = place * (num_subgrades - 1)
    subgrades = torch.arange(num_subgrades, device=scores.device, dtype=scores.dtype)
    fine = (1 - (step[..., None] - subgrades).abs()).clamp(min=0)  # (..., G, K)
    return coarse, fine
