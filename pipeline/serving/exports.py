"""The list of results as tables: all of it, and the panel's scores alone as labels for train-head."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..ranking import LAST, safe_cell, score_row, table_csv
from .library import Panel, Result

LIKE_A_NUMBER = re.compile(r"[\d.,eE%+-]+")


def results_csv(results: Sequence[Result]) -> bytes:
    """Return all results: the model's scores, beside them the panel's, and why others have none."""
    rows = []
    for result in results:
        row: dict[str, Any] = {"video": safe_cell(result.name), "uploaded": result.uploaded, "state": result.state}
        if result.score is not None:
            row |= score_row(result.score) | {"head": safe_cell(Path(result.score.head).name)}
        row |= {f"{target} panel": points for target, points in result.panel.scores.items()}
        rows.append(row | _words(result.panel) | {"error": safe_cell(result.error or "")})
    return _table(rows)


def labels_csv(results: Sequence[Result]) -> bytes:
    """Return the routines that the panel has scored, in the form of `train-head --dataset csv`.

    The column `video` has the names of the files in the library's folder of videos.
    """
    rows = []
    for result in results:
        if not result.panel.scores:
            continue
        row: dict[str, Any] = {"video": result.file}
        if result.score is not None and result.score.action is not None:
            row["action"] = result.score.action
        rows.append(row | result.panel.scores | {"uploaded_as": _text(result.name)} | _words(result.panel))
    return _table(rows or [{"video": ""}])


def _words(panel: Panel) -> dict[str, str]:
    return {"judged_by": _text(panel.judge), "remarks": _text(panel.note)}


def _text(text: str) -> str:
    """Return a text that neither a spreadsheet takes for a formula nor train-head for a score."""
    text = " ".join(text.split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") or LIKE_A_NUMBER.fullmatch(text) else text


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    last = ["uploaded_as", "judged_by", "remarks", *LAST]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns.sort(key=lambda column: last.index(column) if column in last else -1)
    return table_csv(rows, columns)
