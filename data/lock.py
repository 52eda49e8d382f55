"""A lock on a folder. One process holds it, and it ends with that process, also if the process is killed.

It is the operating system's lock on an open file (`flock`; `msvcrt.locking` on Windows), so a killed run leaves no lock
behind. The lock file names the holder. It is never removed: otherwise one process could lock the removed file and
another a new one, and both would write.
"""

import errno
import json
import os
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import IO

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
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock, or fail at once.

        Returns:
            False if the file system has no locks, so that two runs at once would not be noticed.

        Raises:
            LockedError: another process holds the lock; the message names the process, its host and since when.
            OSError: the lock file cannot be written.
        """
        # opened without truncation: until the lock is ours, the file holds another process's name
        file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "rb+", buffering=0)
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                holder = _holder(file)
                file.close()
                raise LockedError(holder) from error
            file.close()
            return False
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
        self._file = file
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()  # which releases the lock
            self._file = None


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read(1000))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # the holder has not written its name yet
        return "another process"
