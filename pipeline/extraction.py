"""extract-features: videos in, a feature store out."""

import logging
import platform
import re
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ..data.feature_store import MAX_ATTEMPTS, FeatureStore, Status, array_path
from ..data.files import WriteError
from ..data.labels import read_labels
from ..data.manifest import IDENTITY_KEYS
from ..data.remote import RemoteFile, is_url, local_address
from ..data.remote_store import RemoteStore
from ..data.scratch import Scratch
from ..data.shards import Shard
from ..data.source_files import source_facts
from ..extractors import i3d
from ..extractors.backbone import Backbone, resolve_backbone
from ..extractors.catalogue import CATALOGUE
from ..extractors.extract import Extraction, Finished, OnProgress, extract_many, suitable_readers
from ..extractors.ray_worker import Work
from ..extractors.reading import Video
from ..extractors.video import VideoError
from .console import err, one_sentence, print_message, print_result, printable, progress, waiting
from .examples import label_places
from .options import ExtractorOptions, takes_fields_of
from .remote_sources import find_remote_videos, is_remote
from .shards import choose_shard, videos_of_shard
from .sources import Sources, cut_segments, find_videos

logger = logging.getLogger(__name__)

Extract = Callable[..., Generator[Finished, None, None]]
"""Extracts videos, see `extractors.ray_cluster.RayCluster.extract_many`."""


@dataclass
class ExtractionSummary:
    """What one run of extract-features did."""

    store: str
    identity: dict[str, str]
    videos: int
    """Videos found, each segment counted as one; with `shard`, those of this part."""
    extracted: int = 0
    already_done: int = 0
    clips: int = 0
    """Clips extracted by this run."""
    seconds: float = 0.0
    failed: list[dict[str, str]] = field(default_factory=list)
    """`{"video", "error"}` of each video that could not be extracted, now or in an earlier run."""
    warnings: list[str] = field(default_factory=list)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """With `classes`: each video's most probable Kinetics-400 class, `{"class", "probability"}`."""

    def as_json(self) -> dict[str, Any]:
        """Return the summary as the JSON object that `--json` prints."""
        return {"format": 1, **asdict(self)}


