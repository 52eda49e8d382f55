"""The feature store: a folder with one `<video name>.npy` per video, `(clips, C)`, and a record of how each was made.

    out/
      a/x.npy          features of the video a/x.mp4, float32 or float16
      manifest.json    format, identity (backbone, recipe, weights' sha256), precision, versions, source folder
      videos.jsonl     one line for each outcome of a video, appended; the last line of a video counts
      .lock            the process that is writing to the store; empty when there is none
      .attempts        during a run, and after one that was killed: the videos that it had begun
      shards/          the same of each shard, where several processes share the videos (`data.shards`)

A folder of `.npy` files downloaded from elsewhere is a store too, without a manifest and of unknown identity.

A run may be killed at any moment and still leaves a valid store. Arrays and the manifest appear whole or not at all. An
array is written before its record, and a record torn by a kill is ignored, so the next run extracts that video again.
One run at a time writes, or several shards, each its own videos. Reading needs no lock. Arrays are read as plain
numbers, never unpickled.
"""

import errno
import hashlib
import io
import os
import random
import stat
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import load_features
from .attempts import Attempts
from .files import WriteError, make_folder, remove_temporaries, temporary_in, write_atomic, write_once
from .lock import LockedError
from .manifest import IDENTITY_KEYS, describe_identity, manifest_bytes, read_manifest
from .records import append_record, is_success, mend_records, read_records
from .remote import RemoteFile
from .shards import Assignment, Shard, own_files, remove_shards, shard_files
from .source_files import is_other_video, is_untouched, source_facts, source_size
from .store_locks import StoreLocks

MAX_ATTEMPTS = 3
"""A video whose extraction has ended the program so many times is given up."""
PATIENCE_S = 60
"""How long a shard tries to share the store: shards of a new count refuse each other when they start together."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Errors of the disk, which stop the whole run. Any other error of writing an array concerns that array's name only."""


class Status(Enum):
    """What a store holds of a video file."""

    DONE = "done"
    """Its features, made from the file as it is now."""
    FAILED = "failed"
    """The record of a failure that was the file's fault, and the file has not changed since."""
    TO_DO = "to do"
    """Nothing that is still valid."""


