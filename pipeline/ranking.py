"""Scored routines in order: who is above whom, on the terminal and as a CSV file."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from .console import format_span, printable
from .verdict import Score, SumScore, TargetScore


@dataclass(frozen=True)
class Place:
    """A routine's place among those of its action."""

    rank: int
    """From 1, the highest score; equal scores share a rank."""
    name: str
    score: Score


def ranking_target(targets: Sequence[str], wanted: str | None) -> str:
    """Return the target to rank by: the wanted one, else the total, else the first.

    Args:
        targets: the head's, sums included.
        wanted: what the user names, in any case.

    Raises:
        ValueError: the head has no such target.
    """
    by_name = {target.lower(): target for target in targets}
    if wanted is None:
        return by_name.get("total", targets[0])
    if wanted.lower() not in by_name:
        raise ValueError(f"--rank-by {wanted}: unknown target; this head has {', '.join(targets)}")
    return by_name[wanted.lower()]


def ranked(scores: Mapping[str, Score], target: str) -> list[Place]:
    """Return routines by action, and within an action by a target's score, highest first."""
    order = sorted(scores, key=lambda name: (scores[name].action or "", -scores[name].scores[target].score, name))
    places: list[Place] = []
    for _, names in groupby(order, key=lambda name: scores[name].action):
        points = math.inf
        for number, name in enumerate(names, start=1):
            above, points = points, scores[name].scores[target].score
            places.append(Place(places[-1].rank if points == above else number, name, scores[name]))
    return places


def ranking_table(places: Sequence[Place], target: str) -> Table:
    """Return the ranking as a table for the terminal: every target's score, and of `target` the interval and grade."""
    first = places[0].score
    level = first.scores[target].interval
    title = Text(printable(f"ranked by {target}, in points"), "table.title")
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("routine")
    if first.action is not None:
        table.add_column("action")
    for name in first.scores:
        table.add_column(Text(printable(name)), justify="right", style="bold" if name == target else "")
    if level is not None:
        table.add_column(f"{level.level:.0%}", justify="right")
    table.add_column("grade")
    for place in places:
        score = place.score
        verdict = score.scores[target]
        table.add_row(
            str(place.rank),
            Text(printable(place.name)),
            *([] if first.action is None else [Text(printable(score.action or ""))]),
            *(f"{score.scores[name].score:.2f}" for name in first.scores),
            *([] if level is None else [_span(verdict)]),
            f"{verdict.coarse.grade} of {verdict.coarse.of}" if isinstance(verdict, TargetScore) else "",
        )
    return table


def _span(verdict: TargetScore | SumScore) -> str:
    return "" if verdict.interval is None else format_span(verdict.interval.span)


def ranking_csv(places: Sequence[Place], failed: Iterable[Mapping[str, str]]) -> bytes:
    """Return the ranking as a CSV file: a line a routine, best first, then one for each that failed."""
    rows = [{"rank": place.rank, **score_row(place.score)} for place in places]
    rows += [{"video": safe_cell(failure["video"]), "error": safe_cell(failure["error"])} for failure in failed]
    columns = dict.fromkeys([key for row in rows for key in row if key not in LAST] + LAST)
    return table_csv(rows, list(columns))


LAST = ["warnings", "error"]


def table_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return rows as a CSV file; a row may lack columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def score_row(score: Score) -> dict[str, Any]:
    """Return a score as a row of a table."""
    row: dict[str, Any] = {"video": safe_cell(score.video), "action": score.action or ""}
    for target, verdict in score.scores.items():
        row[target] = verdict.score
        if verdict.interval is not None:
            row[f"{target} low"], row[f"{target} high"] = verdict.interval.span
        if isinstance(verdict, TargetScore):
            row[f"{target} grade"] = verdict.coarse.grade
        if isinstance(verdict, TargetScore) and verdict.fine is not None:
            row[f"{target} subgrade"] = verdict.fine.subgrade
    return row | {"warnings": "; ".join(score.warnings)}


def safe_cell(text: str) -> str:
    """Return a path, or a text that starts with one, such that no spreadsheet takes it for a formula."""
    return f"./{text}" if text[:1] in "=+-@\t\r" else text
