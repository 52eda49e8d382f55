"""Durable writing: no reader, killed run or power cut ever leaves or sees a half-written file."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".writing-", ".tmp"


class WriteError(Exception):
    """The disk became full, or a file or process failed, during the work; what was written before stays valid."""


def write_atomic(path: Path, content: bytes, writer: str = "") -> None:
    """Write a file whole or not at all.

    Args:
        path: the file; missing folders are created.
        content: its bytes.
        writer: one of several processes that write to the folder at once; for `remove_temporaries`.
    """
    with _written(path, content, writer) as temporary:
        os.replace(temporary, path)


def write_once(path: Path, content: bytes, writer: str = "") -> bool:
    """Write a file whole, unless it exists: of several processes on several hosts only one succeeds.

    Args:
        path: the file; missing folders are created.
        content: its bytes.
        writer: as in `write_atomic`.

    Returns:
        Whether this call has written it.

    Raises:
        ValueError: the file system has no hard links.
    """
    with _written(path, content, writer) as temporary:
        try:
            os.link(temporary, path)  # fails if there is such a file, also on network file systems
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise ValueError(
                f"{path} cannot be written so that no two processes do ({error.strerror}): the file system must have "
                "hard links for --shard; run without it"
            ) from error


@contextmanager
def _written(path: Path, content: bytes, writer: str) -> Iterator[Path]:
    """Write a temporary file beside a path, which is removed at the end if it is still there."""
    make_folder(path.parent)
    temporary = temporary_in(path.parent, writer)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # before the rename, or a power cut could leave the new name with no content
        yield temporary
    finally:  # also after Ctrl-C
        temporary.unlink(missing_ok=True)
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


def remove_temporaries(folder: Path, writer: str = "") -> None:
    """Remove the half-written files of killed runs in a folder and below; with `writer`, those of this one only."""
    for place, _, files in os.walk(folder):
        for name in files:
            if name.startswith(TEMPORARY_PREFIX + writer) and name.endswith(TEMPORARY_SUFFIX):
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