class FeatureStore:
    """A folder of clip features.

    A new object can read. `open` makes it ready to write and locks the folder, or a shard of it; `close`, or the end of
    a `with` statement, unlocks it.

    Args:
        folder: the store's folder; it need not exist yet.

    Raises:
        ValueError: the manifest was not written by this program or has a later format, or one of the store's own files
            is a link or a device, through which something outside the store would be read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.locks = StoreLocks(self.folder)
        self.manifest: dict[str, Any] | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self.unreadable_lines: list[tuple[Path, int]] = []
        """The lines that are not valid records: file, and number from 1."""
        self._shard: Shard | None = None
        self._attempts: Attempts | None = None
        """Of an open store."""
        self._inside: dict[Path, bool] = {}
        self._read()

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> dict[str, str] | None:
        """Backbone, recipe and weights of the features; None for a folder without a manifest."""
        return {key: self.manifest[key] for key in IDENTITY_KEYS} if self.manifest else None

    @property
    def records_path(self) -> Path:
        """The file to which records are appended."""
        return self.folder / (f"shards/{self._shard.stem}.jsonl" if self._shard else "videos.jsonl")

    def names(self) -> list[str]:
        """Return the names of all features in the folder and below, sorted: `a/x` for `a/x.npy`.

        An array whose video failed later, in a changed version of its file, is left out.
        """
        paths = self.folder.rglob("*.npy")
        names = (path.relative_to(self.folder).as_posix().removesuffix(".npy") for path in paths)
        return sorted(name for name in names if name not in self.records or is_success(self.records[name]))

    def open(self, manifest: Mapping[str, Any], names: Iterable[str] = (), shard: Shard | None = None) -> list[str]:
        """Make the folder a store of this identity, or continue such a store, and lock it against other writers.

        Half-written files of a killed run are removed. Without a shard, what shards have left is merged.

        Args:
            manifest: the identity's three keys and other facts to record.
            names: names of the videos to come, to check that the file system can tell them apart.
            shard: share the store with the other shards of the same count; None to have it alone.

        Returns:
            Warnings: one for each recorded fact (precision, engine, versions) that differs from the store's, and those
            about locks.

        Raises:
            ValueError: the store has another identity, holds features of unknown origin, is being written by another
                run, or is on a file system where two of the names would be the same file.
            OSError: the folder cannot be written.
        """
        self._refuse_another(manifest)
        make_folder(self.folder)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"{self.folder} is not writable; choose another folder or change its rights")
        self._shard = shard
        try:
            warnings = self._acquire(shard)
            self._read()  # again, because another run may have written between __init__ and the lock
            self._refuse_another(manifest)
            self._refuse_twins(names)
            remove_temporaries(self.folder, shard.stem if shard else "")
            self._write_manifest(manifest)
            if shard is None:
                self._begin_alone()
            else:
                self._begin_shard(shard)
        except LockedError as holder:
            self.close()
            raise LockedError(
                f"{self.folder} is being written by another run ({holder}); wait for it to end, or extract into "
                "another folder"
            ) from None
        except BaseException:  # also Ctrl-C: the lock must not outlive this call
            self.close()
            raise
        assert self.manifest is not None
        return warnings + [
            f"{self.folder} was begun with {key} {self.manifest[key]!r}, this run has {value!r}"
            for key, value in manifest.items()
            if key in ("precision", "engine", "versions") and self.manifest.get(key, value) != value
        ]

    def close(self) -> None:
        """Unlock the store for other writers; videos that are under way count as not begun."""
        if self._attempts is not None:
            self._attempts.close()
            self._attempts = None
        self.locks.release()

    def assign(self, videos: Mapping[str, Path | RemoteFile], done: Collection[str]) -> tuple[set[str], list[int]]:
        """Return which of the videos belong to the shard of this open store, and the bytes of all shards' videos.

        Args:
            videos: the files of all shards' videos, by a name that does not change.
            done: the names of those with which nothing is left to do, so that what is left is balanced.
        """
        assert self._shard is not None, "the store is opened for a shard"
        assignment = Assignment(self._shards)
        new = {name: source_size(path) for name, path in videos.items() if name not in assignment.shard_of}
        assignment.add(new, self._shard, last=done)
        return {name for name in videos if assignment.shard_of[name] == self._shard.index}, assignment.loads

    def begin(self, name: str, facts: Mapping[str, Any]) -> int:
        """Note that a video is begun, so that a video that ends the program is known at the next start.

        `write` and `append` note its end, and `close` takes it back. It may be called from any thread.

        Args:
            name: the video.
            facts: `size` and `mtime_ns` of its file.

        Returns:
            Which attempt this is, from 1; `MAX_ATTEMPTS` is the last one that makes sense.

        Raises:
            WriteError: the disk is full or failed.
        """
        assert self._attempts is not None, "a store is opened before a video is begun"
        try:
            return self._attempts.begin(name, facts)
        except OSError as error:
            raise self._disk_failed(error) from error

    def count_attempt(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note an attempt at a video that has ended without an outcome, in another process than this one."""
        self.begin(name, facts)
        assert self._attempts is not None, "it was begun"
        self._attempts.leave(name)

    def attempts(self, name: str, source: Path | RemoteFile) -> int:
        """Return how many times a video was begun, in this version of its file, without an outcome."""
        assert self._attempts is not None, "only an open store knows the attempts"
        return self._attempts.count(name, source)

    def status(self, name: str, source: Path | RemoteFile) -> Status:
        """Return whether a video is done, has failed or is to do. Nothing is written.

        A file with the recorded size and modification time counts as unchanged. Otherwise a done video's content hash
        decides, which takes as long as reading the file. A remote file is unchanged if its size and version are.
        """
        record = self.records.get(name)
        if record is None:
            return Status.TO_DO
        try:
            if is_success(record):
                done = self._has_array(name, record) and (
                    is_untouched(record, source) or source_facts(source).get("sha256") == record["sha256"]
                )
                return Status.DONE if done else Status.TO_DO
            # "unusable" marks failures that are the file's fault; others, such as a full disk, may not happen again
            return Status.FAILED if record.get("unusable") and is_untouched(record, source) else Status.TO_DO
        except (OSError, ValueError):
            return Status.TO_DO  # the source cannot be read; the extraction will report why

    def update_source_facts(self, name: str, source: Path | RemoteFile) -> None:
        """Record the size and modification time of a done video's file if they changed while its content did not.

        The next run then need not hash the file again.
        """
        record = self.records[name]
        with suppress(OSError, ValueError):  # the file may have gone since its status was asked
            facts = {} if is_untouched(record, source) else source_facts(source)
            if facts.get("sha256") == record["sha256"]:
                self.append({**record, **facts})

    def refuse_other_sources(self, sources: Mapping[str, Path | RemoteFile]) -> None:
        """Refuse a video if the store has another video of the same name whose file still exists.

        Raises:
            ValueError: there is such a video; the message names both.
        """
        for name, source in sources.items():
            record = self.records.get(name, {})
            if (recorded := record.get("source")) is not None and is_other_video(record, source):
                raise ValueError(
                    f"{recorded} and {source} would both become {name}.npy; rename one or extract them into two stores"
                )

    def path(self, name: str) -> Path:
        """Return the path of a video's features.

        Raises:
            ValueError: the name leads out of the store, or is no possible file name on this file system.
        """
        return array_path(self.folder, name)

    def write(self, name: str, features: np.ndarray, record: Mapping[str, Any]) -> None:
        """Store a video's features `(clips, C)`, and then its record with the hash of the features added.

        Raises:
            ValueError: the features are not finite, or the name is no possible file name.
            WriteError: the disk is full or failed, so no other video can be stored either.
        """
        if not np.isfinite(features).all():
            raise ValueError(f"the features of {name!r} hold NaN or infinity and were not kept; try --precision fp32")
        path, buffer = self.path(name), io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        if self.records.get(name, {}).get("features_sha256", sha256) != sha256:
            # withdraw the old record first: a kill between array and record would leave the new array with the old one
            self.append({"video": name, "replaced": True})
        self._write_array(path, buffer.getvalue())
        self.append({"video": name, **record, "features_bytes": buffer.tell(), "features_sha256": sha256})

    def _write_array(self, path: Path, content: bytes) -> None:
        try:
            write_atomic(path, content, self._writer)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise self._disk_failed(error) from error
            raise ValueError(f"{path} cannot be written ({error.strerror})") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a video's record (with key `video`); when this returns, the record survives a power cut.

        Raises:
            WriteError: the disk is full or failed.
        """
        assert self._attempts is not None, "a store is opened before it is written"
        try:
            append_record(self.records_path, record)
            self._attempts.end(record["video"])
        except OSError as error:
            raise self._disk_failed(error) from error
        self.records[record["video"]] = dict(record)

    def load(self, name: str) -> np.ndarray:
        """Return a video's features, `(clips, C)` float32.

        Raises:
            ValueError: the file is not a float array `(clips, C)`, is empty, or holds NaN or infinity.
        """
        return load_features(self.path(name))

    @property
    def _shards(self) -> Path:
        return self.folder / "shards"

    @property
    def _writer(self) -> str:
        return self._shard.stem if self._shard else ""

    def _acquire(self, shard: Shard | None) -> list[str]:
        """Take the locks; return warnings."""
        if shard is None:
            return self.locks.acquire_alone()
        return self._share(shard) + self.locks.acquire_shard(shard)

    def _share(self, shard: Shard) -> list[str]:
        """Share the store with the shards of this count; return warnings."""
        started = time.monotonic()
        while True:
            try:
                warnings = self.locks.acquire_shared()
                if Assignment(self._shards).begin(shard):
                    return warnings
                self.locks.release()  # the last shards were of another count; if none of them works, begin anew
                self.locks.acquire_alone()
                self._read()
                self._begin_alone()
                self.close()
            except LockedError:
                waited_s = time.monotonic() - started
                if waited_s > PATIENCE_S:
                    raise
                time.sleep(random.uniform(0, 0.1 + waited_s))  # the longer, the more shards seem to start together

    def _begin_alone(self) -> None:
        """Drop the records that a kill tore, and merge what shards have left; a kill in between leaves all to merge."""
        records = self.folder / "videos.jsonl"
        mend_records(records, shard_files(self._shards, ".jsonl"), is_damaged=self._is_damaged(records))
        self._attempts = Attempts(self.folder / ".attempts", newer=shard_files(self._shards, ".attempts"))
        remove_shards(self._shards)
        self.unreadable_lines = []

    def _begin_shard(self, shard: Shard) -> None:
        (self.folder / "videos.jsonl").touch()  # `find_store` looks for it
        mend_records(self.records_path, [], is_damaged=self._is_damaged(self.records_path))
        self._attempts = Attempts(self._shards / f"{shard.stem}.attempts", older=self.folder / ".attempts")
        self.unreadable_lines = [(path, line) for path, line in self.unreadable_lines if path != self.records_path]

    def _is_damaged(self, path: Path) -> bool:
        return any(path == damaged for damaged, _ in self.unreadable_lines)

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        if self.manifest is None:
            write = write_once if self._shard else write_atomic  # another shard may write it at the same time
            write(self._manifest_path, manifest_bytes(manifest), self._writer)
            self._refuse_another(manifest)

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _read(self) -> None:
        records = self.folder / "videos.jsonl"
        of_shards = shard_files(self._shards, ".jsonl")
        for own in (self._manifest_path, records, self.locks.path, self.folder / ".attempts", *own_files(self._shards)):
            _require_plain(own, stat.S_ISREG, "file")
        _require_plain(self._shards, stat.S_ISDIR, "folder")
        self.manifest = read_manifest(self._manifest_path) if self._manifest_path.exists() else None
        self.records, self.unreadable_lines = {}, []
        # the shards' first: who merges them removes them afterwards
        read = {path: list(read_records(path)) for path in (*of_shards, records)}
        for path in (records, *of_shards):  # the shards' are newer: no record is written beside them elsewhere
            for number, record in read[path]:
                if record:
                    self.records[record["video"]] = record  # a later line of the same video replaces it
                else:
                    self.unreadable_lines.append((path, number))

    def _refuse_another(self, manifest: Mapping[str, Any]) -> None:
        """Refuse a store whose identity is unknown or differs from the manifest's."""
        identity = {key: manifest[key] for key in IDENTITY_KEYS}
        if self.manifest is None:
            has_arrays = self._has_arrays()
            # read it after the look for arrays: another shard may have written it, and then an array
            self.manifest = read_manifest(self._manifest_path) if self._manifest_path.exists() else None
            if has_arrays and self.manifest is None:
                raise ValueError(
                    f"{self.folder} holds .npy files but no manifest.json, so their extractor is unknown; "
                    "extract into another folder"
                )
        if self.manifest is not None and identity != self.identity:
            raise ValueError(
                f"{self.folder} holds features of another kind ({describe_identity(self.identity)}; this run makes: "
                f"{describe_identity(identity)}); extract into another folder"
            )

    def _refuse_twins(self, names: Iterable[str]) -> None:
        """Refuse names that differ only in case or in Unicode form if the file system ignores that difference."""
        first: dict[str, str] = {}
        twins = []
        for name in {**self.records, **dict.fromkeys(names)}:
            other = first.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
            if other != name:
                twins.append(f"{other!r} and {name!r}")
        if twins and self._merges_names():
            raise ValueError(f"{twins[0]} would share one file on the file system of {self.folder}; rename one")

    def _merges_names(self) -> bool:
        """Return whether the file system ignores case or Unicode form, tried with a temporary file."""
        probe = temporary_in(self.folder, "É")
        probe.touch()
        try:
            variants = (probe.name.swapcase(), unicodedata.normalize("NFD", probe.name))
            return any((self.folder / variant).exists() for variant in variants)
        finally:
            probe.unlink()

    def _array(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _has_array(self, name: str, record: Mapping[str, Any]) -> bool:
        """Return whether a video's array is here, with the recorded size in bytes."""
        path = self._array(name)
        return self._is_inside(name) and path.exists() and path.stat().st_size == record.get("features_bytes")

    def _has_arrays(self) -> bool:
        """Return whether there are any features here."""
        return self.folder.is_dir() and next(self.folder.rglob("*.npy"), None) is not None

    def _is_inside(self, name: str) -> bool:
        """Return whether a name's folder is the store's or below it, with links resolved."""
        parent = self._array(name).parent
        if parent not in self._inside:
            self._inside[parent] = _is_inside(parent, self.folder)
        return self._inside[parent]

    def _disk_failed(self, error: OSError) -> WriteError:
        return WriteError(
            f"{self.folder} cannot be written ({error.strerror}); its records so far stay valid, so correct the cause "
            "and run the same command again to go on"
        )


def array_path(folder: Path, name: str) -> Path:
    """Return the path of a video's features in a store's folder; as `FeatureStore.path`, also in another process."""
    path = folder / f"{name}.npy"
    if not _is_inside(path.parent, folder):
        raise ValueError(f"the name {name!r} leads out of {folder}")
    try:
        os.lstat(path)  # fails for a name that is too long, or has a file where it needs a folder
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ValueError(f"{path} cannot be a file's name ({error.strerror}); rename the video") from error
    return path


def _require_plain(own: Path, is_plain: Callable[[int], bool], kind: str) -> None:
    # one look at it: a shard that ends now may remove it between two
    with suppress(FileNotFoundError, NotADirectoryError):
        if not is_plain(os.lstat(own).st_mode):
            raise ValueError(f"{own} is not a plain {kind}, as a feature store's own must be; remove it")


def _is_inside(place: Path, folder: Path) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder))


def find_store(path: Path) -> FeatureStore | None:
    """Return the store with a manifest that holds a `.npy` file, or None."""
    for folder in path.resolve().parents:
        if (folder / "manifest.json").exists() and (folder / "videos.jsonl").exists():
            return FeatureStore(folder)
    return None
