"""The sports' rules for a panel's marks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cofinal.data.panels import RULES, panel_score

MARKS = arrays(np.float64, (4, 7), elements=st.integers(0, 20).map(lambda half: half / 2))
each_rule = pytest.mark.parametrize("rule", RULES)


@each_rule
@given(marks=MARKS, order=st.permutations(range(7)))
def test_the_order_of_judges_does_not_matter_and_the_score_lies_among_the_marks(
    rule: str, marks: np.ndarray, order: list[int]
) -> None:
    scores = panel_score(marks, rule)
    np.testing.assert_allclose(scores, panel_score(marks[:, order], rule))
    assert ((marks.min(1) <= scores) & (scores <= marks.max(1))).all()


@pytest.mark.parametrize("rule", ["trimmed", "middle"])
@given(marks=MARKS)
def test_one_judge_far_off_changes_no_more_than_one_at_the_edge(rule: str, marks: np.ndarray) -> None:
    far, edge = marks.copy(), marks.copy()
    far[:, 0], edge[:, 0] = 1000, marks[:, 1:].max(1)
    np.testing.assert_allclose(panel_score(far, rule), panel_score(edge, rule))


def test_marks_of_each_rule() -> None:
    marks = np.array([[9.5, 9, 9.5, 9, 8.5, 9.5, 8.5]])  # a dive: 9, 9 and 9.5 count
    assert panel_score(marks, "middle")[0] * 3 == 27.5
    assert panel_score(marks, "trimmed")[0] == pytest.approx(9.1)
    assert panel_score(np.array([[8, 8.5, 9, 7]]), "middle")[0] == 8.25


def test_marks_that_are_missing() -> None:
    marks = np.array([[8, np.nan, 9, 7], [np.nan, np.nan, 9, 7], [np.nan] * 4])
    np.testing.assert_equal(panel_score(marks, "trimmed"), [8, np.nan, np.nan])
    np.testing.assert_equal(panel_score(marks, "mean"), [8, 8, np.nan])
    with pytest.raises(ValueError, match="unknown panel score 'best'"):
        panel_score(marks, "best")
