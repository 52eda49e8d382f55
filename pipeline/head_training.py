"""train-head: features and judges' scores in; a head and an honest account of its accuracy out."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.datasets import join, with_column
from ..data.feature_store import FeatureStore
from ..data.files import write_atomic
from ..data.labels import LabelRow, LabelSet, read_labels, with_ranges
from ..extractors.backbone import resolve_device
from ..extractors.video import VIDEO_SUFFIXES, VideoError
from ..models.checkpoint import serialise_head
from ..models.head import HeadNetwork
from ..models.neighbourhood import Neighbourhood
from . import conformal
from .console import print_message, print_result, print_table, progress
from .evaluation import SMALLEST_EVENT
from .examples import Dataset, Examples, label_places, load_dataset, select_labels
from .extraction import extract_features
from .heads import default_head_path, head_warnings, make_default, parse_extractor
from .options import LabelOptions, TrainingOptions, takes_fields_of
from .protocol import Outcome, run_seeds
from .reliability import pooling_notes, warnings_of
from .results import Results, Rows, format_figure, results_tables, summarise_predictions, write_results
from .settings import configure, with_grade_edges
from .sources import cut_segments, find_videos, is_store
from .splits import FOLDS, Split, make_splits
from .sums import consistency, sum_predictions
from .training_record import describe_labels, describe_training
from .training_set import record_training_set
from .trainings import HeadTraining, make_jobs
from .unfinished import count_finished, fingerprint, interrupted_head, kept_trainings, new_head


@dataclass(frozen=True)
class TrainingResult:
    """The head that train-head wrote, and its accuracy."""

    head: Path
    """The head file; its results, predictions, learning curves and plots lie beside it."""
    network: HeadNetwork
    """The head itself, on the CPU."""
    results: Results
    """The figures, as `results.json` and `--json` have them."""
    predictions: Rows
    """One entry for each seed, evaluated video and target: true and predicted score, grades, each baseline's score."""
    curves: Rows
    """One entry for each epoch of each training: seed, split, epoch and the losses."""
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
        set_default: make it score-video's default head; None: only if there is none yet, it is known
            what made the features, and the head has no warning.
        extractor: `BACKBONE:RECIPE:WEIGHTS`, what made features that came without a manifest.
        label_options: the fields of `LabelOptions`, given as keyword arguments.
        options: the fields of `TrainingOptions`, given as keyword arguments.

    Raises:
        ValueError: bad arguments, labels or features: no head was written.
        VideoError: none of the videos could be extracted.
        OSError: the head cannot be written; nothing was trained, but videos may have been extracted.
        WriteError: a file could not be written during the work; finished trainings are kept for `resume`.
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
    training = replace(training, make_config=with_grade_edges(training.make_config, options, selected))

    failed = [] if folder == source else _extract(source, folder, all_labels, options.device, extractor)
    feature_store = FeatureStore(folder)
    data = load_dataset(feature_store, all_labels, selected)
    for leftover in data.leftovers:
        print_message(f"note: {leftover}")
    identity, weights = _feature_identity(feature_store, extractor, data.examples)

    protocol, splits = _splits_of_seeds(data, options)
    left_out = _left_out(protocol, data.examples)
    for note in left_out:
        print_message(f"note: {note}")
    decides, total = fingerprint(splits, data, training), len(make_jobs(splits))
    head_path = _head_path(out, dataset, options)
    with kept_trainings(head_path, decides, total=total, resume=options.resume) as kept:
        outcome = _train(splits, data, training, kept, total, options.workers)
        sums = sum_predictions(outcome.predictions, data.labels.sums)
        predictions = [*outcome.predictions, *sums]
        results = {
            "format": 1,
            "dataset": dataset,
            "protocol": protocol,
            **summarise_predictions(outcome.predictions),
            **describe_labels(all_labels, data, splits[options.seed], sums),
            **({"consistency": found} if (found := consistency(outcome.predictions, data.labels.checks)) else {}),
        }
        routines = data.examples.at(splits[options.seed][-1].training)
        metadata = {
            "dataset": dataset,
            "identity": identity,
            "weights": weights,
            **_describe_head(outcome, data.labels, routines, feature_store),
            "training_set": record_training_set(routines, all_labels, feature_store, anonymous=options.anonymous),
        }
        metadata["warnings"] = warnings_of(results, predictions, metadata, routines)
        results |= {
            "warnings": head_warnings(metadata),
            "notes": [*left_out, *pooling_notes(results)],
            "training": describe_training(protocol, splits[options.seed][-1], data.examples, outcome, training, options)
            | {"seconds": round(time.perf_counter() - started, 1)},
        }
        sources = _sources(feature_store, data.examples)
        write_results(head_path, results, predictions, outcome.curves, identity, sources)
        neighbourhood = Neighbourhood.fit(routines.features, routines.actions)
        write_atomic(head_path, serialise_head(outcome.network, metadata | {"results": results}, neighbourhood))
    _set_default(head_path, set_default, results["warnings"], scores_videos=identity is not None)
    return TrainingResult(head_path, outcome.network, Results(results), Rows(predictions), Rows(outcome.curves), failed)


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


