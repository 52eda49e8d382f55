"""Scores that are sums of others: not learnt, but computed from the predictions of their parts."""

from collections.abc import Sequence
from typing import Any

from ..data.target_rules import Formula
from .baselines import BASELINES

ABOUT = ("seed", "video", "action", "group", "event")
"""What an entry says of its routine."""
COLUMNS = ("true", "predicted", *BASELINES)
"""What is summed; a sum has no grades and no interval of its own."""


def sum_predictions(predictions: Sequence[dict[str, Any]], sums: Sequence[Formula]) -> list[dict[str, Any]]:
    """Return an entry for each sum and routine whose parts are all known.

    Args:
        predictions: entries of `protocol.run_seeds`, the targets of a routine one after the other.
        sums: what to compute.
    """
    routines: dict[tuple[Any, str], dict[str, dict[str, Any]]] = {}
    for entry in predictions:
        routines.setdefault((entry.get("seed"), entry["video"]), {})[entry["target"]] = entry
    entries = []
    for one in sums:
        for of_target in routines.values():
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
