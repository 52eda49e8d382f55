"""What a clip contributes to a score: the score less the score of the same routine without what the clip shows.

The clip is not left out but replaced by the mean of its two neighbours, so that the routine keeps its length and its
order. Only forward passes are needed, so this works for every head (occlusion, Zeiler and Fergus 2014).

Shape legend: T clips, C feature, M targets, G grades.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BATCH = 8
"""Routines in one pass."""

ScoreClips = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Clips (B, T, C) -> scores (B, M) in points, and the grades' probabilities (B, M, G)."""


class Effects(NamedTuple):
    """What each clip of a routine changes; negative where the clip lowers it."""

    score: np.ndarray
    """(T, M) in points."""
    grades: np.ndarray
    """(T, M, G), of each grade's probability; over the grades they sum to 0."""
    whole: np.ndarray
    """(M,) the score of the whole routine in points."""


@torch.inference_mode()
def occlude(score_clips: ScoreClips, features: np.ndarray) -> Effects:
    """Return what each clip of a routine (T, C) contributes. A single clip has no neighbours and contributes 0."""
    clips = torch.from_numpy(np.asarray(features, np.float32))
    last = len(clips) - 1
    positions = torch.arange(last + 1)
    # at both ends the only neighbour counts twice; a single clip is its own
    before = torch.where(positions > 0, positions - 1, min(1, last))
    after = torch.where(positions < last, positions + 1, max(last - 1, 0))
    neighbours = (clips[before] + clips[after]) / 2
    score, grades = score_clips(clips[None])
    effects = []
    for batch in positions.split(BATCH):
        variants = clips.repeat(len(batch), 1, 1)
        variants[torch.arange(len(batch)), batch] = neighbours[batch]
        effects.append([whole - without for whole, without in zip((score, grades), score_clips(variants), strict=True)])
    changes = (torch.cat(parts).double().cpu().numpy() for parts in zip(*effects, strict=True))
    return Effects(*changes, whole=score[0].double().cpu().numpy())
