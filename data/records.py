"""The record files of a feature store: one JSON object a line, the last line of a video counts.

A file has one writer at a time, which appends to it. A line that a kill tore is ignored; the next writer drops it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import append_durable, sync_folder, write_atomic


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the number, from 1, of each line of a file, and its record; None for one that is torn or damaged.

    A missing file has none.
    """
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with file:
        for number, line in enumerate(file, start=1):
            yield number, _parse_record(line)


def record_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of a file."""
    return json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file; when this returns, it survives a power cut."""
    append_durable(path, record_line(record))


def mend_records(path: Path, others: list[Path], *, is_damaged: bool) -> None:
    """Create a file of records if it is missing, and add the records of other files at its end.

    Args:
        path: the file.
        others: the files whose records are added.
        is_damaged: drop lines that are no records.
    """
    if not path.exists():
        path.touch()
        sync_folder(path.parent)  # appending syncs the content only, not the file's name in the folder
    content = [one.read_bytes() for one in (path, *others)]
    # a missing last line end counts as damage too, or the next record would continue that line
    if is_damaged or others or (content[0] and not content[0].endswith(b"\n")):
        lines = [line + b"\n" for line in b"\n".join(content).split(b"\n") if _parse_record(line)]
        write_atomic(path, b"".join(lines))


def is_success(record: Mapping[str, Any]) -> bool:
    """Return whether a record says that features were written."""
    return "error" not in record and "replaced" not in record


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, or None if the line is torn by a kill, damaged, or not of this program."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        return None
    kinds: dict[str, type] = {"size": int, "mtime_ns": int, "sha256": str} if is_success(record) else {}
    is_valid = all(isinstance(record.get(key), kind) for key, kind in kinds.items())
    return record if is_valid and isinstance(record.get("source", ""), str) else None