@takes_fields_of(ExtractorOptions)
def extract_features(
    videos: str | Path | Sources,
    store: str | Path,
    *,
    dataset: str | None = None,
    labels: str | Path | None = None,
    backbone: str = "auto",
    recipe: str | None = None,
    weights: str | None = None,
    readers: str | int = "auto",
    shard: str | None = None,
    batch_clips: int | None = None,
    overwrite: bool = False,
    classes: bool = False,
    retry_failed: bool = False,
    ray: str | None = None,
    options: ExtractorOptions,
) -> ExtractionSummary:
    """Turn videos into cached clip features, one `(clips, C)` array per video.

    Videos whose features are already in the store are skipped, so an interrupted run continues where it stopped. A
    video that failed is skipped too, until its file changes. The fields of `ExtractorOptions` are keyword arguments
    as well; the signature shows what each means.

    Args:
        videos: a video, a folder of numbered frames, a folder of videos (searched recursively), a `.txt` list of paths,
            a URL of one of these (but for frames), a list of URLs, or what `find_videos` found.
        store: the feature store's folder or URL, created if it is missing.
        dataset: cut the segments of this dataset's labels out of the videos, one array a segment; as in `train_head`.
        labels: the label file or its folder; None to look in the store and with the videos, and beside both.
        backbone: the network that turns clips into features; "auto" is Video Swin on a GPU and I3D on a CPU.
        recipe: how frames become clips; None for the backbone's default (with `classes`, its Kinetics evaluation's).
        weights: the name of published weights, a file, or "random" for untrained ones; None for the first published.
        readers: number of processes that read videos, each another one; "auto" is 1 for a backbone on the CPU, else one
            less than the cores, at most 16.
        shard: "2/8" to extract the second of eight parts, while other processes extract the others; "auto" for what
            Slurm, torchrun, Open MPI or PMI say of this process, also of its GPU; None for all videos.
        batch_clips: clips in a batch; None for what suits the device.
        overwrite: extract all videos again.
        classes: also name each video's most probable Kinetics-400 class.
        retry_failed: try failed videos again, even if their files have not changed.
        ray: extract on the nodes of the Ray cluster at this address, "host:port" or "auto", or on one that is started
            on this machine, "local"; `extractors.ray_cluster` says how. None to extract in this process.

    Raises:
        ValueError: an argument is wrong, there are no videos, names collide, or the store has another identity or is
            being written by another run; nothing was done.
        OSError: the store cannot be written; nothing was done.
        WriteError: the disk became full or failed; the records so far stay valid, and the same call continues.
    """
    started = time.perf_counter()
    # everything that can be refused is refused before the first video is read
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        feature_store = _feature_store(local_address(store), shard, scratch)
        sources = videos if isinstance(videos, Sources) else _find(videos, options.fps, scratch)
        if dataset is not None:
            sources = _cut(sources, dataset, _label_places(feature_store, sources, labels))
        elif labels is not None:
            raise ValueError(
                "labels say which segments to cut: name their format with --dataset, or leave --labels out"
            )
        _check_arguments(feature_store, batch_clips, readers)
        part, device = choose_shard(shard, options.device) if shard is not None else (None, options.device)
        if ray is not None:
            sources = _for_other_folders(sources)
            weights = weights and weights_origin(weights)
        load = partial(
            _load,
            backbone=backbone,
            recipe=recipe,
            weights=weights,
            classes=classes,
            options=options,
            place=sources.url or str(sources.folder.absolute()),
        )
        work = Work(
            load=load,
            make_reader=options.reader,
            folder=sources.folder.absolute(),
            num_readers=None if readers == "auto" else int(readers),
            batch_clips=batch_clips,
            classify=classes,
        )
        manifest, extract = stack.enter_context(
            _here(work, device) if ray is None else _on_cluster(ray, work, device, len(sources.paths))
        )
        stack.enter_context(feature_store)
        warnings = _open_store(feature_store, manifest, sources, part)
        if part is not None:
            sources = videos_of_shard(feature_store, sources, part)
        with waiting("comparing the videos with the store"):
            feature_store.refuse_other_sources({name: sources.source(name) for name in sources.paths})
        place = scratch.with_urls(str(feature_store.folder))
        identity = {key: manifest[key] for key in IDENTITY_KEYS}
        summary = ExtractionSummary(place, identity, len(sources.paths), warnings=warnings)
        stack.enter_context(_explained_interruption(summary))
        shown = _Shown(stack.enter_context(progress("videos")), summary.videos)
        needs = partial(_status, feature_store, overwrite=overwrite, retry=retry_failed, classes=classes)
        names = {
            _video(feature_store, sources, name, scratch, options, is_here=ray is None): name
            for name in _left_to_do(feature_store, sources, needs, summary, shown)
        }
        run = extract(
            names,
            on_progress=lambda video, *seconds: shown.part(sources.describe(names[video]), *seconds),
            tries=lambda video: feature_store.attempts(names[video], sources.source(names[video])),
            on_death=lambda video: _count_death(feature_store, names[video], sources.paths[names[video]]),
        )
        with closing(run), scratch.stopped_by_errors():
            for finished in run:
                name = names[finished.video]
                _keep(feature_store, name, sources, finished, summary)
                shown.over(sources.describe(name))
    if classes:
        summary.classes = _recorded_classes(feature_store, sources)
    summary.seconds = round(time.perf_counter() - started, 3)
    return summary


def _feature_store(store: str | Path, shard: str | None, scratch: Scratch) -> FeatureStore:
    if not is_url(store):
        return FeatureStore(store)
    if shard is not None:
        raise ValueError(
            f"--shard needs a store on a file system, not {store}: give each process a list of its own videos instead"
        )
    with waiting(f"reading the records of {store}"):
        return RemoteStore(str(store), scratch.path_of(str(store).rstrip("/")))


def _find(videos: str | Path, fps: float | None, scratch: Scratch) -> Sources:
    videos = local_address(videos)
    return find_remote_videos(videos, scratch) if is_remote(videos) else find_videos(videos, fps)


def _label_places(store: FeatureStore, sources: Sources, labels: str | Path | None) -> list[Path]:
    if labels is not None:
        return [Path(labels)]
    if sources.remote:
        raise ValueError("the labels of videos at a URL are read from the disk: name their file with --labels")
    return label_places(store, sources.folder)


