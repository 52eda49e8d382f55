"""Which videos have been begun and not ended: a video that kills the program is in this file at its next start.

The file holds one line of JSON, `{video: {"attempts", "size", "mtime_ns"}}`, which is written anew in place whenever a
video begins or ends. It is not synced to the disk: it must outlive the process, not a power cut, which is no video's
fault.
"""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .remote import RemoteFile
from .source_files import is_untouched


class Attempts:
    """The attempts at videos that had no outcome. Several threads may use it.

    Args:
        path: the file, which one process at a time writes.
        others: files whose attempts count too.
    """

    def __init__(self, path: Path, others: list[Path]) -> None:
        self._path = path
        self._attempts: dict[str, dict[str, int]] = {}
        for file in (path, *others):
            for video, one in _read(file).items():
                if one["attempts"] > self._attempts.get(video, one | {"attempts": 0})["attempts"]:
                    self._attempts[video] = one
        self._under_way: set[str] = set()
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = path.open("rb+" if path.exists() else "wb+", buffering=0)
        self._write()

    def count(self, video: str, source: Path | RemoteFile) -> int:
        """Return how many attempts at this version of a video's file had no outcome."""
        record = self._attempts.get(video)
        with suppress(OSError):
            return record["attempts"] if record is not None and is_untouched(record, source) else 0
        return 0

    def begin(self, video: str, facts: Mapping[str, Any]) -> int:
        """Note that a video is begun; return which attempt at this version of its file this is, from 1."""
        version = {key: facts[key] for key in ("size", "mtime_ns")}
        with self._lock:
            before = self._attempts.get(video, {})
            is_same = all(before.get(key) == value for key, value in version.items())
            attempts = before["attempts"] + 1 if is_same else 1
            self._attempts[video] = {"attempts": attempts, **version}
            self._under_way.add(video)
            self._write()
        return attempts

    def leave(self, video: str) -> None:
        """Note that the attempt under way has ended without an outcome; `close` does not take it back."""
        with self._lock:
            self._under_way.discard(video)

    def end(self, video: str) -> None:
        """Note that a video has an outcome."""
        with self._lock:
            if self._attempts.pop(video, None) is not None:
                self._under_way.discard(video)
                self._write()

    def close(self) -> None:
        """Take back the attempts that are under way: the program ends, and not because of them."""
        with self._lock:
            if self._file is None:
                return
            for video in self._under_way:
                self._attempts[video]["attempts"] -= 1
            self._attempts = {video: one for video, one in self._attempts.items() if one["attempts"]}
            with suppress(OSError):  # the disk may be full
                self._write()
            self._file.close()
            self._file = None
            if not self._attempts:
                self._path.unlink()

    def _write(self) -> None:
        assert self._file is not None, "a video begins and ends before the end of the run"
        self._file.seek(0)
        # in one call, so that a kill leaves the old line or the new one; what follows the line does not count
        self._file.write(json.dumps(self._attempts).encode() + b"\n")


def _read(path: Path) -> dict[str, dict[str, int]]:
    """Return what a file of attempts holds; nothing if it is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError, AttributeError, TypeError):
        found = json.loads(path.read_bytes().partition(b"\n")[0])
        keys = ("attempts", "size", "mtime_ns")
        return {video: one for video, one in found.items() if all(isinstance(one.get(key), int) for key in keys)}
    return {}
