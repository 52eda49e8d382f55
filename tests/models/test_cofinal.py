"""The head as a whole: shapes, masks, positions, and independence of whatever else is in the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import as_if_trained, batch, routine
from torch.nn.functional import one_hot

from cofinal.models.cofinal import CoFInAl, CoFInAlConfig, Output
from cofinal.models.temporal_fusion import Summary

CONFIG = CoFInAlConfig(
    feature_dim=12,
    targets=("TES", "PCS"),
    ranges=((0, 45), (0, 40)),
    num_actions=3,
    width=16,
    num_components=12,
    fused_width=24,
    num_remembered=5,
)


@pytest.fixture(scope="module")
def network() -> CoFInAl:
    torch.manual_seed(0)
    network = CoFInAl(CONFIG).eval()
    as_if_trained(network)
    return network


def assert_same(first: Output, second: Output, row: int) -> None:
    for name in ("score", "grade_logits", "subgrade_logits", "embeddings"):
        torch.testing.assert_close(getattr(first, name)[0], getattr(second, name)[row], atol=1e-4, rtol=1e-4)


def test_shapes_and_ranges(network: CoFInAl) -> None:
    features, mask = batch(routine(5, 0), routine(9, 1))
    output = network(features, mask, torch.tensor([0, 2]))
    assert output.score.shape == (2, 2)
    assert output.grade_logits.shape == (2, 2, 4)
    assert output.subgrade_logits.shape == (2, 2, 4, CONFIG.num_subgrades)
    assert output.embeddings.shape == (2, CONFIG.num_judges, 2, 4, 16)
    low, high = torch.tensor(CONFIG.ranges).T
    assert ((low <= output.score) & (output.score <= high)).all()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 60), st.integers(0, 4))
def test_a_routine_does_not_depend_on_its_batch(network: CoFInAl, others: list[int], own: int, row: int) -> None:
    row = min(row, len(others))
    routines = [routine(length, i) for i, length in enumerate(others)]
    routines.insert(row, routine(own, 99))
    actions = torch.arange(len(routines)) % 3
    together = network(*batch(*routines), actions)
    alone = network(*batch(routines[row]), actions[row : row + 1])
    assert_same(alone, together, row)


@pytest.mark.parametrize("num_clips", [1, 2, 2000])
def test_any_number_of_clips(network: CoFInAl, num_clips: int) -> None:
    own = routine(num_clips, 3)
    alone = network(*batch(own), torch.tensor([1]))
    together = network(*batch(routine(2000, 4), own), torch.tensor([0, 1]))
    assert torch.isfinite(alone.score).all()
    assert_same(alone, together, 1)


def test_the_order_of_clips_matters(network: CoFInAl) -> None:
    own = routine(20, 5)
    forward = network(*batch(own), torch.tensor([1])).score
    backward = network(*batch(own.flip(0)), torch.tensor([1])).score
    assert ((forward - backward).abs() > 1e-3).all()


def test_the_action_matters_and_must_be_said(network: CoFInAl) -> None:
    features, mask = batch(routine(20, 5))
    scores = [network(features, mask, torch.tensor([action])).score for action in range(3)]
    assert ((scores[0] - scores[1]).abs() > 1e-3).all()
    with pytest.raises(ValueError, match="which one"):
        network(features, mask)


def test_score_comes_from_coarse_and_fine_alone(network: CoFInAl) -> None:
    output = network(*batch(routine(20, 5)), torch.tensor([1]))
    low, spans = network.edges[:, :-1], network.edges.diff()
    position = output.subgrade_logits.softmax(-1) @ torch.linspace(0, 1, CONFIG.num_subgrades)
    torch.testing.assert_close(output.score, (output.grade_logits.softmax(-1) * (low + spans * position)).sum(-1))


def test_the_panel_is_the_mean_of_its_judges(network: CoFInAl) -> None:
    features, mask = batch(routine(20, 5), routine(7, 6))
    actions = torch.tensor([1, 2])
    panel = network(features, mask, actions)
    shares = one_hot(actions, 3).float()
    summaries = Summary.of(map(network.fusion.summarise, (features[0], features[1, :7])))
    judges = network.judge(network.fusion.evidence(summaries, shares), shares)
    assert judges.score.shape == (2, CONFIG.num_judges, 2)
    assert judges.score.std(1).min() > 1e-3
    torch.testing.assert_close(panel.score, judges.score.mean(1))
    coarse = judges.grade_logits.softmax(-1)
    torch.testing.assert_close(panel.grade_logits.softmax(-1), coarse.mean(1))
    joint = coarse[..., None] * judges.subgrade_logits.softmax(-1)
    said = panel.grade_logits.softmax(-1)[..., None] * panel.subgrade_logits.softmax(-1)
    torch.testing.assert_close(said, joint.mean(1))


def test_each_reading_has_judges_of_its_own(network: CoFInAl) -> None:
    summary = Summary.of(map(network.fusion.summarise, (routine(20, 5), routine(7, 6))))
    action = one_hot(torch.tensor([1, 2]), 3).float()
    evidence = network.fusion.evidence(summary, action)
    plain = network.judge(evidence, action).score  # (B, J, M)
    judges = {"statistics": [0], "components": [1], "covariances": [2], "likeness": [3, 4, 5]}
    for name, own in judges.items():
        other = evidence._replace(**{name: getattr(evidence, name) + 1})
        moved = (network.judge(other, action).score != plain).any(2).any(0)
        assert moved.nonzero()[:, 0].tolist() == own
    longer = evidence._replace(duration=evidence.duration + 1)
    assert (network.judge(longer, action).score != plain).all()


def test_all_that_is_not_learnt_is_in_the_state_dict(network: CoFInAl) -> None:
    other = CoFInAl(CONFIG)
    other.load_state_dict(network.state_dict())
    fitted = {
        "edges",
        "scale",
        "fusion.mean",
        "fusion.feature_mean",
        "fusion.feature_basis",
        "fusion.spread",
        "fusion.least_variance",
        "fusion.covariance_mean",
        "fusion.covariance_spread",
        "fusion.feature_scale",
        "fusion.duration_mean",
        "fusion.duration_spread",
        "fusion.likeness.statistics",
        "fusion.likeness.duration",
        "fusion.likeness.actions",
        "fusion.likeness.weights",
        "fusion.likeness.distance",
        "scoring.etf",
    }
    assert fitted <= set(other.state_dict())
    own = *batch(routine(7, 0)), torch.tensor([0])
    torch.testing.assert_close(other.eval()(*own).score, network(*own).score)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ()}, "distinct targets"),
        ({"targets": ("TES", "TES")}, "distinct targets"),
        ({"ranges": ((0, 45),)}, "distinct targets"),
        ({"ranges": ((0, 45), (40, 40))}, "'PCS' must grow"),
        ({"num_subgrades": 1}, "2 sub-grades"),
        ({"num_judges": 4}, "6 judges or a multiple"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    values = {"feature_dim": 12, "targets": ("TES", "PCS"), "ranges": ((0, 45), (0, 40))}
    with pytest.raises(ValueError, match=message):
        CoFInAlConfig(**(values | change))
