"""The paper's head and GDLT, and the encoder and decoder that they share."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up import as_if_trained, routine, routines

from cofinal.models.cofinal_paper import PaperCoFInAl, PaperConfig, split_digits
from cofinal.models.predict import predict
from cofinal.models.transformer import TrainingSet, TransformerRecipe
from cofinal.pipeline.training import fit

CONFIG = PaperConfig(feature_dim=12, targets=("TES", "PCS"), ranges=((0, 40), (10, 40)), width=8)
RECIPE = TransformerRecipe(epochs=2, batch_size=8, window=6)


@pytest.fixture(scope="module")
def network() -> PaperCoFInAl:
    torch.manual_seed(0)
    network = PaperCoFInAl(replace(CONFIG, num_actions=2))
    as_if_trained(network)
    return network.eval()


# --- digits ---


@given(st.integers(0, 10_000))
def test_digits_of_four_decimals_are_exact(ten_thousandths: int) -> None:
    coarse, fine = split_digits(torch.tensor([ten_thousandths / 10_000]))
    expected = min(ten_thousandths, 9999)  # the score 1 is the last class
    assert round(coarse.item() * 100) == expected // 100
    assert coarse.item() == pytest.approx(expected // 100 / 100)
    assert fine.item() == expected % 100


@given(st.sampled_from([10, 25, 30, 40, 45, 100]), st.data())
def test_digits_of_every_score_with_two_decimals_are_exact(full: int, data: st.DataObject) -> None:
    """As the training has them: scores are divided by their range in single precision."""
    cents = data.draw(st.integers(0, 100 * full))
    network = PaperCoFInAl(PaperConfig(feature_dim=1, targets=("A",), ranges=((0, full),), width=4))
    training = network.fit_statistics([], np.array([[cents / 100]]), None)
    coarse, fine = split_digits(training.shares)
    expected = min(int(Fraction(cents, 100 * full) * 10_000), 9999)
    assert (round(coarse.item() * 100), fine.item()) == divmod(expected, 100)


# --- coarse and fine ---


def test_the_score_is_coarse_and_fine_of_each_routine(network: PaperCoFInAl) -> None:
    clips, actions = torch.stack([routine(9, i) * (1 + 5 * i) for i in range(20)]), torch.arange(20) % 2
    output = network(clips, actions)
    is_clip = torch.ones(20, 9, dtype=torch.bool)
    _, weights, fine, _ = network.parse(clips, is_clip, actions)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 20, 2))
    torch.testing.assert_close(fine.norm(dim=-1), torch.ones(20, 2))
    values = torch.tensor([0, 1 / 3, 2 / 3, 1])
    forwards, backwards = (weights[0] * values).sum(-1), (weights[1] * (1 - values)).sum(-1)
    classes = torch.stack([(fine[i] @ network.etf).argmax(-1) for i in range(20)])  # of each routine and target
    assert (classes != classes[0]).any()
    shares = (forwards + 1 - backwards) / 2 + classes / 10_000
    expected = torch.tensor([0.0, 10.0]) + torch.tensor([40.0, 30.0]) * shares.clamp(0, 1)
    torch.testing.assert_close(output.score, expected)
    torch.testing.assert_close(output.probabilities, weights.mean(0))


def test_both_branches_of_the_coarse_score_agree_on_what_a_grade_means(network: PaperCoFInAl) -> None:
    for grade, value in enumerate((0, 1 / 3, 2 / 3, 1)):
        certain = torch.zeros(2, 1, 1, 4)
        certain[..., grade] = 1
        forwards, backwards = network.coarse_scores(certain)
        assert forwards.item() == pytest.approx(value)
        assert (1 - backwards).item() == pytest.approx(value)


def test_grades_are_equal_spans_of_the_range(network: PaperCoFInAl) -> None:
    torch.testing.assert_close(network.cells[1, ::25], torch.tensor([10, 17.5, 25, 32.5, 40]))
    assert network.cells.shape == (2, 101)


def test_prototypes_of_the_etf_are_as_far_apart_as_they_can_be(network: PaperCoFInAl) -> None:
    cosines = network.etf.T @ network.etf
    torch.testing.assert_close(cosines, torch.eye(100) * (1 + 1 / 99) - 1 / 99, atol=1e-5, rtol=0)
    torch.manual_seed(5)
    assert torch.equal(PaperCoFInAl(CONFIG).etf, network.etf)  # whatever the seed


@pytest.mark.parametrize("with_actions", [True, False])
def test_a_routine_does_not_depend_on_its_batch(network: PaperCoFInAl, with_actions: bool) -> None:
    own = network
    if not with_actions:
        torch.manual_seed(0)
        own = PaperCoFInAl(CONFIG).eval()
    clips, actions = torch.stack([routine(9, i) for i in range(5)]), np.arange(5) % 2 if with_actions else None
    together = own(clips, None if actions is None else torch.from_numpy(actions))
    alone = predict(own, [x.numpy() for x in clips], actions)
    for m, target in enumerate(CONFIG.targets):
        np.testing.assert_allclose(alone[target].score, together.score[:, m].detach(), atol=1e-4)
        np.testing.assert_allclose(np.stack(alone[target].attention), together.attention[:, m].detach(), atol=1e-5)


# --- training ---


def test_losses_are_those_of_the_paper(network: PaperCoFInAl) -> None:
    """In eval mode and on whole routines, so that nothing is drawn at random."""
    features = [routine(5, i) for i in range(4)]
    scores = np.array([[10.0, 20.0], [30.0, np.nan], [11.23, 39.0], [40.0, 10.0]])
    actions = torch.tensor([0, 1, 0, 1])
    training = network.fit_statistics(features, scores, actions)
    with torch.no_grad():
        losses = network.losses(training, np.arange(4), replace(RECIPE, triplet_weight=2.0), np.random.default_rng(0))
        _, weights, fine, _ = network.parse(torch.stack(features), torch.ones(4, 5, dtype=torch.bool), actions)
        forwards, backwards = (x.numpy() for x in network.coarse_scores(weights))
    coarse = np.array([[0.25, 0.33], [0.75, np.nan], [0.28, 0.96], [0.99, 0]])
    classes = np.array([[0, 33], [0, 0], [7, 66], [99, 0]])
    assert losses["coarse"].item() == pytest.approx(np.nanmean((forwards - coarse) ** 2), rel=1e-4)
    assert losses["reversed"].item() == pytest.approx(np.nanmean((backwards - (1 - coarse)) ** 2), rel=1e-4)
    distance = np.abs(fine.numpy() - network.etf.T.numpy()[classes]).mean(-1)
    assert losses["fine"].item() == pytest.approx(distance[~np.isnan(coarse)].mean(), rel=1e-4)
    total = losses["coarse"] + losses["reversed"] + losses["fine"] + 2 * losses["prototypes"]
    assert losses["total"].item() == pytest.approx(total.item())


def test_padding_changes_no_loss(network: PaperCoFInAl) -> None:
    """A short routine beside a long one is padded; alone it is not."""
    features, scores = [routine(3, 0), routine(6, 1)], np.array([[10.0, 20], [30, 40]])
    training = network.fit_statistics(features, scores, torch.tensor([0, 1]))
    recipe, rng = replace(RECIPE, triplet_weight=0.0), np.random.default_rng(0)
    with torch.no_grad():
        both, first, second = (network.losses(training, rows, recipe, rng) for rows in ([0, 1], [0], [1]))
    for name in ("coarse", "reversed", "fine", "total"):
        assert both[name].item() == pytest.approx((first[name] + second[name]).item() / 2, rel=1e-4)


def test_it_learns() -> None:
    features, scores = routines(40, missing=[3])
    losses = []
    config = replace(CONFIG, width=16, decoder_layers=1, dropout=0.0)
    recipe = replace(RECIPE, epochs=25, learning_rate=0.05, triplet_weight=0.1)
    network = fit(features, scores, config=config, recipe=recipe, on_progress=lambda x: losses.append(x.losses))
    assert set(losses[0]) == {"coarse", "reversed", "fine", "prototypes", "total"}
    assert all(losses[-1][name] < losses[0][name] for name in ("coarse", "reversed", "total"))
    others, truth = routines(40, seed=1)
    assert np.corrcoef(truth[:, 0], predict(network, others)["TES"].score)[0, 1] > 0.7


def test_same_seed_same_numbers() -> None:
    features, scores = routines(12)
    first, second, other = (
        predict(fit(features, scores, config=CONFIG, recipe=RECIPE, seed=seed), features) for seed in (0, 0, 1)
    )
    assert (first["TES"].score == second["TES"].score).all()
    assert (first["TES"].score != other["TES"].score).any()


def test_shares_are_in_units_of_each_targets_range(network: PaperCoFInAl) -> None:
    training = network.fit_statistics([], np.array([[10.0, 25.0], [np.nan, 40.0]]), None)
    assert isinstance(training, TrainingSet)
    torch.testing.assert_close(training.shares, torch.tensor([[0.25, 0.5], [torch.nan, 1]]), equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_subgrades": 0}, "at least 1 sub-grade"),
        ({"num_grades": 0}, "at least 1 grade"),
        ({"width": 10}, "multiple of 4"),
        ({"width": 0}, "multiple of 4"),
        ({"decoder_layers": 0}, "1 to 16 layers"),
        ({"decoder_layers": 10**9}, "1 to 16 layers"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
    with pytest.raises(ValueError, match="window"):
        TransformerRecipe(window=0)
