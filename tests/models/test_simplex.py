"""The sub-grade prototypes are a simplex: as far apart as so many directions can be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cofinal.models.simplex import simplex_etf


@given(st.integers(2, 40), st.integers(0, 40))
def test_columns_have_length_1_and_the_lowest_possible_cosines(num_vectors: int, spare: int) -> None:
    frame = simplex_etf(num_vectors + spare, num_vectors).double()
    expected = torch.full((num_vectors, num_vectors), -1 / (num_vectors - 1), dtype=torch.float64)
    torch.testing.assert_close(frame.T @ frame, expected.fill_diagonal_(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(frame.sum(1), torch.zeros(num_vectors + spare, dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_frame_is_always_the_same_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first = simplex_etf(9, 5)
    torch.manual_seed(7)
    assert torch.equal(simplex_etf(9, 5), first)
    assert not torch.equal(simplex_etf(9, 5, seed=1), first)
    torch.set_rng_state(before)
    simplex_etf(9, 5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(9, 5), (10**6, 10**6)])
def test_on_the_meta_device_it_only_has_a_size(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert simplex_etf(*size).shape == size
