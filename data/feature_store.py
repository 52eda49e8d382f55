"""The feature store: a folder with one `<video name>.npy` per video, `(clips, C)`, and a record of how each was made.

    out/
      a/x.npy          features of the video a/x.mp4, float32 or float16
      manifest.json    format, identity (backbone, recipe, weights' sha256), precision, versions, source folder
      videos.jsonl     one line per attempt at a video, appended; the last line of a video counts
      .lock            the process that is writing to the store; empty when there is none

A folder of `.npy` files downloaded from elsewhere is a store too, without a manifest and of unknown identity.

A run may be killed at any moment and still leaves a valid store. Arrays and the manifest appear whole or not at all. An
array is written before its record, and a record torn by a kill is ignored, so the next run extracts that video again.
One run at a time writes; reading needs no lock. Arrays are read as plain numbers, never unpickled.
"""

import errno
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from .files import (
    WriteError,
    append_durable,
    make_folder,
    remove_temporaries,
    sync_folder,
    temporary_in,
    write_atomic,
)
from .lock import Lock, LockedError
from .remote import RemoteFile
from .source_files import is_other_video, is_untouched, source_facts

FORMAT = 1
IDENTITY_KEYS = ("backbone", "recipe", "weights_sha256")
MAX_ARRAY_BYTES = 1 << 30
"""Over 90 hours of video at 4096 features per clip; a larger file cannot be an array of clip features."""
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


def describe_identity(identity: Mapping[str, str] | None) -> str:
    """Return an identity as text for messages: `i3d, recipe gdlt-i3d, weights af5c50f0df57`."""
    if identity is None:
        return "features of unknown origin"
    return f"{identity['backbone']}, recipe {identity['recipe']}, weights {identity['weights_sha256'][:12]}"


