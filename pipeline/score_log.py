"""The scores of a run so far, a JSON line each, so that the next run does not score unchanged videos again."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.files import append_durable, make_folder
from ..data.source_files import is_untouched, source_facts
from .verdict import Score


class ScoreLog:
    """A file of scores. A score counts while its video is unchanged and the settings are the same.

    Args:
        path: the file; None keeps nothing.
        settings: all that a score depends on beside the video.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = json.loads(json.dumps(settings))  # as they are read back
        self._entries: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        make_folder(path.parent)
        path.touch()
        content = path.read_bytes()
        for line in content.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a line that a kill tore is scored again
                entry = json.loads(line)
                self._entries[entry["name"]] = entry
        if content and not content.endswith(b"\n"):
            append_durable(path, b"\n")

    def find(self, name: str, video: Path, action: str | None) -> Score | None:
        """Return the score of an unchanged video, if it is there.

        Args:
            name: the routine's name; only its last score counts, because its report is that of the last score.
            video: its file.
            action: what the judges' labels say that it shows.
        """
        entry = self._entries.get(name)
        if entry is None or entry.get("settings") != self._settings or entry.get("action") != action:
            return None
        if entry.get("source") != str(video.absolute()):
            return None
        with suppress(OSError, KeyError, TypeError, ValueError):
            if is_untouched(entry, video) or source_facts(video)["sha256"] == entry["sha256"]:
                return Score.from_json(entry["score"])
        return None

    def add(self, name: str, video: Path, action: str | None, score: Score) -> None:
        """Keep a score; when this returns, it survives a power cut. Arguments as of `find`."""
        if self._path is None:
            return
        about = {"name": name, "action": action, "settings": self._settings}
        entry = {**source_facts(video), **about, "score": score.as_json()}
        append_durable(self._path, json.dumps(entry, allow_nan=False).encode() + b"\n")
