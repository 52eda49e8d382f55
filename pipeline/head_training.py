"""train-head: features and judges' scores in; a head and an honest account of how good it is out."""

import csv
import io
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from ..data.datasets import Joined, join, with_column
from ..data.feature_store import FeatureStore
from ..data.files import write_atomic
from ..data.labels import GENERATED_RECORDS, LabelRow, LabelSet, read_labels
from ..extractors.backbone import resolve_device
from ..extractors.video import VIDEO_SUFFIXES, VideoError
from ..models.checkpoint import MAX_MEMBERS, serialise_head
from ..models.head_types import CONFIGS
from . import conformal
from .baselines import BASELINES, pool
from .console import out as stdout
from .console import print_message, print_table
from .evaluation import SMALLEST_EVENT
from .extraction import extract_features, versions
from .heads import default_head_path, make_default, parse_extractor, remarks
from .plots import plot_curves, plot_predictions
from .protocol import Examples, Part, parts_of, run, summarise
from .sources import find_videos
from .training import TrainingRecipe

PROTOCOLS = ("auto", "official", "cv")


@dataclass(frozen=True)
class TrainingResult:
    """What train-head made."""

    head: Path
    """The head file; its results, predictions, learning curves and plots lie beside it."""
    results: dict[str, Any]
    """The figures, as `results.json` and `--json` have them."""
    predictions: list[dict[str, Any]]
    """One entry for each seed, judged video and target: true, predicted, grades, and each baseline's prediction."""
    failed_videos: list[dict[str, str]]
    """Videos that could not be extracted, where videos were given."""


