"""The feature store: a folder with one `<video name>.npy` a video, `(clips, C)`, and what it was made with.

    out/
      a/x.npy          features of the video a/x.mp4, float32 or float16
      manifest.json    format, identity (backbone, recipe, weights' sha256), precision, versions, source folder
      videos.jsonl     a line a video, appended; the last line of a video wins, a line torn by a killed run is ignored
      .lock            who writes to the store; only while somebody does does it say a name

A folder of `.npy` files downloaded from elsewhere is a store too: one without a manifest, of unknown identity.
Arrays and the manifest are written whole or not at all, and an array before its record, so that a run killed
at any moment leaves a valid store in which the videos that lack a record are simply done again. One run at a time
writes; readers need no lock. What others made is only ever read as numbers, within limits.
"""

import errno
import hashlib
import io
import json
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
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

FORMAT = 1
IDENTITY_KEYS = ("backbone", "recipe", "weights_sha256")
MAX_ARRAY_BYTES = 1 << 30
"""Over 90 hours of video at 4096 features a clip: a larger file is no array of clip features."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What stops the whole run, where other errors of writing an array are those of its name."""


def describe_identity(identity: Mapping[str, str] | None) -> str:
    """Return an identity in words, for messages: `i3d, recipe gdlt-i3d, weights af5c50f0df57`."""
    if identity is None:
        return "features of unknown origin"
    return f"{identity['backbone']}, recipe {identity['recipe']}, weights {identity['weights_sha256'][:12]}"


