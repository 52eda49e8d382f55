"""A routine's statistics are what they are called, for any number of clips."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import logm

from cofinal.models.temporal_fusion import LAGS, NUM_STATISTICS, log_covariances, summarise


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
        far = np.abs(clips[apart:] - clips[: num_clips - apart]).mean(0)
        np.testing.assert_allclose(found[row], far, atol=1e-12)
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


@given(st.integers(1, 40), st.integers(1, 6))
def test_log_covariances_are_those_of_scipy_and_their_distance_is_that_of_the_matrices(clips: int, width: int) -> None:
    rng = np.random.default_rng(clips)
    matrices, vectors = [], []
    for _ in range(2):
        components = rng.normal(size=(clips, width)).astype(np.float32)
        matrices.append(logm(np.cov(components.T, bias=True).reshape(width, width) + 0.1 * np.eye(width)))
        vectors.append(log_covariances(torch.from_numpy(components), torch.tensor(0.1)).numpy())
    assert vectors[0].shape == (width * (width + 1) // 2,)
    np.testing.assert_allclose(np.linalg.norm(vectors[0]), np.linalg.norm(matrices[0]), rtol=1e-4)
    np.testing.assert_allclose(vectors[0][0], matrices[0][0, 0], rtol=1e-3, atol=1e-4)
    distance = np.linalg.norm(matrices[0] - matrices[1])
    np.testing.assert_allclose(np.linalg.norm(vectors[0] - vectors[1]), distance, rtol=1e-4, atol=1e-5)