def train_head(
    store: str | Path,
    dataset: str,
    *,
    labels: str | Path | None = None,
    targets: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    head_type: str = "cofinal",
    ensemble: int = 1,
    epochs: int | None = None,
    seed: int = 0,
    protocol: str = "auto",
    folds: int | None = None,
    groups: str | None = None,
    events: str | None = None,
    seeds: int = 1,
    intervals: bool = False,
    out: str | Path | None = None,
    set_default: bool | None = False,
    extractor: str | None = None,
    device: str = "auto",
) -> TrainingResult:
    """Train one head for all targets and actions of a dataset, and judge it on videos it did not see.

    Args:
        store: a feature store, or videos, which are extracted first into a store beside them.
        dataset: whose label files these are: "rg", "fisv" or "csv".
        labels: the label file or its folder; None to look in the store and where the videos came from, and beside both.
        targets: train these targets only.
        actions: train these actions only.
        head_type: "cofinal", or "gdlt", the baseline without fine grades.
        ensemble: train this many networks, from seeds of their own, which score together; the figures of the first
            one alone stay the headline, and the ensemble's are beside them.
        epochs: passes over the training videos; None for the recipe's number.
        seed: of folds, weights and batches: same seed, same numbers on the same machine.
        protocol: "official" trains on the train split and tests once; "cv" cross-validates the training videos and
            then trains the head on all of them; "auto" is official where test features are there.
        folds: of the cross-validation, 5 by default, or of the train split for the intervals of the official protocol;
            rows of one group stay in one fold.
        groups: `FILE:COLUMN`, a CSV file with the columns `video` and this one, whose values are the rows' groups (say
            the skater) instead of those of the label file.
        events: `FILE:COLUMN`, the competition of each video, for the rank correlation within events.
        seeds: repeat everything with this many seeds from `seed` on; figures are means over them, with their standard
            deviations, and the head is that of the first.
        intervals: give each judged prediction an interval, and report their coverage and width; about three times as
            many trainings in cross-validation of 5 folds, six times as many in the official protocol. The head of a
            cross-validation knows its own interval in any case.
        out: the head file to write; None for `heads/<dataset>-<date>.safetensors`.
        set_default: make it score-video's default head; None: only if there is none yet.
        extractor: `BACKBONE:RECIPE:WEIGHTS`, what made features that came without a manifest.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: bad arguments, labels or features: no head was written.
        VideoError: none of the videos could be extracted.
        OSError, WriteError: the head cannot be written.
    """
    started = time.perf_counter()
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    if head_type not in CONFIGS:
        raise ValueError(f"unknown head type {head_type!r}; known are {', '.join(CONFIGS)}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    if not 1 <= ensemble <= MAX_MEMBERS:
        raise ValueError(f"an ensemble has 1 to {MAX_MEMBERS} networks, not {ensemble}")
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {seeds}")
    torch_device = str(resolve_device(device))
    source = Path(store)
    if not source.exists():
        raise ValueError(f"{source} does not exist; name a feature store, or videos to extract first")
    folder = source if _is_store(source) else _store_beside(source)
    head_path = _head_path(out, dataset, folder)
    feature_store = FeatureStore(folder)
    everything = read_labels(dataset, [Path(labels)] if labels is not None else label_places(feature_store, source))
    label_set = narrowed(everything, targets, actions)
    if groups is not None:
        label_set = with_column(label_set, "group", groups, VIDEO_SUFFIXES)
    if events is not None:
        label_set = with_column(label_set, "event", events, VIDEO_SUFFIXES)
        _check_events(events, label_set.rows)
    if extractor and folder != source:
        raise ValueError("--extractor is for features that came without a manifest; leave it out with videos")

    failed = []
    if folder != source:
        join(everything, find_videos(source).paths, VIDEO_SUFFIXES)  # labels that fit no video are said beforehand
        print_message(f"extracting {source} into {folder}")
        failed = extract_features(source, folder, device=device).failed
        feature_store = FeatureStore(folder)
        if failed and not feature_store.names():
            raise VideoError(
                f"none of the {len(failed)} videos could be extracted, the first because: {failed[0]['error']}"
            )
    joined = join(everything, feature_store.names(), VIDEO_SUFFIXES)
    for leftover in joined.leftovers():
        print_message(f"note: {leftover}")
    label_set, examples = load_examples(feature_store, label_set, joined)
    identity, origin = _identity(feature_store, extractor, examples.features[0].shape[1])

    plans = {}
    for number in range(seed, seed + seeds):
        protocol, plans[number] = parts_of(examples, protocol, folds=folds or 5, seed=number, intervals=intervals)
    for option, given in (("--folds", folds), ("--groups", groups)):
        if given is not None and protocol != "cv" and not intervals:
            raise ValueError(f"{option} is for cross-validation, and there is a test split: add --protocol cv")
    if events is not None:
        _check_events(events, [examples.rows[i] for part in plans[seed] for i in part.judged])
    recipe = TrainingRecipe() if epochs is None else TrainingRecipe(epochs=epochs)
    outcome = run(plans, examples, label_set, head_type=head_type, members=ensemble, recipe=recipe, device=torch_device)
    network, predictions = outcome.network, outcome.predictions
    kept = plans[seed][-1]
    metadata = {
        "dataset": dataset,
        "targets": list(label_set.targets),
        "ranges": dict(zip(label_set.targets, network.config.ranges, strict=True)),
        "actions": list(label_set.actions),
        "identity": identity,
        "weights": origin,
        "manifest": feature_store.manifest,
        "intervals": {"level": conformal.LEVEL, "radii": outcome.radii},
        "generated": any((file.parent / GENERATED_RECORDS).exists() for file in everything.files),
    }
    results = {
        "format": 1,
        "dataset": dataset,
        "protocol": protocol,
        **summarise(predictions),
        "warnings": remarks(metadata),
        "training": {
            "videos": len(kept.training),
            "judged": len({entry["video"] for entry in predictions}),
            **(_folds_of(kept, examples) if protocol == "cv" else {}),
            **({"groups": groups} if groups else {}),
            **({"events": events} if events else {}),
            **({"interval_level": conformal.LEVEL} if intervals else {}),
            "head_type": head_type,
            **({"ensemble": ensemble} if ensemble > 1 else {}),
            "epochs": recipe.epochs,
            "seed": seed,
            "seeds": seeds,
            "seconds": round(time.perf_counter() - started, 1),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": versions("cofinal", "torch", "numpy", "scipy", "scikit-learn"),
        },
    }
    pooled = summarise(predictions, by_action=False)["targets"]
    write_atomic(head_path.with_suffix(".predictions.csv"), as_csv(predictions))
    write_atomic(head_path.with_suffix(".predicted.png"), plot_predictions(predictions, pooled))
    write_atomic(head_path.with_suffix(".curves.csv"), as_csv(outcome.curves))
    write_atomic(head_path.with_suffix(".curves.png"), plot_curves(outcome.curves))
    write_atomic(head_path.with_suffix(".results.json"), (json.dumps(results, indent=2) + "\n").encode())
    write_atomic(head_path, serialise_head(network, metadata | {"results": results}))
    scores_videos = identity is not None and not results["warnings"]
    if set_default or (set_default is None and scores_videos and not default_head_path().exists()):
        make_default(head_path)
        print_message(f"{head_path} is score-video's default head now")
    return TrainingResult(head_path, results, predictions, failed)


def _folds_of(kept: Part, examples: Examples) -> dict[str, Any]:
    return {"folds": len(kept.calibration), "grouped": examples.groups(kept.training) is not None}


def _check_events(events: str, rows: Sequence[LabelRow]) -> None:
    """Refuse events none of which has enough of some videos."""
    if max(Counter(row.event for row in rows).values()) < SMALLEST_EVENT:
        raise ValueError(
            f"no event in {events} has {SMALLEST_EVENT} videos or more to judge heads on; leave --events out"
        )


def _is_store(source: Path) -> bool:
    """Whether a user's STORE|VIDEOS is a store already."""
    return source.is_dir() and ((source / "manifest.json").exists() or any(source.rglob("*.npy")))


def _store_beside(videos: Path) -> Path:
    """Where the features of a user's VIDEOS are cached."""
    videos = videos.resolve()
    return videos.with_name(f"{videos.stem if videos.is_file() else videos.name}-features")


def _head_path(out: str | Path | None, dataset: str, store: Path) -> Path:
    """Return where the head shall be written."""
    if out is None:
        stem = f"{dataset}-{date.today():%Y%m%d}"
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names = itertools.chain([stem], numbered)
        path = next(path for name in names if not (path := Path("heads", f"{name}.safetensors")).exists())
    else:
        path = Path(out)
    if path.suffix != ".safetensors":
        raise ValueError(f"--out {path} must end in .safetensors")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name the head's file")
    if path.resolve().is_relative_to(store.resolve()):
        raise ValueError(f"--out {path} lies in the feature store; write the head elsewhere")
    return path


def label_places(store: FeatureStore, source: Path) -> list[Path]:
    """Return where labels are looked for: the store, its parent, the videos' folder and its parent."""
    videos = Path(store.manifest["videos"]) if store.manifest is not None else source.absolute()
    return list(dict.fromkeys([store.folder, store.folder.absolute().parent, videos, videos.parent]))


def narrowed(labels: LabelSet, targets: Sequence[str] | None, actions: Sequence[str] | None) -> LabelSet:
    """Return only the wanted targets and actions of the labels."""
    for what, wanted, known in (("target", targets, labels.targets), ("action", actions, labels.actions)):
        for name in wanted or ():
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}; {labels.dataset} has {', '.join(known) or 'none'}")
    kept = tuple(target for target in labels.targets if not targets or target in targets)
    acted = tuple(action for action in labels.actions if not actions or action in actions)
    rows = (
        replace(row, scores={target: row.scores[target] for target in kept if target in row.scores})
        for row in labels.rows
        if row.action is None or row.action in acted
    )
    scored = tuple(row for row in rows if row.scores)
    if not scored:
        raise ValueError(f"no label row is left for {', '.join([*(targets or ()), *(actions or ())])}")
    return replace(labels, targets=kept, actions=acted, rows=scored)