class FeatureStore:
    """A folder of clip features.

    A new object can read. `open` makes it ready to write and locks the folder; `close`, or the end of a `with`
    statement, unlocks it.

    Args:
        folder: the store's folder; it need not exist yet.

    Raises:
        ValueError: the manifest was not written by this program or has a later format, or one of the store's own files
            is a link or a device, through which something outside the store would be read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.lock = Lock(self.folder / ".lock")
        self.manifest: dict[str, Any] | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self.unreadable_lines: list[int] = []
        """Line numbers, from 1, of the lines of `videos.jsonl` that are not valid records."""
        self._opened = False
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
        """The file of the records."""
        return self.folder / "videos.jsonl"

    def names(self) -> list[str]:
        """Return the names of all features in the folder and below, sorted: `a/x` for `a/x.npy`.

        An array whose video failed later, in a changed version of its file, is left out.
        """
        paths = self.folder.rglob("*.npy")
        names = (path.relative_to(self.folder).as_posix().removesuffix(".npy") for path in paths)
        return sorted(name for name in names if name not in self.records or is_success(self.records[name]))

    def open(self, manifest: Mapping[str, Any], names: Iterable[str] = ()) -> list[str]:
        """Make the folder a store of this identity, or continue such a store, and lock it against other writers.

        Half-written files of a killed run are removed.

        Args:
            manifest: the identity's three keys and other facts to record.
            names: names of the videos to come, to check that the file system can tell them apart.

        Returns:
            Warnings: one for each recorded fact (precision, engine, versions) that differs from the store's, and one
            if the file system has no locks.

        Raises:
            ValueError: the store has another identity, holds features of unknown origin, is being written by another
                run, or is on a file system where two of the names would be the same file.
            OSError: the folder cannot be written.
        """
        self._refuse_another(manifest)
        make_folder(self.folder)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"{self.folder} is not writable; choose another folder or change its rights")
        try:
            locked = self.lock.acquire()
        except LockedError as holder:
            raise LockedError(
                f"{self.folder} is being written by another run ({holder}); wait for it to end, or extract into "
                "another folder"
            ) from None
        try:
            self._read()  # again, because another run may have written between __init__ and the lock
            self._refuse_another(manifest)
            self._refuse_twins(names)
            remove_temporaries(self.folder)
            if self.manifest is None:
                self.manifest = {"format": FORMAT, **manifest}
                write_atomic(self.folder / "manifest.json", _json_bytes(self.manifest))
            self._mend_records()
        except BaseException:  # also Ctrl-C: the lock must not outlive this call
            self.close()
            raise
        self._opened = True
        no_lock = f"the file system of {self.folder} has no locks: make sure that no other run writes there"
        return ([] if locked else [no_lock]) + [
            f"{self.folder} was begun with {key} {self.manifest[key]!r}, this run has {value!r}"
            for key, value in manifest.items()
            if key in ("precision", "engine", "versions") and self.manifest.get(key, value) != value
        ]

    def close(self) -> None:
        """Unlock the store for other writers."""
        self._opened = False
        self.lock.release()

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
                    is_untouched(record, source)
                    or (isinstance(source, Path) and source_facts(source)["sha256"] == record["sha256"])
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
            if (
                isinstance(source, Path)
                and not is_untouched(record, source)
                and (facts := source_facts(source))["sha256"] == record["sha256"]
            ):
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
        path = self._array(name)
        if not self._is_inside(name):
            raise ValueError(f"the name {name!r} leads out of {self.folder}")
        try:
            os.lstat(path)  # fails for a name that is too long, or has a file where it needs a folder
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ValueError(f"{path} cannot be a file's name ({error.strerror}); rename the video") from error
        return path

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
            write_atomic(path, content)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise self._disk_failed(error) from error
            raise ValueError(f"{path} cannot be written ({error.strerror})") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a video's record (with key `video`); when this returns, the record survives a power cut.

        Raises:
            WriteError: the disk is full or failed.
        """
        assert self._opened, "a store is opened before it is written"
        try:
            append_durable(self.records_path, json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise self._disk_failed(error) from error
        self.records[record["video"]] = dict(record)

    def load(self, name: str) -> np.ndarray:
        """Return a video's features, `(clips, C)` float32.

        Raises:
            ValueError: the file is not a float array `(clips, C)`, is empty, or holds NaN or infinity.
        """
        return load_features(self.path(name))

    def _read(self) -> None:
        path = self.folder / "manifest.json"
        for own in (path, self.records_path, self.lock.path):
            if os.path.lexists(own) and (own.is_symlink() or not own.is_file()):
                raise ValueError(f"{own} is not a plain file, as a feature store's own files must be; remove it")
        self.manifest = _read_manifest(path) if path.exists() else None
        self.records, self.unreadable_lines = {}, []
        if self.records_path.exists():
            with self.records_path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if record := _parse_record(line):
                        self.records[record["video"]] = record  # a later line of the same video replaces it
                    else:
                        self.unreadable_lines.append(number)

    def _refuse_another(self, manifest: Mapping[str, Any]) -> None:
        """Refuse a store whose identity is unknown or differs from the manifest's."""
        identity = {key: manifest[key] for key in IDENTITY_KEYS}
        if self.identity is None:
            if self._has_arrays():
                raise ValueError(
                    f"{self.folder} holds .npy files but no manifest.json, so their extractor is unknown; "
                    "extract into another folder"
                )
        elif identity != self.identity:
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

    def _mend_records(self) -> None:
        """Drop the lines that a killed run tore; their videos are extracted again."""
        if not self.records_path.exists():
            self.records_path.touch()
            sync_folder(self.folder)  # appending syncs the content only, not the file's name in the folder
        content = self.records_path.read_bytes()
        # a missing last line end counts as torn too, or the next record would continue that line
        if self.unreadable_lines or (content and not content.endswith(b"\n")):
            whole = [line + b"\n" for line in content.split(b"\n") if _parse_record(line)]
            write_atomic(self.records_path, b"".join(whole))
            self.unreadable_lines = []

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
            real = os.path.realpath(parent)
            self._inside[parent] = Path(real).is_relative_to(os.path.realpath(self.folder))
        return self._inside[parent]

    def _disk_failed(self, error: OSError) -> WriteError:
        return WriteError(
            f"{self.folder} cannot be written ({error.strerror}); its records so far stay valid, so correct the cause "
            "and run the same command again to go on"
        )


def load_features(path: Path) -> np.ndarray:
    """Read one `.npy` of clip features, `(clips, C)` as float32; see `FeatureStore.load`.

    Nothing is unpickled or decompressed, and no more memory is allocated than the file's size.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if (size := path.stat().st_size) > MAX_ARRAY_BYTES:
        raise ValueError(f"{path} has {size} bytes; arrays of clip features have at most {MAX_ARRAY_BYTES}")
    try:
        with np.errstate(over="ignore"):  # a header may claim any size, also one that overflows
            # a memory map, because np.load would first allocate whatever size the header claims
            features = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as a .npy array ({reason}); delete it and extract it again") from error
    if features.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{path} does not hold a float array of clip features; expected shape (clips, C)")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{path} has shape {features.shape}; expected (clips, C) with at least one clip")
    array = np.array(features, np.float32)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(axis=1)).sum())
        raise ValueError(f"{path} holds NaN or infinity in {bad} of {len(array)} clips; delete it and extract it again")
    return array


def find_store(path: Path) -> FeatureStore | None:
    """Return the store with a manifest that holds a `.npy` file, or None."""
    for folder in path.resolve().parents:
        if (folder / "manifest.json").exists() and (folder / "videos.jsonl").exists():
            return FeatureStore(folder)
    return None


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}); is this a feature store?") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), str) for k in IDENTITY_KEYS):
        raise ValueError(f"{path} is not a feature store's manifest: it lacks {', '.join(IDENTITY_KEYS)}")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path} has format {manifest.get('format')}, this program reads {FORMAT}; update the program")
    return manifest


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, or None if the line is torn by a kill, damaged, or not of this program."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        return None
    kinds: dict[str, type] = {"size": int, "mtime_ns": int, "sha256": str} if is_success(record) else {}
    is_valid = all(isinstance(record.get(key), kind) for key, kind in kinds.items())
    return record if is_valid and isinstance(record.get("source", ""), str) else None


def is_success(record: Mapping[str, Any]) -> bool:
    """Return whether a record says that features were written."""
    return "error" not in record and "replaced" not in record
