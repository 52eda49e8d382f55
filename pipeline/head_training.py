"""train-head: features and judges' scores in; a head and an honest account of its accuracy out."""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import join, with_column
from ..data.feature_store import FeatureStore
from ..data.files import write_atomic
from ..data.labels import GENERATED_RECORDS, LabelRow, LabelSet, read_labels, with_ranges
from ..extractors.backbone import resolve_device
from ..extractors.video import VIDEO_SUFFIXES, VideoError
from ..models.checkpoint import serialise_head
from ..models.neighbourhood import Neighbourhood
from . import conformal
from .console import print_message, print_result, print_table, progress
from .evaluation import SMALLEST_EVENT
from .examples import Dataset, Examples, label_places, load_dataset, select_labels
from .extraction import extract_features, versions
from .heads import default_head_path, head_warnings, make_default, parse_extractor
from .human_ceiling import human_ceiling
from .options import LabelOptions, TrainingOptions, takes_fields_of
from .protocol import HeadTraining, Outcome, count_trainings, run_seeds
from .results import format_figure, results_tables, summarise_predictions, write_results
from .settings import configure
from .sources import cut_segments, find_videos, is_store
from .splits import FOLDS, Split, make_splits
from .sums import sum_predictions
from .training_record import record_training


@dataclass(frozen=True)
class TrainingResult:
    """The head that train-head wrote, and its accuracy."""

    head: Path
    """The head file; its results, predictions, learning curves and plots lie beside it."""
    results: dict[str, Any]
    """The figures, as `results.json` and `--json` have them."""
    predictions: list[dict[str, Any]]
    """One entry for each seed, evaluated video and target: true and predicted score, grades, each baseline's score."""
    failed_videos: list[dict[str, str]]
    """Videos that could not be extracted, where videos were given."""


@takes_fields_of(TrainingOptions)
@takes_fields_of(LabelOptions)
def train_head(
    store: str | Path,
    dataset: str,
    *,
    labels: str | Path | None = None,
    targets: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    out: str | Path | None = None,
    set_default: bool | None = False,
    extractor: str | None = None,
    label_options: LabelOptions,
    options: TrainingOptions,
) -> TrainingResult:
    """Train one head for all targets and actions of a dataset, and evaluate it on videos that it did not see.

    Args:
        store: a feature store, or videos, which are extracted first into a store beside them.
        dataset: the format of the label files: "csv" (a table), "rg", "fisv", "mtl-aqa", "unlv-dive" or "jigsaws".
        labels: the label file or its folder; None to look in the store and where the videos came from, and beside both.
        targets: train these targets only.
        actions: train these actions only.
        out: the head file to write; None for `heads/<dataset>-<date>.safetensors`.
        set_default: make it score-video's default head; None: only if there is none yet and it scores real videos.
        extractor: `BACKBONE:RECIPE:WEIGHTS`, what made features that came without a manifest.
        label_options: the fields of `LabelOptions`, given as keyword arguments.
        options: the fields of `TrainingOptions`, given as keyword arguments.

    Raises:
        ValueError: bad arguments, labels or features: no head was written.
        VideoError: none of the videos could be extracted.
        OSError, WriteError: the head cannot be written.
    """
    started = time.perf_counter()
    training = HeadTraining(*configure(options), str(resolve_device(options.device)))
    source = Path(store)
    folder = _store_folder(source)
    _check_head_path(Path(out if out is not None else Path("heads", f"{dataset}.safetensors")), folder)
    places = [Path(labels)] if labels is not None else label_places(FeatureStore(folder), source)
    all_labels = with_ranges(read_labels(dataset, places, label_options.table(targets)), label_options.ranges or ())
    for note in all_labels.notes:
        print_message(note)
    selected = _with_groups_and_events(select_labels(all_labels, targets, actions), options)

    failed = [] if folder == source else _extract(source, folder, all_labels, options.device, extractor)
    feature_store = FeatureStore(folder)
    data = load_dataset(feature_store, all_labels, selected)
    for leftover in data.leftovers:
        print_message(f"note: {leftover}")
    identity, weights = _feature_identity(feature_store, extractor, data.examples)

    protocol, splits = _splits_of_seeds(data, options)
    outcome = _train(splits, data, training)
    sums = sum_predictions(outcome.predictions, data.labels.sums)
    routines = data.examples.at(splits[options.seed][-1].training)
    metadata = {
        "dataset": dataset,
        "targets": list(data.labels.targets),
        "ranges": dict(zip(data.labels.targets, outcome.network.config.ranges, strict=True)),
        "sums": [str(one) for one in data.labels.sums],
        "actions": list(data.labels.actions),
        "identity": identity,
        "weights": weights,
        "manifest": feature_store.manifest,
        "intervals": {"level": conformal.LEVEL, "radii": outcome.radii},
        "generated": _are_generated(feature_store, all_labels),
        "training": record_training(routines, all_labels, feature_store, anonymous=options.anonymous),
    }
    results = {
        "format": 1,
        "dataset": dataset,
        "protocol": protocol,
        **summarise_predictions(outcome.predictions),
        **_describe_labels(all_labels, data, splits[options.seed], sums),
        "warnings": head_warnings(metadata),
        "training": _describe_training(protocol, splits[options.seed][-1], data.examples, outcome, training, options)
        | {"seconds": round(time.perf_counter() - started, 1)},
    }
    predictions = [*outcome.predictions, *sums]
    head_path = _new_head_path(dataset) if out is None else Path(out)
    write_results(head_path, results, predictions, outcome.curves, identity, _sources(feature_store, data.labels))
    neighbourhood = Neighbourhood.fit(routines.features, routines.actions)
    write_atomic(head_path, serialise_head(outcome.network, metadata | {"results": results}, neighbourhood))
    _set_default(head_path, set_default, scores_videos=identity is not None and not results["warnings"])
    return TrainingResult(head_path, results, predictions, failed)


