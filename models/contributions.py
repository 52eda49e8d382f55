"""What each clip contributes to a score, for every head: only forward passes are needed.

All clips of a routine are moved halfway to one of them, and the head scores the result. A clip whose routine scores
less than those of the other clips lowers the score. Leaving out a single clip of many hardly moves a score, and much of
what it moves is noise of the statistics over time; moving all clips points at faults more often.

Shape legend: B batch, T clips, C feature, M targets, G grades.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SHARE = 0.5
"""How far all clips are moved towards one of them."""
BATCH = 8
"""Routines in one pass."""

ScoreClips = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Clips (B, T, C) -> scores (B, M) in points, and the grades' probabilities (B, M, G)."""


class Contributions(NamedTuple):
    """What each clip of a routine contributes; over the clips, contributions sum to 0."""

    score: np.ndarray
    """(T, M) in points; negative where the clip lowers the score."""
    grades: np.ndarray
    """(T, M, G) to each grade's probability; over the grades, too, they sum to 0."""


@torch.inference_mode()
def contributions(score_clips: ScoreClips, features: np.ndarray) -> Contributions:
    """Return what each clip of a routine (T, C) contributes.

    With a head that is linear in the mean of the clips, a clip contributes what the score would lose if the clip were
    replaced by that mean.
    """
    clips = torch.from_numpy(np.asarray(features, np.float32))
    outputs = [score_clips(clips + SHARE * (some[:, None] - clips)) for some in clips.split(BATCH)]
    scores, grades = (torch.cat(parts).double().cpu().numpy() for parts in zip(*outputs, strict=True))
    scale = 1 / (SHARE * len(clips))
    return Contributions(scale * (scores - scores.mean(0)), scale * (grades - grades.mean(0)))
