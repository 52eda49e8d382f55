"""Which videos have been begun and not ended: a video that kills the program is in this file at its next start.

The file has a line of JSON for each begin and end of a video, `{"video", "attempts", "size", "mtime_ns"}`. The last one
of a video counts; 0 attempts mean that it has an outcome. A shard has a file of its own; what that says of a video
replaces what the store's says. The file is not synced to the disk: it must outlive the process, not a power cut, which
is no video's fault.
"""

import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .records import record_line
from .remote import RemoteFile
from .source_files import is_untouched

LINES = 1000
"""When the file has so many more lines than it needs, it is written anew."""


class Attempts:
    """The attempts at videos that had no outcome. Several threads may use it.

    Args:
        path: the file, which one process at a time writes.
        newer: files whose entries replace those of this file, and are written into it.
        older: a file whose entries count for videos of which this file has none.
    """

    def __init__(self, path: Path, *, newer: Iterable[Path] = (), older: Path | None = None) -> None:
        self._path = path
        self._older = {} if older is None else _read(older)
        self._attempts: dict[str, dict[str, Any]] = {}
        for file in (path, *newer):
            for entry in _read(file).values():
                self._set(entry)
        self._under_way: set[str] = set()
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = path.open("rb+" if path.exists() else "wb+", buffering=0)
        self._rewrite()

    def count(self, video: str, source: Path | RemoteFile) -> int:
        """Return how many attempts at this version of a video's file had no outcome."""
        entry = self._entry(video)
        with suppress(OSError):
            return entry["attempts"] if entry and is_untouched(entry, source) else 0
        return 0

    def begin(self, video: str, facts: Mapping[str, Any]) -> int:
        """Note that a video is begun; return which attempt at this version of its file this is, from 1."""
        version = {key: facts[key] for key in ("size", "mtime_ns")}
        with self._lock:
            before = self._entry(video)
            is_same = all(before.get(key) == value for key, value in version.items())
            entry = {"video": video, "attempts": before["attempts"] + 1 if is_same else 1, **version}
            self._set(entry)
            self._under_way.add(video)
            self._append(entry)
        return entry["attempts"]

    def leave(self, video: str) -> None:
        """Note that the attempt under way has ended without an outcome; `close` does not take it back."""
        with self._lock:
            self._under_way.discard(video)

    def end(self, video: str) -> None:
        """Note that a video has an outcome."""
        with self._lock:
            self._under_way.discard(video)
            if entry := self._entry(video):
                ended = {**entry, "attempts": 0}
                self._set(ended)
                self._append(ended)

    def close(self) -> None:
        """Take back the attempts that are under way: the program ends, and not because of them."""
        with self._lock:
            if self._file is None:
                return
            for video in self._under_way:
                entry = self._attempts[video]
                self._set({**entry, "attempts": entry["attempts"] - 1})
            with suppress(OSError):  # the disk may be full
                self._rewrite()
            self._file.close()
            self._file = None
            if not self._attempts:
                self._path.unlink()

    def _entry(self, video: str) -> Mapping[str, Any]:
        return self._attempts.get(video) or self._older.get(video, {})

    def _set(self, entry: dict[str, Any]) -> None:
        if entry["attempts"] or entry["video"] in self._older:
            self._attempts[entry["video"]] = entry
        else:
            self._attempts.pop(entry["video"], None)

    def _append(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None, "a video begins and ends before the end of the run"
        self._file.write(record_line(entry))
        self._num_lines += 1
        if self._num_lines > len(self._attempts) + LINES:
            self._rewrite()

    def _rewrite(self) -> None:
        """Write only what counts, in place, which needs no room on a full disk."""
        assert self._file is not None
        self._file.seek(0)
        self._file.write(b"".join(map(record_line, self._attempts.values())))
        self._file.truncate()
        self._num_lines = len(self._attempts)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a file of attempts holds; lines that are torn or damaged hold nothing."""
    found: dict[str, dict[str, Any]] = {}
    with suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, RecursionError, TypeError, KeyError):
                entry = json.loads(line)
                if isinstance(entry["video"], str) and isinstance(entry["attempts"], int):
                    found[entry["video"]] = entry
    return found
