"""The simplex ETF is what its name says, and fine features are matched against it by cosine."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cofinal.models.fine_scoring import FineScoring, simplex_etf


@given(st.integers(2, 40), st.integers(0, 30), st.integers(0, 5))
def test_etf_columns_are_unit_and_equally_far_apart(num_vectors: int, spare: int, seed: int) -> None:
    etf = simplex_etf(num_vectors + spare, num_vectors, seed=seed).double()
    gram = torch.full((num_vectors, num_vectors), -1 / (num_vectors - 1), dtype=torch.float64)
    torch.testing.assert_close(etf.T @ etf, gram.fill_diagonal_(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(etf.sum(1), torch.zeros(len(etf), dtype=torch.float64), atol=1e-5, rtol=0)


def test_etf_is_chosen_by_its_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = simplex_etf(8, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(simplex_etf(8, 5, seed=3), first)
    assert not torch.allclose(simplex_etf(8, 5, seed=4), first)


@pytest.mark.parametrize(("dim", "num_vectors"), [(3, 4), (4, 1)])
def test_impossible_etf_is_refused(dim: int, num_vectors: int) -> None:
    with pytest.raises(ValueError, match="simplex frame"):
        simplex_etf(dim, num_vectors)


def test_logits_are_cosines_over_the_temperature() -> None:
    scoring = FineScoring(16, 6, temperature=0.25, dropout=0.0)
    logits = scoring(torch.randn(3, 4, 16) * 100)
    assert logits.shape == (3, 4, 6)
    assert logits.abs().max() <= 4 + 1e-5
    torch.testing.assert_close(logits.sum(-1), torch.zeros(3, 4), atol=1e-4, rtol=0)  # the ETF's columns sum to 0


def test_etf_is_stored_but_does_not_learn() -> None:
    scoring = FineScoring(16, 6, temperature=0.25, dropout=0.0)
    assert "etf" in scoring.state_dict()
    assert "etf" not in dict(scoring.named_parameters())


def test_more_subgrades_than_the_width_still_fit() -> None:
    assert FineScoring(4, 100, temperature=0.25, dropout=0.0)(torch.randn(2, 3, 4)).shape == (2, 3, 100)
