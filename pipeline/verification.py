"""extract-features --verify: is every array of a store the one that its record describes?"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.arrays import load_features
from ..data.feature_store import FeatureStore
from ..data.lock import LockedError
from ..data.records import is_success
from ..data.remote import is_url
from ..data.source_files import file_sha256, source_sha256
from .console import progress
from .sources import find_videos


@dataclass
class Verification:
    """The outcome of a check of a store."""

    store: str
    arrays: int = 0
    """Arrays checked."""
    videos: int = 0
    """Videos compared with the records."""
    failed_videos: int = 0
    """Videos that the store records as failed; these are no problems of the store."""
    problems: list[dict[str, str]] = field(default_factory=list)
    """`{"what", "problem"}` of every difference between the files and the records."""

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as the JSON object that `--json` prints."""
        return {"format": 1, **asdict(self)}


def verify_store(store: str | Path, videos: str | Path | None = None, *, fps: float | None = None) -> Verification:
    """Check every array of a store (present, shape, finite, sha256) against the records. Nothing is changed.

    Args:
        store: the feature store's folder.
        videos: also compare the content of these videos with the records; as for `extract_features`.
        fps: take folders of numbered frames for videos too.

    Raises:
        ValueError: the folder has no manifest, another run is writing the store, or something is at a URL.
    """
    if remote := [one for one in (store, videos) if is_url(one)]:
        raise ValueError(f"--verify reads files on the disk: copy {remote[0]} there first (docs/scaling.md)")
    feature_store = FeatureStore(store)
    if feature_store.manifest is None:
        raise ValueError(f"{feature_store.folder} has no manifest.json, so there is nothing to verify it against")
    sources = find_videos(videos, fps).paths if videos is not None else {}
    try:
        with suppress(OSError):  # a store that cannot be written needs no lock: no other run can write to it either
            feature_store.locks.acquire_alone()
    except LockedError as holder:
        raise ValueError(f"{feature_store.folder} is being written ({holder}); verify it when that is done") from None
    with feature_store:
        return _verify(feature_store, sources)


def _verify(store: FeatureStore, sources: dict[str, Path]) -> Verification:
    recorded = sorted(name for name, record in store.records.items() if is_success(record))
    problems = list(_record_problems(store, set(recorded)))
    with progress("files") as bar:
        task = bar.add_task("verifying", total=len(recorded) + len(sources))
        for name in recorded:
            problems += [(_array_path(store, name), problem) for problem in _array_problems(store, name)]
            bar.advance(task)
        for name, path in sources.items():
            # a video that labels cut has a record for each of its segments
            names = [other for other in store.records if other.startswith(f"{name}@") and other not in sources] or [
                name
            ]
            records = [store.records.get(one) for one in names]
            problems += [(str(path), problem) for problem in _video_problems(records, path)]
            bar.advance(task)
    return Verification(
        str(store.folder),
        arrays=len(recorded),
        videos=len(sources),
        failed_videos=sum("error" in record for record in store.records.values()),
        problems=[{"what": what, "problem": problem} for what, problem in problems],
    )


def _array_path(store: FeatureStore, name: str) -> str:
    return f"{store.folder / name}.npy"


def _record_problems(store: FeatureStore, recorded: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the records as a whole: the file concerned, and the problem."""
    for path, number in store.unreadable_lines:
        yield f"{path} line {number}", "is torn or damaged; the next run drops it"
    for name in sorted(set(store.names()) - recorded):
        yield _array_path(store, name), "has no record; if a run was stopped while writing it, run it again"
    for name, record in store.records.items():
        if "replaced" in record:
            yield _array_path(store, name), "was being replaced when its run was stopped; run it again"


def _array_problems(store: FeatureStore, name: str) -> Iterator[str]:
    record = store.records[name]
    assert store.manifest is not None
    try:
        path = store.path(name)
        if not path.exists():
            yield "is recorded but missing; run the same command again"
            return
        features = load_features(path)
    except (ValueError, OSError) as error:
        yield f"is not usable: {error}"
        return
    expected = (record.get("clips"), store.manifest.get("feature_dim"))
    if features.shape != expected:
        yield f"has shape {features.shape}, recorded is {expected}"
    if file_sha256(path) != record.get("features_sha256"):
        yield "does not have the recorded sha256; delete it and run the same command again"


def _video_problems(records: list[dict[str, Any] | None], path: Path) -> Iterator[str]:
    """Yield what is wrong with a video, by its record or those of its segments."""
    hashes = set()
    for record in records:
        if record is None:
            yield "has not been extracted"
        elif "error" in record:
            yield f"failed: {record['error']}"
        else:
            hashes.add(record.get("sha256"))
    try:
        if hashes and hashes != {source_sha256(path)}:
            yield "is not the file that its features were made from; run the same command again"
    except (OSError, ValueError) as error:
        yield f"cannot be read: {getattr(error, 'strerror', None) or error}"
