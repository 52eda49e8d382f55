"""Scores borrow where it pays, and stay what they are where it does not."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from cofinal.pipeline.curds_and_whey import borrow
from cofinal.pipeline.evaluation import srcc

RANGES = ((-50.0, 50.0), (-50.0, 50.0))


def routines(noise: tuple[float, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Held-out predictions (300, 2) of two scores (300, 2) of one quality, and that quality (300,)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(300, 12))
    quality = features @ rng.normal(size=12)
    scores = quality[:, None] + rng.normal(size=(300, 2)) * noise
    return held_out(features, scores), scores, quality


def held_out(features: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return cross_val_predict(Ridge(300.0), features, scores, cv=LeaveOneOut())


def test_a_noisy_score_comes_nearer_to_what_both_judge() -> None:
    said, scores, quality = routines(noise=(6.0, 1.0))
    taught = borrow(said, scores, RANGES)
    assert srcc(quality, taught[:, 0]) > srcc(quality, scores[:, 0]) + 0.2
    assert srcc(quality, taught[:, 1]) > srcc(quality, scores[:, 1]) - 0.02


def test_scores_of_different_things_stay_what_they_are() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 12))
    scores = features @ rng.normal(size=(12, 2))
    taught = borrow(held_out(features, scores), scores, RANGES)
    for i in range(2):
        assert srcc(scores[:, i], taught[:, i]) > 0.99


@pytest.mark.parametrize("num", [3, 4, 6, 10, 20, 40])
def test_a_few_routines_never_turn_a_score_into_its_opposite(num: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(num, 12))
        scores = rng.normal(size=(num, 1)) + rng.normal(size=(num, 2))
        taught = borrow(held_out(features, scores), scores, RANGES)
        for i in range(2):
            assert np.corrcoef(taught[:, i], scores[:, i])[0, 1] > 0.3, (seed, i)
            assert 0.4 < taught[:, i].std() / scores[:, i].std() < 1.01


def test_what_cannot_be_mapped_is_left_alone() -> None:
    said, scores, _ = routines(noise=(6.0, 1.0))
    assert (borrow(said[:, :1], scores[:, :1], RANGES[:1]) == scores[:, :1]).all()
    beside = np.stack([scores[:, 0], np.full(300, 7.0)], axis=1)
    assert (borrow(said, beside, RANGES) == beside).all()
    constant, opposite = np.full(300, 7.0), np.random.default_rng(0).normal(size=300)
    three = np.column_stack([scores, constant, opposite]), np.column_stack([said, constant, -opposite])
    taught = borrow(three[1], three[0], RANGES * 2)
    np.testing.assert_array_equal(taught[:, 2:], three[0][:, 2:])
    np.testing.assert_array_equal(taught[:, :2], borrow(said, scores, RANGES))
    scores[::2, 1] = np.nan
    taught = borrow(said, scores, RANGES)
    np.testing.assert_array_equal(taught[::2], scores[::2])
    assert not np.allclose(taught[1::2, 0], scores[1::2, 0])
    scores[:, 1] = np.nan
    np.testing.assert_array_equal(borrow(said, scores, RANGES), scores)


def test_taught_scores_stay_in_their_ranges() -> None:
    said, scores, _ = routines(noise=(6.0, 1.0))
    ranges = [(column.min(), column.max()) for column in scores.T]
    taught = borrow(said, scores, ranges)
    for column, (low, high) in zip(taught.T, ranges, strict=True):
        assert low <= column.min() <= column.max() <= high
