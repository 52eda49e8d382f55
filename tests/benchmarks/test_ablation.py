"""Every variant of the head that the ablation trains is one that trains, and differs from the default."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ablation import DEFAULT, PAPER, VARIANTS, Variant, choose
from cofinal.models.predict import predict
from cofinal.pipeline.training import fit

TARGETS = ("TES", "PCS")


def scores_of(variant: Variant) -> np.ndarray:
    """Return what a head of a few epochs predicts for its own 24 routines (N, 2)."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 40, (24, 1)) + rng.normal(size=(24, 2))  # scores that share most of what they say
    features = [rng.normal(loc=y[0] / 10, size=(4 + i % 5, 16)).astype(np.float32) for i, y in enumerate(truth)]
    config = variant.training.make_config(feature_dim=16, targets=TARGETS, ranges=((0.0, 50.0), (0.0, 50.0)))
    network = fit(features, truth, config=config, recipe=replace(variant.training.recipe, epochs=3))
    predicted = predict(network, features)
    return np.stack([predicted[target].score for target in TARGETS], axis=1)


@pytest.fixture(scope="module")
def default_scores() -> np.ndarray:
    return scores_of(DEFAULT)


@pytest.mark.parametrize("variant", [*VARIANTS[1:], *PAPER], ids=lambda variant: variant.name)
def test_variants_train_and_differ_from_the_default(variant: Variant, default_scores: np.ndarray) -> None:
    scores = scores_of(variant)
    assert np.isfinite(scores).all()
    assert not np.allclose(scores, default_scores, atol=1e-3)


def test_variants_are_chosen_by_name_beside_the_default() -> None:
    assert [variant.name for variant in choose(["no mixup"], with_paper=False)] == ["default", "no mixup"]
    assert choose([], with_paper=True) == [*VARIANTS, *PAPER]
    with pytest.raises(ValueError, match="unknown variant 'mixup'"):
        choose(["mixup"], with_paper=False)
