"""Heads are evaluated on routines they never saw, and beat ridge there on real features."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_routines import dataset_of

from cofinal import train_head
from cofinal.models.cofinal import CoFInAlConfig, CoFInAlRecipe
from cofinal.pipeline.conformal import radius
from cofinal.pipeline.examples import Dataset
from cofinal.pipeline.protocol import Outcome, run_protocol, run_seeds
from cofinal.pipeline.results import summarise_predictions
from cofinal.pipeline.splits import cut_folds, make_splits
from cofinal.pipeline.trainings import HeadTraining

SMALL = partial(CoFInAlConfig, width=16, num_members=2)
BRIEF = HeadTraining(SMALL, CoFInAlRecipe(epochs=1))


def outcome(scores: np.ndarray, *, folds: int = 3, seeds: tuple[int, ...] = (0,), epochs: int = 3, **how) -> Outcome:
    data = dataset_of(scores)
    splits = {seed: make_splits(data.examples, "cv", folds=folds, seed=seed, **how)[1] for seed in seeds}
    return run_seeds(splits, data, HeadTraining(SMALL, CoFInAlRecipe(epochs=epochs)))


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in network.state_dict().values()])


def test_out_of_fold_predictions_come_from_heads_that_never_saw_the_routine() -> None:
    scores = np.linspace(2, 18, 12)
    changed = scores.copy()
    held_out = cut_folds(12, 3, seed=0)[0]
    changed[held_out] = 20 - changed[held_out]
    before, after = outcome(scores).predictions, outcome(changed).predictions
    assert [entry["video"] for entry in before] == [f"v{i}" for i in range(12)]
    for column in ("predicted", "mean", "ridge", "kernel_ridge"):
        same = [old[column] == new[column] for old, new in zip(before, after, strict=True)]
        assert [i for i in range(12) if same[i]] == list(held_out), column


def test_intervals_of_a_fold_do_not_depend_on_its_own_scores() -> None:
    scores = np.linspace(2, 18, 30)
    changed = scores.copy()
    held_out = cut_folds(30, 3, seed=0)[0]
    changed[held_out] = 20 - changed[held_out]
    before, after = (outcome(x, intervals=True).predictions for x in (scores, changed))
    same = [(old["low"], old["high"]) == (new["low"], new["high"]) for old, new in zip(before, after, strict=True)]
    assert [i for i in range(30) if same[i]] == list(held_out)
    assert "low" not in outcome(scores).predictions[0]


def test_intervals_hold_about_nine_of_ten_scores() -> None:
    scores = np.linspace(2, 18, 200) + np.random.default_rng(0).normal(size=200)
    found = outcome(scores, folds=4, epochs=12, intervals=True)
    figures = summarise_predictions(found.predictions)["targets"]["score"]
    assert 0.85 <= figures["coverage"] <= 0.97
    assert figures["width"] < 12
    assert 0 < found.radii["score"] < 6


def test_the_kept_head_knows_its_interval_from_the_folds() -> None:
    found = outcome(np.linspace(2, 18, 30))
    errors = np.array([entry["predicted"] - entry["true"] for entry in found.predictions])
    assert found.radii["score"] == pytest.approx(radius(errors))
    assert outcome(np.linspace(2, 18, 8)).radii == {}  # 8 errors are too few for 90%


def test_what_intervals_lack_is_said_before_anything_is_trained() -> None:
    with pytest.raises(ValueError, match="at least 3 folds"):
        outcome(np.linspace(2, 18, 30), folds=2, intervals=True)
    with pytest.raises(ValueError, match="at least 9 scored videos inside each training part, and one has 8"):
        outcome(np.linspace(2, 18, 12), folds=3, intervals=True)


def test_seeds_repeat_everything_and_the_first_is_kept() -> None:
    scores = np.linspace(2, 18, 24)
    together, apart = outcome(scores, seeds=(3, 4)), [outcome(scores, seeds=(seed,)) for seed in (3, 4)]
    assert torch.equal(weights(together.network), weights(apart[0].network))
    assert together.radii == apart[0].radii
    assert [entry.pop("seed") for entry in together.predictions] == [3] * 24 + [4] * 24
    assert together.predictions == apart[0].predictions + apart[1].predictions
    runs = [(row["seed"], row["split"]) for row in together.curves if row["epoch"] == 3]
    names = [*(f"without {fold}" for fold in (1, 2, 3)), "all"]
    assert runs == [(seed, name) for seed in (3, 4) for name in names]


def test_figures_are_means_over_seeds_with_baselines_and_average_alike() -> None:
    scores = np.linspace(2, 18, 24)
    results = summarise_predictions(outcome(scores, seeds=(0, 1, 2)).predictions)
    apart = [summarise_predictions(outcome(scores, seeds=(seed,)).predictions) for seed in (0, 1, 2)]
    for found in (lambda x: x["targets"]["score"], lambda x: x["baselines"]["ridge"]["score"], lambda x: x["average"]):
        for name in ("srcc", "r_l2"):
            values = [found(x)[name] for x in apart]
            assert found(results)[name] == pytest.approx(np.mean(values))
            assert found(results)["std"][name] == pytest.approx(np.std(values, ddof=1))


def test_baselines_know_the_usual_score_of_each_action() -> None:
    data = dataset_of(np.tile([4.0, 4.5, 12.0, 12.5], 6))
    action = np.tile([0, 0, 1, 1], 6)
    rows = [replace(row, action=("low", "high")[a]) for row, a in zip(data.examples.rows, action, strict=True)]
    examples = replace(data.examples, rows=rows, actions=action)
    data = Dataset(replace(data.labels, actions=("low", "high"), rows=tuple(rows)), examples, [])
    found = run_protocol(make_splits(examples, "cv", folds=3, seed=0)[1], data, BRIEF)
    for name in ("mean", "ridge", "kernel_ridge"):
        for entry in found.predictions:
            assert abs(entry[name] - {"low": 4.25, "high": 12.25}[entry["action"]]) < 1, (name, entry)


@pytest.mark.parametrize("has_groups", [True, False])
def test_groups_stand_beside_predictions_and_widen_the_intervals(has_groups: bool) -> None:
    data = dataset_of(np.linspace(2, 18, 24), [f"s{i // 4}" for i in range(24)] if has_groups else None)
    found = run_protocol(make_splits(data.examples, "cv", folds=3, seed=0)[1], data, BRIEF)
    assert all(("group" in entry) == has_groups for entry in found.predictions)
    ends = summarise_predictions(found.predictions)["targets"]["score"]["intervals"]["mae"]
    if has_groups:
        alone = [{k: v for k, v in entry.items() if k != "group"} for entry in found.predictions]
        assert np.ptp(ends) > np.ptp(summarise_predictions(alone)["targets"]["score"]["intervals"]["mae"])


def test_the_official_protocols_intervals_come_from_folds_of_its_train_split() -> None:
    data = dataset_of(np.linspace(2, 18, 40), test_every=4)
    protocol, splits = make_splits(data.examples, "auto", folds=5, seed=0, intervals=True)
    assert protocol == "official"
    (split,) = splits
    assert list(split.evaluated) == list(range(0, 40, 4))
    assert sorted(np.concatenate([inner.evaluated for inner in split.calibration])) == list(split.training)
    found = run_protocol(splits, data, BRIEF)
    assert len(found.predictions) == 10
    assert all(entry["low"] <= entry["predicted"] <= entry["high"] for entry in found.predictions)


def test_no_score_of_the_test_split_changes_an_official_head() -> None:
    def official(scores: np.ndarray) -> Outcome:
        data = dataset_of(scores, test_every=4)
        return run_protocol(make_splits(data.examples, "official", folds=5, seed=0)[1], data, BRIEF)

    scores = np.linspace(2, 18, 40)
    one, other = official(scores), official(np.where(np.arange(40) % 4, scores, 20 - scores))
    assert [entry["true"] for entry in one.predictions] != [entry["true"] for entry in other.predictions]
    assert [entry["predicted"] for entry in one.predictions] == [entry["predicted"] for entry in other.predictions]
    for name, weights in one.network.state_dict().items():
        assert torch.equal(weights, other.network.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.shared
def test_head_beats_ridge_on_fisv(shared: Path, tmp_path: Path) -> None:
    """The real features as they are, 5 random folds; ridge is known to reach about .51 (TES) and .74 (PCS)."""
    store = shared / "data/fisv/swintx_avg_fps25_clip32"
    results = train_head(store, "fisv", out=tmp_path / "head.safetensors", seed=100).results
    assert results["protocol"] == "cv"
    for target, known in (("TES", 0.51), ("PCS", 0.74)):
        ridge = results["baselines"]["ridge"][target]["srcc"]
        assert results["targets"][target]["srcc"] > max(ridge, known) + 0.02
