"""The verdict never contradicts itself: a coarse span holds a fine span, and that holds the score, as printed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from made_up import routine, routines

from cofinal.models.cofinal import CoFInAlConfig, CoFInAlRecipe
from cofinal.models.cofinal_paper import PaperConfig
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.head import HeadNetwork, Output
from cofinal.models.predict import BORDERLINE, Prediction, borderline, predict, read_verdict
from cofinal.models.transformer import TransformerRecipe
from cofinal.pipeline.training import fit

SIZES = {"feature_dim": 12, "targets": ("TES", "PCS"), "ranges": ((19.99, 40), (15, 40)), "width": 8}
HEADS = {
    "cofinal": (CoFInAlConfig(**SIZES, num_members=2), CoFInAlRecipe(epochs=2)),
    "cofinal with clips": (CoFInAlConfig(**SIZES, num_members=2, tokens="both"), CoFInAlRecipe(epochs=1)),
    "cofinal-paper": (PaperConfig(**SIZES), TransformerRecipe(epochs=1)),
    "gdlt": (GDLTConfig(**SIZES), TransformerRecipe(epochs=1)),
}


def assert_consistent(prediction: Prediction, row: int) -> None:
    """Check one routine's verdict with numbers as they are, and as they are printed, to 2 and to 4 digits."""
    edges, cells, score = prediction.edges, prediction.cells, prediction.score[row]
    grade, num_subgrades = prediction.grade[row], prediction.num_subgrades
    coarse = fine = edges[grade - 1], edges[grade]
    if num_subgrades:
        assert 1 <= prediction.subgrade[row] <= num_subgrades
        cell = (grade - 1) * num_subgrades + prediction.subgrade[row] - 1
        fine = cells[cell], cells[cell + 1]
    for digits in (2, 4):
        low, fine_low, printed, fine_high, high = (
            float(f"{x:.{digits}f}") for x in (coarse[0], fine[0], score, fine[1], coarse[1])
        )
        assert low <= fine_low <= printed <= fine_high <= high
    assert coarse[0] <= fine[0] <= score <= fine[1] <= coarse[1]


class Fixed(HeadNetwork):
    """A head that gives the scores that it is asked for, in single precision."""

    def __init__(self, cells: np.ndarray, num_subgrades: int, scores: np.ndarray) -> None:
        super().__init__()
        num_grades = (len(cells) - 1) // max(num_subgrades, 1)
        self.config = replace(HEADS["gdlt"][0], targets=("A",), ranges=((0, 1),), num_grades=max(num_grades, 2))
        object.__setattr__(self.config, "num_subgrades", num_subgrades)
        self.register_buffer("cells", torch.from_numpy(cells).float()[None])
        self.scores = iter(torch.from_numpy(scores).float())

    def forward(self, clips: torch.Tensor, actions: torch.Tensor | None = None) -> Output:
        return Output(next(self.scores).view(1, 1), torch.full((1, 1, self.config.num_grades), 0.25), None)


@st.composite
def cells_and_scores(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray]:
    """Ascending cells, some of them hardly apart, and scores on, next to and between their edges, or beyond them."""
    grades, subgrades = draw(st.integers(2, 5)), draw(st.integers(0, 6))
    num_cells = grades * max(subgrades, 1)
    gaps = draw(st.lists(st.sampled_from([1e-5, 3e-3, 0.005, 0.01, 1.0, 7.77]), min_size=num_cells, max_size=num_cells))
    cells = draw(st.floats(-20, 100)) + np.concatenate([[0.0], np.cumsum(gaps)])
    cells = cells.astype(np.float32).astype(np.float64)
    assume((np.diff(cells) > 0).all())
    near = draw(
        st.lists(
            st.tuples(st.sampled_from(cells), st.sampled_from([0, 1e-5, -1e-5, 0.004, -0.004, 0.005, -0.005, 1, -1])),
            min_size=1,
        )
    )
    between = draw(st.lists(st.floats(cells[0], cells[-1])))
    return cells, subgrades, np.array([*(edge + step for edge, step in near), *between])


