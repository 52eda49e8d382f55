"""extract-features --verify: is every array of a store the one that its record says was written?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.feature_store import FeatureStore, file_sha256, is_success, load_features
from ..data.lock import LockedError
from .console import progress
from .sources import find_videos


@dataclass
class Verification:
    """What a check of a store found."""

    store: str
    arrays: int = 0
    """Arrays checked."""
    videos: int = 0
    """Videos compared with the records."""
    failed_videos: int = 0
    """Videos that the store records as failed; no fault of the store's."""
    problems: list[dict[str, str]] = field(default_factory=list)
    """`{"what", "problem"}` of everything that is not as recorded."""

    def as_json(self) -> dict[str, Any]:
        """Return the findings as the JSON object that `--json` prints."""
        return {"format": 1, **asdict(self)}


def verify_store(store: str | Path, videos: str | Path | None = None) -> Verification:
    """Check every array of a store (there, shape, finite, sha256) against the records, and change nothing.

    Args:
        store: the feature store's folder.
        videos: also compare these videos' content with what the features were made from; as for `extract_features`.

    Raises:
        ValueError: the folder is no store with a manifest, or a run is writing it.
    """
    found = FeatureStore(store)
    if found.manifest is None:
        raise ValueError(f"{found.folder} has no manifest.json, so there is nothing to verify it against")
    sources = find_videos(videos).paths if videos is not None else {}
    try:
        found.lock.acquire()
    except LockedError as holder:
        raise ValueError(f"{found.folder} is being written ({holder}); verify it when that is done") from None
    except OSError:  # a store that cannot be written: nobody else writes it either
        pass
    try:
        return _verify(found, sources)
    finally:
        found.close()


def _verify(store: FeatureStore, sources: dict[str, Path]) -> Verification:
    found = Verification(str(store.folder))

    def name(what: str, problem: str) -> None:
        found.problems.append({"what": what, "problem": problem})

    for number in store.unreadable_lines:
        name(f"{store.records_path} line {number}", "is torn or damaged; the next run drops it")
    recorded = {video for video, record in store.records.items() if is_success(record)}
    found.failed_videos = sum("error" in record for record in store.records.values())
    present = set(store.names())
    for video in sorted(present - recorded):
        name(f"{store.folder / video}.npy", "has no record; if a run was stopped while writing it, run it again")
    for video, record in store.records.items():
        if "replaced" in record:
            name(f"{store.folder / video}.npy", "was being replaced when its run was stopped; run it again")
    with progress("files checked") as bar:
        task = bar.add_task("verifying", total=len(recorded) + len(sources))
        for video in sorted(recorded):
            for problem in _array_problems(store, video):
                name(f"{store.folder / video}.npy", problem)
            found.arrays += 1
            bar.advance(task)
        for video, path in sources.items():
            if difference := _video_problem(store.records.get(video), path):
                name(str(path), difference)
            found.videos += 1
            bar.advance(task)
    return found


def _array_problems(store: FeatureStore, video: str) -> Iterator[str]:
    record = store.records[video]
    assert store.manifest is not None
    try:
        path = store.path(video)
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


def _video_problem(record: dict[str, Any] | None, path: Path) -> str | None:
    if record is None:
        return "has not been extracted"
    if "error" in record:
        return f"failed: {record['error']}"
    try:
        same = record.get("sha256") == file_sha256(path)
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return None if same else "is not the file that its features were made from; run the same command again"
