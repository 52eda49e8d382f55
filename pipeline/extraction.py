"""extract-features: videos in, a feature store out."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.feature_store import FeatureStore
from ..data.labels import read_labels
from ..data.manifest import IDENTITY_KEYS
from ..data.remote import RemoteFile, is_url, local_address
from ..data.remote_store import RemoteStore
from ..data.scratch import Scratch
from ..data.shards import Shard
from ..extractors.work import Work
from .console import print_message, progress, waiting
from .examples import label_places
from .extraction_summary import ExtractionSummary
from .manifest import weights_origin
from .options import ExtractorOptions, takes_fields_of
from .outcomes import Outcomes
from .remote_sources import find_remote_videos, is_remote
from .shards import choose_shard, videos_of_shard
from .sources import Sources, cut_segments, find_videos
from .workers import in_this_process, load_backbone, on_cluster


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
            load_backbone,
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
            in_this_process(work, device) if ray is None else on_cluster(ray, work, device, len(sources.paths))
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
        outcomes = Outcomes(feature_store, sources, summary, stack.enter_context(progress("videos")))
        names = {
            outcomes.video(name, scratch, options, is_here=ray is None): name
            for name in outcomes.left_to_do(overwrite=overwrite, retry_failed=retry_failed, classes=classes)
        }
        run = extract(
            names,
            on_progress=lambda video, *seconds: outcomes.show_part(names[video], *seconds),
            tries=lambda video: outcomes.attempts(names[video]),
            on_death=lambda video: outcomes.count_death(names[video]),
        )
        with closing(run), scratch.stopped_by_errors():
            for finished in run:
                outcomes.keep(names[finished.video], finished)
    if classes:
        summary.classes = outcomes.recorded_classes()
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


def _for_other_folders(sources: Sources) -> Sources:
    """Name the videos so that processes on other machines find them."""
    if any(isinstance(sources.source(name), RemoteFile) for name in sources.paths):
        raise ValueError("--ray reads videos from a file system that all nodes see, not from a URL: copy them there")
    return replace(sources, paths={name: path.absolute() for name, path in sources.paths.items()})


def _open_store(store: FeatureStore, manifest: dict[str, Any], sources: Sources, shard: Shard | None) -> list[str]:
    """Open the store for these videos; return the warnings, which are printed too."""
    with waiting("opening the store"):
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