def load_examples(store: FeatureStore, labels: LabelSet, joined: Joined) -> tuple[LabelSet, Examples]:
    """Load the features of these labels into memory; labels keep the actions that have features."""
    wanted = {row.where: row for row in labels.rows}
    pairs = [(wanted[row.where], name) for row, name in joined.pairs if row.where in wanted]
    if not pairs:
        raise ValueError(f"none of the {len(labels.rows)} wanted label rows has features")
    seen = {row.action for row, _ in pairs}
    labels = replace(labels, actions=tuple(action for action in labels.actions if action in seen))
    features = [store.load(name) for _, name in pairs]
    width = features[0].shape[1]
    for (_, name), array in zip(pairs, features, strict=True):
        if array.shape[1] != width:
            raise ValueError(
                f"{store.path(name)} has features of width {array.shape[1]}, {store.path(pairs[0][1])} of "
                f"{width}; a store holds one width"
            )
    rows = [row for row, _ in pairs]
    scores = np.array([[row.scores.get(target, np.nan) for target in labels.targets] for row in rows])
    actions = None
    if len(labels.actions) > 1:
        actions = np.array([labels.actions.index(row.action) for row in rows if row.action is not None])
    return labels, Examples(rows, features, pool(features), scores, actions)


def _identity(store: FeatureStore, extractor: str | None, feature_dim: int) -> tuple[dict[str, str] | None, str | None]:
    """Return what made the features and where its weights came from, as far as anybody says."""
    if store.manifest is None:
        return parse_extractor(extractor, feature_dim) if extractor else (None, None)
    if extractor:
        raise ValueError(f"{store.folder} says itself what made its features; leave --extractor out")
    return store.identity, store.manifest["weights"]


