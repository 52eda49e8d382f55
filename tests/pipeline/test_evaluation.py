"""The figures agree with their definitions and stay finite on degenerate input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from cofinal.pipeline.evaluation import (
    RESAMPLES,
    _resampled,
    average,
    bootstrap,
    difference,
    evaluate,
    fisher_average,
    mae,
    over_seeds,
    pearson,
    r_l2,
    rmse,
    srcc,
    srcc_within_events,
)

scores = arrays(np.float64, st.shared(st.integers(1, 30), key="n"), elements=st.floats(0, 50, width=32))


@settings(max_examples=50)
@given(scores, scores)
def test_every_figure_is_a_finite_number(truth: np.ndarray, predicted: np.ndarray) -> None:
    result = evaluate(truth, predicted[None], bounds=(predicted[None] - 1, predicted[None] + 1))
    low, high = result["intervals"]["srcc"]
    assert np.isfinite([value for value in result.values() if value is not result["intervals"]]).all()
    assert all(np.isfinite(ends).all() for ends in result["intervals"].values())
    assert -1 <= low <= high <= 1
    assert -1 <= result["pearson"] <= 1
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


@given(scores, scores)
def test_pearson_is_pearsons(truth: np.ndarray, predicted: np.ndarray) -> None:
    own = pearson(truth, predicted)
    if np.ptp(truth) > 1e-3 and np.ptp(predicted) > 1e-3:
        assert own == pytest.approx(np.corrcoef(truth, predicted)[0, 1], abs=1e-6)
    assert pearson(truth, np.full(len(truth), 0.1)) == 0


def test_perfect_and_known_predictions() -> None:
    truth = np.array([10.0, 20.0, 30.0])
    assert srcc(truth, truth**3) == 1
    assert r_l2(truth, truth + 2) == pytest.approx(100 * 4 / 400)
    assert mae(truth, truth + np.array([1, -1, 4])) == 2
    assert rmse(truth, truth + np.array([1, -1, 4])) == pytest.approx(6**0.5)
    assert r_l2(np.array([5.0, 5.0]), np.array([5.0, 7.0])) == 200  # all labels equal: one point is the range


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ValueError, match="no routine"):
        evaluate(np.array([]), np.empty((1, 0)))
    with pytest.raises(ValueError, match="1 of 2 predictions"):
        evaluate(np.array([1.0, 2.0]), np.array([[1.0, np.nan]]))


def noisy(n: int, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=n)
    return truth, truth + rng.normal(size=(seeds, n))


def test_bootstrap_covers_the_estimate_narrows_with_n_and_repeats() -> None:
    truth, predicted = noisy(400)
    wide, narrow = bootstrap(truth[:50], predicted[:, :50]), bootstrap(truth, predicted)
    for name, figure in (("srcc", srcc), ("r_l2", r_l2), ("mae", mae)):
        low, high = narrow[name]
        assert low < figure(truth, predicted[0]) < high
        assert wide[name][1] - wide[name][0] > 2 * (high - low)
    assert bootstrap(truth, predicted) == narrow


def test_routines_that_repeat_one_another_tell_no_more_than_one_of_them() -> None:
    truth, predicted = noisy(60)
    groups = [str(i) for i in range(60)]
    once = bootstrap(truth, predicted)
    repeated = [np.tile(x, 4) for x in (truth, predicted[0], groups)]
    together = bootstrap(repeated[0], repeated[1][None], repeated[2].tolist())
    apart = bootstrap(repeated[0], repeated[1][None])
    for name, (low, high) in once.items():
        width = together[name][1] - together[name][0]
        assert 0.8 < width / (high - low) < 1.25, name
        assert apart[name][1] - apart[name][0] < 0.65 * width, name
    assert bootstrap(truth, predicted, sorted(groups)) != bootstrap(truth, predicted, ["one"] * 60)


@settings(max_examples=30)
@given(st.integers(1, 25), st.integers(0, 99), st.booleans(), st.booleans())
def test_resampled_figures_are_those_of_the_drawn_routines(num: int, seed: int, tied: bool, grouped: bool) -> None:
    """All resamples are ranked at once; here each is drawn and evaluated by itself."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=num)
    predicted = truth + rng.normal(size=(2, num))
    if tied:
        truth, predicted = truth.round(), predicted.round()
    groups = [f"g{i // 3}" for i in range(num)] if grouped else None
    own = np.arange(num) // 3 if grouped else np.arange(num)
    found = _resampled(truth, predicted, groups)
    units = own.max() + 1
    for i, chosen in enumerate(np.random.default_rng(0).integers(0, units, (RESAMPLES, units))[:5]):
        rows = np.concatenate([np.flatnonzero(own == unit) for unit in chosen])
        assert found["srcc"][i] == pytest.approx(np.mean([srcc(truth[rows], x[rows]) for x in predicted]), abs=1e-9)
        assert found["mae"][i] == pytest.approx(np.abs(predicted - truth)[:, rows].mean())
        squared_range = np.ptp(truth) ** 2 or 1
        assert found["r_l2"][i] == pytest.approx(100 * ((predicted - truth) ** 2)[:, rows].mean() / squared_range)