def _sources(store: FeatureStore, examples: Examples) -> dict[str, str]:
    """Return by a label's video the file that its features were made of."""
    records = (
        (row.video, store.records.get(name, {})) for row, name in zip(examples.rows, examples.names, strict=True)
    )
    return {video: record["source"] for video, record in records if "source" in record}


def _are_generated(store: FeatureStore) -> bool:
    """Whether a video of the store said of itself that it is a generated routine."""
    return any(record.get("container", {}).get("is_generated") for record in store.records.values())


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


def _left_out(protocol: str, examples: Examples) -> list[str]:
    """Return a sentence on videos of the test split that take no part."""
    test = [row.video for row in examples.rows if row.split == "test"]
    if protocol == "official" or not test:
        return []
    if len(test) == 1:
        return [f"the only video of the test split, {test[0]}, takes no part: a test needs at least 2"]
    return [f"the {len(test)} videos of the test split take no part in a cross-validation"]


def _train(
    splits: dict[int, list[Split]],
    data: Dataset,
    training: HeadTraining,
    kept: Path,
    total: int,
    workers: int | None,
) -> Outcome:
    """Train and evaluate the heads of all seeds, `total` trainings, with a progress bar over all epochs."""
    if before := count_finished(kept):
        print_message(f"{before} of {total} trainings are kept from the interrupted run")
    with progress("epochs") as bar:
        task = bar.add_task("training", total=training.recipe.epochs * total)
        return run_seeds(
            splits,
            data,
            training,
            folder=kept,
            workers=workers,
            on_epochs=lambda done: bar.update(task, completed=done),
        )


def _describe_head(outcome: Outcome, labels: LabelSet, routines: Examples, store: FeatureStore) -> dict[str, Any]:
    """Return the entries of a head's metadata that say what it scores and what it was trained on."""
    return {
        "targets": list(labels.targets),
        "ranges": dict(zip(labels.targets, outcome.network.config.ranges, strict=True)),
        "bounded": sorted(set(labels.targets) & set(labels.ranges)),
        "sums": [str(one) for one in labels.sums],
        "actions": list(labels.actions),
        "manifest": store.manifest,
        "intervals": {"level": conformal.LEVEL, "radii": outcome.radii},
        "generated": _are_generated(store),
        "routines": len(routines),
    }


def _check_head_path(path: Path, store: Path) -> None:
    """Refuse a head file that cannot be written, or must not be."""
    if path.suffix != ".safetensors":
        raise ValueError(f"--out {path} must end in .safetensors")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name the head's file")
    if path.resolve().is_relative_to(store.resolve()):
        raise ValueError(f"--out {path} lies in the feature store; write the head elsewhere")


def _head_path(out: str | Path | None, dataset: str, options: TrainingOptions) -> Path:
    """Return the head file to write: the named one, an interrupted one, or a new one."""
    if out is not None:
        return Path(out)
    return (interrupted_head(dataset) if options.resume else None) or new_head(dataset)


def _set_default(head: Path, wanted: bool | None, warnings: Sequence[str], *, scores_videos: bool) -> None:
    """Make a head the default one if that is wanted; if nothing is said, also where there is none and no warning.

    Args:
        head: the head file.
        wanted: what the user says; None for nothing.
        warnings: those of the head.
        scores_videos: whether it is known what made its features.
    """
    if wanted is None and scores_videos and not default_head_path().exists():
        wanted = not warnings
        if warnings:
            print_message(
                f"{head} does not become score-video's default head with these warnings; --set-default does it"
            )
    if wanted:
        make_default(head)
        print_message(f"{head} is score-video's default head now")


def print_training(result: TrainingResult) -> None:
    """Print the figures of a training for people."""
    for warning in result.results["warnings"]:
        print_message(f"warning: {warning}")
    for note in result.results["notes"]:
        print_message(f"note: {note}")
    for table in results_tables(result.results):
        print_table(table)
    for formula, points in result.results.get("consistency", {}).items():
        print_result(
            f"{formula} but for deductions: predictions are {points['predicted']:.2f} points away from it on average, "
            f"judges {points['judged']:.2f}"
        )
    average = result.results["average"]
    print_result(f"average: SRCC {format_figure(average, 'srcc', 3)}, R-l2 {format_figure(average, 'r_l2', 2)}")
    page = result.head.with_suffix(".html").name
    print_message(f"head: {result.head} (beside it the page {page}, results, predictions, learning curves and plots)")