def _cut(sources: Sources, dataset: str, places: list[Path]) -> Sources:
    """Cut the segments of a dataset's labels out of videos."""
    labels = read_labels(dataset, places)
    cut = cut_segments(sources, labels)
    if not cut.segments:
        raise ValueError(
            f"{labels.files[0]} cuts none of the videos in {sources.place}: its rows have no start and end, or name "
            "other videos; leave --dataset out to extract whole videos"
        )
    print_message(f"{len(cut.segments)} segments of {len(set(map(cut.paths.get, cut.segments)))} videos")
    return cut


def _check_arguments(store: FeatureStore, batch_clips: int | None, readers: str | int) -> None:
    if batch_clips is not None and batch_clips < 1:
        raise ValueError(f"batch-clips must be at least 1, not {batch_clips}")
    if readers != "auto" and not re.fullmatch("[1-9][0-9]*", str(readers)):
        raise ValueError(f"readers must be auto or a number of 1 or more, not {readers}")
    if store.folder.exists() and not store.folder.is_dir():
        raise ValueError(f"{store.folder} is a file; name a folder for the features")


def _load(
    device: str,
    *,
    backbone: str,
    recipe: str | None,
    weights: str | None,
    classes: bool,
    options: ExtractorOptions,
    place: str,
) -> tuple[Backbone, dict[str, Any]]:
    """Load the backbone on a device; return the store's manifest too."""
    options = replace(options, device=device)
    name, reason = resolve_backbone(backbone, device)
    if reason:
        print_message(f"backbone {name}, {reason}")
    if classes and recipe is None:
        recipe = CATALOGUE[name].kinetics_recipe
    with waiting(f"loading {name}"):
        network = options.load_backbone(name, recipe=recipe, weights=weights)
    if classes and network.num_classes != len(i3d.class_names()):
        raise ValueError(
            f"--classes names the 400 classes of Kinetics-400, but these weights have {network.num_classes} classes"
        )
    return network, manifest_of(network, weights, place) | {"backbone_choice": reason or "named"}


@contextmanager
def _here(work: Work, device: str) -> Iterator[tuple[dict[str, Any], Extract]]:
    """Load the backbone in this process; yield the store's manifest, and what extracts videos."""
    network, manifest = work.load(device)
    with ExitStack() as stack:

        def extract(
            videos: Collection[Video], *, tries: Callable[[Video], int], on_progress: OnProgress, **_: Any
        ) -> Generator[Finished, None, None]:
            num_readers = min(work.num_readers or suitable_readers(network), len(videos))
            readers = [stack.enter_context(work.make_reader(num_readers)) for _ in range(num_readers)]
            for together in _apart(videos, tries):
                run = extract_many(
                    together,
                    network,
                    readers=readers[: len(together)],
                    batch_clips=work.batch_clips,
                    classify=work.classify,
                    on_progress=on_progress,
                )
                with closing(run):
                    yield from run

        yield manifest, extract


@contextmanager
def _on_cluster(address: str, work: Work, device: str, num_videos: int) -> Iterator[tuple[dict[str, Any], Extract]]:
    """Start the workers of a Ray cluster; yield the same as `_here`."""
    try:
        from ..extractors.ray_cluster import RayCluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ValueError("--ray needs Ray: pip install 'cofinal[ray]'") from error

    with ExitStack() as stack:
        with waiting("starting the workers of the Ray cluster"):
            cluster = stack.enter_context(RayCluster(address, work, device=device, most_workers=num_videos))
        if cluster.made_with["backbone_choice"] != "named":
            print_message(f"backbone {cluster.made_with['backbone']}, {cluster.made_with['backbone_choice']}")
        yield cluster.made_with, cluster.extract_many


def _open_store(store: FeatureStore, manifest: dict[str, Any], sources: Sources, shard: Shard | None) -> list[str]:
    """Open the store for these videos; return the warnings, which are printed too."""
    warnings = store.open(manifest, sources.paths, shard)
    if manifest["weights"] == "random":
        warnings.append("the backbone's weights are RANDOM: these features mean nothing")
    if sources.num_others:
        print_message(f"{sources.num_others} other files in {sources.place} left alone")
    if sources.num_frame_folders_left:
        print_message(
            f"{sources.num_frame_folders_left} folders of numbered frames in {sources.folder} left alone; with --fps "
            "they count as videos"
        )
    for warning in warnings:
        print_message(f"warning: {warning}")
    return warnings


