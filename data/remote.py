"""Files on object storage, named by URL and read through fsspec: `s3://bucket/videos/x.mp4`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

REQUESTS_AT_ONCE = 32
TAG_KEYS, TIME_KEYS = ("ETag", "etag"), ("mtime", "LastModified", "last_modified", "created")
"""What storage systems call a file's version and the time of its last change."""


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
    mtime_ns: int = field(compare=False)
    """Time of the last change, which listings and single files may state with different precision; 0 if unknown."""

    def __str__(self) -> str:
        return self.url

    @property
    def facts(self) -> dict[str, Any]:
        """What a video's record says of it."""
        return {"source": self.url, "size": self.size, "mtime_ns": self.mtime_ns, "version": self.version}

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
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{url} cannot be {action} ({reason}); check address, credentials and network") from error


def as_remote_file(file_system: Any, info: Mapping[str, Any]) -> RemoteFile:
    """Return the file that an entry of a listing describes."""
    times = [one.timestamp() if isinstance(one, datetime) else one for one in map(info.get, TIME_KEYS)]
    mtime_ns = next((round(1e9 * time) for time in times if isinstance(time, int | float)), 0)
    version = next((str(info[key]) for key in TAG_KEYS if info.get(key)), str(mtime_ns or ""))
    return RemoteFile(file_system.unstrip_protocol(info["name"]), int(info["size"] or 0), version, mtime_ns)


def list_files(url: str) -> tuple[str, list[RemoteFile]]:
    """Return a folder's URL in the storage's own form, and all files below it.

    Raises:
        ValueError: it cannot be read.
    """
    file_system, path = open_storage(url)
    with naming(url, "read"):
        found = file_system.find(path, detail=True).values()
    return file_system.unstrip_protocol(path).rstrip("/"), [as_remote_file(file_system, info) for info in found]


def find_files(urls: Sequence[str]) -> list[RemoteFile | None]:
    """Return the file at each URL; None where there is none.

    Raises:
        ValueError: a URL cannot be read.
    """
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(find_file, urls))


def find_file(url: str) -> RemoteFile | None:
    """Return the file at a URL; None if there is none.

    Raises:
        ValueError: the URL cannot be read.
    """
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
