"""Writing files so that neither a reader nor a run killed at any moment, nor a power cut, meets a half-written one."""

import os
import secrets
from pathlib import Path

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".writing-", ".tmp"


class WriteError(Exception):
    """The disk is full or failed while work was going on: what was written before stays good."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file beside it, fsync, rename, fsync of the folder.

    Args:
        path: where the file shall appear; missing folders are made.
        content: its bytes.
    """
    make_folder(path.parent)
    temporary = temporary_in(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_durable(path: Path, line: bytes) -> None:
    """Append to a file that exists; when this returns, the line survives a power cut."""
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def temporary_in(folder: Path, name: str = "") -> Path:
    """Return a path that no other file has and that `remove_temporaries` knows."""
    return folder / f"{TEMPORARY_PREFIX}{name}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"


def remove_temporaries(folder: Path) -> None:
    """Remove what killed runs left half-written in a folder and below."""
    for place, _, files in os.walk(folder):
        for name in files:
            if name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX):
                Path(place, name).unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each so that it survives a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut (POSIX only; Windows has no such call)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
