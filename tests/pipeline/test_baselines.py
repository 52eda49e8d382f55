"""Baselines learn what is there, learn nothing from the test part, and reach their known figures on real features."""

from pathlib import Path

import numpy as np
import pytest

from cofinal.pipeline.baselines import BASELINES, kernel_ridge, pool, ridge
from cofinal.pipeline.evaluation import srcc
from cofinal.pipeline.splits import cut_folds


def routines(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features whose mean along one direction is the score."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(5, 20, num)
    features = [rng.normal(size=(rng.integers(1, 9), 16)) + np.eye(16)[3] * score / 2 for score in scores]
    return pool(features), scores


def test_pooled_statistics_are_what_they_say() -> None:
    clips = np.random.default_rng(0).normal(size=(21, 4)).astype(np.float16)
    one = pool([clips])[0]
    x = clips.astype(np.float64)
    expected = [x.mean(0), x.std(0), np.percentile(x, 10, 0), np.percentile(x, 90, 0), np.abs(x[1:] - x[:-1]).mean(0)]
    np.testing.assert_allclose(one, expected)
    assert np.isfinite(pool([clips[:1]])).all()


@pytest.mark.parametrize("baseline", [ridge, kernel_ridge])
def test_regressions_learn(baseline) -> None:
    train, scores = routines(60, 0)
    test, truth = routines(40, 1)
    assert srcc(truth, baseline(train, scores, test)) > 0.8


@pytest.mark.parametrize("baseline", BASELINES.values())
def test_a_test_routine_is_judged_alone(baseline) -> None:
    train, scores = routines(30, 0)
    test, _ = routines(10, 1)
    together = baseline(train, scores, test)
    np.testing.assert_allclose(baseline(train, scores, test[4:5]), together[4:5])
    np.testing.assert_allclose(baseline(train, scores + 5, test), together + 5)


@pytest.mark.parametrize("baseline", BASELINES.values())
def test_constant_features_give_the_mean(baseline) -> None:
    constant = np.ones((6, 5, 3))
    np.testing.assert_allclose(baseline(constant, np.arange(6.0), constant[:2]), 2.5)


@pytest.mark.shared
def test_known_figures_on_fisv(shared: Path) -> None:
    """5 random folds, pooled: kernel ridge about .56 / .78, ridge about .50 / .73 (TES / PCS)."""
    rows = [line.split() for line in (shared / "data/fisv/train.txt").read_text().splitlines()]
    scores = np.array([[float(row[1]), float(row[2])] for row in rows])
    pooled = pool([np.load(shared / f"data/fisv/swintx_avg_fps25_clip32/{row[0]}.npy") for row in rows])
    figures = {}
    for name, baseline in BASELINES.items():
        predicted = np.empty_like(scores)
        for test in cut_folds(400, 5, seed=100):
            train = np.setdiff1d(np.arange(400), test)
            for target in range(2):
                predicted[test, target] = baseline(pooled[train], scores[train, target], pooled[test])
        figures[name] = [srcc(scores[:, target], predicted[:, target]) for target in range(2)]
    np.testing.assert_allclose(figures["kernel_ridge"], [0.564, 0.782], atol=0.04)
    np.testing.assert_allclose(figures["ridge"], [0.51, 0.74], atol=0.04)