def _status(
    store: FeatureStore, name: str, source: Path | RemoteFile, *, overwrite: bool, retry: bool, classes: bool
) -> Status:
    """Return a video's status in the store, or TO_DO if the options ask for more than is there."""
    if overwrite:
        return Status.TO_DO
    status = store.status(name, source)
    lacks_class = classes and status is Status.DONE and "class" not in store.records[name]
    return Status.TO_DO if lacks_class or (retry and status is Status.FAILED) else status


class _Shown:
    """What a run shows while it goes on: a bar on a terminal, elsewhere a line for each video."""

    def __init__(self, bar: Progress, num_videos: int) -> None:
        self._bar, self._num_videos, self._num_over = bar, num_videos, 0
        self._task = bar.add_task("extracting", total=num_videos)
        self._parts: dict[str, float] = {}
        """How much is done of each video that is being extracted."""

    def part(self, video: str, done_s: float, total_s: float) -> None:
        """Show that a part of a video is done."""
        self._parts[video] = min(done_s / total_s, 1) if total_s else 0
        self._update(f"extracting {', '.join(printable(Path(name).name) for name in self._parts)}")

    def over(self, video: str, *, is_news: bool = True) -> None:
        """Show that nothing is left to do for a video."""
        self._parts.pop(video, None)
        self._num_over += 1
        self._update()
        if is_news and not err.is_terminal:
            print_message(f"[{self._num_over}/{self._num_videos}] {Path(video).name}")

    def _update(self, description: str | None = None) -> None:
        self._bar.update(self._task, completed=self._num_over + sum(self._parts.values()), description=description)


def _left_to_do(
    store: FeatureStore,
    sources: Sources,
    status_of: Callable[[str, Path | RemoteFile], Status],
    summary: ExtractionSummary,
    shown: _Shown,
) -> list[str]:
    """Count the videos that are done or failed in an earlier run; return the names of the others."""
    names = []
    for name in sources.paths:
        source = sources.source(name)
        status = status_of(name, source)
        if status is Status.TO_DO and store.attempts(name, source) < MAX_ATTEMPTS:
            names.append(name)
            continue
        if status is Status.TO_DO:
            reason = f"{source} is given up: it was being extracted when {MAX_ATTEMPTS} runs crashed or were killed"
            _fail(store, name, sources, source_facts(source), VideoError(reason), summary)
        elif status is Status.DONE:
            store.update_source_facts(name, source)
            summary.already_done += 1
        else:
            error = f"{store.records[name]['error']} (failed in an earlier run; --retry-failed tries again)"
            summary.failed.append({"video": sources.describe(name), "error": error})
        shown.over(sources.describe(name), is_news=status is not Status.DONE)
    return names


def _apart(videos: Collection[Video], tries: Callable[[Video], int]) -> Iterator[list[Video]]:
    """Yield the videos in groups to extract together: all, but those that a run did not survive last and alone.

    So whatever ended that run ends no run with the others on the way, and only itself is blamed.
    """
    suspects = [video for video in videos if tries(video)]
    if others := [video for video in videos if video not in suspects]:
        yield others
    for suspect in suspects:
        yield [suspect]


def _for_other_folders(sources: Sources) -> Sources:
    """Name the videos so that processes on other machines find them."""
    if any(isinstance(sources.source(name), RemoteFile) for name in sources.paths):
        raise ValueError("--ray reads videos from a file system that all nodes see, not from a URL: copy them there")
    return replace(sources, paths={name: path.absolute() for name, path in sources.paths.items()})


def _video(
    store: FeatureStore, sources: Sources, name: str, scratch: Scratch, options: ExtractorOptions, *, is_here: bool
) -> Video:
    path, source = sources.paths[name], sources.source(name)
    segment = sources.segments[name].span if name in sources.segments else None
    fetch = partial(scratch.fetch, source) if isinstance(source, RemoteFile) else partial(source_facts, source)
    find_facts = partial(_find_facts, store.folder.absolute(), name, fetch)
    video = Video(
        path,
        segment=segment,
        find_facts=partial(_begin, store, name, find_facts) if is_here else find_facts,
        **options.extract_options(),
    )
    if not isinstance(source, RemoteFile):
        return video
    scratch.num_reads[source] += 1
    return replace(video, release=partial(scratch.release, source))


