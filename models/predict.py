"""A trained head and clip features -> predictions and the verdict that is read off them.

A target's score axis is cut into G x K cells: G coarse grades of K sub-grades each. The score is the mean of the head's
distribution over the cells. The coarse grade is the grade whose span holds the score, and the fine grade is the
sub-grade within it whose span holds the score, so the verdict never contradicts itself.

Shape legend: B batch, N routines, T clips, C feature, M targets, G grades, K sub-grades.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .head import HeadNetwork
from .reference import FULL_SCORE, ReferenceCoFInAl

BORDERLINE = 0.05
"""Two grades are close if their probabilities differ by less."""


@dataclass(frozen=True)
class Prediction:
    """A head's prediction of one target, an entry a routine."""

    score: np.ndarray
    """Final score (N,) in points."""
    grade: np.ndarray
    """Coarse grade (N,), counted from 1, lowest first. For public heads the grade that weighs most in the score."""
    probabilities: np.ndarray
    """Probability of each coarse grade (N, G). For public heads the weight of each grade in the score."""
    subgrade: np.ndarray | None
    """Sub-grade within the grade (N,), counted from 1, lowest first; None without fine grades."""
    num_subgrades: int
    """K; 0 without fine grades."""
    cells: np.ndarray | None
    """Edges of all sub-grades (G K + 1,) in points, or of all grades (G + 1,) without fine grades; None for public
    heads, whose grades have no edges."""
    attention: list[np.ndarray] | None
    """How each grade prototype attends to each clip, (G, T) a routine; None where a head has no attention to clips."""

    @property
    def edges(self) -> np.ndarray | None:
        """Edges of the coarse grades (G+1,) in points."""
        return None if self.cells is None else self.cells[:: max(self.num_subgrades, 1)]


class Verdict(NamedTuple):
    """Where scores lie among the cells."""

    grade: np.ndarray
    """(N,), counted from 1."""
    subgrade: np.ndarray
    """(N,) within the grade, counted from 1."""


def read_verdict(scores: np.ndarray, cells: np.ndarray, num_subgrades: int) -> Verdict:
    """Return the grade and the sub-grade whose spans hold each score.

    Args:
        scores: (N,) in points.
        cells: ascending edges (G K + 1,) in points.
        num_subgrades: K; 0 without fine grades, where a grade is its own only sub-grade.
    """
    per_grade = max(num_subgrades, 1)
    # a score on an edge belongs to the upper cell; one beyond the outer edges, by rounding, to the outermost cell
    cell = np.searchsorted(cells[1:-1], scores, side="right")
    return Verdict(cell // per_grade + 1, cell % per_grade + 1)


def borderline(grade: int, probabilities: Sequence[float]) -> tuple[int, int] | None:
    """Return the verdict's grade and its closest rival, lower first, if the rival is about as probable or more.

    Args:
        grade: the verdict's grade, counted from 1.
        probabilities: of each grade (G,).
    """
    rivals = [(probability, rival) for rival, probability in enumerate(probabilities, start=1) if rival != grade]
    if not rivals:
        return None
    probability, rival = max(rivals)
    is_close = probability > probabilities[grade - 1] - BORDERLINE
    return (min(grade, rival), max(grade, rival)) if is_close else None


@torch.inference_mode()
def predict(
    network: HeadNetwork, features: Sequence[np.ndarray], actions: np.ndarray | None = None
) -> dict[str, Prediction]:
    """Score routines one at a time: without padding, no routine can change another's result.

    Args:
        network: a trained head.
        features: clip features of each routine, N arrays (T, C).
        actions: index of each routine's action (N,); needed if the head has actions.

    Returns:
        A `Prediction` for each target, entries in the order of `features`.
    """
    network.eval()
    device = next(network.buffers()).device
    outputs = []
    for i, x in enumerate(features):
        clips = torch.from_numpy(x).float().to(device)[None]  # (1, T, C)
        action = None if actions is None else torch.tensor([int(actions[i])], device=device)
        outputs.append(network(clips, action))
    predictions = {}
    num_subgrades = network.config.num_subgrades
    for m, target in enumerate(network.config.targets):
        score = torch.cat([output.score[:, m] for output in outputs]).double().cpu().numpy()
        if not np.isfinite(score).all():
            raise ValueError(f"the head gives no finite {target} for these features; one of the two is damaged")
        cells = network.cells[m].double().cpu().numpy()
        score = score.clip(cells[0], cells[-1])  # float rounding may step over the outer edges
        grade, subgrade = read_verdict(score, cells, num_subgrades)
        maps = [output.attention[0, m].cpu().numpy() for output in outputs if output.attention is not None]
        predictions[target] = Prediction(
            score=score,
            grade=grade,
            probabilities=torch.cat([output.probabilities[:, m] for output in outputs]).cpu().numpy(),
            subgrade=subgrade if num_subgrades else None,
            num_subgrades=num_subgrades,
            cells=cells,
            attention=maps or None,
        )
    return predictions


@torch.inference_mode()
def predict_reference(network: ReferenceCoFInAl, features: Sequence[np.ndarray]) -> Prediction:
    """Score routines by a public head, one at a time.

    Args:
        network: the head.
        features: clip features of each routine, N arrays (T, C).

    Returns:
        The prediction of its one target, in the public code's points: its output times `FULL_SCORE`, not clipped.
    """
    outputs = [network(torch.from_numpy(x).float()[None]) for x in features]
    weights = torch.cat([output.weights for output in outputs])  # (N, G)
    return Prediction(
        score=FULL_SCORE * torch.cat([output.score for output in outputs]).numpy(),
        grade=weights.argmax(-1).numpy() + 1,
        probabilities=weights.numpy(),
        subgrade=torch.cat([output.subgrade for output in outputs]).numpy() + 1,
        num_subgrades=network.config.num_subgrades,
        cells=None,
        attention=None,
    )
