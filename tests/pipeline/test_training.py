"""Training learns, repeats by its seed, and takes what real features bring."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cofinal.models.cofinal import CoFInAlConfig
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.temporal_fusion import Evidence
from cofinal.pipeline.evaluation import srcc
from cofinal.pipeline.training import EpochProgress, TrainingRecipe, _in_their_span, _leave_their_span, fit, predict

CONFIG = CoFInAlConfig(
    feature_dim=8,
    targets=("A", "B"),
    ranges=((0, 20), (0, 20)),
    num_actions=2,
    width=32,
    dropout=0.1,
)
GDLT_FIELDS = {field.name for field in fields(GDLTConfig)}
SHORT = TrainingRecipe(epochs=15, batch_size=8)


def routines(num: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A is how strongly one feature shows over the routine, B how strongly another has grown by its end."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(2, 18, (num, 2))
    features = []
    for a, b in scores:
        clips = rng.normal(size=(rng.integers(3, 12), 8)) * 0.3
        clips[:, 0] += a / 5
        clips[:, 1] += b / 5 * np.linspace(-1, 1, len(clips))
        features.append(clips.astype(np.float32))
    return features, scores, rng.integers(0, 2, num)


def test_it_learns_and_grades_agree_with_scores() -> None:
    features, scores, actions = routines(80)
    seen: list[EpochProgress] = []
    network = fit(features, scores, actions, config=CONFIG, recipe=replace(SHORT, epochs=40), on_progress=seen.append)
    assert not network.training
    assert [progress.epoch for progress in seen] == list(range(1, seen[0].epochs + 1))
    assert set(seen[0].losses) == {"coarse", "fine", "final", "total"}
    for name in ("coarse", "fine", "final", "total"):
        assert seen[-1].losses[name] < seen[0].losses[name], name

    new_features, truth, new_actions = routines(200, seed=1)
    predicted = predict(network, new_features, new_actions)
    assert srcc(truth[:, 0], predicted["A"].score) > 0.9
    assert srcc(truth[:, 1], predicted["B"].score) > 0.7
    for target in predicted.values():
        rows = np.arange(200)
        assert (target.grade == target.probabilities.argmax(1) + 1).all()
        assert (target.edges[rows, target.grade - 1] <= target.points).all()
        assert (target.points <= target.edges[rows, target.grade]).all()
        assert set(target.subgrade) <= set(range(1, CONFIG.num_subgrades + 1))
        assert srcc(target.points, target.score) > 0.9
    with torch.inference_mode():
        clips, action = torch.from_numpy(new_features[0])[None], torch.tensor([new_actions[0]])
        fine = network(clips, torch.ones(1, clips.shape[1], dtype=torch.bool), action).subgrade_logits[0].softmax(-1)
    for target, of_grades in zip(predicted.values(), fine, strict=True):
        below, place = of_grades[target.grade[0] - 1], target.subgrade[0]
        assert below[: place - 1].sum() < 0.5 <= below[:place].sum() + 1e-6  # it is the median
    said = predicted["A"]
    largest = np.flatnonzero(said.grade == np.bincount(said.grade).argmax())
    assert len(largest) >= 10
    assert srcc(truth[largest, 0], said.subgrade[largest]) > 0.6  # within a grade only the fine grade can tell


@pytest.mark.gpu
def test_a_head_trained_on_a_gpu_says_the_same_on_a_cpu() -> None:
    features, scores, actions = routines(40)
    network = fit(features, scores, actions, config=CONFIG, recipe=SHORT, device="cuda")
    there = predict(network, features, actions)
    here = predict(network.cpu(), features, actions)
    for target in CONFIG.targets:
        np.testing.assert_allclose(there[target].score, here[target].score, atol=1e-2)
        assert srcc(scores[:, CONFIG.targets.index(target)], there[target].score) > 0.7


def test_the_baseline_learns_without_fine_grades() -> None:
    features, scores, actions = routines(80)
    seen: list[EpochProgress] = []
    config = GDLTConfig(**{name: value for name, value in asdict(CONFIG).items() if name in GDLT_FIELDS})
    network = fit(features, scores, actions, config=config, recipe=replace(SHORT, epochs=40), on_progress=seen.append)
    assert set(seen[0].losses) == {"final", "total"}
    assert seen[-1].losses["final"] < seen[0].losses["final"]
    new_features, truth, new_actions = routines(60, seed=1)
    predicted = predict(network, new_features, new_actions)
    # one of six judges reads covariances alone, which tell nothing of these
    assert srcc(truth[:, 0], predicted["A"].score) > 0.85
    assert srcc(truth[:, 1], predicted["B"].score) > 0.7
    for target in predicted.values():
        assert (target.grade == target.probabilities.argmax(1) + 1).all()
        assert (target.subgrade, target.points, target.num_subgrades) == (None, None, 0)


def test_prototypes_of_different_routines_come_together_by_grade() -> None:
    features, scores, actions = routines(40)
    seen: list[EpochProgress] = []
    recipe = replace(SHORT, epochs=40, coarse_weight=0, fine_weight=0, final_weight=0, prototype_weight=1)
    fit(features, scores, actions, config=CONFIG, recipe=recipe, on_progress=seen.append)
    assert seen[-1].losses["prototypes"] < 0.5 * seen[0].losses["prototypes"]


def test_same_seed_same_numbers_and_the_global_state_is_left_alone() -> None:
    features, scores, actions = routines(20)

    def weights(seed: int) -> torch.Tensor:
        network = fit(features, scores, actions, config=CONFIG, recipe=SHORT, seed=seed)
        return torch.cat([value.flatten() for value in network.state_dict().values()])

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_float16_features_and_single_clips_are_taken() -> None:
    features, scores, actions = routines(12)
    halves = [x[: 1 + i % 3].astype(np.float16) for i, x in enumerate(features)]
    network = fit(halves, scores, actions, config=CONFIG, recipe=SHORT)
    for target in predict(network, halves, actions).values():
        assert np.isfinite(target.score).all()


def test_what_goes_together_is_learnt() -> None:
    """Two features of the same mean and variance in every routine; only how they go together tells the score."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(2, 18, (120, 1))
    features = []
    for score in scores[:, 0]:
        clips = rng.normal(size=(60, 8))
        alike = score / 10 - 1  # from -.8 to .8
        clips[:, 1] = alike * clips[:, 0] + (1 - alike**2) ** 0.5 * clips[:, 1]
        features.append(clips.astype(np.float32))
    config = CoFInAlConfig(feature_dim=8, targets=("A",), ranges=((0, 20),))
    network = fit(features[:90], scores[:90], config=config, recipe=SHORT)
    assert srcc(scores[90:, 0], predict(network, features[90:])["A"].score) > 0.8


