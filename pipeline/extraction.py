"""extract-features: videos in, a feature store out."""

import logging
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ..data.feature_store import FeatureStore, source_facts
from ..data.files import WriteError
from ..extractors import i3d
from ..extractors.backbone import Backbone, resolve_backbone
from ..extractors.catalogue import CATALOGUE
from ..extractors.extract import Extraction, extract
from ..extractors.video import VideoError
from .console import err, one_sentence, print_message, printable, progress
from .options import ExtractorOptions, takes_fields_of
from .sources import Sources, find_videos

logger = logging.getLogger(__name__)


@dataclass
class ExtractionSummary:
    """What one run of extract-features did."""

    store: str
    identity: dict[str, str]
    videos: int
    """Videos found."""
    extracted: int = 0
    already_done: int = 0
    clips: int = 0
    """Clips extracted by this run."""
    seconds: float = 0.0
    failed: list[dict[str, str]] = field(default_factory=list)
    """`{"video", "error"}` of each video that could not be extracted."""
    warnings: list[str] = field(default_factory=list)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """With `classes`: each video's most probable Kinetics-400 class, `{"class", "probability"}`."""

    def as_json(self) -> dict[str, Any]:
        """Return the summary as the JSON object that `--json` prints."""
        return {"format": 1, **asdict(self)}


@takes_fields_of(ExtractorOptions)
def extract_features(
    videos: str | Path,
    store: str | Path,
    *,
    backbone: str = "auto",
    recipe: str | None = None,
    weights: str | None = None,
    batch_clips: int | None = None,
    overwrite: bool = False,
    classes: bool = False,
    retry_failed: bool = False,
    options: ExtractorOptions,
) -> ExtractionSummary:
    """Turn videos into cached clip features, one `(clips, C)` array a video.

    A video whose features are in the store already is left alone, so an interrupted run goes on where it stopped; one
    that failed is not tried again unless its file changes or that is asked for.
    The fields of `ExtractorOptions` are keyword arguments too; the signature shows what each means.

    Args:
        videos: a video, a folder of videos (searched recursively) or a `.txt` list of paths.
        store: the feature store's folder, made where it is missing.
        backbone: the network that turns clips into features; "auto" for Video Swin on a GPU and I3D on a CPU.
        recipe: how frames become clips; None for the backbone's own (that of its Kinetics evaluation with `classes`).
        weights: None for the published ones, a name of published ones, "random" for untrained ones, else a file.
        batch_clips: clips a batch; None for the device's usual number.
        overwrite: extract again what is there.
        classes: also name each video's most probable Kinetics-400 class.
        retry_failed: try videos again that failed before.

    Raises:
        ValueError: bad arguments, no videos, name collisions, a store of another identity or one that another run is
            writing: nothing was done.
        OSError: the store cannot be written: nothing was done.
        WriteError: the disk became full or failed; what is recorded stays good, and the same call goes on.
    """
    started = time.perf_counter()
    sources = find_videos(videos)
    feature_store = FeatureStore(store)
    if batch_clips is not None and batch_clips < 1:
        raise ValueError(f"batch-clips must be at least 1, not {batch_clips}")
    if feature_store.folder.exists() and not feature_store.folder.is_dir():
        raise ValueError(f"{feature_store.folder} is a file; name a folder for the features")
    backbone, why = resolve_backbone(backbone, options.device)
    if why:
        print_message(f"backbone {backbone}, {why}")
    if classes and recipe is None:
        recipe = CATALOGUE[backbone].kinetics_recipe
    network = options.load_backbone(backbone, recipe=recipe, weights=weights)
    if classes and network.num_classes != len(i3d.class_names()):
        raise ValueError(
            f"--classes names the 400 classes of Kinetics-400, and these weights know {network.num_classes} classes"
        )
    summary = ExtractionSummary(str(feature_store.folder), network.identity, len(sources.paths))
    feature_store.refuse_other_sources(sources.paths)
    manifest = manifest_of(network, weights, sources) | {"backbone_choice": why or "named"}
    summary.warnings += feature_store.open(manifest, sources.paths)
    if weights == "random":
        summary.warnings.append("the backbone's weights are RANDOM: these features mean nothing")
    if sources.num_others:
        print_message(f"{sources.num_others} other files in {sources.folder} left alone")
    for warning in summary.warnings:
        print_message(f"warning: {warning}")

    with feature_store, options.reader() as reader, extraction_progress(sources, summary) as bar:
        for name, path in sources.paths.items():
            show = bar.begin(path)
            wanted = overwrite or (classes and "class" not in feature_store.records.get(name, {}))
            if done := not wanted and feature_store.is_done(name, path):
                summary.already_done += 1
            elif not (overwrite or retry_failed) and (reason := _failed_before(feature_store.records.get(name), path)):
                summary.failed.append(
                    {"video": str(path), "error": f"{reason} (as before; --retry-failed tries again)"}
                )
            else:
                run = partial(
                    extract,
                    decoder=options.decoder,
                    batch_clips=batch_clips,
                    classify=classes,
                    allow_partial=options.allow_partial,
                    reader=reader,
                    on_progress=show,
                )
                _extract_one(name, path, feature_store, network, run, classes, summary)
            if classes and "class" in (record := feature_store.records.get(name, {})):
                summary.classes[name] = {key: record[key] for key in ("class", "probability")}
            bar.end(path, say_so=not done)
    summary.seconds = round(time.perf_counter() - started, 3)
    return summary


