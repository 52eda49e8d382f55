"""Kernel ridge regression and target mixing: closed forms are what they claim, and missing scores stay out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from cofinal.models.kernel_ridge import BANDWIDTH, PENALTY, KernelRidge, mix_targets

RANGES = ((-50.0, 50.0), (-50.0, 50.0))


def made_up(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 5) and scores (N, 2) around 30 that depend on them."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(num, 5))
    return places, 30 + places[:, :2] * 3 + rng.normal(size=(num, 2))


# --- the regression ---


@settings(max_examples=30)
@given(st.integers(3, 30), st.integers(0, 99), st.data())
def test_held_out_predictions_are_those_of_a_fit_without_the_routine(num: int, seed: int, data: st.DataObject) -> None:
    """With the bandwidth and the mean of all: the regression itself never saw the routine."""
    places, scores = made_up(num, seed)
    out = data.draw(st.integers(0, num - 1))
    regression = KernelRidge(places, scores)
    others = np.arange(num) != out
    width = BANDWIDTH * np.median(cdist(places, places, "sqeuclidean")[np.triu_indices(num, 1)])
    kernel = np.exp(-cdist(places, places[others], "sqeuclidean") / width)
    weights = np.linalg.solve(kernel[others] + PENALTY * np.eye(num - 1), scores[others] - scores.mean(0))
    np.testing.assert_allclose(regression.leave_one_out[out], scores.mean(0) + kernel[out] @ weights, rtol=1e-6)
    assert np.abs(regression.leave_one_out[out] - regression.predict(places[[out]])[0]).max() > 1e-3


@given(st.integers(4, 20), st.integers(0, 99))
def test_routines_without_a_score_have_no_part_in_its_regression(num: int, seed: int) -> None:
    places, scores = made_up(num, seed)
    unknown = scores.copy()
    unknown[-1, 1] = np.nan
    regression, full = KernelRidge(places, unknown), KernelRidge(places, scores)
    new = made_up(3, seed + 100)[0]
    assert np.isfinite(regression.predict(new)).all()
    np.testing.assert_allclose(regression.predict(new)[:, 0], full.predict(new)[:, 0])
    np.testing.assert_allclose(regression.leave_one_out[:, 0], full.leave_one_out[:, 0])
    # the routine was not in the regression, so its held-out prediction is the plain one
    np.testing.assert_allclose(regression.leave_one_out[-1, 1], regression.predict(places)[-1, 1])
    assert regression.means[1] == pytest.approx(scores[:-1, 1].mean())
    other = unknown.copy()
    other[-1, 0] = 99
    np.testing.assert_allclose(KernelRidge(places, other).predict(new)[:, 1], regression.predict(new)[:, 1])


def test_it_learns_and_falls_back_to_the_mean_far_away() -> None:
    places, scores = made_up(150, 0)
    regression = KernelRidge(places, scores)
    new, truth = made_up(100, 1)
    for m in range(2):
        assert spearmanr(regression.predict(new)[:, m], truth[:, m]).statistic > 0.7
        assert spearmanr(regression.leave_one_out[:, m], scores[:, m]).statistic > 0.7
    np.testing.assert_allclose(regression.predict(np.full((1, 5), 1e3))[0], scores.mean(0))


def test_routines_in_one_place_get_the_mean() -> None:
    regression = KernelRidge(np.ones((6, 3)), np.arange(6.0)[:, None])
    np.testing.assert_allclose(regression.predict(np.ones((2, 3))), 2.5)


# --- target mixing ---


def judged(noise: tuple[float, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Held-out predictions (300, 2) of two scores (300, 2) of one quality, and that quality (300,)."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(300, 12))
    quality = places @ rng.normal(size=12)
    scores = quality[:, None] + rng.normal(size=(300, 2)) * noise
    return KernelRidge(places, scores).leave_one_out, scores, quality


def test_a_noisy_score_comes_nearer_to_what_both_measure() -> None:
    predicted, scores, quality = judged(noise=(6.0, 1.0))
    mixed = mix_targets(predicted, scores, RANGES)
    before, after = ([spearmanr(quality, x[:, m]).statistic for m in range(2)] for x in (scores, mixed))
    assert after[0] > before[0] + 0.2
    assert after[1] > before[1] - 0.02


def test_scores_of_different_things_stay_what_they_are() -> None:
    rng = np.random.default_rng(1)
    places = rng.normal(size=(300, 12))
    scores = places @ rng.normal(size=(12, 2))
    mixed = mix_targets(KernelRidge(places, scores).leave_one_out, scores, RANGES)
    for m in range(2):
        assert spearmanr(scores[:, m], mixed[:, m]).statistic > 0.98


@pytest.mark.parametrize("num", [3, 4, 6, 10, 20, 40])
def test_a_few_routines_never_turn_a_score_into_its_opposite(num: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        places = rng.normal(size=(num, 12))
        scores = rng.normal(size=(num, 1)) + rng.normal(size=(num, 2))
        mixed = mix_targets(KernelRidge(places, scores).leave_one_out, scores, RANGES)
        for m in range(2):
            assert np.corrcoef(mixed[:, m], scores[:, m])[0, 1] > 0.3, (seed, m)
            assert 0.4 < mixed[:, m].std() / scores[:, m].std() < 1.01


def test_what_cannot_be_mixed_is_left_alone() -> None:
    predicted, scores, _ = judged(noise=(6.0, 1.0))
    assert (mix_targets(predicted[:, :1], scores[:, :1], RANGES[:1]) == scores[:, :1]).all()
    beside = np.stack([scores[:, 0], np.full(300, 7.0)], axis=1)
    assert (mix_targets(predicted, beside, RANGES) == beside).all()
    constant, opposite = np.full(300, 7.0), np.random.default_rng(0).normal(size=300)
    four = np.column_stack([scores, constant, opposite]), np.column_stack([predicted, constant, -opposite])
    mixed = mix_targets(four[1], four[0], RANGES * 2)
    np.testing.assert_array_equal(mixed[:, 2:], four[0][:, 2:])
    np.testing.assert_array_equal(mixed[:, :2], mix_targets(predicted, scores, RANGES))
    assert not np.allclose(mixed[:, 0], scores[:, 0])


def test_routines_without_all_scores_keep_their_own() -> None:
    predicted, scores, _ = judged(noise=(6.0, 1.0))
    scores[::2, 1] = np.nan
    mixed = mix_targets(predicted, scores, RANGES)
    np.testing.assert_array_equal(mixed[::2], scores[::2])
    assert not np.allclose(mixed[1::2, 0], scores[1::2, 0])
    scores[:, 1] = np.nan
    np.testing.assert_array_equal(mix_targets(predicted, scores, RANGES), scores)


def test_mixed_scores_stay_in_their_ranges() -> None:
    predicted, scores, _ = judged(noise=(6.0, 1.0))
    ranges = [(column.min(), column.max()) for column in scores.T]
    mixed = mix_targets(predicted, scores, ranges)
    for column, (low, high) in zip(mixed.T, ranges, strict=True):
        assert low <= column.min() <= column.max() <= high
