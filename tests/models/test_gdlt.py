"""The baseline: a mean of fixed grade values, weighed by responses, whatever else is in the batch."""

import pytest
import torch
from made_up import as_if_trained, batch, routine
from torch.nn.functional import one_hot

from cofinal.models.gdlt import GDLT, GDLTConfig
from cofinal.models.temporal_fusion import Summary

CONFIG = GDLTConfig(
    feature_dim=12,
    targets=("TES", "PCS"),
    ranges=((0, 45), (10, 40)),
    num_actions=3,
    width=16,
    num_components=12,
    fused_width=24,
    num_remembered=5,
)


@pytest.fixture(scope="module")
def network() -> GDLT:
    torch.manual_seed(0)
    network = GDLT(CONFIG).eval()
    as_if_trained(network)
    return network


def test_the_score_is_the_mean_of_the_grades_values_weighed_by_normalised_sigmoids(network: GDLT) -> None:
    features, mask = batch(routine(5, 0), routine(9, 1))
    actions = torch.tensor([0, 2])
    output = network(features, mask, actions)
    summaries = Summary.of(map(network.fusion.summarise, (features[0, :5], features[1])))
    shares = one_hot(actions, 3).float()
    _, responses = network.parsing(network.fusion(network.fusion.evidence(summaries, shares), shares))
    weights = (responses.sigmoid() / responses.sigmoid().sum(-1, keepdim=True)).mean(1)  # over the judges
    torch.testing.assert_close(output.grade_logits.softmax(-1), weights)
    values = torch.tensor([[0.0, 15, 30, 45], [10, 20, 30, 40]])
    torch.testing.assert_close(output.score, (weights * values).sum(-1))
    assert output.subgrade_logits is None
    assert weights.std() > 0.01


def test_a_grade_spans_the_scores_nearest_to_its_value(network: GDLT) -> None:
    assert network.edges.tolist() == [[0, 7.5, 22.5, 37.5, 45], [10, 15, 25, 35, 40]]


@pytest.mark.parametrize("num_clips", [1, 7, 2000])
def test_a_routine_does_not_depend_on_its_batch(network: GDLT, num_clips: int) -> None:
    own = routine(num_clips, 3)
    alone = network(*batch(own), torch.tensor([1]))
    together = network(*batch(routine(2000, 4), own), torch.tensor([0, 1]))
    torch.testing.assert_close(alone.score[0], together.score[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.grade_logits[0], together.grade_logits[1], atol=1e-4, rtol=1e-4)


def test_the_order_of_clips_matters(network: GDLT) -> None:
    own = routine(20, 5)
    forward, backward = (network(*batch(x), torch.tensor([1])).score for x in (own, own.flip(0)))
    assert ((forward - backward).abs() > 1e-3).all()


def test_a_single_grade_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 grades"):
        GDLTConfig(feature_dim=3, targets=("A",), ranges=((0, 1),), num_grades=1)
