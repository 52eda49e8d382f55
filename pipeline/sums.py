"""Scores that are sums of others: not learnt, but computed from the predictions of their parts."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ..data.target_rules import Formula
from .baselines import BASELINES

ABOUT = ("seed", "video", "action", "group", "event")
"""What an entry says of its routine."""
COLUMNS = ("true", "predicted", *BASELINES)
"""What is summed; a sum has no grades and no interval of its own."""


def consistency(predictions: Sequence[dict[str, Any]], checks: Sequence[Formula]) -> dict[str, dict[str, float]]:
    """Compare targets that nearly add up with the sum of the others, by the text of each formula.

    Args:
        predictions: as for `sum_predictions`.
        checks: what nearly adds up.

    Returns:
        `judged` and `predicted`: by how many points the sum of the parts is away from the target, in the mean over the
        routines with all of their scores.
    """
    found = {}
    for one in checks:
        names = {one.target, *one.parts}
        known = [of_target for of_target in _by_routine(predictions).values() if of_target.keys() >= names]
        if known:
            found[str(one)] = {
                name: fmean(
                    abs(one.value({part: of[part][column] for part in one.parts}) - of[one.target][column])
                    for of in known
                )
                for name, column in (("judged", "true"), ("predicted", "predicted"))
            }
    return found


def sum_predictions(predictions: Sequence[dict[str, Any]], sums: Sequence[Formula]) -> list[dict[str, Any]]:
    """Return an entry for each sum and routine whose parts are all known.

    Args:
        predictions: entries of `protocol.run_seeds`, the targets of a routine one after the other.
        sums: what to compute.
    """
    entries = []
    for one in sums:
        for of_target in _by_routine(predictions).values():
            if not of_target.keys() >= set(one.parts):
                continue
            first = of_target[one.parts[0]]
            about = {name: first[name] for name in ABOUT if name in first}
            values: dict[str, Any] = {
                column: one.value({part: of_target[part][column] for part in one.parts})
                for column in COLUMNS
                if column in first
            }
            entries.append({**about, "target": one.target, **values})
    return entries


def _by_routine(predictions: Sequence[dict[str, Any]]) -> dict[tuple[Any, str], dict[str, dict[str, Any]]]:
    """Return the entries of each seed and routine by target."""
    routines: dict[tuple[Any, str], dict[str, dict[str, Any]]] = {}
    for entry in predictions:
        routines.setdefault((entry.get("seed"), entry["video"]), {})[entry["target"]] = entry
    return routines
