"""Scores on stdout: for people, compact enough for 80 columns and coloured only on a terminal, or as JSON."""

import json
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from .console import format_span, print_message, print_result, print_table, printable
from .ranking import ranking_table
from .results import figures_table
from .scoring_many import ScoringResult
from .verdict import Score


class ScorePrinter:
    """Prints the scores of a run as they come, and at its end what they say together.

    Used in a `with` statement around the run. A single score is printed at its end, when no progress bar is in the way,
    also if its report cannot be written.

    Args:
        alone: one routine was named.
        as_json: print JSON: an object for one routine; for several a line each, then a line for each that failed, and
            the figures against the judges' scores.
    """

    def __init__(self, *, alone: bool, as_json: bool) -> None:
        self.alone, self.as_json = alone, as_json
        self._only: Score | None = None

    def __enter__(self) -> "ScorePrinter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._only and self.as_json:
            self._print_json(self._only.as_json())
        elif self._only:
            print_score(self._only)

    def take(self, score: Score) -> None:
        """Print one of several scores, or keep the only one."""
        if self.alone:
            self._only = score
        elif self.as_json:
            self._print_json(score.as_json())
        else:
            points = ", ".join(f"{target} {verdict.score:.2f}" for target, verdict in score.scores.items())
            print_message(f"{score.video}: {points}")

    def finish(self, result: ScoringResult) -> None:
        """Print the ranking, and the figures against the judges' scores."""
        if self.as_json:
            for failure in result.failed:
                self._print_json({"format": 1, **failure})
            if result.evaluation is not None:
                self._print_json({"format": 1, "evaluation": result.evaluation})
            return
        if not self.alone:
            print_ranking(result)
        if result.evaluation is not None:
            print_evaluation(result.evaluation)
        for kind, path in result.files.items():
            print_message(f"{kind}: {path}")

    def _print_json(self, document: dict[str, Any]) -> None:
        typer.echo(json.dumps(document, indent=2 if self.alone else None, allow_nan=False))


def print_score(score: Score) -> None:
    """Print one verdict for people: a line a target on stdout, warnings on stderr."""
    for warning in score.warnings:
        print_message(f"warning: {warning}")
    print_result(score.video + (f" ({score.action})" if score.action else ""))
    print_table(_verdict_table(score))
    pairs = {target: verdict.coarse.borderline for target, verdict in score.targets.items()}
    rivals = [f"{target} {pair[0]} or {pair[1]}" for target, pair in pairs.items() if pair]
    if rivals:
        print_result(f"  borderline coarse grade: {', '.join(rivals)}")
    for target, one in score.sums.items():
        interval = f" ({one.interval.level:.0%}: {format_span(one.interval.span)})" if one.interval else ""
        print_result(f"  {target} {one.score:.2f}{interval}: {one.formula}, from the scores above")
    if score.trained_on is not None:
        print_message(f"head: {score.head}, trained on {score.trained_on} routines")


def _verdict_table(score: Score) -> Table:
    """Return a row a target, without the columns that no target fills."""
    verdicts = score.targets.values()
    level = next((v.interval.level for v in verdicts if v.interval), 0.0)
    fine = [v.fine for v in verdicts]
    columns = {
        "": [Text(printable(target)) for target in score.targets],
        "score": [Text(f"{v.score:.2f}", "bold") for v in verdicts],
        f"{level:.0%} interval": [Text(format_span(v.interval.span) if v.interval else "") for v in verdicts],
        "coarse grade": [Text(_grade(v.coarse.grade, v.coarse.of, v.coarse.span)) for v in verdicts],
        "fine grade": [Text(_grade(f.subgrade, f.of, f.span) if f else "") for f in fine],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for title in shown:
        table.add_column(title, justify="right" if title == "score" else "left")
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


def _grade(grade: int, of: int, span: tuple[float, float] | None) -> str:
    return f"{grade} of {of}" + (f", {format_span(span)}" if span else "")


def print_ranking(result: ScoringResult) -> None:
    """Print a run over several routines for people: the ranking on stdout, counts and failures on stderr."""
    warnings: dict[str, list[str]] = {}
    for name, score in result.scores.items():
        for warning in score.warnings:
            warnings.setdefault(warning, []).append(name)
    for warning, names in warnings.items():
        some = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        which = "" if len(names) == len(result.scores) else some
        print_message(f"warning: {warning}{which}")
    if result.ranking:
        print_table(ranking_table(result.ranking, result.rank_by))
    for failure in result.failed:
        print_message(f"failed: {failure['error']}")
    kept = f", {result.kept} of them in an earlier run" if result.kept else ""
    print_message(f"{len(result.scores)} videos scored{kept}, {len(result.failed)} failed")


def print_evaluation(evaluation: dict[str, Any]) -> None:
    """Print the figures of scores against the judges'."""
    for warning in evaluation["warnings"]:
        print_message(f"warning: {warning}")
    if evaluation["unscored"]:
        print_message(f"warning: {evaluation['unscored']} judged videos have no score and are not in the figures")
    print_table(figures_table("against the judges' scores", {**evaluation["targets"], **evaluation.get("sums", {})}))
