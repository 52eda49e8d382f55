"""A routine's statistics are what they are called, for any number of clips."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.temporal_fusion import NUM_STATISTICS, summarise


@given(st.integers(1, 40), st.integers(0, 99))
def test_statistics_are_those_of_numpy(num_clips: int, seed: int) -> None:
    clips = np.random.default_rng(seed).normal(size=(num_clips, 3))
    found = summarise(torch.from_numpy(clips)).numpy()
    assert found.shape == (NUM_STATISTICS, 3)
    np.testing.assert_allclose(found[0], clips.mean(0), atol=1e-12)
    np.testing.assert_allclose(found[1], clips.std(0), atol=1e-12)
    np.testing.assert_allclose(found[2:4], np.quantile(clips, [0.1, 0.9], axis=0), atol=1e-6)
    if num_clips > 1:
        np.testing.assert_allclose(found[4], np.abs(np.diff(clips, axis=0)).mean(0), atol=1e-12)
    if num_clips % 4 == 0:
        np.testing.assert_allclose(found[5:], clips.reshape(4, -1, 3).mean(1), atol=1e-12)


@given(st.integers(1, 40))
def test_every_quarter_has_clips_and_they_run_in_order(num_clips: int) -> None:
    quarters = summarise(torch.arange(num_clips, dtype=torch.float64)[:, None])[5:, 0]
    assert quarters.isfinite().all()
    assert (quarters.diff() >= 0).all()
    assert quarters[0] <= num_clips / 4
    assert quarters[3] >= (num_clips - 1) * 3 / 4


def test_one_clip_has_no_spread_and_no_change() -> None:
    clip = torch.tensor([[3.0, -1.0]])
    mean, spread, low, high, change, *quarters = summarise(clip)
    assert spread.tolist() == change.tolist() == [0, 0]
    for level in (mean, low, high, *quarters):
        assert level.tolist() == clip[0].tolist()