def manifest_of(network: Backbone, weights: str | None, sources: Sources) -> dict[str, Any]:
    """Return a store's manifest: the identity and everything else that made its features."""
    return {
        **network.identity,
        "feature_dim": network.feature_dim,
        "weights": weights_origin(weights),
        "precision": network.precision,
        "engine": network.engine,
        "device": network.device,
        "versions": versions("cofinal", "torch", "torchvision", "openvino", "av", "decord", "numpy"),
        "videos": str(sources.folder.absolute()),
    }


def weights_origin(weights: str | None) -> str:
    """Return where weights came from, as manifests record it: "published", a name, "random" or an absolute path."""
    if weights is None:
        return "published"
    names = [name for entry in CATALOGUE.values() for published in entry.weights for name in published.names]
    return weights if weights in ("random", *names) else str(Path(weights).absolute())


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, and Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _failed_before(record: dict[str, Any] | None, path: Path) -> str | None:
    """Return why the file that lies there could not be used in an earlier run, if so."""
    if record is None or not record.get("unusable"):  # a failure that is not the file's may pass by itself
        return None
    try:
        facts = path.stat()
    except OSError:
        return None  # extracting it will say what is wrong
    same = (record.get("size"), record.get("mtime_ns")) == (facts.st_size, facts.st_mtime_ns)
    return record["error"] if same else None


def _extract_one(
    name: str,
    path: Path,
    store: FeatureStore,
    network: Backbone,
    run: Callable[[Path, Backbone], Extraction],
    classes: bool,
    summary: ExtractionSummary,
) -> None:
    started = time.perf_counter()
    facts: dict[str, Any] = {"source": str(path.absolute())}
    try:
        store.path(name)  # a name that cannot be stored is refused before hours are spent on its video
        facts = source_facts(path)
        result = run(path, network)
        record = {**facts, **result.record, "seconds": round(time.perf_counter() - started, 3)}
        if classes:
            record |= _top_class(result)
        store.write(name, result.features, record)
    except WriteError:
        raise
    except Exception as error:  # whatever one video does, the others are still wanted
        reason = one_sentence(error)
        logger.debug("", exc_info=True)
        store.append({"video": name, **facts, "error": reason, "unusable": isinstance(error, VideoError)})
        summary.failed.append({"video": str(path), "error": reason})
        print_message(f"failed: {reason}")
        return
    summary.extracted += 1
    summary.clips += len(result.features)
    for warning in result.record["warnings"]:
        summary.warnings.append(f"{path}: {warning}")
        print_message(f"warning: {path}: {warning}")


def _top_class(result: Extraction) -> dict[str, Any]:
    assert result.probabilities is not None
    mean = result.probabilities.mean(axis=0)
    top = int(mean.argmax())
    return {"class": i3d.class_names()[top], "probability": round(float(mean[top]), 4)}


class _Progress:
    """A bar over all videos on a terminal; a line a video elsewhere."""

    def __init__(self, bar: Progress, total: int) -> None:
        self.bar, self.total, self.done = bar, total, 0
        self.task = bar.add_task("extracting", total=total)

    def begin(self, path: Path) -> Callable[[float, float | None], None]:
        self.bar.update(self.task, description=f"extracting {printable(path.name)}")

        def show(seconds_done: float, seconds_total: float | None) -> None:
            share = min(seconds_done / seconds_total, 1.0) if seconds_total else 0.0
            self.bar.update(self.task, completed=self.done + share)

        return show

    def end(self, path: Path, say_so: bool) -> None:
        self.done += 1
        self.bar.update(self.task, completed=self.done)
        if say_so and not err.is_terminal:
            print_message(f"[{self.done}/{self.total}] {path.name}")


@contextmanager
def extraction_progress(sources: Sources, summary: ExtractionSummary) -> Iterator[_Progress]:
    """Show progress over the videos; an interruption says what is done and how to go on."""
    with progress("videos") as bar:
        shown = _Progress(bar, len(sources.paths))
        try:
            yield shown
        except KeyboardInterrupt:
            failed = f" and {len(summary.failed)} failed" if summary.failed else ""
            raise KeyboardInterrupt(
                f"{summary.extracted + summary.already_done} of {shown.total} videos are done{failed}; run the same "
                "command again to go on"
            ) from None
