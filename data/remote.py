"""Files on object storage, named by URL and read through fsspec: `s3://bucket/videos/x.mp4`.

Decoders need files on a disk. A file is therefore copied to a scratch folder when it is about to be read, and removed
when it has been read for the last time.
"""

import hashlib
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .lock import Lock, LockedError

PIECE_BYTES = 8 * 2**20
"""Read at once, in one request."""
LOOK_UPS_AT_ONCE = 32
SCRATCH_PREFIX = "cofinal-scratch-"
VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "created")
"""What storage systems say of a file's version; the first one that is there counts."""


def is_url(address: object) -> bool:
    """Whether an address is a URL. `file://` URLs are not: `local_address` makes paths of them."""
    return re.match("(?!file:|local:)[a-zA-Z][a-zA-Z0-9+.-]+://", str(address)) is not None


def local_address(address: str | Path) -> str | Path:
    """Return the path that a `file://` URL means; any other address as it is."""
    return re.sub("^(file|local)://", "", str(address)) if re.match("(file|local)://", str(address)) else address


@dataclass(frozen=True)
class RemoteFile:
    """A file as it was when its folder was listed."""

    url: str
    size: int
    """Bytes."""
    version: str
    """The ETag, or else the time of the last change; empty if the storage says neither."""

    def __str__(self) -> str:
        return self.url

    @property
    def folder(self) -> str:
        """The URL of the file's folder."""
        return self.url.rpartition("/")[0]


def open_storage(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, which reads its credentials and settings itself, and the path in it.

    Raises:
        ValueError: the protocol is unknown, or a package for it is not installed.
    """
    try:
        import fsspec

        # without a cache: whether a file has changed is asked again before it is read
        file_system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url} cannot be opened ({error}); for s3:// run pip install 'cofinal[remote]'") from error
    return file_system, path


@contextmanager
def naming(url: str, action: str) -> Iterator[None]:
    """Raise any error of a storage system as a ValueError that names the URL.

    Args:
        url: what is worked on.
        action: `read`, `written` or the like.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{url} cannot be {action}: it or its bucket does not exist; check the address") from error
    except Exception as error:  # storage libraries have exceptions of their own, of any base class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{url} cannot be {action} ({reason}); check address, credentials and network") from error


def as_remote_file(file_system: Any, info: Mapping[str, Any]) -> RemoteFile:
    """Return the file that an entry of a listing describes."""
    found = next((info[key] for key in VERSION_KEYS if info.get(key)), "")
    version = found.timestamp() if hasattr(found, "timestamp") else found  # one form for listings and single files
    return RemoteFile(file_system.unstrip_protocol(info["name"]), int(info["size"] or 0), str(version))


def list_files(url: str) -> tuple[str, list[RemoteFile]]:
    """Return a folder's URL in the storage's own form, and all files below it.

    Raises:
        ValueError: it cannot be read.
    """
    file_system, path = open_storage(url)
    with naming(url, "read"):
        found = file_system.find(path, detail=True).values()
    return file_system.unstrip_protocol(path).rstrip("/"), [as_remote_file(file_system, info) for info in found]


def look_up(urls: Sequence[str]) -> list[RemoteFile | None]:
    """Return the file at each URL; None where there is none.

    Raises:
        ValueError: a URL cannot be read.
    """
    with ThreadPoolExecutor(LOOK_UPS_AT_ONCE) as pool:
        return list(pool.map(_look_up, urls))


def _look_up(url: str) -> RemoteFile | None:
    file_system, path = open_storage(url)
    with naming(url, "read"):
        try:
            info = file_system.info(path)
        except FileNotFoundError:
            return None
        return as_remote_file(file_system, info) if info["type"] == "file" else None


def read_file(url: str) -> bytes:
    """Return the content of a small file.

    Raises:
        ValueError: it cannot be read.
    """
    file_system, path = open_storage(url)
    with naming(url, "read"):
        return file_system.cat_file(path)


class Scratch:
    """A folder for copies of remote files. It is made on first use, and removed by `close` or the end of a `with`.

    It lies in the folder for temporary files (`TMPDIR`). What killed runs left there is removed first.
    """

    def __init__(self) -> None:
        self.num_reads: Counter[RemoteFile] = Counter()
        """How often each file will still be read; its copy goes after the last time."""
        self._copies: dict[RemoteFile, dict[str, Any]] = {}
        self._copying: dict[RemoteFile, threading.Lock] = {}
        self._guard, self._stopped = threading.Lock(), threading.Event()

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
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
        return re.sub(f"{re.escape(str(self.folder))}/([^/ ]+)/", r"\1://", text) if self._is_made else text

    def fetch(self, file: RemoteFile) -> dict[str, Any]:
        """Copy a file to its place, unless its copy is there.

        Returns:
            Facts of the file for the record of its video: source, size in bytes, version, content hash.

        Raises:
            ValueError: the file cannot be read, has changed since it was listed, or does not fit on the disk.
        """
        with self._guard:
            copying = self._copying.setdefault(file, threading.Lock())
        with copying:  # one reader copies, others of the same file wait for it
            if file not in self._copies:
                sha256 = self._copy(file)
                self._copies[file] = {"source": file.url, "size": file.size, "version": file.version, "sha256": sha256}
            return self._copies[file]

    def release(self, file: RemoteFile) -> None:
        """Count that a file has been read once; its copy is removed after the last time."""
        with self._guard:
            self.num_reads[file] -= 1
            if self.num_reads[file] <= 0:
                self._copies.pop(file, None)
                self.path_of(file.url).unlink(missing_ok=True)

    def stop(self) -> None:
        """End copying in other threads."""
        self._stopped.set()

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
        with naming(file.url, "read"):
            file_system, path = open_storage(file.url)
            if as_remote_file(file_system, file_system.info(path)) != file:
                raise ValueError("it has changed since this run began")
            with file_system.open(path, "rb", cache_type="none") as opened:
                while not self._stopped.is_set() and (piece := opened.read(PIECE_BYTES)):
                    yield piece


def _remove_leftovers() -> None:
    """Remove the scratch folders of killed runs: those that no process holds locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        if not (folder / ".lock").exists():
            continue  # it is just being made
        lock = Lock(folder / ".lock")
        with suppress(LockedError, OSError):  # in use, or another user's
            if lock.acquire():
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()
