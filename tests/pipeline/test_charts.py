"""The arithmetic of the charts: all shapes lie on the page, in order, and say what they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofinal.pipeline.charts import MOST_BARS, ladder, moments, timeline
from cofinal.pipeline.pages import format_time
from cofinal.pipeline.verdict import CoarseGrade, FineGrade, Interval, TargetScore

points = st.floats(-20, 20).map(lambda x: round(x, 4))


@given(st.lists(points, min_size=1, max_size=1000), st.integers(1, 5))
def test_a_timeline_keeps_the_sum_of_contributions(contributions: list[float], grades: int) -> None:
    spans = np.stack([np.arange(len(contributions)), np.arange(len(contributions)) + 1.0], axis=1) * 1.28
    line = timeline(spans, contributions, np.ones((len(contributions), grades)))
    assert len(line.bars) == min(MOST_BARS, len(contributions))
    assert sum(bar.value for bar in line.bars) == pytest.approx(sum(contributions), abs=1e-6)
    ends = [bar.left + bar.width for bar in line.bars]
    assert line.bars[0].left == 0
    assert ends[-1] == pytest.approx(100)
    assert [bar.left for bar in line.bars[1:]] == pytest.approx(ends[:-1])
    assert all(abs(bar.height) <= 100 + 1e-9 and bar.height * bar.value >= 0 for bar in line.bars)
    assert np.shape(line.rows) == (grades, len(line.bars))
    assert np.abs(line.rows).max() <= 1


@given(st.lists(points, min_size=1, max_size=30))
def test_moments_are_the_extremes(contributions: list[float]) -> None:
    best, worst = moments(contributions)
    assert not set(best) & set(worst)
    others = [x for i, x in enumerate(contributions) if i not in best]
    assert all(contributions[i] > 0 and contributions[i] >= x for i in best for x in others)
    assert all(contributions[i] < 0 for i in worst)
    assert len(best) == min(3, sum(x >= 0.005 for x in contributions))
    assert [contributions[i] for i in worst] == sorted(contributions)[: len(worst)]


def test_a_ladder_holds_grades_score_and_interval() -> None:
    coarse = CoarseGrade(2, 2, (4.0, 8.0), [0.25, 0.75], [0.0, 4.0, 8.0], None)
    fine = FineGrade(1, 2, (4.0, 6.0), [4.0, 6.0, 8.0])
    axis = ladder(TargetScore(coarse, fine, 5.0, Interval((-2.0, 8.0), 0.9)))
    assert [(cell.grade, cell.left, cell.width) for cell in axis.cells] == [(1, 20, 40), (2, 60, 40)]
    assert (axis.score, axis.fine, axis.interval, axis.subgrades) == (70, (60, 20), (0, 100), [80])
    assert ladder(TargetScore(CoarseGrade(1, 2, None, [0.2, 0.8], None, None), None, 5.0, None)) is None


def test_times_are_those_of_a_player() -> None:
    assert [format_time(x) for x in (0, 12.84, 59.96, 65.3, 600)] == ["0.0 s", "12.8 s", "1:00.0", "1:05.3", "10:00.0"]
