"""A head is never evaluated on a routine of its training, and neither are the heads behind its intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_routines import dataset_of

from cofinal.pipeline.splits import cut_folds, make_splits


@given(st.integers(5, 60), st.integers(2, 5), st.integers(0, 3))
def test_folds_hold_every_row_once(num_rows: int, folds: int, seed: int) -> None:
    parts = cut_folds(num_rows, folds, seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(num_rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_groups_stay_together() -> None:
    groups = [f"skater {i % 13}" for i in range(50)]
    parts = cut_folds(50, 5, seed=0, groups=groups)
    assert sorted(np.concatenate(parts)) == list(range(50))
    owners = [{groups[i] for i in part} for part in parts]
    assert sum(map(len, owners)) == 13
    with pytest.raises(ValueError, match="13 groups cannot be cut into 14 folds"):
        cut_folds(50, 14, seed=0, groups=groups)
    with pytest.raises(ValueError, match="3 videos cannot be cut into 5 folds: ask for 2 to 3, with --folds"):
        cut_folds(3, 5, seed=0)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_heads_behind_a_splits_intervals_see_only_its_training_part(grouped: bool) -> None:
    groups = [f"skater {i // 3}" for i in range(40)] if grouped else None
    _, splits = make_splits(dataset_of(np.linspace(2, 18, 40), groups).examples, "cv", folds=4, seed=0, intervals=True)
    for split in splits:
        calibrated = np.concatenate([inner.evaluated for inner in split.calibration])
        assert sorted(calibrated) == list(split.training)
        for inner in split.calibration:
            unseen = {*inner.evaluated, *split.evaluated}
            assert not set(inner.training) & unseen
            assert set(inner.training) <= set(split.training)
            if groups:
                assert not {groups[i] for i in inner.training} & {groups[i] for i in unseen}
    every = [x for split in splits for x in (split, *split.calibration)]
    assert len({x.name for x in every}) == 4 + 6 + 1  # a fold out, two out, none out
    for x in every:
        assert all(np.array_equal(x.training, y.training) for y in every if x.name == y.name)
