"""Heads are judged on routines they never saw, and beat ridge there on real features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cofinal import train_head
from cofinal.data.labels import LabelRow, LabelSet
from cofinal.models import checkpoint
from cofinal.pipeline.baselines import pool
from cofinal.pipeline.conformal import radius
from cofinal.pipeline.protocol import Examples, Outcome, fold_rows, parts_of, run, summarise
from cofinal.pipeline.training import TrainingRecipe

RECIPE = TrainingRecipe(epochs=1)


@given(st.integers(5, 60), st.integers(2, 5), st.integers(0, 3))
def test_folds_hold_every_row_once(num_rows: int, folds: int, seed: int) -> None:
    parts = fold_rows(num_rows, folds, seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(num_rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_groups_stay_together() -> None:
    groups = [f"skater {i % 13}" for i in range(50)]
    parts = fold_rows(50, 5, seed=0, groups=groups)
    assert sorted(np.concatenate(parts)) == list(range(50))
    owners = [{groups[i] for i in part} for part in parts]
    assert sum(map(len, owners)) == 13
    with pytest.raises(ValueError, match="13 groups cannot be cut into 14 folds"):
        fold_rows(50, 14, seed=0, groups=groups)
    with pytest.raises(ValueError, match="3 videos cannot be cut into 5 folds"):
        fold_rows(3, 5, seed=0)


def made_up(scores: np.ndarray, groups: list[str | None] | None = None) -> tuple[Examples, LabelSet]:
    """Routines whose features are always the same; the first of the 8 tells the score of each, more or less."""
    features = [np.random.default_rng(i).normal(size=(4, 8)).astype(np.float32) for i in range(len(scores))]
    for i, x in enumerate(features):
        x[:, 0] += i / len(scores) * 4
    groups = groups or [None] * len(scores)
    rows = [
        LabelRow(f"v{i}", {"score": score}, f"row {i}", split="train", group=group)
        for i, (score, group) in enumerate(zip(scores, groups, strict=True))
    ]
    labels = LabelSet("csv", ("score",), {"score": (0, 20)}, (), tuple(rows), ())
    return Examples(rows, features, pool(features), np.asarray(scores)[:, None], None), labels


def outcome(scores: np.ndarray, *, folds: int = 3, seeds: tuple[int, ...] = (0,), epochs: int = 3, **how) -> Outcome:
    examples, labels = made_up(scores)
    plans = {seed: parts_of(examples, "cv", folds=folds, seed=seed, **how)[1] for seed in seeds}
    return run(plans, examples, labels, recipe=TrainingRecipe(epochs=epochs), device="cpu")


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in network.state_dict().values()])


def test_out_of_fold_predictions_come_from_heads_that_never_saw_the_routine() -> None:
    scores = np.linspace(2, 18, 12)
    changed = scores.copy()
    held_out = fold_rows(12, 3, seed=0)[0]
    changed[held_out] = 20 - changed[held_out]
    before, after = outcome(scores).predictions, outcome(changed).predictions
    assert [entry["video"] for entry in before] == [f"v{i}" for i in range(12)]
    for column in ("predicted", "mean", "ridge", "kernel_ridge"):
        same = [old[column] == new[column] for old, new in zip(before, after, strict=True)]
        assert [i for i in range(12) if same[i]] == list(held_out), column


@pytest.mark.parametrize("grouped", [False, True])
def test_what_makes_a_parts_intervals_lies_inside_it(grouped: bool) -> None:
    groups = [f"skater {i // 3}" for i in range(40)] if grouped else None
    examples, _ = made_up(np.linspace(2, 18, 40), groups)
    _, parts = parts_of(examples, "cv", folds=4, seed=0, intervals=True)
    for part in parts:
        judged_inside = np.concatenate([inner.judged for inner in part.calibration])
        assert sorted(judged_inside) == list(part.training)
        for inner in part.calibration:
            assert not set(inner.training) & {*inner.judged, *part.judged}
            assert set(inner.training) <= set(part.training)
            if groups:
                assert not {groups[i] for i in inner.training} & {groups[i] for i in (*inner.judged, *part.judged)}
    every = [x for part in parts for x in (part, *part.calibration)]
    assert len({x.name for x in every}) == 4 + 6 + 1  # a fold out, two out, none out
    for x in every:
        assert all(np.array_equal(x.training, y.training) for y in every if x.name == y.name)


def test_intervals_of_a_fold_do_not_depend_on_its_own_scores() -> None:
    scores = np.linspace(2, 18, 30)
    changed = scores.copy()
    held_out = fold_rows(30, 3, seed=0)[0]
    changed[held_out] = 20 - changed[held_out]
    before, after = (outcome(x, intervals=True).predictions for x in (scores, changed))
    same = [(old["low"], old["high"]) == (new["low"], new["high"]) for old, new in zip(before, after, strict=True)]
    assert [i for i in range(30) if same[i]] == list(held_out)
    assert "low" not in outcome(scores).predictions[0]


def test_intervals_hold_about_nine_of_ten_scores() -> None:
    scores = np.linspace(2, 18, 200) + np.random.default_rng(0).normal(size=200)
    found = outcome(scores, folds=4, epochs=12, intervals=True)
    figures = summarise(found.predictions)["targets"]["score"]
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
    with pytest.raises(ValueError, match="at least 9 judged videos inside each training part, and one has 8"):
        outcome(np.linspace(2, 18, 12), folds=3, intervals=True)


def test_seeds_repeat_everything_and_the_first_is_kept() -> None:
    scores = np.linspace(2, 18, 24)
    together, apart = outcome(scores, seeds=(3, 4)), [outcome(scores, seeds=(seed,)) for seed in (3, 4)]
    assert torch.equal(weights(together.network), weights(apart[0].network))
    assert together.radii == apart[0].radii
    assert [entry.pop("seed") for entry in together.predictions] == [3] * 24 + [4] * 24
    assert together.predictions == apart[0].predictions + apart[1].predictions
    runs = [(row["seed"], row["part"]) for row in together.curves if row["epoch"] == 3]
    folds = [f"without {fold}" for fold in (1, 2, 3)]
    assert runs == [*((3, name) for name in (*folds, "all")), *((4, name) for name in folds)]


def test_figures_are_means_over_seeds_with_baselines_and_average_alike() -> None:
    scores = np.linspace(2, 18, 24)
    results = summarise(outcome(scores, seeds=(0, 1, 2)).predictions)
    apart = [summarise(outcome(scores, seeds=(seed,)).predictions) for seed in (0, 1, 2)]
    for found in (lambda x: x["targets"]["score"], lambda x: x["baselines"]["ridge"]["score"], lambda x: x["average"]):
        for name in ("srcc", "r_l2"):
            values = [found(x)[name] for x in apart]
            assert found(results)[name] == pytest.approx(np.mean(values))
            assert found(results)["std"][name] == pytest.approx(np.std(values, ddof=1))


def test_baselines_know_the_usual_score_of_each_action() -> None:
    examples, labels = made_up(np.tile([4.0, 4.5, 12.0, 12.5], 6))
    action = np.tile([0, 0, 1, 1], 6)
    rows = [replace(row, action=("low", "high")[a]) for row, a in zip(examples.rows, action, strict=True)]
    examples = replace(examples, rows=rows, actions=action)
    labels = replace(labels, actions=("low", "high"), rows=tuple(rows))
    parts = parts_of(examples, "cv", folds=3, seed=0)[1]
    found = run({0: parts}, examples, labels, recipe=RECIPE, device="cpu")
    for name in ("mean", "ridge", "kernel_ridge"):
        for entry in found.predictions:
            assert abs(entry[name] - {"low": 4.25, "high": 12.25}[entry["action"]]) < 1, (name, entry)


@pytest.mark.parametrize("has_groups", [True, False])
def test_groups_stand_beside_predictions_and_widen_the_intervals(has_groups: bool) -> None:
    examples, labels = made_up(np.linspace(2, 18, 24), [f"s{i // 4}" for i in range(24)] if has_groups else None)
    found = run({0: parts_of(examples, "cv", folds=3, seed=0)[1]}, examples, labels, recipe=RECIPE, device="cpu")
    assert all(("group" in entry) == has_groups for entry in found.predictions)
    ends = summarise(found.predictions)["targets"]["score"]["intervals"]["mae"]
    if has_groups:
        alone = [{k: v for k, v in entry.items() if k != "group"} for entry in found.predictions]
        assert np.ptp(ends) > np.ptp(summarise(alone)["targets"]["score"]["intervals"]["mae"])


def test_a_head_too_large_to_be_read_is_refused_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, labels = made_up(np.linspace(2, 18, 24))
    parts = parts_of(examples, "cv", folds=3, seed=0)[1]
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="2 networks that remember 24 training videos would take"):
        run({0: parts}, examples, labels, members=2, recipe=RECIPE, device="cpu")


def with_a_test_split(scores: np.ndarray) -> tuple[Examples, LabelSet]:
    """Routines of `made_up`, every fourth of them for the test."""
    examples, labels = made_up(scores)
    rows = [replace(row, split="test" if i % 4 == 0 else "train") for i, row in enumerate(examples.rows)]
    return replace(examples, rows=rows), labels


def test_the_official_protocols_intervals_come_from_folds_of_its_train_split() -> None:
    examples, labels = with_a_test_split(np.linspace(2, 18, 40))
    protocol, parts = parts_of(examples, "auto", folds=5, seed=0, intervals=True)
    assert protocol == "official"
    (part,) = parts
    assert list(part.judged) == list(range(0, 40, 4))
    assert sorted(np.concatenate([inner.judged for inner in part.calibration])) == list(part.training)
    found = run({0: parts}, examples, labels, recipe=TrainingRecipe(epochs=2), device="cpu")
    assert len(found.predictions) == 10
    assert all(entry["low"] <= entry["predicted"] <= entry["high"] for entry in found.predictions)


def test_no_score_of_the_test_split_changes_an_official_head() -> None:
    def official(scores: np.ndarray) -> Outcome:
        examples, labels = with_a_test_split(scores)
        parts = parts_of(examples, "official", folds=5, seed=0)[1]
        return run({0: parts}, examples, labels, recipe=RECIPE, device="cpu")

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