class FeatureStore:
    """A folder of clip features.

    Reading needs nothing more. To write, `open` it, and use it as a context manager (or `close` it) to let others in.

    Args:
        folder: the store's folder; it need not exist yet.

    Raises:
        ValueError: the manifest is not one of this program's, or of a later format, or one of the store's own files
            is a link or a device, through which something else would be read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.lock = Lock(self.folder / ".lock")
        self.manifest: dict[str, Any] | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self.unreadable_lines: list[int] = []
        """Numbers, from 1, of the lines of `videos.jsonl` that are no records."""
        self._opened = False
        self._inside: dict[Path, bool] = {}
        self._read()

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> dict[str, str] | None:
        """What the features were made with; None for a folder without a manifest."""
        return {key: self.manifest[key] for key in IDENTITY_KEYS} if self.manifest else None

    @property
    def records_path(self) -> Path:
        """Where the records lie."""
        return self.folder / "videos.jsonl"

    def names(self) -> list[str]:
        """Return the names of all features in the folder and below, sorted: `a/x` for `a/x.npy`.

        What a video's file was before it changed and then failed is left out.
        """
        paths = self.folder.rglob("*.npy")
        names = (path.relative_to(self.folder).as_posix().removesuffix(".npy") for path in paths)
        return sorted(name for name in names if name not in self.records or is_success(self.records[name]))

    def open(self, manifest: Mapping[str, Any], names: Iterable[str] = ()) -> list[str]:
        """Make the folder a store of this identity, or go on with one that is, and keep other writers out.

        What a killed run left half-written is removed.

        Args:
            manifest: the identity's three keys and whatever else is worth recording.
            names: of the videos to come, all of which the folder must be able to tell apart.

        Returns:
            One sentence for each recorded fact (precision, engine, versions) that differs from the store's, and
            one if the file system cannot keep other writers out.

        Raises:
            ValueError: the store is of another identity, holds features of unknown origin, is being written by
                another run, or its file system takes two of the names for one.
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
            self._read()  # again: another run may have ended just now
            self._refuse_another(manifest)
            self._refuse_twins(names)
            remove_temporaries(self.folder)
            if self.manifest is None:
                self.manifest = {"format": FORMAT, **manifest}
                write_atomic(self.folder / "manifest.json", _json_bytes(self.manifest))
            self._mend_records()
        except BaseException:
            self.close()
            raise
        self._opened = True
        unlocked = [] if locked else [f"the file system of {self.folder} has no locks: let no other run write there"]
        return unlocked + [
            f"{self.folder} was begun with {key} {self.manifest[key]!r}, this run has {value!r}"
            for key, value in manifest.items()
            if key in ("precision", "engine", "versions") and self.manifest.get(key, value) != value
        ]

    def close(self) -> None:
        """Let other writers in."""
        self._opened = False
        self.lock.release()

    def is_done(self, name: str, source: Path) -> bool:
        """Return whether this video's features are here and the file is the one they were made from.

        Size and modification time decide; only where they differ is the file's content hashed.
        """
        record = self.records.get(name)
        if record is None or not is_success(record) or not self._is_inside(name):
            return False
        try:
            size = self._array(name).stat().st_size
        except OSError:
            return False
        if record.get("features_bytes") != size:
            return False
        try:
            facts = source.stat()
            if (record["size"], record["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns):
                return True
            now = source_facts(source)
        except (OSError, ValueError):
            return False  # extracting it will say what is wrong
        if record["sha256"] != now["sha256"]:
            return False
        self.append({**record, **now})
        return True

    def refuse_other_sources(self, sources: Mapping[str, Path]) -> None:
        """Refuse videos whose names belong to other videos here that still exist: one would replace the other.

        Raises:
            ValueError: there is such a video; both are named.
        """
        for name, source in sources.items():
            known = self.records.get(name, {}).get("source")
            if known is None or known == str(source.absolute()) or not (os.path.exists(known) and source.exists()):
                continue
            if not os.path.samefile(known, source) and file_sha256(Path(known)) != file_sha256(source):
                raise ValueError(
                    f"{known} and {source} would both become {name}.npy; rename one or extract them into two stores"
                )

    def path(self, name: str) -> Path:
        """Return where a video's features lie.

        Raises:
            ValueError: the name leads out of the store, or the file system cannot have it.
        """
        path = self._array(name)
        if not self._is_inside(name):
            raise ValueError(f"the name {name!r} leads out of {self.folder}")
        try:
            os.lstat(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ValueError(f"{path} cannot be a file's name ({error.strerror}); rename the video") from error
        return path

    def write(self, name: str, features: np.ndarray, record: Mapping[str, Any]) -> None:
        """Store a video's features `(clips, C)` and then its record, to which their hash is added.

        Raises:
            ValueError: the features are not finite, or no file can have this name.
            WriteError: the disk is full or failed: no other video can be stored either.
        """
        if not np.isfinite(features).all():
            raise ValueError(f"the features of {name!r} hold NaN or infinity and were not kept; try --precision fp32")
        path, buffer = self.path(name), io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        if self.records.get(name, {}).get("features_sha256", sha256) != sha256:
            self.append({"video": name, "replaced": True})  # killed between array and record, neither would fit
        try:
            write_atomic(path, buffer.getvalue())
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise self._stopped(error) from error
            raise ValueError(f"{path} cannot be written ({error.strerror})") from error
        self.append({"video": name, **record, "features_bytes": buffer.tell(), "features_sha256": sha256})

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a video's record (with key `video`), durable when this returns.

        Raises:
            WriteError: the disk is full or failed.
        """
        assert self._opened, "a store is opened before it is written"
        try:
            append_durable(self.records_path, json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise self._stopped(error) from error
        self.records[record["video"]] = dict(record)

    def load(self, name: str) -> np.ndarray:
        """Return a video's features, `(clips, C)` float32.

        Raises:
            ValueError: the file is not a numeric `(clips, C)` array, is empty, or holds a NaN or infinity.
        """
        return load_features(self.path(name))

    def _read(self) -> None:
        path = self.folder / "manifest.json"
        for own in (path, self.records_path, self.lock.path):
            if os.path.lexists(own) and (own.is_symlink() or not own.is_file()):
                raise ValueError(f"{own} is not a plain file, as a feature store's own are; remove it")
        self.manifest = _read_manifest(path) if path.exists() else None
        self.records, self.unreadable_lines = {}, []
        if self.records_path.exists():
            with self.records_path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if record := _parse_record(line):
                        self.records[record["video"]] = record
                    else:
                        self.unreadable_lines.append(number)

    def _refuse_another(self, manifest: Mapping[str, Any]) -> None:
        """Refuse a store of another identity than the manifest's, or of an unknown one."""
        identity = {key: manifest[key] for key in IDENTITY_KEYS}
        if self.identity is None:
            if self.folder.is_dir() and next(self.folder.rglob("*.npy"), None) is not None:
                raise ValueError(
                    f"{self.folder} holds .npy files but no manifest.json, so what made them is unknown; "
                    "extract into another folder"
                )
        elif identity != self.identity:
            raise ValueError(
                f"{self.folder} holds features of another kind ({describe_identity(self.identity)}; asked for: "
                f"{describe_identity(identity)}); extract into another folder"
            )

    def _refuse_twins(self, names: Iterable[str]) -> None:
        """Refuse names that differ only in case or in how accents are composed, where the file system does not."""
        first: dict[str, str] = {}
        twins = []
        for name in {**self.records, **dict.fromkeys(names)}:
            other = first.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
            if other != name:
                twins.append(f"{other!r} and {name!r}")
        if twins and self._merges_names():
            raise ValueError(f"{twins[0]} would share one file on the file system of {self.folder}; rename one")

    def _merges_names(self) -> bool:
        probe = temporary_in(self.folder, "É")
        probe.touch()
        try:
            variants = (probe.name.swapcase(), unicodedata.normalize("NFD", probe.name))
            return any((self.folder / variant).exists() for variant in variants)
        finally:
            probe.unlink()

    def _mend_records(self) -> None:
        """Leave only whole lines in the records: what a killed run tore is dropped, its video is done again."""
        if not self.records_path.exists():
            self.records_path.touch()
            sync_folder(self.folder)
        content = self.records_path.read_bytes()
        if self.unreadable_lines or (content and not content.endswith(b"\n")):
            whole = [line + b"\n" for line in content.split(b"\n") if _parse_record(line)]
            write_atomic(self.records_path, b"".join(whole))
            self.unreadable_lines = []

    def _array(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _is_inside(self, name: str) -> bool:
        """Whether the folder that a name means is the store's or below, links followed."""
        parent = self._array(name).parent
        if parent not in self._inside:
            real = os.path.realpath(parent)
            self._inside[parent] = Path(real).is_relative_to(os.path.realpath(self.folder))
        return self._inside[parent]

    def _stopped(self, error: OSError) -> WriteError:
        return WriteError(
            f"{self.folder} cannot be written ({error.strerror}); what is recorded there stays good, so mend that and "
            "run the same command again to go on"
        )


def load_features(path: Path) -> np.ndarray:
    """Read one `.npy` of clip features, `(clips, C)` as float32; see `FeatureStore.load`.

    Nothing is unpickled or unpacked, and no more is allocated than the file holds.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if (size := path.stat().st_size) > MAX_ARRAY_BYTES:
        raise ValueError(f"{path} has {size} bytes; arrays of clip features have at most {MAX_ARRAY_BYTES}")
    try:
        with np.errstate(over="ignore"):  # a header may claim any size
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
    """Return the store with a manifest that a `.npy` file lies in, or None."""
    for folder in path.resolve().parents:
        if (folder / "manifest.json").exists() and (folder / "videos.jsonl").exists():
            return FeatureStore(folder)
    return None


def file_sha256(path: Path) -> str:
    """Return a file's sha256, read in pieces.

    Raises:
        ValueError: it is a pipe or a device, which may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_facts(source: Path) -> dict[str, Any]:
    """Return a source file's entry in its record: path, size in bytes, modification time, content hash.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device.
    """
    facts = source.stat()
    return {
        "source": str(source.absolute()),
        "size": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        "sha256": file_sha256(source),
    }


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
        raise ValueError(
            f"{path} is of format {manifest.get('format')}, this program reads {FORMAT}; update the program"
        )
    return manifest


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Return a line's record, or None if it is none: torn by a killed run, damaged, or not of this program."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        return None
    kinds: dict[str, type] = {"size": int, "mtime_ns": int, "sha256": str} if is_success(record) else {}
    known = all(isinstance(record.get(key), kind) for key, kind in kinds.items())
    return record if known and isinstance(record.get("source", ""), str) else None


def is_success(record: Mapping[str, Any]) -> bool:
    """Whether a record is that of a video whose features were written, and not of a failure."""
    return "error" not in record and "replaced" not in record
