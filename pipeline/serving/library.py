"""What serve-scores keeps: videos, reports, and a list of results in one SQLite file.

A row is written when its video is whole on disk. So after a kill or a power cut the list is right, and a file without a
row is the rest of something that did not end.
"""

import json
import re
import secrets
import sqlite3
import threading
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ...data.files import make_folder, remove_temporaries, sync_folder, write_atomic
from ...data.lock import Lock, LockedError
from ...extractors.video import VIDEO_SUFFIXES
from ..evidence import Evidence
from ..json_values import from_json
from ..verdict import Score

State = Literal["queued", "scoring", "done", "failed"]

ID = re.compile(r"[0-9a-f]{32}")
LONGEST_NAME = 200
SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, action TEXT,
    uploaded TEXT NOT NULL, state TEXT NOT NULL, error TEXT, score TEXT, panel TEXT
) STRICT
"""


@dataclass(frozen=True)
class Panel:
    """What the judges say of a routine."""

    scores: dict[str, float] = field(default_factory=dict)
    """Points by target."""
    judge: str = ""
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A row of the list."""

    id: str
    """32 hexadecimal digits that nobody can guess."""
    name: str
    """What the video was called where it was uploaded from."""
    file: str
    """The name of its file here: the id, and a suffix."""
    action: str | None
    """The action that was named with the upload."""
    uploaded: str
    """When the upload ended: date and time in ISO 8601, UTC."""
    state: State
    error: str | None
    """Why it could not be scored."""
    score: Score | None
    """Without evidence and times, which are in the report."""
    panel: Panel


class Library:
    """The folder of a server; no two servers can have it at once.

    Args:
        folder: it is made if it is missing. What interrupted uploads left in it is removed, and videos whose scoring
            was interrupted, or whose score is of another version of this program, are queued again.

    Raises:
        ValueError: another server has the folder.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.videos, self.reports = folder, folder / "videos", folder / "reports"
        for part in (self.videos, self.reports):
            make_folder(part)
        self._lock = Lock(folder / "lock")
        try:
            self._lock.acquire()
        except LockedError as holder:
            raise ValueError(f"{folder} is in use by {holder}; stop it, or name another folder with --data") from None
        self._thread_lock = threading.RLock()
        self._database = sqlite3.connect(folder / "results.sqlite", isolation_level=None, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", SCHEMA):
            self._run(statement)
        self._recover()

    def close(self) -> None:
        self._database.close()
        self._lock.release()

    def _run(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._thread_lock:
            return self._database.execute(statement, values).fetchall()

    def _recover(self) -> None:
        self._run("UPDATE results SET state = 'queued' WHERE state = 'scoring'")
        remove_temporaries(self.folder)
        rows = self._run("SELECT * FROM results")
        for row in rows:
            try:
                _result(row)
            except (TypeError, ValueError):  # an earlier version of this program wrote the score
                self._run("UPDATE results SET state = 'queued', score = NULL WHERE id = ?", row["id"])
        known = {row["id"] for row in rows}
        for file in (*self.videos.iterdir(), *self.reports.iterdir()):
            if ID.fullmatch(file.stem) and file.stem not in known:
                file.unlink()

    # --- videos ---

    def add(self, upload: Path, name: str, action: str | None) -> str:
        """Take an uploaded file that is whole on disk into the folder and the queue.

        Returns:
            The new result's id.
        """
        id, name = secrets.token_hex(16), clean_name(name)
        suffix = Path(name).suffix.lower()
        file = id + (suffix if suffix in VIDEO_SUFFIXES else ".mp4")
        upload.replace(self.videos / file)
        sync_folder(self.videos)
        self._run(
            "INSERT INTO results (id, name, file, action, uploaded, state) VALUES (?, ?, ?, ?, ?, 'queued')",
            *(id, name, file, action, datetime.now(UTC).isoformat(timespec="seconds")),
        )
        return id

    def delete(self, id: str) -> bool:
        """Delete a result and its files; False if it is being scored, or is not there."""
        gone = self._run("DELETE FROM results WHERE id = ? AND state != 'scoring' RETURNING file", id)
        for row in gone:
            (self.videos / row["file"]).unlink(missing_ok=True)
            self.report_of(id).unlink(missing_ok=True)
        return bool(gone)

    def report_of(self, id: str) -> Path:
        return self.reports / f"{id}.html"

    # --- the queue ---

    def next_queued(self) -> Result | None:
        """Return the oldest video of the queue, and mark it as being scored. Only one video is at a time."""
        oldest = "SELECT number FROM results WHERE state IN ('queued', 'scoring') ORDER BY number LIMIT 1"
        rows = self._run(f"UPDATE results SET state = 'scoring' WHERE number = ({oldest}) RETURNING *")
        return _result(rows[0]) if rows else None

    def put_back(self, id: str) -> None:
        """Queue a video again whose scoring was interrupted."""
        self._run("UPDATE results SET state = 'queued' WHERE id = ?", id)

    def finish(self, id: str, score: Score, report: str) -> None:
        """Keep a score and its report."""
        write_atomic(self.report_of(id), report.encode("utf-8", "backslashreplace"))
        short = replace(score, clip_times=[], provenance={}, evidence=Evidence([], {}, None, []))
        document = json.dumps(short.as_json(), allow_nan=False)
        self._run("UPDATE results SET state = 'done', score = ? WHERE id = ?", document, id)

    def fail(self, id: str, error: str) -> None:
        self._run("UPDATE results SET state = 'failed', error = ? WHERE id = ?", error, id)

    # --- the list ---

    def find(self, id: str) -> Result | None:
        rows = self._run("SELECT * FROM results WHERE id = ?", id)
        return _result(rows[0]) if rows else None

    def results(self) -> list[Result]:
        """Return all results, the latest first."""
        return [_result(row) for row in self._run("SELECT * FROM results ORDER BY number DESC")]

    def set_panel(self, id: str, panel: Panel) -> None:
        self._run("UPDATE results SET panel = ? WHERE id = ?", json.dumps(asdict(panel), allow_nan=False), id)


def clean_name(name: str) -> str:
    """Return a file's name as people should see it: no folders, no control characters, not too long."""
    last = re.split(r"[/\\]", name)[-1]
    visible = "".join(c for c in last if c.isprintable()).strip()
    if visible.strip(".") == "":
        return "video"
    path = Path(visible)
    return path.stem[: LONGEST_NAME - len(path.suffix[:10])] + path.suffix[:10]


def _result(row: sqlite3.Row) -> Result:
    values = {key: row[key] for key in ("id", "name", "file", "action", "uploaded", "state", "error")}
    score = None if row["score"] is None else Score.from_json(json.loads(row["score"]))
    panel = Panel() if row["panel"] is None else from_json(Panel, json.loads(row["panel"]))
    return Result(**values, score=score, panel=panel)
