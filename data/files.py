"""Durable writing: no reader, killed run or power cut ever leaves or sees a half-written file."""

import os
import secrets
from pathlib import Path

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".writing-", ".tmp"


class WriteError(Exception):
    """The disk became full, or a file or process failed, during the work; what was written before stays valid."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: the file; missing folders are created.
        content: its bytes.
    """
    make_folder(path.parent)
    temporary = temporary_in(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # before the rename, or a power cut could leave the new name with no content
        os.replace(temporary, path)
    except BaseException:  # also Ctrl-C
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_durable(path: Path, line: bytes) -> None:
    """Append to an existing file; when this returns, the line survives a power cut."""
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())  # flush hands the line to the system, fsync to the disk


def temporary_in(folder: Path, name: str = "") -> Path:
    """Return an unused path that `remove_temporaries` recognises."""
    return folder / f"{TEMPORARY_PREFIX}{name}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"


def remove_temporaries(folder: Path) -> None:
    """Remove the half-written files of killed runs in a folder and below."""
    for place, _, files in os.walk(folder):
        for name in files:
            if name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX):
                Path(place, name).unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents; each of them survives a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of new and renamed files in a folder survive a power cut (Windows has no such call)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