# --- features and labels ---


def _store_folder(source: Path) -> Path:
    """Return the feature store that a user's STORE|VIDEOS means; features of videos are cached beside them."""
    if not source.exists():
        raise ValueError(f"{source} does not exist; name a feature store, or videos to extract first")
    if is_store(source):
        return source
    videos = source.resolve()
    return videos.with_name(f"{videos.stem if videos.is_file() else videos.name}-features")


def _with_groups_and_events(labels: LabelSet, options: TrainingOptions) -> LabelSet:
    if options.groups is not None:
        labels = with_column(labels, "group", options.groups, VIDEO_SUFFIXES)
    if options.events is not None:
        labels = with_column(labels, "event", options.events, VIDEO_SUFFIXES)
        _check_events(options.events, labels.rows)
    return labels


def _check_events(events: str, rows: Sequence[LabelRow]) -> None:
    """Refuse events that are all too small for a rank correlation of their own."""
    if max(Counter(row.event for row in rows).values()) < SMALLEST_EVENT:
        raise ValueError(f"no event in {events} has {SMALLEST_EVENT} videos or more to evaluate on; leave --events out")


def _extract(videos: Path, folder: Path, labels: LabelSet, device: str, extractor: str | None) -> list[dict[str, str]]:
    """Extract the features of labelled videos; return the videos that failed."""
    if extractor:
        raise ValueError("--extractor is for features that came without a manifest; leave it out with videos")
    sources = cut_segments(find_videos(videos), labels)
    join(labels, sources.paths, VIDEO_SUFFIXES)  # fail on unmatched labels before hours of work
    print_message(f"extracting {videos} into {folder}")
    failed = extract_features(sources, folder, device=device).failed
    if failed and not FeatureStore(folder).names():
        raise VideoError(
            f"none of the {len(failed)} videos could be extracted, the first because: {failed[0]['error']}"
        )
    return failed


def _feature_identity(
    store: FeatureStore, extractor: str | None, examples: Examples
) -> tuple[dict[str, str] | None, str | None]:
    """Return what made the features and where its weights came from; None where neither store nor user says it."""
    if store.manifest is None:
        return parse_extractor(extractor, examples.features[0].shape[1]) if extractor else (None, None)
    if extractor:
        raise ValueError(f"the manifest of {store.folder} says what made its features; leave --extractor out")
    return store.identity, store.manifest["weights"]


def _sources(store: FeatureStore, labels: LabelSet) -> dict[str, str]:
    """Return by a label's video the file that its features were made of."""
    pairs = join(labels, store.names(), VIDEO_SUFFIXES).pairs
    records = ((row.video, store.records.get(name, {})) for row, name in pairs)
    return {video: record["source"] for video, record in records if "source" in record}


def _are_generated(store: FeatureStore, labels: LabelSet) -> bool:
    """Whether labels or videos are those of generated routines, whose records lie beside them."""
    folders = [file.parent for file in labels.files]
    if store.manifest is not None:
        videos = Path(store.manifest["videos"])
        folders += [videos, videos.parent]
    return any((folder / GENERATED_RECORDS).exists() for folder in folders)


# --- training and evaluation ---


def _splits_of_seeds(data: Dataset, options: TrainingOptions) -> tuple[str, dict[int, list[Split]]]:
    """Return the protocol and the splits of every seed; only the first seed trains a final head."""
    protocol, splits = options.protocol, {}
    # groups of the user's own replace published folds, which may cut through them
    folds = options.folds or (FOLDS if options.groups is not None else None)
    for seed in range(options.seed, options.seed + options.seeds):
        protocol, of_seed = make_splits(data.examples, protocol, folds=folds, seed=seed, intervals=options.intervals)
        splits[seed] = of_seed if seed == options.seed else [split for split in of_seed if len(split.evaluated)]
    for option, value in (("--folds", options.folds), ("--groups", options.groups)):
        if value is not None and protocol != "cv" and not options.intervals:
            raise ValueError(f"{option} is for cross-validation, and there is a test split: add --protocol cv")
    if options.events is not None:
        evaluated = [data.examples.rows[i] for split in splits[options.seed] for i in split.evaluated]
        _check_events(options.events, evaluated)
    return protocol, splits