@given(cells_and_scores())
def test_a_verdict_agrees_with_its_score(case: tuple[np.ndarray, int, np.ndarray]) -> None:
    cells, num_subgrades, scores = case
    prediction = predict(Fixed(cells, num_subgrades, scores), [np.zeros((1, 12), np.float32)] * len(scores))["A"]
    assert (prediction.subgrade is None) == (num_subgrades == 0)
    assert len(prediction.edges) == (len(cells) - 1) // max(num_subgrades, 1) + 1
    for row in range(len(scores)):
        assert_consistent(prediction, row)
    np.testing.assert_allclose(prediction.score, scores.clip(cells[0], cells[-1]), atol=1e-4)


def test_a_score_on_an_edge_belongs_to_the_upper_cell() -> None:
    cells = np.array([0.0, 1, 2, 3, 4])
    verdict = read_verdict(np.array([0.0, 0.5, 1, 2, 3.5, 4]), cells, 2)
    assert verdict.grade.tolist() == [1, 1, 1, 2, 2, 2]
    assert verdict.subgrade.tolist() == [1, 1, 2, 1, 2, 2]


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_every_type_give_consistent_verdicts(name: str) -> None:
    config, recipe = HEADS[name]
    features, scores = routines(24)
    network = fit(features, scores, config=config, recipe=recipe)
    new = [routine(1 + i % 9, i).numpy() * 3 for i in range(60)]
    for m, prediction in enumerate(predict(network, [*features, *new]).values()):
        assert prediction.grade.shape == (84,)
        assert prediction.probabilities.shape == (84, config.num_grades)
        np.testing.assert_allclose(prediction.probabilities.sum(1), 1, rtol=1e-5)
        low, high = config.ranges[m]
        assert (prediction.edges[0], prediction.edges[-1]) == pytest.approx((low, high))
        for row in range(84):
            assert_consistent(prediction, row)
        if name == "cofinal":
            assert prediction.attention is None
        else:
            maps = prediction.attention
            assert [x.shape for x in maps] == [(config.num_grades, len(x)) for x in (*features, *new)]
            np.testing.assert_allclose([x.sum(1) for x in maps], 1, rtol=1e-5)


def test_a_head_that_gives_no_number_is_refused() -> None:
    network = Fixed(np.array([0.0, 1, 2]), 0, np.array([np.nan]))
    with pytest.raises(ValueError, match="no finite A"):
        predict(network, [np.zeros((1, 12), np.float32)])


@pytest.mark.parametrize(
    ("grade", "probabilities", "expected"),
    [
        (1, [0.48, 0.45, 0.07], (1, 2)),
        (1, [0.5, 0.35, 0.15], None),
        (2, [0.1, 0.35, 0.55], (2, 3)),  # the score's own grade is the less probable one
        (3, [0.46, 0.04, 0.5], (1, 3)),
        (2, [0.25, 0.25 + BORDERLINE, 0.45 - BORDERLINE], (2, 3)),
        (2, [0.25, 0.25 + BORDERLINE, 0.2], None),  # just as far apart as the limit is not close
        (1, [1.0], None),
    ],
)
def test_borderline_names_the_closest_rival(grade: int, probabilities: list[float], expected: tuple | None) -> None:
    assert borderline(grade, probabilities) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.data())
def test_borderline_is_said_only_of_close_grades(probabilities: list[float], data: st.DataObject) -> None:
    grade = data.draw(st.integers(1, len(probabilities)))
    found = borderline(grade, probabilities)
    others = [x for rival, x in enumerate(probabilities, start=1) if rival != grade]
    assert (found is not None) == any(x > probabilities[grade - 1] - BORDERLINE for x in others)
    if found is not None:
        low, high = found
        assert low < high
        assert grade in found
        assert probabilities[(low if high == grade else high) - 1] == max(others)
