"""Which version of a video features were made from: the size, time and content of a file, or of a folder's files."""

import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from .remote import RemoteFile, find_file, is_url


def file_sha256(path: Path) -> str:
    """Return a file's sha256, read in pieces.

    Raises:
        ValueError: the file is a pipe or a device, which may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_sha256(source: Path) -> str:
    """Return the sha256 of a video file; for a folder of frames, that of its files' names and hashes.

    Raises:
        ValueError: a file is a pipe or a device.
    """
    if not source.is_dir():
        return file_sha256(source)
    lines = (f"{file_sha256(file)} {file.name}\n" for file in _files(source))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def source_facts(source: Path | RemoteFile) -> dict[str, Any]:
    """Return the facts of a video for its record: path, size in bytes, modification time, content hash.

    Those of a remote file are without its hash, which only its copy tells.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is a pipe or a device.
    """
    if isinstance(source, RemoteFile):
        return source.facts
    size, mtime_ns = source_version(source)
    sha256 = _sha256_of_version(source, size, mtime_ns)
    return {"source": str(source.absolute()), "size": size, "mtime_ns": mtime_ns, "sha256": sha256}


def source_version(source: Path) -> tuple[int, int]:
    """Return a video's size in bytes and modification time in ns; of a folder, the sum and the latest of its files.

    Raises:
        OSError: a file cannot be looked at.
    """
    own = source.stat()
    if not source.is_dir():
        return own.st_size, own.st_mtime_ns
    facts = [file.stat() for file in _files(source)]
    return sum(one.st_size for one in facts), max(one.st_mtime_ns for one in (own, *facts))


def source_size(source: Path | RemoteFile) -> int:
    """Return the size of a video in bytes; 0 if it cannot be looked at."""
    if isinstance(source, RemoteFile):
        return source.size
    with suppress(OSError):
        return source_version(source)[0]
    return 0


def is_untouched(record: Mapping[str, Any], source: Path | RemoteFile) -> bool:
    """Return whether a video has the size and modification time of a record, or on object storage the version."""
    if isinstance(source, RemoteFile):
        key = "version" if "version" in record else "mtime_ns"
        return (record.get("size"), record.get(key)) == (source.size, source.facts[key])
    return (record.get("size"), record.get("mtime_ns")) == source_version(source)


def is_other_video(record: Mapping[str, Any], source: Path | RemoteFile) -> bool:
    """Return whether a record is of another video than this one, which still exists.

    If one of the two is remote, only their sizes are compared, because content would be downloaded for it.
    """
    recorded = record["source"]
    if isinstance(source, RemoteFile) or is_url(recorded):
        if recorded == str(source) or record.get("size") == source_size(source):
            return False
        return _exists(recorded)
    if recorded == str(source.absolute()) or not (os.path.exists(recorded) and source.exists()):
        return False
    return not os.path.samefile(recorded, source) and source_sha256(Path(recorded)) != source_sha256(source)


@lru_cache(
    maxsize=2**14
)  # a touched or changed file is hashed once, though its status and its record both need the hash
def _sha256_of_version(source: Path, size: int, mtime_ns: int) -> str:
    return source_sha256(source)


def _exists(source: str) -> bool:
    if not is_url(source):
        return os.path.exists(source)
    with suppress(ValueError):  # what cannot be asked for any more counts as gone
        return find_file(source) is not None
    return False


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
