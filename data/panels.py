"""How a panel's marks become one score, by the rules of the sports."""

import numpy as np

RULES = {"mean": 1, "trimmed": 3, "middle": 3}
"""The rules, each with the fewest marks that it needs: the mean of all marks; the mean without the highest and the
lowest (gymnastics, skating); the mean of the middle three, or of the middle two of an even number (diving)."""


def panel_score(marks: np.ndarray, rule: str) -> np.ndarray:
    """Return the panel's score of each routine.

    Args:
        marks: the mark of each judge (routines, judges) in points, NaN where a judge gave none.
        rule: one of `RULES`.

    Returns:
        Points (routines,), NaN where there are fewer marks than the rule needs.

    Raises:
        ValueError: the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"unknown panel score {rule!r}; known are {', '.join(RULES)}")
    scores = np.full(len(marks), np.nan)
    for i, row in enumerate(marks):
        given = np.sort(row[~np.isnan(row)])
        if len(given) >= RULES[rule]:
            scores[i] = given[_dropped(len(given), rule) : len(given) - _dropped(len(given), rule)].mean()
    return scores


def _dropped(num_marks: int, rule: str) -> int:
    """The number of marks that a rule drops at either end."""
    if rule == "middle":
        return (num_marks - 2) // 2  # leaves three of an odd number, two of an even one
    return 1 if rule == "trimmed" else 0
