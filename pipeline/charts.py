"""Where the shapes of a page's charts lie, in percent of the chart's width; the templates draw them as inline SVG.

Charts stretch with the page, so their texts are HTML that is placed over them, not part of the SVG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .verdict import TargetScore

MOST_BARS = 400
"""The most bars of a timeline; in a longer routine neighbouring clips share a bar."""
VISIBLE = 0.005
"""Points that two decimals show."""


@dataclass(frozen=True)
class Cell:
    """A coarse grade on the score axis."""

    grade: int
    left: float
    width: float
    probability: float


@dataclass(frozen=True)
class Ladder:
    """A target's score axis: coarse grades, the sub-grades of the verdict's grade, interval and score."""

    cells: list[Cell]
    edges: list[tuple[float, float]]
    """Place and points of each edge between grades."""
    subgrades: list[float]
    """Places of the edges between the sub-grades of the verdict's grade."""
    fine: tuple[float, float] | None
    """Left end and width of the verdict's sub-grade."""
    interval: tuple[float, float] | None
    """Left end and width."""
    score: float


def ladder(verdict: TargetScore) -> Ladder | None:
    """Return the ladder of a verdict; None for public heads, whose grades have no bounds in points."""
    edges = verdict.coarse.edges
    if edges is None:
        return None
    span = verdict.interval.span if verdict.interval else (edges[0], edges[-1])
    low, high = min(span[0], edges[0]), max(span[1], edges[-1])

    def place(points: float) -> float:
        return 100 * (points - low) / (high - low)

    def part(span: tuple[float, float]) -> tuple[float, float]:
        return place(span[0]), place(span[1]) - place(span[0])

    fine = verdict.fine
    return Ladder(
        cells=[
            Cell(grade, *part(span), probability)
            for grade, (span, probability) in enumerate(
                zip(pairwise(edges), verdict.coarse.probabilities, strict=True), start=1
            )
        ],
        edges=[(place(edge), edge) for edge in edges],
        subgrades=[place(x) for x in fine.edges[1:-1]] if fine and fine.edges else [],
        fine=part(fine.span) if fine and fine.span else None,
        interval=part(verdict.interval.span) if verdict.interval else None,
        score=place(verdict.score),
    )


@dataclass(frozen=True)
class Bar:
    """A clip, or several neighbours, on the timeline."""

    clip: int
    """Index of the first clip."""
    left: float
    width: float
    value: float
    """Points, summed over the clips of the bar."""
    height: float
    """Of the value, in percent of the largest one; negative below the line."""


@dataclass(frozen=True)
class Timeline:
    """A target's clips in order of time."""

    bars: list[Bar]
    largest: float
    """The largest value of a bar, without its sign."""
    rows: list[list[float]]
    """For each grade, the highest first, a number from -1 to 1 for each bar: its attention, or its effect on the
    grade's probability, as a share of the largest."""


def timeline(spans: np.ndarray, contributions: Sequence[float], by_grade: np.ndarray) -> Timeline:
    """Return the timeline of a target.

    Args:
        spans: start and end (T, 2) of each clip, in any unit.
        contributions: (T,) in points.
        by_grade: (T, G) a number for each clip and grade, lowest grade first.
    """
    num_clips = len(spans)
    firsts = np.unique(np.linspace(0, num_clips, min(num_clips, MOST_BARS), endpoint=False).astype(int))
    lasts = [*firsts[1:], num_clips]
    values = np.add.reduceat(np.asarray(contributions, float), firsts)
    grades = np.add.reduceat(by_grade, firsts, axis=0)  # (bars, G)
    ends = np.append(spans[1:, 0], spans[-1, 1])  # clips of some recipes overlap
    largest, strongest = float(np.abs(values).max()), float(np.abs(grades).max()) or 1.0
    start, length = spans[0, 0], spans[-1, 1] - spans[0, 0]
    return Timeline(
        bars=[
            Bar(
                int(first),
                float(100 * (spans[first, 0] - start) / length),
                float(100 * (ends[last - 1] - spans[first, 0]) / length),
                float(value),
                float(100 * value / (largest or 1.0)),
            )
            for first, last, value in zip(firsts, lasts, values, strict=True)
        ],
        largest=largest,
        rows=[[float(x) for x in row] for row in grades.T[::-1] / strongest],
    )


def moments(contributions: Sequence[float], number: int = 3) -> tuple[list[int], list[int]]:
    """Return the clips that add most to a score, and those that take most from it, strongest first.

    Contributions that two decimals would show as 0 are left out.

    Args:
        contributions: (T,) in points.
        number: the most of each.
    """
    order = np.argsort(contributions, kind="stable")
    worst = [int(i) for i in order[:number] if contributions[i] <= -VISIBLE]
    best = [int(i) for i in order[::-1][:number] if contributions[i] >= VISIBLE]
    return best, worst
