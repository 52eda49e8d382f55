"""How far one judge lies from the rest of the panel: a head that comes as close is as good as one judge."""

from typing import Any

import numpy as np

from ..data.panels import RULES, panel_score
from .evaluation import fisher_average, mae, srcc
from .examples import Examples

FEWEST = 3
"""Routines that a judge must share with the rest for a figure."""


def one_judge_against_the_rest(marks: np.ndarray, rule: str) -> dict[str, float] | None:
    """Compare each judge's marks with the score that the others make.

    Args:
        marks: the mark of each judge (routines, judges) in points, NaN where a judge gave none.
        rule: the panel's, one of `panels.RULES`; the mean where too few judges are left for it.

    Returns:
        `srcc` (the mean over judges in Fisher's z), `mae` (in points), `judges` and `n`, the routines with marks; None
        where no judge shares three routines with another one.
    """
    figures = []
    for judge in range(marks.shape[1]):
        others = np.delete(marks, judge, axis=1)
        rest = panel_score(others, rule if others.shape[1] >= RULES[rule] else "mean")
        both = ~np.isnan(marks[:, judge]) & ~np.isnan(rest)
        if both.sum() >= FEWEST:
            own = marks[both, judge]
            figures.append((srcc(rest[both], own), mae(rest[both], own), len(own)))
    if not figures:
        return None
    correlations, errors, sizes = zip(*figures, strict=True)
    return {
        "srcc": fisher_average(correlations, sizes),
        "mae": float(np.mean(errors)),
        "judges": len(figures),
        "n": int((~np.isnan(marks)).any(axis=1).sum()),
    }


def human_ceiling(examples: Examples, panels: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the figures of `one_judge_against_the_rest` by target, for all targets whose judges are known.

    Args:
        examples: the routines that the head is evaluated on, with their marks.
        panels: the rule of each target's panel.
    """
    ceilings = {}
    for target, rule in panels.items():
        marks = np.array([row.marks[target] for row in examples.rows if target in row.marks])
        if len(marks) and (figures := one_judge_against_the_rest(marks, rule)) is not None:
            ceilings[target] = {"rule": rule, **figures}
    return ceilings
