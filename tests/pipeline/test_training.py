"""Training learns, repeats by its seed, and takes what real features bring."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cofinal.models.cofinal import CoFInAlConfig, CoFInAlRecipe
from cofinal.models.cofinal_paper import PaperConfig
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.head import HeadConfig, Recipe
from cofinal.models.predict import predict
from cofinal.models.transformer import TransformerRecipe
from cofinal.pipeline.evaluation import srcc
from cofinal.pipeline.training import EpochProgress, fit

SIZES = {"feature_dim": 8, "targets": ("A", "B"), "ranges": ((0, 20), (0, 20)), "num_actions": 2, "width": 16}
CONFIG = CoFInAlConfig(**SIZES, num_members=2, dropout=0.1)
SHORT = CoFInAlRecipe(epochs=3, batch_size=8)
HEADS = [
    (CONFIG, SHORT),
    (replace(CONFIG, tokens="both"), SHORT),
    (PaperConfig(**SIZES), TransformerRecipe(epochs=2, batch_size=8, window=5)),
    (GDLTConfig(**SIZES), TransformerRecipe(epochs=2, batch_size=8, window=5)),
]
every_head = pytest.mark.parametrize(("config", "recipe"), HEADS, ids=["cofinal", "both tokens", "paper", "gdlt"])


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


def test_it_learns_what_a_feature_is_and_how_it_grows() -> None:
    features, scores, actions = routines(100)
    seen: list[EpochProgress] = []
    recipe = replace(SHORT, epochs=20, learning_rate=1e-2)
    network = fit(features, scores, actions, config=CONFIG, recipe=recipe, on_progress=seen.append)
    assert not network.training
    assert network.config == replace(CONFIG, num_training=100)
    assert [progress.epoch for progress in seen] == list(range(1, 21))
    assert all(seen[-1].losses[name] < seen[0].losses[name] for name in seen[0].losses)
    new_features, truth, new_actions = routines(100, seed=1)
    predicted = predict(network, new_features, new_actions)
    assert srcc(truth[:, 0], predicted["A"].score) > 0.8
    assert srcc(truth[:, 1], predicted["B"].score) > 0.7
    said = predicted["A"]
    largest = np.flatnonzero(said.grade == np.bincount(said.grade).argmax())
    assert len(largest) >= 10
    assert srcc(truth[largest, 0], said.subgrade[largest]) > 0.3  # within a grade only the fine grade can tell


@pytest.mark.gpu
@every_head
def test_a_head_trained_on_a_gpu_predicts_the_same_on_a_cpu(config: HeadConfig, recipe: Recipe) -> None:
    features, scores, actions = routines(40)
    network = fit(features, scores, actions, config=config, recipe=recipe, device="cuda")
    there = predict(network, features, actions)
    here = predict(network.cpu(), features, actions)
    for target in config.targets:
        np.testing.assert_allclose(there[target].score, here[target].score, atol=1e-2)


def test_losses_of_an_epoch_are_the_mean_over_its_routines() -> None:
    """Two batches of unequal sizes, and a learning rate so small that nothing changes between them."""
    features, scores, actions = routines(7)
    seen: list[EpochProgress] = []
    config = replace(CONFIG, dropout=0.0)
    recipe = replace(SHORT, epochs=1, batch_size=4, mixup=0, learning_rate=1e-12, target_mixing=False)
    network = fit(features, scores, actions, config=config, recipe=recipe, on_progress=seen.append)
    with torch.no_grad():
        clips = [torch.from_numpy(x) for x in features]
        training = network.fit_statistics(clips, scores, torch.from_numpy(actions))
        whole = network.losses(training, np.arange(7), recipe, np.random.default_rng(0))
    for name, loss in whole.items():
        assert seen[0].losses[name] == pytest.approx(loss.item(), rel=1e-3)


def test_every_routine_is_seen_once_in_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    features, scores, actions = routines(11)
    batches: list[np.ndarray] = []
    kind = type(CONFIG.build())
    original = kind.losses

    def listen(self, training, rows, recipe, rng):
        batches.append(rows)
        return original(self, training, rows, recipe, rng)

    monkeypatch.setattr(kind, "losses", listen)
    fit(features, scores, actions, config=CONFIG, recipe=replace(SHORT, epochs=2, batch_size=4))
    assert [len(x) for x in batches] == [4, 4, 3] * 2
    epochs = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(11))
    assert epochs[0].tolist() != epochs[1].tolist()


@every_head
def test_same_seed_same_numbers_and_the_global_state_is_left_alone(config: HeadConfig, recipe: Recipe) -> None:
    features, scores, actions = routines(20)

    def weights(seed: int) -> torch.Tensor:
        network = fit(features, scores, actions, config=config, recipe=recipe, seed=seed)
        return torch.cat([value.flatten().double() for value in network.state_dict().values()])

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


@every_head
def test_float16_features_and_single_clips_are_taken(config: HeadConfig, recipe: Recipe) -> None:
    features, scores, actions = routines(12)
    halves = [x[: 1 + i % 3].astype(np.float16) for i, x in enumerate(features)]
    network = fit(halves, scores, actions, config=config, recipe=recipe)
    for target in predict(network, halves, actions).values():
        assert np.isfinite(target.score).all()


@every_head
def test_missing_scores_are_left_out(config: HeadConfig, recipe: Recipe) -> None:
    features, scores, actions = routines(20)
    scores[::3, 0] = np.nan
    scores[1::3, 1] = np.nan
    seen: list[EpochProgress] = []
    network = fit(features, scores, actions, config=config, recipe=recipe, on_progress=seen.append)
    assert all(np.isfinite(loss) for progress in seen for loss in progress.losses.values())
    for target in predict(network, features, actions).values():
        assert np.isfinite(target.score).all()


@every_head
def test_prediction_does_not_depend_on_what_is_predicted_beside_it(config: HeadConfig, recipe: Recipe) -> None:
    features, scores, actions = routines(20)
    network = fit(features, scores, actions, config=config, recipe=recipe)
    together, alone = predict(network, features, actions), predict(network, features[7:8], actions[7:8])
    assert together["A"].score[7] == alone["A"].score[0]
    assert (together["B"].probabilities[7] == alone["B"].probabilities[0]).all()


@every_head
def test_equal_scores_and_constant_features_still_train(config: HeadConfig, recipe: Recipe) -> None:
    features, actions = [np.ones((3, 8), np.float32)] * 6, np.zeros(6, int)
    network = fit(features, np.full((6, 2), 7.0), actions, config=config, recipe=recipe)
    score = predict(network, features, actions)["A"].score
    assert np.ptp(score) == 0
    assert 0 < score[0] < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((3, 2))}, "need as many scores"),
        ({"scores": np.full((4, 2), 21.0)}, "outside its range"),
        ({"scores": np.full((4, 2), np.nan)}, "no training routine has a score for 'A'"),
        ({"actions": None}, "not given the actions"),
        ({"features": [np.zeros((3, 8), np.float32)]}, "at least 2 routines"),
        ({"features": [np.zeros((3, 7), np.float32)] * 4}, r"expected \(clips, 8\)"),
        ({"features": [np.zeros((0, 8), np.float32)] * 4}, r"expected \(clips, 8\)"),
        ({"features": [np.full((2, 8), np.nan, np.float32)] * 4}, "NaN"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    values = {"features": [np.zeros((3, 8), np.float32)] * 4, "scores": np.ones((4, 2)), "actions": np.zeros(4, int)}
    with pytest.raises(ValueError, match=message):
        fit(**(values | change), config=CONFIG, recipe=SHORT)


def fisv(shared: Path) -> tuple[list[np.ndarray], np.ndarray, CoFInAlConfig]:
    rows = [line.split() for line in (shared / "data/fisv/train.txt").read_text().splitlines()]
    features = [np.load(shared / f"data/fisv/swintx_avg_fps25_clip32/{row[0]}.npy") for row in rows]
    scores = np.array([[float(row[1]), float(row[2])] for row in rows])
    return features, scores, CoFInAlConfig(feature_dim=1024, targets=("TES", "PCS"), ranges=((0, 45), (0, 40)))


@pytest.mark.shared
def test_real_features_in_short(shared: Path) -> None:
    features, scores, config = fisv(shared)
    network = fit(features[::2], scores[::2], config=config, recipe=CoFInAlRecipe(epochs=6))
    predicted = predict(network, features[1::4])
    assert srcc(scores[1::4, 1], predicted["PCS"].score) > 0.4
