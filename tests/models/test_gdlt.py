"""GDLT: a mean of fixed grade values, weighed by responses, whatever else is in the batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import as_if_trained, routine, routines

from cofinal.models.gdlt import GDLT, GDLTConfig
from cofinal.models.predict import predict
from cofinal.models.transformer import TransformerRecipe
from cofinal.pipeline.training import fit

CONFIG = GDLTConfig(
    feature_dim=12, targets=("TES", "PCS"), ranges=((0, 45), (10, 40)), num_actions=2, width=8, decoder_layers=1
)


@pytest.fixture(scope="module")
def network() -> GDLT:
    torch.manual_seed(0)
    network = GDLT(CONFIG)
    as_if_trained(network)
    return network.eval()


def test_the_score_is_the_mean_of_the_grades_values_weighed_by_normalised_sigmoids(network: GDLT) -> None:
    clips, actions = torch.stack([routine(9, 0), routine(9, 1)]), torch.tensor([0, 1])
    output = network(clips, actions)
    embeddings, attention = network.transformer(clips, torch.ones(2, 9, dtype=torch.bool), actions)
    sigmoids = (torch.einsum("bmgd,mgd->bmg", embeddings, network.response) + network.response_bias).sigmoid()
    weights = sigmoids / sigmoids.sum(-1, keepdim=True)
    torch.testing.assert_close(output.probabilities, weights)
    values = torch.tensor([[0.0, 15, 30, 45], [10, 20, 30, 40]])
    torch.testing.assert_close(output.score, (weights * values).sum(-1))
    torch.testing.assert_close(output.attention, attention)
    assert weights.std() > 0.01


def test_a_grade_spans_the_scores_nearest_to_its_value(network: GDLT) -> None:
    assert network.cells.tolist() == [[0, 7.5, 22.5, 37.5, 45], [10, 15, 25, 35, 40]]


def test_a_routine_does_not_depend_on_its_batch(network: GDLT) -> None:
    clips, actions = torch.stack([routine(9, i) for i in range(4)]), np.array([0, 1, 1, 0])
    together = network(clips, torch.from_numpy(actions))
    alone = predict(network, [x.numpy() for x in clips], actions)
    for m, target in enumerate(CONFIG.targets):
        np.testing.assert_allclose(alone[target].score, together.score[:, m].detach(), atol=1e-4)
        np.testing.assert_allclose(alone[target].probabilities, together.probabilities[:, m].detach(), atol=1e-5)


def test_losses_are_squared_error_and_prototypes(network: GDLT) -> None:
    features = [routine(3, 0), routine(6, 1)]
    scores, actions = np.array([[9.0, np.nan], [36.0, 40.0]]), np.array([0, 1])
    training = network.fit_statistics(features, scores, torch.from_numpy(actions))
    with torch.no_grad():
        losses = network.losses(training, np.arange(2), TransformerRecipe(window=6), np.random.default_rng(0))
    predicted = predict(network, [x.numpy() for x in features], actions)
    errors = np.stack([predicted["TES"].score / 45, (predicted["PCS"].score - 10) / 30], axis=1) - [
        [0.2, np.nan],
        [0.8, 1],
    ]
    assert losses["final"].item() == pytest.approx(np.nanmean(errors**2), rel=1e-4)
    assert losses["total"].item() == pytest.approx((losses["final"] + losses["prototypes"]).item())


def test_it_learns_without_fine_grades() -> None:
    features, scores = routines(40, missing=[0])
    losses = []
    config = replace(CONFIG, num_actions=0, width=16, dropout=0.0)
    recipe = TransformerRecipe(epochs=25, batch_size=8, learning_rate=0.05, window=6, triplet_weight=0.1)
    network = fit(features, scores, config=config, recipe=recipe, on_progress=lambda x: losses.append(x.losses))
    assert set(losses[0]) == {"final", "prototypes", "total"}
    assert losses[-1]["final"] < 0.7 * losses[0]["final"]
    others, truth = routines(40, seed=1)
    for m, prediction in enumerate(predict(network, others).values()):
        assert (prediction.subgrade, prediction.num_subgrades) == (None, 0)
        assert np.corrcoef(truth[:, m], prediction.score)[0, 1] > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_grades": 1}, "at least 2 grades"),
        ({"num_subgrades": 8}, "no sub-grades"),
        ({"width": 0}, "multiple of 4"),
        ({"decoder_layers": 0}, "1 to 16 layers"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
