"""A feature store on object storage, as one run writes it; `data.feature_store` has the store itself.

    s3://bucket/out/
      a/x.npy            features of the video a/x.mp4
      manifest.json      as on a disk
      attempts/a/x.json  a video that a run has begun and not ended
      records/a/x.json   the record of the video, because object storage cannot append to a file of records
      videos.jsonl       all records, merged when a run ends: with it, a copy of the URL is a store on a disk

Every object appears whole or not at all, and an array before its record. So a run may be killed at any moment, and the
next one, on any machine, goes on. Object storage has no locks: runs that write one URL at once must work on videos of
their own.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .feature_store import FeatureStore
from .files import WriteError, append_durable, make_folder, write_atomic
from .records import record_line
from .remote import REQUESTS_AT_ONCE, RemoteFile, list_files, naming, open_storage, read_file
from .shards import Shard


class RemoteStore(FeatureStore):
    """A feature store at a URL, for writing.

    Args:
        url: the store's URL; there need be nothing yet.
        folder: an empty folder for its manifest and records while it is written.

    Raises:
        ValueError: the URL cannot be read, or as `FeatureStore`.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url.rstrip("/")
        self._storage, self._root = open_storage(self.url)
        self._found: dict[str, RemoteFile] = {}
        """What was at the URL, by its path below it."""
        self._array_bytes: dict[str, int] = {}
        """Size of each video's array."""
        self._own: set[str] = set()
        """The videos of which this run has written a record."""
        self._begun: dict[str, tuple[dict[str, int], int]] = {}
        """The videos that this run has begun and not ended: their files' versions and the number of attempts."""
        self._list()
        make_folder(folder)
        for name in {"manifest.json", "videos.jsonl"} & self._found.keys():
            write_atomic(folder / name, read_file(self._found[name].url))
        self._attempted = {path for path in self._found if _video_of(path, "attempts") is not None}
        """The paths of the attempts at the URL."""
        write_atomic(folder / ".attempts", "\n".join(map(self._read_text, self._attempted)).encode())
        super().__init__(folder)
        self._has_unmerged = self._read_records(self._unmerged())

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._merge_new_records()
        finally:
            super().__exit__(*error)

    def open(self, manifest: Mapping[str, Any], names: Iterable[str] = (), shard: Shard | None = None) -> list[str]:
        """As `FeatureStore.open`, but without a lock for other machines, and not for shards."""
        assert shard is None, "an assignment to shards needs a file system"
        warnings = [warning.replace(str(self.folder), self.url) for warning in super().open(manifest, names)]
        with naming(self.url, "written"):
            # also if it was there: who may not write learns it before hours of work
            self._pipe("manifest.json", (self.folder / "manifest.json").read_bytes())
        if self._has_unmerged:
            self._merge_records()
        return warnings

    def begin(self, name: str, facts: Mapping[str, Any]) -> int:
        """As `FeatureStore.begin`; the attempt is at the URL when this returns."""
        attempts = super().begin(name, facts)
        self._begun[name] = {key: facts[key] for key in ("size", "mtime_ns")}, attempts
        self._put_attempts(name, *self._begun[name])
        return attempts

    def count_attempt(self, name: str, facts: Mapping[str, Any]) -> None:
        """As `FeatureStore.count_attempt`."""
        super().count_attempt(name, facts)
        self._begun.pop(name, None)  # `close` does not take it back

    def close(self) -> None:
        """As `FeatureStore.close`."""
        with suppress(WriteError):
            for name, (version, attempts) in self._begun.items():
                self._put_attempts(name, version, attempts - 1)
        self._begun.clear()
        super().close()

    def append(self, record: Mapping[str, Any]) -> None:
        """As `FeatureStore.append`; the record is at the URL when this returns."""
        self._put(f"records/{record['video']}.json", record_line(record))
        self._own.add(record["video"])
        super().append(record)
        self._begun.pop(record["video"], None)
        self._put_attempts(record["video"], {}, 0)

    def _write_array(self, path: Path, content: bytes) -> None:
        name = path.relative_to(self.folder).as_posix()
        self._put(name, content)
        self._array_bytes[name.removesuffix(".npy")] = len(content)

    def _has_array(self, name: str, record: Mapping[str, Any]) -> bool:
        return self._array_bytes.get(name) == record.get("features_bytes")

    def _has_arrays(self) -> bool:
        return bool(self._array_bytes)

    def _list(self) -> None:
        root, files = list_files(self.url)
        self._found = {file.url.removeprefix(f"{root}/"): file for file in files}
        arrays = (path for path in self._found if path.endswith(".npy"))
        self._array_bytes = {path.removesuffix(".npy"): self._found[path].size for path in arrays}

    def _unmerged(self) -> Iterator[str]:
        """The paths of the records that are newer than the merged ones, or not among them."""
        merged = self._found.get("videos.jsonl")
        for path, file in self._found.items():
            if merged is None or file.mtime_ns >= merged.mtime_ns or _video_of(path) not in self.records:
                yield path

    def _read_records(self, paths: Iterable[str]) -> bool:
        """Read the records among these paths that are not this run's own; return whether there are any."""
        urls = [
            self._found[path].url for path in paths if (video := _video_of(path)) is not None and video not in self._own
        ]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            append_durable(self.records_path, b"".join(line.strip() + b"\n" for line in pool.map(read_file, urls)))
        self._read()
        return bool(urls)

    def _put_attempts(self, name: str, version: Mapping[str, int], attempts: int) -> None:
        path = f"attempts/{name}.json"
        if attempts:
            self._put(path, record_line({"video": name, "attempts": attempts, **version}))
            self._attempted.add(path)
        elif path in self._attempted:
            with _stopping(), naming(f"{self.url}/{path}", "removed"), suppress(FileNotFoundError):
                self._storage.rm_file(f"{self._root}/{path}")
            self._attempted.discard(path)

    def _read_text(self, path: str) -> str:
        return read_file(self._found[path].url).decode(errors="replace").strip()

    def _merge_new_records(self) -> None:
        """Write all records into one object, also those that other runs have written since the start of this one."""
        before = self._found
        with _stopping():
            self._list()
            has_others = self._read_records(path for path, file in self._found.items() if file != before.get(path))
        if has_others or self._own:
            self._merge_records()

    def _merge_records(self) -> None:
        """Write all records into one object."""
        self._put("videos.jsonl", b"".join(map(record_line, self.records.values())))

    def _put(self, name: str, content: bytes) -> None:
        with _stopping(), naming(f"{self.url}/{name}", "written"):
            self._pipe(name, content)

    def _pipe(self, name: str, content: bytes) -> None:
        self._storage.pipe_file(f"{self._root}/{name}", content)


@contextmanager
def _stopping() -> Iterator[None]:
    """Let an error at the URL stop the whole run."""
    try:
        yield
    except ValueError as error:
        raise WriteError(f"{error}; the records so far stay valid, and the same command goes on") from error


def _video_of(path: str, folder: str = "records") -> str | None:
    """Return the video of which an object in a folder tells; None if it is another object."""
    is_of_video = path.startswith(f"{folder}/") and path.endswith(".json")
    return path.removeprefix(f"{folder}/").removesuffix(".json") if is_of_video else None
