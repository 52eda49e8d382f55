"""Made-up routines and heads that look trained, for the tests of all heads."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

FEATURE_DIM = 12


def as_if_trained(network: nn.Module) -> None:
    """Move all parameters: what is zero at first would hide what it does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def routine(num_clips: int, seed: int) -> Tensor:
    """Clip features (T, 12)."""
    return torch.randn(num_clips, FEATURE_DIM, generator=torch.Generator().manual_seed(seed))


def routines(num: int, seed: int = 0, *, missing: Sequence[int] = ()) -> tuple[list[np.ndarray], np.ndarray]:
    """Features and scores (N, 2), from 20 to 38, of routines whose first two features tell them.

    Args:
        num: number of routines, of 3 to 11 clips.
        seed: of features and scores.
        missing: routines whose second score is unknown.
    """
    rng = np.random.default_rng(seed)
    scores = np.clip(rng.uniform(20, 38, (num, 1)) + rng.normal(0, 2, (num, 2)), 20, 38)  # of one quality
    features = []
    for own in scores:
        clips = rng.normal(size=(rng.integers(3, 12), FEATURE_DIM)) * 0.3
        clips[:, :2] += own / 5
        features.append(clips.astype(np.float32))
    scores[list(missing), 1] = np.nan
    return features, scores
