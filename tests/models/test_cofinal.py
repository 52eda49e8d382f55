"""The default head, from statistics over clips to the score, alone and in a batch."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import as_if_trained, routine, routines
from scipy.stats import spearmanr

from cofinal.models.cofinal import (
    LAGS,
    MIN_SPAN,
    NUM_STATISTICS,
    TOKENS,
    CoFInAl,
    CoFInAlConfig,
    CoFInAlRecipe,
    cut_cells,
    cut_grades,
    soft_cells,
    summarise,
)
from cofinal.models.head import HeadNetwork
from cofinal.models.predict import predict
from cofinal.pipeline.training import fit

CONFIG = CoFInAlConfig(
    feature_dim=12,
    targets=("TES", "PCS"),
    ranges=((20, 40), (15, 40)),
    num_subgrades=3,
    num_coordinates=10,
    width=8,
    num_members=2,
)
WITH_ACTIONS = replace(CONFIG, num_actions=3)
BRIEF = CoFInAlRecipe(epochs=2, batch_size=8)


@cache
def fitted(tokens: str = "summaries") -> CoFInAl:
    """A head with three actions whose statistics are fitted, and whose weights look learnt."""
    torch.manual_seed(0)
    network = replace(WITH_ACTIONS, tokens=tokens, num_training=20).build()
    features, scores = routines(20)
    with torch.no_grad():
        network.fit_statistics([torch.from_numpy(x) for x in features], scores, torch.arange(20) % 3)
    as_if_trained(network)
    return network.eval()


def trained(seed: int = 0, config: CoFInAlConfig = CONFIG, **changes) -> HeadNetwork:
    features, scores = routines(20)
    return fit(features, scores, config=replace(config, **changes), recipe=BRIEF, seed=seed)


# --- TFM ---


@given(st.integers(1, 40), st.integers(0, 99))
def test_statistics_are_those_of_numpy(num_clips: int, seed: int) -> None:
    clips = np.random.default_rng(seed).normal(size=(num_clips, 3))
    found = summarise(torch.from_numpy(clips)).numpy()
    assert found.shape == (NUM_STATISTICS, 3)
    np.testing.assert_allclose(found[0], clips.mean(0), atol=1e-12)
    np.testing.assert_allclose(found[1], clips.std(0), atol=1e-12)
    np.testing.assert_allclose(found[2:5], np.quantile(clips, [0.1, 0.9, 0.5], axis=0), atol=1e-6)
    for row, lag in enumerate(LAGS, start=5):
        apart = min(lag, num_clips - 1)
        change = np.abs(clips[apart:] - clips[: num_clips - apart]).mean(0)
        np.testing.assert_allclose(found[row], change, atol=1e-12)
    if num_clips % 4 == 0:
        np.testing.assert_allclose(found[-4:], clips.reshape(4, -1, 3).mean(1), atol=1e-12)


@given(st.integers(1, 40))
def test_every_quarter_has_clips_and_they_run_in_order(num_clips: int) -> None:
    quarters = summarise(torch.arange(num_clips, dtype=torch.float64)[:, None])[-4:, 0]
    assert quarters.isfinite().all()
    assert (quarters.diff() >= 0).all()
    assert quarters[0] <= num_clips / 4
    assert quarters[3] >= (num_clips - 1) * 3 / 4


def test_one_clip_has_no_spread_and_no_change() -> None:
    clip = torch.tensor([[3.0, -1.0]])
    mean, spread, low, high, median, *changes_and_quarters = summarise(clip)
    changes, quarters = changes_and_quarters[: len(LAGS)], changes_and_quarters[len(LAGS) :]
    for still in (spread, *changes):
        assert still.tolist() == [0, 0]
    for level in (mean, low, high, median, *quarters):
        assert level.tolist() == clip[0].tolist()


def test_coordinates_keep_the_distances_between_training_routines() -> None:
    """All statistics together, each with the same weight; the rounding to bytes costs little."""
    features = [routine(6 + i % 5, i) for i in range(15)]
    network = replace(CONFIG, num_training=15, num_coordinates=14).build()
    with torch.no_grad():
        places = network.tfm.fit(features, None)[0].sum(1)[:, :14]
    summaries = torch.stack([summarise(network.tfm.compress(x)) for x in features])
    centred = summaries - summaries.mean(0)
    wide = (centred / centred.square().mean((0, 2), keepdim=True).sqrt()).flatten(1)
    np.testing.assert_allclose(torch.pdist(places) / torch.pdist(wide) * wide.norm() / places.norm(), 1, atol=0.01)
    assert float(places.square().mean()) == pytest.approx(1, abs=0.01)


def test_rounding_the_coordinates_to_bytes_keeps_the_order_of_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = fitted()
    exact = rounded.config.build()
    exact.load_state_dict(rounded.state_dict())
    exact.tfm.basis_bytes = exact.tfm.basis_bytes.float()
    monkeypatch.setattr(torch.Tensor, "round", lambda x: x)
    features, scores = routines(20)
    exact.fit_statistics([torch.from_numpy(x) for x in features], scores, torch.arange(20) % 3)
    assert (exact.tfm.basis_bytes % 1).any()
    monkeypatch.undo()
    others, _ = routines(40, seed=1)
    pairs = zip(*(predict(network, others, np.zeros(40, int)).values() for network in (rounded, exact)), strict=True)
    for one, other in pairs:
        assert spearmanr(one.score, other.score).statistic > 0.99
        np.testing.assert_allclose(one.score, other.score, atol=0.2)


def test_only_the_duration_tells_apart_routines_of_equal_statistics() -> None:
    network = fitted()
    still = torch.ones(1, 1, 12)
    short, longer, longest, beyond = (
        network(still.expand(1, n, 12), torch.tensor([0])).score for n in (3, 9, 900, 9000)
    )
    assert ((short - longer).abs() > 1e-3).all()
    torch.testing.assert_close(longest, beyond)  # beyond three deviations it says no more


def test_a_large_value_is_compressed() -> None:
    network = fitted()
    low, high = network.tfm.compress(torch.tensor([1.0, 1000.0])).tolist()
    assert low < high < 20 * low


# --- GPM, FGS and coupling ---


@pytest.mark.parametrize("tokens", TOKENS)
def test_probabilities_and_attention_sum_to_one(tokens: str) -> None:
    network = fitted(tokens)
    clips = torch.stack([routine(9, 1), routine(9, 2)])
    output = network(clips, torch.tensor([0, 2]))
    assert output.score.shape == (2, 2)
    torch.testing.assert_close(output.probabilities.sum(-1), torch.ones(2, 2))
    assert output.probabilities.std() > 0.01
    if tokens == "summaries":
        assert output.attention is None
    else:
        assert output.attention.shape == (2, 2, 4, 9)
        torch.testing.assert_close(output.attention.sum(-1), torch.ones(2, 2, 4))
        assert output.attention.std() > 0.001


@pytest.mark.parametrize("tokens", TOKENS)
def test_the_score_is_the_mean_of_the_distribution_over_cells_and_nothing_else(tokens: str) -> None:
    network = fitted(tokens)
    clips, actions = routine(9, 1), torch.tensor([1])
    parsed = {}
    original = network.parse

    def listen(*arguments):
        parsed["said"] = original(*arguments)
        return parsed["said"]

    network.parse = listen
    try:
        output = network(clips[None], actions)
    finally:
        del network.parse
    coarse = parsed["said"].grade_logits[0].softmax(-1)  # (J, M, G)
    fine = parsed["said"].subgrade_logits[0].softmax(-1)  # (J, M, G, K)
    cells = (coarse[..., None] * fine).mean(0)
    torch.testing.assert_close(output.score[0], (cells.flatten(1) * network.values).sum(1))
    torch.testing.assert_close(output.probabilities[0], cells.sum(-1))
    with torch.no_grad():
        certain = torch.zeros(1, 2, 4, 3)
        certain[0, 0, 2, 1] = certain[0, 1, 0, 0] = 1
        assert network.couple(certain)[0].tolist() == [network.values[0, 7], network.values[1, 0]]


def test_members_disagree_and_their_mean_is_the_distribution() -> None:
    network = fitted()
    summaries = network.tfm([network.tfm.compress(routine(9, 1))], torch.tensor([1]))
    parsed = network.parse(summaries, None)
    of_members = network.couple(parsed.grade_logits.softmax(-1)[..., None] * parsed.subgrade_logits.softmax(-1))
    assert of_members.std(1).min() > 1e-3
    torch.testing.assert_close(network(routine(9, 1)[None], torch.tensor([1])).score, of_members.mean(1))


def test_subgrade_logits_are_cosines_with_the_prototypes() -> None:
    network = fitted()
    columns = network.etf.T
    torch.testing.assert_close(
        columns @ columns.T, torch.eye(3) * 1.5 - 0.5
    )  # a simplex: -1/2 between any two of three
    summaries = torch.zeros(1, NUM_STATISTICS + 1, network.queries.shape[-1])
    logits = network.parse(summaries, None).subgrade_logits * network.config.temperature
    assert logits.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(logits.sum(-1), torch.zeros(logits.shape[:-1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_routine_does_not_depend_on_its_batch(tokens: str) -> None:
    network = fitted(tokens)
    clips, actions = torch.stack([routine(9, i) for i in range(4)]), torch.tensor([0, 1, 2, 1])
    order = torch.tensor([2, 0, 3, 1])
    together = network(clips, actions)
    shuffled = network(clips[order], actions[order])
    torch.testing.assert_close(shuffled.score, together.score[order], atol=1e-5, rtol=1e-5)
    alone = predict(network, [x.numpy() for x in clips], actions.numpy())
    for m, target in enumerate(CONFIG.targets):
        np.testing.assert_allclose(alone[target].score, together.score[:, m].detach(), atol=1e-4)
        np.testing.assert_allclose(alone[target].probabilities, together.probabilities[:, m].detach(), atol=1e-5)


@pytest.mark.parametrize("tokens", ["clips", "both"])
@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), own=st.integers(1, 30))
def test_a_routine_alone_is_parsed_as_in_a_padded_batch(tokens: str, lengths: list[int], own: int) -> None:
    network = fitted(tokens)
    clips = [network.tfm.of_clips(network.tfm.compress(routine(length, i))) for i, length in enumerate([own, *lengths])]
    summaries = torch.randn(len(clips), NUM_STATISTICS + 1, clips[0].shape[1])
    together = network.parse(summaries, clips)
    alone = network.parse(summaries[:1], clips[:1])
    torch.testing.assert_close(together.grade_logits[0], alone.grade_logits[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.subgrade_logits[0], alone.subgrade_logits[0], atol=1e-4, rtol=1e-4)
    num_tokens = alone.attention.shape[-1]
    torch.testing.assert_close(together.attention[0, ..., :num_tokens], alone.attention[0], atol=1e-4, rtol=1e-4)
    assert (together.attention[0, ..., num_tokens:] == 0).all()


@pytest.mark.parametrize("tokens", ["clips", "both"])
def test_where_a_clip_stands_matters(tokens: str) -> None:
    """With clip tokens alone nothing but their positions tells the order."""
    network, clips = fitted(tokens), routine(12, 1)
    for order in (torch.arange(11, -1, -1), torch.randperm(12, generator=torch.Generator().manual_seed(0))):
        forwards, other = (network(x[None], torch.tensor([0])).score for x in (clips, clips[order]))
        assert ((forwards - other).abs() > 1e-3).all()


@pytest.mark.parametrize("tokens", ["summaries", "clips", "both"])
def test_the_action_matters(tokens: str) -> None:
    scores = [fitted(tokens)(routine(9, 1)[None], torch.tensor([action])).score for action in range(3)]
    assert (scores[0] != scores[1]).all()
    assert (scores[1] != scores[2]).all()


def test_an_action_without_training_routines_moves_no_score() -> None:
    features, scores = routines(20)
    network = fit(features, scores, np.arange(20) % 2, config=WITH_ACTIONS, recipe=BRIEF)
    unseen, nowhere = (network.tfm([routine(9, 1)], torch.tensor([action])) for action in (2, 1))
    assert (unseen[..., -1] == 0).all()
    assert (nowhere[..., -2] != 0).any()


# --- cells ---

SCORES = st.lists(st.floats(0, 45).map(lambda x: round(x, 2)), min_size=1, max_size=60)


@given(SCORES, st.integers(1, 40))
def test_cells_ascend_over_the_whole_range_and_hold_what_they_stand_for(scores: list[float], num_cells: int) -> None:
    edges, values = cut_cells(np.array(scores), (0.0, 45.0), num_cells)
    assert (edges[0], edges[-1]) == (0, 45)
    assert edges.shape == (num_cells + 1,)
    assert (np.diff(edges) > MIN_SPAN / num_cells * 45 / (1 + MIN_SPAN) - 1e-9).all()
    assert ((edges[:-1] <= values) & (values <= edges[1:])).all()


@given(st.integers(0, 99), st.integers(2, 32))
def test_cells_hold_about_equally_many_scores(seed: int, num_cells: int) -> None:
    scores = np.random.default_rng(seed).normal(24, 5, 400).clip(0, 45)
    edges, values = cut_cells(scores, (0.0, 45.0), num_cells)
    counts = np.histogram(scores, edges)[0] / 400 * num_cells
    assert (counts.cumsum() - np.arange(1, num_cells + 1)).max() < 0.3 * num_cells
    if num_cells <= 8:
        assert counts.min() > 0.6
        assert counts.max() < 1.4
        means = [scores[(a <= scores) & (scores <= b)].mean() for a, b in pairwise(edges)]
        np.testing.assert_allclose(values, means, atol=1)


@given(st.lists(st.floats(0, 30), max_size=30), st.integers(2, 9))
def test_grades_with_edges_of_their_own_keep_them(scores: list[float], num_subgrades: int) -> None:
    bounds = [0.0, 10.0, 20.5, 25.0, 30.0]
    edges, values = cut_grades(np.array(scores), bounds, num_subgrades)
    assert list(edges[::num_subgrades]) == bounds
    assert len(values) == 4 * num_subgrades == len(edges) - 1
    assert (np.diff(edges) > 0).all()
    assert ((edges[:-1] <= values) & (values <= edges[1:])).all()


def test_the_highest_possible_score_is_in_the_highest_grade() -> None:
    scores = np.array([9.0, 9.5, *[10.0] * 8])
    _, values = cut_grades(scores, [0.0, 8.0, 9.2, 10.0], 2)
    assert values[-1] > 9.9


@pytest.mark.parametrize("edges", [((5, 4, 6),), ((5, 6),), ((0, 5, 6),), ((5, 6, 7), (1, 2, 3))])
def test_grade_edges_that_cannot_be_are_refused(edges: tuple) -> None:
    with pytest.raises(ValueError, match="edges"):
        CoFInAlConfig(feature_dim=4, targets=("A",), ranges=((0, 10),), grade_edges=edges)


def test_tied_scores_leave_every_cell_a_width() -> None:
    edges, values = cut_cells(np.full(50, 7.0), (0.0, 10.0), 8)
    assert np.diff(edges).min() >= MIN_SPAN * 10 / 8 / (1 + MIN_SPAN)
    assert (np.diff(values) >= 0).all()
    assert np.searchsorted(edges, 7.0) in range(1, 9)


@given(SCORES, st.integers(2, 20), st.floats(0.01, 20), st.floats(0, 45))
def test_soft_cells_are_a_distribution_around_the_score(
    scores: list[float], num_cells: int, softness: float, score: float
) -> None:
    edges = torch.from_numpy(cut_cells(np.array(scores), (0.0, 45.0), num_cells)[0])
    of_scores = torch.tensor([score, 45.0], dtype=torch.float64)
    shares = soft_cells(of_scores, edges, torch.full((2,), softness, dtype=torch.float64))
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, dtype=torch.float64))
    assert (shares[0].cumsum(0) >= shares[1].cumsum(0) - 1e-9).all()  # the higher score lies higher


def test_soft_cells_are_shares_of_a_normal_distribution() -> None:
    shares = soft_cells(torch.tensor([10.0]), torch.tensor([0.0, 8.0, 10.0, 12.0, 20.0]), torch.tensor([2.0]))[0]
    within = math.erf(1 / 2**0.5) / 2
    np.testing.assert_allclose(shares, [0.5 - within, within, within, 0.5 - within], atol=1e-6)
    sharp = soft_cells(torch.tensor([9.0]), torch.tensor([0.0, 8.0, 10.0, 20.0]), torch.tensor([0.01]))[0]
    assert sharp.tolist() == [0, 1, 0]


# --- training ---


@pytest.mark.parametrize("tokens", TOKENS)
def test_every_kind_of_token_learns(tokens: str) -> None:
    features, scores = routines(60)
    config = replace(CONFIG, tokens=tokens, num_coordinates=59, width=16, dropout=0.1)
    losses = []
    recipe = CoFInAlRecipe(epochs=20, batch_size=8, learning_rate=1e-2, mixup=0)
    network = fit(features, scores, config=config, recipe=recipe, on_progress=lambda x: losses.append(x.losses))
    assert set(losses[0]) == {"coarse", "fine", "final", "total"}
    assert all(losses[-1][name] < losses[0][name] for name in losses[0])
    others, truth = routines(60, seed=1)
    for m, prediction in enumerate(predict(network, others).values()):
        assert np.corrcoef(truth[:, m], prediction.score)[0, 1] > 0.7


def test_what_is_fitted_depends_on_the_training_routines_alone() -> None:
    """Two heads of the same training routines have the same buffers, and other routines change them."""
    same, others = trained(), trained()
    features, scores = routines(20, seed=5)
    different = fit(features, scores, config=CONFIG, recipe=BRIEF)
    constant = {"etf", "tfm.scales"}
    for name, buffer in same.named_buffers():
        assert torch.equal(buffer, others.get_buffer(name))
        assert name in constant or not torch.equal(buffer, different.get_buffer(name)), name
    assert predict(same, features)["TES"].score.shape == (20,)
    for name, buffer in same.named_buffers():
        assert torch.equal(buffer, others.get_buffer(name)), f"prediction changed {name}"


def test_the_state_dict_is_the_whole_head() -> None:
    network = fitted("both")
    other = network.config.build()
    other.load_state_dict(network.state_dict())
    clips, actions = routine(7, 0)[None], torch.tensor([0])
    for first, second in zip(network(clips, actions), other.eval()(clips, actions), strict=True):
        assert torch.equal(first, second)


def test_same_seed_same_numbers_and_the_global_state_is_left_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([value.flatten().double() for value in trained(seed).state_dict().values()])

    torch.manual_seed(1)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_routine_without_one_score_teaches_the_other(tokens: str) -> None:
    """Scores lie far from 0, which must not stand in for an unknown one."""
    features, scores = routines(24, missing=range(0, 24, 3))
    config, recipe = replace(CONFIG, tokens=tokens), replace(BRIEF, epochs=3, softness=0.1)
    network = fit(features, scores, config=config, recipe=recipe)
    assert all(x.isfinite().all() for x in network.state_dict().values())
    unknown = scores.copy()
    unknown[0, 0] = np.nan  # now none of the first routine's scores is known
    other = fit(features, unknown, config=config, recipe=recipe)
    assert not np.allclose(predict(network, features)["TES"].score, predict(other, features)["TES"].score)


def test_an_unknown_score_costs_no_loss() -> None:
    features, scores = routines(12, missing=range(12))
    scores[0, 1] = 25.0
    network = replace(CONFIG, num_training=12, dropout=0.0).build()
    with torch.no_grad():
        training = network.fit_statistics([torch.from_numpy(x) for x in features], scores, None)
        before = network.losses(training, np.arange(12), replace(BRIEF, mixup=0), np.random.default_rng(0))
        network.response[:, 1] += 1
        network.response_bias[:, 1] += torch.arange(4)
        after = network.losses(training, np.arange(1, 12), replace(BRIEF, mixup=0), np.random.default_rng(0))
        network.response_bias[:, 1] += 7 * torch.arange(4)
        again = network.losses(training, np.arange(1, 12), replace(BRIEF, mixup=0), np.random.default_rng(0))
    assert before["total"].isfinite()
    assert after == again  # of these routines no PCS is known, so what the head says of it does not count


@pytest.mark.parametrize("lengths", [(1, 1), (1, 7, 2)], ids=["two routines of one clip", "three short routines"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_few_and_short_routines_train(tokens: str, lengths: tuple[int, ...]) -> None:
    features = [routine(n, i).numpy() for i, n in enumerate(lengths)]
    scores = np.linspace(21, 39, len(lengths))[:, None].repeat(2, 1)
    network = fit(features, scores, config=replace(CONFIG, tokens=tokens), recipe=BRIEF)
    for prediction in predict(network, [*features, routine(40, 9).numpy()]).values():
        assert np.isfinite(prediction.score).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ()}, "distinct targets"),
        ({"targets": ("TES", "TES")}, "distinct targets"),
        ({"ranges": ((0, 45),)}, "distinct targets"),
        ({"ranges": ((0, 45), (40, 40))}, "'PCS' must ascend"),
        ({"ranges": ((0, 45), (0, math.inf))}, "'PCS' must ascend"),
        ({"ranges": ((0, 45), (0, 1e39))}, "'PCS' runs from 0 to 1e.39, which single precision does not tell apart"),
        ({"ranges": ((0, 45), (100_000, 100_001))}, "scale the scores"),
        ({"dropout": 1.5}, "dropout must be"),
        ({"num_grades": 0}, "at least 1 grade"),
        ({"num_subgrades": 1}, "2 sub-grades"),
        ({"tokens": "frames"}, "unknown tokens 'frames'; known are summaries, clips, both"),
        ({"num_members": 0}, "at least 1"),
        ({"width": 0}, "at least 1"),
        ({"num_coordinates": 0}, "at least 1"),
        ({"temperature": 0.0}, "temperature more than 0"),
        ({"num_actions": -1}, "-1 actions"),
        ({"feature_dim": 0}, "at least 1 feature"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    values = {"feature_dim": 12, "targets": ("TES", "PCS"), "ranges": ((0, 45), (0, 40))}
    with pytest.raises(ValueError, match=message):
        CoFInAlConfig(**(values | change))


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"batch_size": 0}, {"softness": 0.0}, {"mixup": -1.0}, {"learning_rate": 0.0}, {"fine_weight": -1}],
)
def test_impossible_recipes_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change)).replace("_", "[_ ]")):
        CoFInAlRecipe(**change)
