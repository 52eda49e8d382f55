"""Every variant of the head that benchmarks train is one that trains, and differs from the default."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ablation import VARIANTS, CoarseOnlyConfig
from benchmarks.cross_validation import Variant
from cofinal.pipeline.training import fit, predict


def scores_of(variant: Variant) -> np.ndarray:
    """What a head of a few epochs says of its own 24 routines (N, 2)."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 40, (24, 2))
    features = [rng.normal(loc=y[0] / 10, size=(4 + i % 5, 16)).astype(np.float32) for i, y in enumerate(truth)]
    config = variant.config(16, ("TES", "PCS"), ((0.0, 50.0), (0.0, 50.0)), **variant.settings)
    network = fit(features, truth, config=config, recipe=replace(variant.recipe, epochs=3))
    said = predict(network, features)
    if variant.config is CoarseOnlyConfig:
        of_grade = [said["TES"].points[said["TES"].grade == grade] for grade in np.unique(said["TES"].grade)]
        assert all(np.ptp(points) == 0 for points in of_grade)
    return np.stack([said[target].score for target in ("TES", "PCS")], axis=1)


@pytest.fixture(scope="module")
def default_scores() -> np.ndarray:
    return scores_of(VARIANTS[0])


@pytest.mark.parametrize("variant", VARIANTS[1:], ids=lambda variant: variant.name)
def test_variants_train_and_differ_from_the_default(variant: Variant, default_scores: np.ndarray) -> None:
    scores = scores_of(variant)
    assert np.isfinite(scores).all()
    assert not np.allclose(scores, default_scores, atol=1e-3)
