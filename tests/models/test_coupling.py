"""Scores are taken apart and put together without loss, wherever on their axis they lie."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cofinal.models.coupling import couple, decouple, grade_edges

EDGES = torch.tensor([1.9, 4.0, 4.5, 9.0, 14.8], dtype=torch.float64)


@given(st.floats(0, 1), st.integers(2, 100))
def test_coupling_undoes_decoupling(share: float, num_subgrades: int) -> None:
    score = EDGES[:1] + (EDGES[-1] - EDGES[0]) * share
    coarse, fine = decouple(score, EDGES, num_subgrades)
    torch.testing.assert_close(couple(coarse, fine, EDGES), score, atol=1e-7, rtol=0)
    torch.testing.assert_close(coarse.sum(1), torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(fine.sum(2), torch.ones(1, 4, dtype=torch.float64))


def test_edges_couple_exactly_and_belong_to_both_their_grades() -> None:
    coarse, fine = decouple(EDGES, EDGES, 8)
    torch.testing.assert_close(couple(coarse, fine, EDGES), EDGES)
    half = [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]]
    assert coarse.tolist() == [[1, 0, 0, 0], *half, [0, 0, 0, 1]]


def test_neighbouring_grades_agree_at_their_edge() -> None:
    _, fine = decouple(EDGES[1:-1], EDGES, 8)
    for edge in range(3):
        for grade in range(4):
            alone = torch.nn.functional.one_hot(torch.tensor([grade]), 4).double()
            if grade in (edge, edge + 1):
                torch.testing.assert_close(couple(alone, fine[edge : edge + 1], EDGES), EDGES[edge + 1 : edge + 2])


def test_grades_below_the_score_are_full_and_above_it_empty() -> None:
    _, fine = decouple(torch.tensor([4.2], dtype=torch.float64), EDGES, 5)
    assert fine[0, 0].tolist() == [0, 0, 0, 0, 1]
    assert fine[0, 2].tolist() == fine[0, 3].tolist() == [1, 0, 0, 0, 0]


@given(st.floats(0, 1), st.floats(0.05, 3))
def test_soft_coarse_target_is_a_distribution_that_follows_the_score(share: float, softness: float) -> None:
    score = EDGES[:1] + (EDGES[-1] - EDGES[0]) * share
    coarse, _ = decouple(score, EDGES, 5, softness=softness)
    torch.testing.assert_close(coarse.sum(1), torch.ones(1, dtype=torch.float64))
    higher, _ = decouple((score + 0.3).clamp(max=EDGES[-1]), EDGES, 5, softness=softness)
    assert (higher.cumsum(1) <= coarse.cumsum(1) + 1e-9).all()


@given(st.lists(st.floats(0, 45), min_size=1, max_size=50), st.integers(1, 10))
def test_grade_edges_grow_and_reach_over_the_whole_range(scores: list[float], num_grades: int) -> None:
    edges = grade_edges(np.array(scores), (0.0, 45.0), num_grades)
    assert edges[0] == 0
    assert edges[-1] == 45
    assert (np.diff(edges) > 0.1 * 45 / num_grades).all()


def test_grades_hold_about_as_many_scores_each() -> None:
    scores = np.random.default_rng(0).normal(20, 5, 1000).clip(0, 45)
    counts, _ = np.histogram(scores, grade_edges(scores, (0.0, 45.0), 4))
    assert counts.min() > 150