def test_routines_of_one_clip_have_covariances_that_say_nothing() -> None:
    features, scores, actions = routines(23)
    network = fit([x[:1] for x in features], scores, actions, config=CONFIG, recipe=SHORT)
    assert network.fusion.covariance_spread == 1
    told = predict(network, [features[0][:2]], actions[:1])["A"].score
    assert 0 <= told[0] <= 20


def test_missing_scores_are_left_out() -> None:
    features, scores, actions = routines(40)
    scores[::3, 0] = np.nan
    scores[1::3, 1] = np.nan
    network = fit(features, scores, actions, config=CONFIG, recipe=replace(SHORT, epochs=60))
    predicted = predict(network, features, actions)
    assert srcc(scores[~np.isnan(scores[:, 0]), 0], predicted["A"].score[~np.isnan(scores[:, 0])]) > 0.8


def test_prediction_does_not_depend_on_what_is_predicted_beside_it() -> None:
    features, scores, actions = routines(20)
    network = fit(features, scores, actions, config=CONFIG, recipe=SHORT)
    together, alone = predict(network, features, actions), predict(network, features[7:8], actions[7:8])
    assert together["A"].score[7] == alone["A"].score[0]


def test_equal_scores_and_constant_features_still_train() -> None:
    features = [np.ones((3, 8), np.float32)] * 6
    network = fit(features, np.full((6, 2), 7.0), np.zeros(6, int), config=CONFIG, recipe=SHORT)
    np.testing.assert_allclose(predict(network, features, np.zeros(6, int))["A"].score, 7, atol=1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((3, 2))}, "need as many scores"),
        ({"scores": np.full((4, 2), 21.0)}, "outside its range"),
        ({"scores": np.full((4, 2), np.nan)}, "no training routine has a score for 'A'"),
        ({"actions": None}, "not given the actions"),
        ({"features": [np.zeros((3, 7), np.float32)] * 4}, r"expected \(clips, 8\)"),
        ({"features": [np.zeros((0, 8), np.float32)] * 4}, r"expected \(clips, 8\)"),
        ({"features": [np.full((2, 8), np.nan, np.float32)] * 4}, "NaN"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    values = {"features": [np.zeros((3, 8), np.float32)] * 4, "scores": np.ones((4, 2)), "actions": np.zeros(4, int)}
    with pytest.raises(ValueError, match=message):
        fit(**(values | change), config=CONFIG, recipe=SHORT)


def test_what_is_learnt_in_the_span_of_the_routines_reads_the_evidence_itself() -> None:
    evidence = Evidence(torch.randn(9, 40), torch.randn(9, 5), torch.randn(9, 1), torch.randn(9, 2), torch.randn(9, 1))
    whole = nn.ModuleList(nn.Linear(part.shape[1], 3) for part in evidence[:4])
    small, coordinates, bases = _in_their_span(whole, evidence)
    assert [part.shape[1] for part in coordinates] == [9, 5, 1, 2, 1]
    _leave_their_span(whole, small, bases)
    for i in range(4):
        torch.testing.assert_close(whole[i](evidence[i]), small[i](coordinates[i]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("num", "components"), [(4, 1), (6, 2), (40, 8)])
def test_components_rest_on_enough_clips(num: int, components: int) -> None:
    features = [np.random.default_rng(i).normal(size=(3, 8)).astype(np.float32) for i in range(num)]
    network = fit(features, np.ones((num, 2)), np.zeros(num, int), config=CONFIG, recipe=replace(SHORT, epochs=1))
    assert network.fusion.feature_basis.shape == (8, components)
    assert predict(network, features[:2], np.zeros(2, int))["A"].score.shape == (2,)


def fisv(shared: Path) -> tuple[list[np.ndarray], np.ndarray, CoFInAlConfig]:
    rows = [line.split() for line in (shared / "data/fisv/train.txt").read_text().splitlines()]
    features = [np.load(shared / f"data/fisv/swintx_avg_fps25_clip32/{row[0]}.npy") for row in rows]
    scores = np.array([[float(row[1]), float(row[2])] for row in rows])
    return features, scores, CoFInAlConfig(feature_dim=1024, targets=("TES", "PCS"), ranges=((0, 45), (0, 40)))


@pytest.mark.shared
def test_real_features_in_short(shared: Path) -> None:
    features, scores, config = fisv(shared)
    network = fit(features[::2], scores[::2], config=config, recipe=TrainingRecipe(epochs=6))
    predicted = predict(network, features[1::4])
    assert srcc(scores[1::4, 1], predicted["PCS"].score) > 0.4
