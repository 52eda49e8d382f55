"""A lock on a folder. One process holds it, or several share it; it ends with the process, also if that is killed.

It is the operating system's lock on an open file (`flock`, which Linux passes on to an NFS server; `msvcrt.locking` on
Windows), so a killed run leaves no lock behind. The lock file names a holder that is alone. It is never removed while
somebody may want it: otherwise one process could lock the removed file and another a new one, and both would write.
"""

import errno
import json
import os
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of a file system without locks."""
LOCKED_BYTE = 1 << 30
"""Windows locks bytes, also against reading, so the locked byte is far behind the holder's name."""


class LockedError(ValueError):
    """Another process holds the lock."""


class Lock:
    """A lock that is not held yet.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_by: str | None = None
        """A process on another host that held the lock before and did not release it; it may have been killed."""
        self._file: IO[bytes] | None = None

    def acquire(self, *, shared: bool = False) -> bool:
        """Take the lock, or fail at once.

        Args:
            shared: let others share it, and nobody hold it alone.

        Returns:
            False if the file system has no locks, so that two runs at once would not be noticed.

        Raises:
            LockedError: another process holds the lock; the message names the process, its host and since when.
            ValueError: a shared lock on Windows, which has none.
            OSError: the lock file cannot be written.
        """
        # opened without truncation: until the lock is ours, the file holds another process's name
        file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "rb+", buffering=0)
        try:
            _lock(file, shared)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise LockedError(holder_of(self.path) or "another process") from error
            file.close()
            return False
        self._file = file
        before = _read_holder(file.read(1000))
        file.truncate(0)
        if shared:
            return True
        if before is not None and before["host"] != socket.gethostname():
            self.left_by = _describe(before)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        file.seek(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()  # which releases the lock
            self._file = None


def holder_of(path: Path) -> str | None:
    """Return the process that a lock file names: it holds the lock, or was killed while it did."""
    holder = _read_holder(path.read_bytes()[:1000])
    return None if holder is None else _describe(holder)


def _lock(file: IO[bytes], shared: bool) -> None:
    if sys.platform == "win32":
        if shared:
            raise ValueError("several shards cannot write one store on Windows; run without --shard")
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _read_holder(content: bytes) -> dict[str, Any] | None:
    """Return the holder that a lock file names; None if it is released, or if the name is not written yet."""
    try:
        holder = json.loads(content)
        return {key: holder[key] for key in ("pid", "host", "since")}
    except (ValueError, KeyError, TypeError):
        return None


def _describe(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