def test_a_difference_is_paired_and_tells_the_better_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    shared = truth + rng.normal(size=(3, 300))
    better = truth + 0.95 * (shared - truth)
    found = difference(truth, better, shared)
    for name, sign in (("srcc", 1), ("r_l2", -1), ("mae", -1)):
        mean, (low, high) = found[name]
        assert low < mean < high
        assert sign * low > 0, name
        assert sign * high > 0, name
    each = [srcc(truth, a) - srcc(truth, b) for a, b in zip(better, shared, strict=True)]
    assert found["srcc"][0] == pytest.approx(np.mean(each))
    wide = bootstrap(truth, shared)["srcc"]
    assert found["srcc"][1][1] - found["srcc"][1][0] < 0.1 * (wide[1] - wide[0])
    assert difference(truth, shared, shared)["mae"] == (0.0, [0.0, 0.0])

    copies = [np.tile(x, 4) for x in (truth, better, shared)]
    apart, together = difference(*copies), difference(*copies, [str(i) for i in range(300)] * 4)
    for name, (_, (low, high)) in found.items():
        widths = [np.ptp(one[name][1]) / (high - low) for one in (apart, together)]
        assert widths[0] < 0.65, name
        assert 0.8 < widths[1] < 1.25, name


def test_bootstrap_draws_the_same_routines_of_every_seed() -> None:
    truth, predicted = noisy(60)
    again = bootstrap(
        truth, np.concatenate([predicted] * 3)
    )  # as many seeds that say the same widen and narrow nothing
    for name, ends in bootstrap(truth, predicted).items():
        assert again[name] == pytest.approx(ends)


def test_of_several_seeds_mean_and_standard_deviation() -> None:
    truth, predicted = noisy(40, seeds=3)
    together = evaluate(truth, predicted)
    apart = [evaluate(truth, row[None]) for row in predicted]
    for name in ("srcc", "pearson", "r_l2", "mae", "rmse"):
        values = [found[name] for found in apart]
        assert together[name] == pytest.approx(np.mean(values))
        assert together["std"][name] == pytest.approx(np.std(values, ddof=1))
    assert "std" not in apart[0]
    assert over_seeds([{"srcc": 0.5}]) == {"srcc": 0.5}
    assert together["n"] == 40


def test_coverage_and_width() -> None:
    truth, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([[1.5, 2.0, 5.0, 4.0]])
    result = evaluate(truth, predicted, bounds=(predicted - 0.5, predicted + 1.5))
    assert (result["coverage"], result["width"]) == (0.75, 2)


def test_within_events_neither_events_levels_nor_small_events_count() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=120)
    predicted = truth + rng.normal(size=120)
    events = [f"e{i % 4}" for i in range(120)]
    shift = 100 * (np.arange(120) % 4)  # better skaters at some events: no merit of who ranks those within one
    within = srcc_within_events(truth, predicted, events)
    assert within == pytest.approx(srcc_within_events(truth + shift, predicted + shift, events))
    assert srcc(truth + shift, predicted + shift) > 0.9 > within
    apart = [srcc(truth[i::4], predicted[i::4]) for i in range(4)]
    assert within == pytest.approx(fisher_average(apart, [30] * 4))
    more = [np.concatenate([x, [0, 1, 2]]) for x in (truth, -predicted)]
    assert srcc_within_events(*more, [*events, "new", "new", "new"]) == pytest.approx(-within)
    assert srcc_within_events(truth[:6], predicted[:6], ["a", "a", "a", "b", "b", "b"]) is None


def test_a_perfect_small_event_does_not_outweigh_a_large_one() -> None:
    truth, predicted = noisy(40)
    large = srcc(truth, predicted[0])
    both = srcc_within_events(
        np.concatenate([truth, range(4)]), np.concatenate([predicted[0], range(4)]), ["a"] * 40 + ["b"] * 4
    )
    assert srcc_within_events(np.arange(4.0), np.arange(4.0), ["b"] * 4) == pytest.approx(0.9)
    assert large < both < large + 0.05


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_fisher_average_lies_between(correlations: list[float]) -> None:
    average = fisher_average(correlations, [400] * len(correlations))
    assert min(correlations) - 1e-6 <= average <= max(correlations) + 1e-6


def test_averages_match_the_published_rows() -> None:
    # GDLT's row of RG: Fisher-z average .765 of its four correlations, arithmetic mean 2.401 of its R-l2
    row = [(0.746, 2.833), (0.802, 2.179), (0.765, 2.012), (0.741, 2.579)]
    result = average([{"srcc": s, "r_l2": r, "n": 250} for s, r in row])
    assert result["srcc"] == pytest.approx(0.765, abs=5e-4)
    assert result["r_l2"] == pytest.approx(2.401, abs=5e-4)


def test_a_perfect_order_of_few_routines_does_not_decide_an_average() -> None:
    assert fisher_average([1.0, 0.1, 0.1, 0.1], [3, 40, 40, 40]) < 0.35
    assert fisher_average([1.0, -1.0, 0.5], [2, 1, 40]) == pytest.approx(np.tanh(np.arctanh(0.5) / 3))
