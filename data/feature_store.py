"""The feature store: a folder with one `<video name>.npy` a video, `(clips, C)`, and what it was made with.

    out/
      a/x.npy          features of the video a/x.mp4, float32 or float16
      manifest.json    format, identity (backbone, recipe, weights' sha256), precision, versions, source folder
      videos.jsonl     a line a video, appended; the last line of a video wins, a torn last line is ignored

A folder of `.npy` files downloaded from elsewhere is a store too: one without a manifest, of unknown identity.
Arrays and the manifest are written whole or not at all, and an array before its record, so that a run killed
at any moment leaves a valid store in which the videos that lack a record are simply done again.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.files import write_atomic

FORMAT = 1
IDENTITY_KEYS = ("backbone", "recipe", "weights_sha256")


def describe_identity(identity: Mapping[str, str] | None) -> str:
    """Return an identity in words, for messages: `i3d, recipe gdlt-i3d, weights af5c50f0df57`."""
    if identity is None:
        return "features of unknown origin"
    return f"{identity['backbone']}, recipe {identity['recipe']}, weights {identity['weights_sha256'][:12]}"


class FeatureStore:
    """A folder of clip features.

    Args:
        folder: the store's folder; it need not exist yet.

    Raises:
        ValueError: the manifest is not one of this program's, or of a later format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] | None = None
        path = self.folder / "manifest.json"
        if path.exists():
            self.manifest = _read_manifest(path)
        self.records: dict[str, dict[str, Any]] = _read_records(self.folder / "videos.jsonl")

    @property
    def identity(self) -> dict[str, str] | None:
        """What the features were made with; None for a folder without a manifest."""
        return {key: self.manifest[key] for key in IDENTITY_KEYS} if self.manifest else None

    def names(self) -> list[str]:
        """Return the names of all features in the folder and below, sorted: `a/x` for `a/x.npy`.

        What a video's file was before it changed and then failed is left out.
        """
        names = (path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.npy"))
        return sorted(name for name in names if "error" not in self.records.get(name, {}))

    def open(self, manifest: Mapping[str, Any]) -> list[str]:
        """Make the folder a store of this identity, or go on with one that is.

        Args:
            manifest: the identity's three keys and whatever else is worth recording.

        Returns:
            One sentence for each recorded fact (precision, engine, versions) that differs from the store's.

        Raises:
            ValueError: the store is of another identity, or holds features of unknown origin.
            OSError: the folder cannot be written.
        """
        identity = {key: manifest[key] for key in IDENTITY_KEYS}
        if self.manifest is None:
            if self.folder.is_dir() and next(self.folder.rglob("*.npy"), None) is not None:
                raise ValueError(
                    f"{self.folder} holds .npy files but no manifest.json, so what made them is unknown; "
                    "extract into another folder"
                )
            self.manifest = {"format": FORMAT, **manifest}
            write_atomic(self.folder / "manifest.json", _json_bytes(self.manifest))
            return []
        if identity != self.identity:
            raise ValueError(
                f"{self.folder} holds features of another kind ({describe_identity(self.identity)}; asked for: "
                f"{describe_identity(identity)}); extract into another folder"
            )
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"{self.folder} is not writable; choose another folder or change its rights")
        return [
            f"{self.folder} was begun with {key} {self.manifest[key]!r}, this run has {value!r}"
            for key, value in manifest.items()
            if key in ("precision", "engine", "versions") and self.manifest.get(key, value) != value
        ]

    def is_done(self, name: str, source: Path) -> bool:
        """Return whether this video's features are here and the file is the one they were made from.

        Size and modification time decide; only where they differ is the file's content hashed.
        """
        record = self.records.get(name)
        if record is None or "error" in record or not self.path(name).exists():
            return False
        try:
            facts = source.stat()
            if (record["size"], record["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns):
                return True
            now = source_facts(source)
        except OSError:
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
            if file_sha256(Path(known)) != file_sha256(source):
                raise ValueError(
                    f"{known} and {source} would both become {name}.npy; rename one or extract them into two stores"
                )

    def path(self, name: str) -> Path:
        """Return where a video's features lie.

        Raises:
            ValueError: the name leads out of the store.
        """
        path = self.folder / f"{name}.npy"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"the name {name!r} leads out of {self.folder}")
        return path

    def write(self, name: str, features: np.ndarray, record: Mapping[str, Any]) -> None:
        """Store a video's features `(clips, C)` and then its record."""
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        write_atomic(self.path(name), buffer.getvalue())
        self.append({"video": name, **record})

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a video's record (with key `video`), durable when this returns."""
        self.records[record["video"]] = dict(record)
        path = self.folder / "videos.jsonl"
        line = json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a torn line of a killed run: close it, readers ignore it
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def load(self, name: str) -> np.ndarray:
        """Return a video's features, `(clips, C)` float32.

        Raises:
            ValueError: the file is not a numeric `(clips, C)` array, is empty, or holds a NaN or infinity.
        """
        return load_features(self.path(name))


def load_features(path: Path) -> np.ndarray:
    """Read one `.npy` of clip features, `(clips, C)` as float32; see `FeatureStore.load`."""
    try:
        features = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a .npy array ({error}); extract it again") from error
    if not isinstance(features, np.ndarray) or features.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{path} does not hold a float array of clip features; expected shape (clips, C)")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{path} has shape {features.shape}; expected (clips, C) with at least one clip")
    features = features.astype(np.float32)
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features).all(axis=1)).sum())
        raise ValueError(f"{path} holds NaN or infinity in {bad} of {len(features)} clips; extract it again")
    return features


def find_store(path: Path) -> FeatureStore | None:
    """Return the store with a manifest that a `.npy` file lies in, or None."""
    for folder in path.resolve().parents:
        if (folder / "manifest.json").exists() and (folder / "videos.jsonl").exists():
            return FeatureStore(folder)
    return None


def file_sha256(path: Path) -> str:
    """Return a file's sha256, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_facts(source: Path) -> dict[str, Any]:
    """Return a source file's entry in its record: path, size in bytes, modification time, content hash.

    Raises:
        OSError: it cannot be read.
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
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}); is this a feature store?") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), str) for k in IDENTITY_KEYS):
        raise ValueError(f"{path} is not a feature store's manifest: it lacks {', '.join(IDENTITY_KEYS)}")
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{path} is of format {manifest.get('format')}, this program reads {FORMAT}; update the program"
        )
    return manifest


def _read_records(path: Path) -> dict[str, dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
                records[record["video"]] = record
            except (ValueError, KeyError, TypeError):
                continue  # a line torn by a killed run: its video is simply done again
    return records