def _train(splits: dict[int, list[Split]], data: Dataset, training: HeadTraining) -> Outcome:
    """Train and evaluate the heads of all seeds, with a progress bar over all epochs."""
    with progress("epochs") as bar:
        epochs = training.recipe.epochs * sum(map(count_trainings, splits.values()))
        task = bar.add_task("training", total=epochs)
        return run_seeds(splits, data, training, on_epoch=lambda: bar.advance(task))


def _describe_labels(
    all_labels: LabelSet, data: Dataset, splits: Sequence[Split], sums: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the entries of the results that labels with sums, panels or a table bring."""
    evaluated = data.examples.at(np.unique(np.concatenate([split.evaluated for split in splits])))
    ceiling = human_ceiling(evaluated, data.labels.panels)
    return {
        **({"sums": _describe_sums(data.labels, sums)} if sums else {}),
        **({"panel": ceiling} if ceiling else {}),
        **({"labels": all_labels.reading} if all_labels.reading else {}),
    }


def _describe_sums(labels: LabelSet, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the `sums` entry of the results: formulas, and the figures of the sums of predictions."""
    summary = summarise_predictions(entries)
    return {
        "formulas": {one.target: str(one) for one in labels.sums},
        **{name: summary[name] for name in ("targets", "baselines") if name in summary},
    }


def _describe_training(
    protocol: str,
    final: Split,
    examples: Examples,
    outcome: Outcome,
    training: HeadTraining,
    options: TrainingOptions,
) -> dict[str, Any]:
    """Return the `training` entry of the results: data, settings, command and versions."""
    grouped = examples.at(final.training).groups() is not None
    return {
        "videos": len(final.training),
        "judged": len({entry["video"] for entry in outcome.predictions}),
        **({"folds": len(final.calibration), "grouped": grouped} if protocol == "cv" else {}),
        **({"groups": options.groups} if options.groups else {}),
        **({"events": options.events} if options.events else {}),
        **({"interval_level": conformal.LEVEL} if options.intervals else {}),
        "head_type": options.head_type,
        "epochs": max(entry["epoch"] for entry in outcome.curves),
        "config": asdict(outcome.network.config),
        "recipe": asdict(training.recipe),
        "seed": options.seed,
        "seeds": options.seeds,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions("cofinal", "torch", "numpy", "scipy", "scikit-learn"),
    }


def _check_head_path(path: Path, store: Path) -> None:
    """Refuse a head file that cannot be written, or must not be."""
    if path.suffix != ".safetensors":
        raise ValueError(f"--out {path} must end in .safetensors")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name the head's file")
    if path.resolve().is_relative_to(store.resolve()):
        raise ValueError(f"--out {path} lies in the feature store; write the head elsewhere")


def _new_head_path(dataset: str) -> Path:
    """Return a default head file that did not exist, and take its name: another training may end at the same time."""
    stem = f"{dataset}-{date.today():%Y%m%d}"
    Path("heads").mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = Path("heads", f"{stem}-{number}.safetensors" if number > 1 else f"{stem}.safetensors")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("there is always a next number")


def _set_default(head: Path, wanted: bool | None, *, scores_videos: bool) -> None:
    """Make a head the default one if that is wanted, or if nothing is said, it scores real videos and there is none."""
    if wanted or (wanted is None and scores_videos and not default_head_path().exists()):
        make_default(head)
        print_message(f"{head} is score-video's default head now")


def print_training(result: TrainingResult) -> None:
    """Print the figures of a training for people."""
    for warning in result.results["warnings"]:
        print_message(f"warning: {warning}")
    for table in results_tables(result.results):
        print_table(table)
    for target, figures in result.results.get("sums", {}).get("targets", {}).items():
        formula = result.results["sums"]["formulas"].get(target.rpartition("/")[2], target)
        accuracy = f"SRCC {figures['srcc']:.3f}, MAE {figures['mae']:.2f}, n {figures['n']}"
        print_result(f"{formula}, from its parts: {accuracy}")
    for target, ceiling in result.results.get("panel", {}).items():
        print_result(
            f"one human judge of {ceiling['judges']} against the others, {target}: SRCC {ceiling['srcc']:.3f}, "
            f"MAE {ceiling['mae']:.2f}, n {ceiling['n']}"
        )
    average = result.results["average"]
    print_result(f"average: SRCC {format_figure(average, 'srcc', 3)}, R-l2 {format_figure(average, 'r_l2', 2)}")
    print_message(f"head: {result.head} (results, predictions, learning curves and plots beside it)")
