"""Baselines learn what is there, learn nothing from the test part, and reach their known figures on real features."""

from pathlib import Path

import numpy as np
import pytest

from cofinal.data.labels import LabelRow
from cofinal.pipeline.baselines import BASELINES, Baselines, ridge
from cofinal.pipeline.evaluation import srcc
from cofinal.pipeline.examples import Examples
from cofinal.pipeline.splits import cut_folds

REGRESSIONS = ("ridge", "kernel_ridge")


def baselines_of(features: list[np.ndarray], scores: np.ndarray, actions: np.ndarray | None = None) -> Baselines:
    rows = [LabelRow(f"v{i}", {}, f"row {i}") for i in range(len(features))]
    return Baselines(Examples(rows, features, scores, actions, [row.video for row in rows]))


def routines(num: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Features and two scores (N, 2) of which each is the mean along a direction of its own."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(5, 20, (num, 2))
    features = [
        (rng.normal(size=(rng.integers(1, 9), 16)) + np.eye(16)[3] * a + np.eye(16)[7] * b).astype(np.float32)
        for a, b in scores
    ]
    return features, scores


TRAINING, TEST = np.arange(60), np.arange(60, 100)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions_learn(name: str) -> None:
    features, scores = routines(100)
    predicted = baselines_of(features, scores).predict(TRAINING, TEST)
    assert tuple(predicted) == BASELINES
    for m in range(2):
        assert srcc(scores[TEST, m], predicted[name][:, m]) > 0.8
    assert (predicted["mean"] == scores[TRAINING].mean(0)).all()


@pytest.mark.parametrize("name", BASELINES)
def test_predictions_depend_on_the_training_part_alone(name: str) -> None:
    """Neither the scores nor the features of other routines, nor what is predicted beside a routine, matter."""
    features, scores = routines(100)
    predicted = baselines_of(features, scores).predict(TRAINING, TEST)[name]
    changed, noisy = scores.copy(), list(features)
    changed[60:] = np.nan
    for i in range(61, 100):
        noisy[i] = noisy[i] * 100
    other = baselines_of(noisy, changed)
    np.testing.assert_allclose(other.predict(TRAINING, TEST[:1])[name], predicted[:1], rtol=1e-5)
    np.testing.assert_allclose(other.predict(TRAINING, np.array([99, 60]))[name][1], predicted[0], rtol=1e-5)
    if name != "mean":
        assert not np.allclose(other.predict(TRAINING, TEST)[name][1:], predicted[1:])


@pytest.mark.parametrize("name", BASELINES)
def test_predictions_move_with_the_scores(name: str) -> None:
    features, scores = routines(100)
    plain, moved = (baselines_of(features, x).predict(TRAINING, TEST)[name] for x in (scores, scores + 5))
    np.testing.assert_allclose(moved, plain + 5, rtol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_constant_features_give_the_mean(name: str) -> None:
    features, scores = [np.ones((5, 3), np.float32)] * 8, np.arange(8.0)[:, None]
    predicted = baselines_of(features, scores).predict(np.arange(6), np.array([6, 7]))[name]
    np.testing.assert_allclose(predicted, 2.5, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_missing_scores_stay_out(name: str) -> None:
    features, scores = routines(100)
    unknown = scores.copy()
    unknown[:30, 1] = np.nan
    predicted = baselines_of(features, unknown).predict(TRAINING, TEST)[name]
    assert np.isfinite(predicted).all()
    if name == "mean":
        assert predicted[0].tolist() == pytest.approx([scores[:60, 0].mean(), scores[30:60, 1].mean()])
    elif name == "ridge":
        alone = baselines_of(features, scores[:, 1:]).predict(TRAINING[30:], TEST)[name]
        np.testing.assert_allclose(predicted[:, 1], alone[:, 0])
    else:
        assert srcc(scores[TEST, 1], predicted[:, 1]) > 0.6


def test_baselines_know_the_mean_score_of_each_action() -> None:
    features, scores = routines(100)
    actions = np.arange(100) % 2
    scores[actions == 1] += 30
    unscored = scores.copy()
    unscored[actions == 1, 1] = np.nan
    for own in (scores, unscored):
        predicted = baselines_of(features, own, actions).predict(TRAINING, TEST)
        of_action = [scores[:60][actions[:60] == action].mean(0) for action in (0, 1)]
        np.testing.assert_allclose(predicted["mean"][actions[TEST] == 0], np.tile(of_action[0], (20, 1)))
        np.testing.assert_allclose(predicted["mean"][actions[TEST] == 1, 0], of_action[1][0])
        # where no routine of an action has a score, the mean of all stands in
        assert predicted["mean"][1, 1] == pytest.approx(of_action[int(own is scores)][1])
    predicted = baselines_of(features, scores, actions).predict(TRAINING, TEST)
    for name in REGRESSIONS:
        assert srcc(scores[TEST, 0], predicted[name][:, 0]) > 0.9


def test_ridge_reads_mean_and_deviation_of_float16_features() -> None:
    features = [np.random.default_rng(i).normal(size=(9, 4)).astype(np.float16) for i in range(3)]
    moments = baselines_of(features, np.zeros((3, 1))).moments
    doubles = features[2].astype(np.float64)
    np.testing.assert_allclose(moments[2], [*doubles.mean(0), *doubles.std(0)])
    assert ridge(moments, np.array([[1.0], [2], [np.nan]]), moments).shape == (3, 1)


@pytest.mark.shared
def test_known_figures_on_fisv(shared: Path) -> None:
    """5 random folds, pooled: kernel ridge about .64 / .80, ridge about .51 / .74 (TES / PCS)."""
    rows = [line.split() for line in (shared / "data/fisv/train.txt").read_text().splitlines()]
    scores = np.array([[float(row[1]), float(row[2])] for row in rows])
    features = [np.load(shared / f"data/fisv/swintx_avg_fps25_clip32/{row[0]}.npy") for row in rows]
    baselines = baselines_of(features, scores)
    pooled = {name: np.empty_like(scores) for name in BASELINES}
    for test in cut_folds(400, 5, seed=100):
        for name, predicted in baselines.predict(np.setdiff1d(np.arange(400), test), test).items():
            pooled[name][test] = predicted
    figures = {name: [srcc(scores[:, m], x[:, m]) for m in range(2)] for name, x in pooled.items()}
    print(figures)
    np.testing.assert_allclose(figures["kernel_ridge"], [0.645, 0.808], atol=0.03)
    np.testing.assert_allclose(figures["ridge"], [0.51, 0.74], atol=0.04)