def as_csv(entries: Sequence[dict[str, Any]]) -> bytes:
    """Return entries of the same keys as a CSV file, numbers to 4 decimals."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(entries[0]))
    writer.writeheader()
    writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()} for entry in entries)
    return text.getvalue().encode()


def print_results(result: TrainingResult) -> None:
    """Print the figures of a training for people."""
    for warning in result.results["warnings"]:
        print_message(f"warning: {warning}")
    for table in results_tables(result.results):
        print_table(table)
    mean = result.results["average"]
    stdout.print(f"average: SRCC {_figure(mean, 'srcc', 3)}, R-l2 {_figure(mean, 'r_l2', 2)}")
    print_message(f"head: {result.head} (results, predictions, learning curves and plots beside it)")


def results_tables(results: dict[str, Any]) -> tuple[Table, Table]:
    """Return results as two tables: the head's figures, with an ensemble's below, and the baselines'."""
    about = results["training"]
    how = f"{about['folds']} folds" if results["protocol"] == "cv" else "test split"
    if about["seeds"] > 1:
        how += f" x {about['seeds']} seeds (mean ± deviation)"
    beside = {"srcc_within_events": "in events", "coverage": "covered", "width": "width"}
    rows = results["targets"] | {f"{key}, ensemble": found for key, found in results.get("ensemble", {}).items()}
    beside = {name: what for name, what in beside.items() if any(name in found for found in rows.values())}
    head = _table(
        f"{results['dataset']}, {about['head_type']}: {how}, {about['judged']} videos judged",
        ["n", "SRCC", "95%", "R-l2", "MAE", "RMSE", *beside.values()],
    )
    baselines = _table("baselines: SRCC (R-l2)", [name.replace("_", " ") for name in BASELINES])
    for key, found in rows.items():
        head.add_row(
            key,
            str(found["n"]),
            _figure(found, "srcc", 3),
            "{:.2f} to {:.2f}".format(*found["intervals"]["srcc"]),
            _figure(found, "r_l2", 2),
            f"{found['mae']:.2f}",
            f"{found['rmse']:.2f}",
            *(f"{found[name]:.2f}" if name in found else "" for name in beside),
        )
    for key in results["targets"]:
        simple = (results["baselines"][name][key] for name in BASELINES)
        baselines.add_row(key, *(f"{_figure(x, 'srcc', 3)} ({x['r_l2']:.2f})" for x in simple))
    return head, baselines


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in ("target", *columns):
        table.add_column(column, justify="left" if column == "target" else "right")
    return table


def _figure(found: dict[str, Any], name: str, decimals: int) -> str:
    """Return a figure with its standard deviation over seeds, where there are several: 0.564 ±0.021."""
    spread = f" ±{found['std'][name]:.{decimals}f}" if "std" in found else ""
    return f"{found[name]:.{decimals}f}{spread}"
