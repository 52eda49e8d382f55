"""Contributions of clips: their sign, their sum, and what they are where the answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up import FEATURE_DIM, routine
from torch import Tensor

from cofinal.models.contributions import contributions


def mean_scorer(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Score by the mean of the first feature; the second of two grades is as probable as its sigmoid."""
    score = clips[..., 0].mean(1, keepdim=True)
    return score, torch.stack([1 - score.sigmoid(), score.sigmoid()], -1)


@given(st.integers(1, 20), st.integers(0, 1000))
def test_in_a_linear_head_a_clip_contributes_what_it_adds_to_the_mean(num_clips: int, seed: int) -> None:
    clips = routine(num_clips, seed).numpy()
    found = contributions(mean_scorer, clips)
    first = clips[:, 0].astype(np.float64)
    np.testing.assert_allclose(found.score[:, 0], (first - first.mean()) / num_clips, atol=1e-5)
    assert found.grades.shape == (num_clips, 1, 2)
    for sums in (found.score.sum(0), found.grades.sum(0), found.grades.sum(-1)):
        np.testing.assert_allclose(sums, 0, atol=1e-6)


def test_a_bad_clip_lowers_the_score_and_raises_the_lower_grade() -> None:
    clips = np.ones((9, FEATURE_DIM), np.float32)
    clips[4] = -3
    found = contributions(mean_scorer, clips)
    assert found.score[:, 0].argmin() == 4
    assert found.score[4, 0] == pytest.approx((-3 - 5 / 9) / 9)
    assert found.grades[4, 0, 0] > 0 > found.grades[4, 0, 1]


def test_a_single_clip_contributes_nothing() -> None:
    assert contributions(mean_scorer, np.ones((1, FEATURE_DIM), np.float32)).score.tolist() == [[0.0]]
