"""Likeness is kernel ridge regression, and what it says of a training routine is said by the others alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from cofinal.models.likeness import PENALTY, Likeness


def routines(num: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Statistics (N, 7), durations (N, 1), actions (N, 3) and scores (N, 2) that the statistics and the action tell."""
    generator = torch.Generator().manual_seed(seed)
    statistics = torch.randn(num, 7, generator=generator)
    actions = torch.eye(3)[torch.randint(3, (num,), generator=generator)]
    scores = statistics[:, :2].sin() + actions[:, :1]
    return statistics, torch.randn(num, 1, generator=generator), actions, scores - scores.mean(0)


@given(st.integers(3, 30), st.integers(0, 99), st.booleans())
def test_it_is_kernel_ridge_regression(num: int, seed: int, has_actions: bool) -> None:
    *known, scores = routines(num, seed)
    *asked, _ = routines(5, seed + 1)
    if not has_actions:
        known[2] = asked[2] = None
    likeness = Likeness(num, 7, 3 if has_actions else 0, 2)
    likeness.remember(*known, scores)
    reference = KernelRidge(alpha=PENALTY, kernel="precomputed").fit(likeness.to_remembered(*known), scores)
    expected = torch.from_numpy(reference.predict(likeness.to_remembered(*asked)))
    torch.testing.assert_close(likeness(*asked), expected.float(), atol=2e-3, rtol=2e-3)


def test_a_routine_is_wholly_like_itself_and_less_like_others() -> None:
    *known, scores = routines(20, 0)
    likeness = Likeness(20, 7, 3, 2)
    likeness.remember(*known, scores)
    like = likeness.to_remembered(*known)
    torch.testing.assert_close(like.diagonal(), torch.ones(20))
    assert like[~torch.eye(20, dtype=torch.bool)].max() < 1
    assert like.min() > 0


@pytest.mark.parametrize("missing", [False, True])
def test_leaving_one_out_in_closed_form_is_leaving_one_out(missing: bool) -> None:
    *known, scores = routines(30, 0)
    if missing:
        scores[::3, 1] = torch.nan
    likeness = Likeness(30, 7, 3, 2)
    said = likeness.remember(*known, scores)
    assert said.isfinite().all()
    for i in (0, 11, 29):
        others = torch.arange(30) != i
        without = Likeness(29, 7, 3, 2)
        without.remember(*(x[others] for x in known), scores[others])
        exact = without(*(x[i : i + 1] for x in known))[0]
        torch.testing.assert_close(said[i], exact, atol=0.05, rtol=0.05)  # the bandwidth of 29 is not that of 30


def test_routines_that_are_all_alike_say_the_mean() -> None:
    likeness = Likeness(4, 7, 0, 1)
    alike = torch.ones(4, 7), torch.zeros(4, 1), None
    likeness.remember(*alike, torch.tensor([[-1.0], [1], [-1], [1]]))
    torch.testing.assert_close(likeness(*alike), torch.zeros(4, 1), atol=1e-4, rtol=0)