def _begin(store: FeatureStore, name: str, find_facts: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Note that a video is begun: if it ends this process, the next run knows."""
    facts = find_facts()
    store.begin(name, facts)
    return facts


def _count_death(store: FeatureStore, name: str, path: Path) -> None:
    """Note that another process died while it had a video."""
    with suppress(OSError, ValueError):  # the file may have gone
        store.count_attempt(name, source_facts(path))


def _find_facts(folder: Path, name: str, fetch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    array_path(folder, name)  # refuses a name that cannot be stored before hours are spent on its video
    return fetch()


def _keep(store: FeatureStore, name: str, sources: Sources, finished: Finished, summary: ExtractionSummary) -> None:
    """Write the features of a video and count it; a failure is recorded and does not stop the run."""
    video, source = sources.describe(name), sources.source(name)
    facts = {"source": str(source.absolute() if isinstance(source, Path) else source), **finished.facts}
    try:
        extraction = finished.extraction()
        record = {**facts, **extraction.record, "seconds": extraction.record["stage_seconds"]["wall"]}
        store.write(name, extraction.features, record | _top_class(extraction))
    except WriteError:
        raise  # the disk has failed, so all other videos would fail too
    except Exception as error:  # whatever goes wrong with one video, the others are still extracted
        logger.debug("", exc_info=True)
        _fail(store, name, sources, facts, error, summary)
        return
    summary.extracted += 1
    summary.clips += len(extraction.features)
    for warning in extraction.record["warnings"]:
        summary.warnings.append(f"{video}: {warning}")
        print_message(f"warning: {video}: {warning}")


def _fail(
    store: FeatureStore,
    name: str,
    sources: Sources,
    facts: dict[str, Any],
    error: Exception,
    summary: ExtractionSummary,
) -> None:
    """Record, count and print a failure; a message about the copy of a remote file names the file."""
    message = one_sentence(error).replace(str(sources.paths[name]), str(sources.source(name)))
    store.append({"video": name, **facts, "error": message, "unusable": isinstance(error, VideoError)})
    summary.failed.append({"video": sources.describe(name), "error": message})
    print_message(f"failed: {message}")


def _top_class(extraction: Extraction) -> dict[str, Any]:
    """Return the record's entries for the most probable class, if classes were asked for."""
    if extraction.probabilities is None:
        return {}
    mean = extraction.probabilities.mean(axis=0)
    top = int(mean.argmax())
    return {"class": i3d.class_names()[top], "probability": round(float(mean[top]), 4)}


def _recorded_classes(store: FeatureStore, sources: Sources) -> dict[str, dict[str, Any]]:
    """Return the most probable class of each video whose record has one, and its probability."""
    records = {name: store.records.get(name, {}) for name in sources.paths}
    return {
        name: {key: record[key] for key in ("class", "probability")}
        for name, record in records.items()
        if "class" in record
    }


@contextmanager
def _explained_interruption(summary: ExtractionSummary) -> Iterator[None]:
    """Let an interruption report what is done and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        done = summary.extracted + summary.already_done
        failed = f" and {len(summary.failed)} failed" if summary.failed else ""
        raise KeyboardInterrupt(
            f"{done} of {summary.videos} videos are done{failed}; run the same command again to go on"
        ) from None


def print_summary(summary: ExtractionSummary) -> None:
    """Print a run for people: classes on stdout, counts and failures on stderr."""
    for name, top in summary.classes.items():
        print_result(f"{name}: {top['class']} {top['probability']:.3f}")
    print_message(
        f"{summary.extracted} videos extracted ({summary.clips} clips, {summary.seconds:.1f} s), "
        f"{summary.already_done} already done, {len(summary.failed)} failed: {summary.store}"
    )
    for failure in summary.failed:
        print_message(f"failed: {failure['error']}")


def manifest_of(network: Backbone, weights: str | None, place: str) -> dict[str, Any]:
    """Return the manifest of a store of the videos of a place: the identity, and all else that made the features."""
    return {
        **network.identity,
        "feature_dim": network.feature_dim,
        "weights": weights_origin(weights),
        "precision": network.precision,
        "engine": network.engine,
        "device": network.device,
        "versions": versions("cofinal", "torch", "torchvision", "openvino", "av", "decord", "numpy"),
        "videos": place,
    }


def weights_origin(weights: str | None) -> str:
    """Return the origin of weights as manifests record it: "published", a name, "random" or an absolute path."""
    if weights is None:
        return "published"
    names = [name for entry in CATALOGUE.values() for published in entry.weights for name in published.names]
    return weights if weights in ("random", *names) else str(Path(weights).absolute())


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, and Python's."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "absent"
    return installed
