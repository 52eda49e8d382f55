"""How far one judge lies from the rest of the panel."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cofinal.data.labels import TableOptions
from cofinal.data.score_tables import read_score_table
from cofinal.pipeline.human_ceiling import one_judge_against_the_rest

MARKS = arrays(np.float64, (8, 5), elements=st.integers(0, 20).map(lambda half: half / 2))
each_rule = pytest.mark.parametrize("rule", ["mean", "trimmed", "middle"])


@each_rule
def test_judges_of_one_mind_are_perfect(rule: str) -> None:
    marks = np.repeat(np.arange(10.0)[:, None], 5, axis=1)
    figures = one_judge_against_the_rest(marks, rule)
    assert figures == {"srcc": pytest.approx(1), "mae": 0, "judges": 5, "n": 10}


@each_rule
@given(marks=MARKS, order=st.permutations(range(5)))
def test_neither_the_order_of_judges_nor_of_routines_matters(rule: str, marks: np.ndarray, order: list[int]) -> None:
    figures = one_judge_against_the_rest(marks, rule)
    again = one_judge_against_the_rest(marks[::-1, order], rule)
    assert figures == pytest.approx(again)


@given(marks=MARKS, factor=st.sampled_from([0.5, 4]), shift=st.integers(-9, 9))
def test_the_scale_of_marks_matters_to_the_error_alone(marks: np.ndarray, factor: float, shift: int) -> None:
    figures, other = (one_judge_against_the_rest(x, "trimmed") for x in (marks, marks * factor + shift))
    assert figures is not None
    assert other is not None
    assert other["srcc"] == pytest.approx(figures["srcc"])
    assert other["mae"] == pytest.approx(factor * figures["mae"])


@given(st.integers(0, 9))
def test_one_lenient_judge_of_three(shift: int) -> None:
    marks = np.arange(6.0)[:, None] + np.array(
        [0, 0, shift]
    )  # each of the strict two is shift / 2 from the others' mean
    figures = one_judge_against_the_rest(marks, "trimmed")
    assert figures is not None
    assert figures["mae"] == pytest.approx((shift / 2 + shift / 2 + shift) / 3)


def test_marks_that_are_missing_leave_their_judge_out_of_that_routine() -> None:
    marks = np.array([[1.0, 1, 1], [2, 2, np.nan], [3, 3, 3], [4, np.nan, np.nan], [5, 5, 5]])
    assert one_judge_against_the_rest(marks, "mean") == {"srcc": pytest.approx(1), "mae": 0, "judges": 3, "n": 5}
    assert one_judge_against_the_rest(marks[:2], "mean") is None


@pytest.mark.shared
def test_nine_real_judges(shared: Path) -> None:
    judges = ",".join(f"PCS_J{judge}" for judge in range(1, 10))
    options = TableOptions(targets=["PCS"], panels=[f"PCS={judges}"])
    labels = read_score_table(shared / "data/fisv/panels.csv", options)
    figures = one_judge_against_the_rest(np.array([row.marks["PCS"] for row in labels.rows]), "trimmed")
    assert figures is not None
    assert (figures["n"], figures["judges"]) == (128, 9)
    assert 0.85 < figures["srcc"] < 0.99
    assert 0.5 < figures["mae"] < 2
