"""A scratch folder for copies of remote files, because decoders need files on a disk.

A file is copied when it is about to be read, and its copy is removed when it has been read for the last time.
"""

import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from .files import WriteError
from .lock import Lock, LockedError
from .remote import RemoteFile, find_file, naming, open_storage

PIECE_BYTES = 8 * 2**20
"""Read at once, in one request."""
SCRATCH_PREFIX = f"cofinal-scratch-{socket.gethostname()}-"


class Scratch:
    """A folder for copies of remote files. It is made on first use, and removed by `close` or the end of a `with`.

    It lies in the folder for temporary files (`TMPDIR`). What killed runs left there is removed first. An error that
    leaves the `with` names URLs in place of the paths of their copies.
    """

    def __init__(self) -> None:
        self.num_reads: Counter[RemoteFile] = Counter()
        """How often each file will still be read; its copy goes after the last time."""
        self._copies: dict[RemoteFile, dict[str, Any]] = {}
        self._copying: dict[RemoteFile, threading.Lock] = {}
        self._guard, self._stopped = threading.Lock(), threading.Event()

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._is_made and isinstance(error, ValueError | WriteError):
            error.args = (self.with_urls(str(error)),)
        self.close()

    @cached_property
    def folder(self) -> Path:
        """The folder."""
        _remove_leftovers()
        while True:
            folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
            self._lock = Lock(folder / ".lock")
            with suppress(LockedError):  # another run takes the new folder for a leftover
                self._lock.acquire()
                return folder

    def path_of(self, url: str) -> Path:
        """Return the place of a URL's copy: `s3/bucket/videos/x.mp4` in the folder.

        Raises:
            ValueError: a part of the URL cannot be the name of a file or folder.
        """
        scheme, _, rest = url.partition("://")
        parts = rest.removeprefix("/").split("/")
        if {"", ".", ".."} & set(parts):
            raise ValueError(f"{url} has an empty part, '.' or '..' between its slashes; give the file another name")
        return self.folder.joinpath(scheme, *parts)

    def with_urls(self, text: str) -> str:
        """Return a message with URLs in place of the paths of copies."""
        return re.sub(rf"{re.escape(str(self.folder))}/([\w+.-]+)/", r"\1://", text) if self._is_made else text

    def fetch(self, file: RemoteFile) -> dict[str, Any]:
        """Copy a file to its place, unless its copy is there.

        Returns:
            The file's facts for the record of its video, with the content hash.

        Raises:
            ValueError: the file cannot be read, has changed since it was listed, or does not fit on the disk.
        """
        with self._guard:
            copying = self._copying.setdefault(file, threading.Lock())
        with copying:  # one reader copies, others of the same file wait for it
            if file not in self._copies:
                self._copies[file] = file.facts | {"sha256": self._copy(file)}
            return self._copies[file]

    def release(self, file: RemoteFile) -> None:
        """Count that a file has been read once; its copy is removed after the last time."""
        with self._guard:
            self.num_reads[file] -= 1
            if self.num_reads[file] <= 0:
                self._copies.pop(file, None)
                self.path_of(file.url).unlink(missing_ok=True)

    @contextmanager
    def stopped_by_errors(self) -> Iterator[None]:
        """End copying in other threads if an error or Ctrl-C ends the `with`."""
        try:
            yield
        except BaseException:
            self._stopped.set()
            raise

    def close(self) -> None:
        """Remove the folder."""
        if self._is_made:
            self._lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _is_made(self) -> bool:
        return "folder" in vars(self)

    def _copy(self, file: RemoteFile) -> str:
        """Copy a file; return its sha256."""
        path, digest = self.path_of(file.url), hashlib.sha256()
        if (free := shutil.disk_usage(self.folder).free) < file.size:
            raise ValueError(
                f"{file} has {file.size / 2**20:,.0f} MiB, and {tempfile.gettempdir()} has {free / 2**20:,.0f} MiB "
                "free for its copy; make room there, or set TMPDIR to another folder"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as copy:
                for piece in self._pieces(file):
                    copy.write(piece)
                    digest.update(piece)
        except OSError as error:
            raise ValueError(
                f"{file} cannot be copied to {tempfile.gettempdir()} ({error.strerror}); make room there, or set "
                "TMPDIR to another folder"
            ) from error
        if (size := path.stat().st_size) != file.size:
            raise ValueError(
                f"{file} broke off after {size} of {file.size} bytes; run the same command again to try once more"
            )
        return digest.hexdigest()

    def _pieces(self, file: RemoteFile) -> Iterator[bytes]:
        if (now := find_file(file.url)) != file:
            what = "changed" if now else "been deleted"
            raise ValueError(
                f"{file} has {what} since this run began; run the same command again for what is there now"
            )
        file_system, path = open_storage(file.url)
        with naming(file.url, "read"), file_system.open(path, "rb", cache_type="none") as opened:
            while not self._stopped.is_set() and (piece := opened.read(PIECE_BYTES)):
                yield piece


def _remove_leftovers() -> None:
    """Remove the scratch folders of this user's killed runs on this machine: those that no process holds locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        with suppress(LockedError, OSError):  # in use, or removed by another run meanwhile
            is_own = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            lock = Lock(folder / ".lock")
            if is_own and lock.path.exists() and lock.acquire():
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()
