"""The figures agree with their definitions and stay finite on degenerate input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from pipeline.evaluation import average, bootstrap_srcc, evaluate, fisher_average, mae, r_l2, rmse, srcc

scores = arrays(np.float64, st.shared(st.integers(1, 30), key="n"), elements=st.floats(0, 50, width=32))


@settings(deadline=None, max_examples=50)
@given(scores, scores)
def test_every_figure_is_a_finite_number(truth: np.ndarray, predicted: np.ndarray) -> None:
    result = evaluate(truth, predicted)
    low, high = result["intervals"]["srcc"]
    assert np.isfinite([result[name] for name in ("srcc", "r_l2", "mae", "rmse")]).all()
    assert -1 <= low <= high <= 1
    assert result["n"] == len(truth)
    assert result["mae"] <= result["rmse"] + 1e-9


@given(scores, scores)
def test_srcc_is_spearmans(truth: np.ndarray, predicted: np.ndarray) -> None:
    own = srcc(truth, predicted)
    if np.ptp(truth) > 0 and np.ptp(predicted) > 0:
        assert own == pytest.approx(spearmanr(truth, predicted).statistic, abs=1e-9)
    else:
        assert own == 0
    assert srcc(truth, -predicted) == pytest.approx(-own, abs=1e-12)
    assert srcc(predicted, truth) == own


def test_perfect_and_known_predictions() -> None:
    truth = np.array([10.0, 20.0, 30.0])
    assert srcc(truth, truth**3) == 1
    assert r_l2(truth, truth + 2) == pytest.approx(100 * 4 / 400)
    assert mae(truth, truth + np.array([1, -1, 4])) == 2
    assert rmse(truth, truth + np.array([1, -1, 4])) == pytest.approx(6**0.5)
    assert r_l2(np.array([5.0, 5.0]), np.array([5.0, 7.0])) == 200  # all labels equal: one point is the range


def test_rows_without_a_label_do_not_count() -> None:
    truth, predicted = np.array([1.0, np.nan, 3.0, 2.0]), np.array([1.5, 9.0, 2.0, 2.5])
    known = ~np.isnan(truth)
    assert evaluate(truth, predicted) == evaluate(truth[known], predicted[known])


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ValueError, match="no routine"):
        evaluate(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="1 of 2 predictions"):
        evaluate(np.array([1.0, 2.0]), np.array([1.0, np.nan]))


def test_bootstrap_covers_the_estimate_narrows_with_n_and_repeats_by_seed() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    predicted = truth + rng.normal(size=400)
    low, high = bootstrap_srcc(truth, predicted)
    assert low < srcc(truth, predicted) < high
    few_low, few_high = bootstrap_srcc(truth[:50], predicted[:50])
    assert few_high - few_low > 2 * (high - low)
    assert bootstrap_srcc(truth, predicted) == (low, high)
    assert bootstrap_srcc(truth, predicted, seed=1) != (low, high)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_fisher_average_lies_between(correlations: list[float]) -> None:
    assert min(correlations) - 1e-6 <= fisher_average(correlations) <= max(correlations) + 1e-6


def test_averages_match_the_published_rows() -> None:
    # GDLT's row of RG: Fisher-z average .765 of its four correlations, arithmetic mean 2.401 of its R-l2
    row = [(0.746, 2.833), (0.802, 2.179), (0.765, 2.012), (0.741, 2.579)]
    result = average([{"srcc": s, "r_l2": r} for s, r in row])
    assert result["srcc"] == pytest.approx(0.765, abs=5e-4)
    assert result["r_l2"] == pytest.approx(2.401, abs=5e-4)
    assert fisher_average([1.0, 0.0]) < 1
