"""train-head: features and judges' scores in; a head and an honest account of how good it is out."""

import csv
import io
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from data.datasets import Joined, join
from data.feature_store import FeatureStore
from data.files import write_atomic
from data.labels import GENERATED_RECORDS, LabelSet, read_labels
from extractors.backbone import resolve_device
from models.checkpoint import serialise_head
from models.cofinal import CoFInAlConfig
from pipeline.baselines import BASELINES, pool
from pipeline.console import out as stdout
from pipeline.console import say
from pipeline.extraction import extract_features, versions
from pipeline.heads import default_head_path, make_default, parse_extractor
from pipeline.plots import plot_predictions
from pipeline.protocol import Examples, parts_of, run, summarise
from pipeline.training import TrainingRecipe

PROTOCOLS = ("auto", "official", "cv")


@dataclass(frozen=True)
class TrainingResult:
    """What train-head made."""

    head: Path
    """The head file; its results, predictions and plot lie beside it."""
    results: dict[str, Any]
    """The figures, as `results.json` and `--json` have them."""
    predictions: list[dict[str, Any]]
    """One entry for each judged video and target: true, predicted, grades, and each baseline's prediction."""
    failed_videos: list[dict[str, str]]
    """Videos that could not be extracted, where videos were given."""


def train_head(
    store: str | Path,
    dataset: str,
    *,
    labels: str | Path | None = None,
    targets: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    protocol: str = "auto",
    folds: int = 5,
    out: str | Path | None = None,
    set_default: bool | None = False,
    extractor: str | None = None,
    device: str = "auto",
) -> TrainingResult:
    """Train one head for all targets and actions of a dataset, and judge it on videos it did not see.

    Args:
        store: a feature store, or videos, which are extracted first into a store beside them.
        dataset: whose label files these are: "rg", "fisv" or "csv".
        labels: the label file or its folder; None to look in the store, its parent and where the videos came from.
        targets: train these targets only.
        actions: train these actions only.
        epochs: passes over the training videos; None for the recipe's number.
        seed: same seed, same numbers on the same machine.
        protocol: "official" trains on the train split and tests once; "cv" cross-validates the training videos and
            then trains the head on all of them; "auto" is official where test features are there.
        folds: of the cross-validation; rows of one group stay in one fold.
        out: the head file to write; None for `heads/<dataset>-<date>.safetensors`.
        set_default: make it score-video's default head; None: only if there is none yet.
        extractor: `BACKBONE:RECIPE:WEIGHTS`, what made features that came without a manifest.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: bad arguments, labels or features: no head was written.
        OSError: the head cannot be written.
    """
    started = time.perf_counter()
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    torch_device = str(resolve_device(device))
    feature_store, failed = _open_store(Path(store), device)
    head_path = _head_path(out, dataset, feature_store)

    places = [Path(labels)] if labels is not None else _label_places(feature_store)
    label_set = _narrowed(read_labels(dataset, places), targets, actions)
    joined = join(label_set, feature_store.names())
    for leftover in joined.leftovers():
        say(f"note: {leftover}")
    seen = {row.action for row, _ in joined.pairs}
    label_set = replace(label_set, actions=tuple(action for action in label_set.actions if action in seen))
    examples = _load(feature_store, label_set, joined)
    feature_dim = examples.features[0].shape[1]
    identity, origin = _identity(feature_store, extractor, feature_dim)

    protocol, parts = parts_of(examples, protocol, folds=folds, seed=seed)
    recipe = TrainingRecipe() if epochs is None else TrainingRecipe(epochs=epochs)
    config = CoFInAlConfig(
        feature_dim=feature_dim,
        targets=label_set.targets,
        ranges=tuple(label_set.ranges[target] for target in label_set.targets),
        num_actions=0 if examples.actions is None else len(label_set.actions),
    )
    network, predictions = run(parts, label_set, config=config, recipe=recipe, seed=seed, device=torch_device)
    results = {
        "format": 1,
        "dataset": dataset,
        "protocol": protocol,
        **summarise(predictions),
        "training": {
            "videos": len(parts[-1].training.rows),
            "judged": len({entry["video"] for entry in predictions}),
            **({"folds": folds, "grouped": parts[-1].training.groups() is not None} if protocol == "cv" else {}),
            "epochs": recipe.epochs,
            "seed": seed,
            "seconds": round(time.perf_counter() - started, 1),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": versions("cofinal", "torch", "numpy"),
        },
    }
    metadata = {
        "dataset": dataset,
        "targets": list(label_set.targets),
        "ranges": {target: list(label_set.ranges[target]) for target in label_set.targets},
        "actions": list(label_set.actions),
        "identity": identity,
        "weights": origin,
        "manifest": feature_store.manifest,
        "generated": any((place / GENERATED_RECORDS).exists() for place in places),
        "results": results,
    }
    pooled = summarise(predictions, by_action=False)["targets"]
    write_atomic(head_path.with_suffix(".predictions.csv"), _as_csv(predictions))
    write_atomic(head_path.with_suffix(".predicted.png"), plot_predictions(predictions, pooled))
    write_atomic(head_path.with_suffix(".results.json"), (json.dumps(results, indent=2) + "\n").encode())
    write_atomic(head_path, serialise_head(network, metadata))
    if set_default or (set_default is None and not default_head_path().exists()):
        make_default(head_path)
        say(f"{head_path} is score-video's default head now")
    return TrainingResult(head_path, results, predictions, failed)


def _open_store(source: Path, device: str) -> tuple[FeatureStore, list[dict[str, str]]]:
    """Return the store that a user's STORE|VIDEOS means, extracting videos into one beside them."""
    if source.is_dir():
        store = FeatureStore(source)
        if store.manifest is not None or store.names():
            return store, []
    folder = source.absolute()
    folder = folder.with_name(f"{folder.stem if source.is_file() else folder.name}-features")
    say(f"extracting {source} into {folder}")
    summary = extract_features(source, folder, device=device)
    return FeatureStore(folder), summary.failed


def _head_path(out: str | Path | None, dataset: str, store: FeatureStore) -> Path:
    """Return where the head shall be written, its folder made."""
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
    if path.resolve().is_relative_to(store.folder.resolve()):
        raise ValueError(f"--out {path} lies in the feature store; write the head elsewhere")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _label_places(store: FeatureStore) -> list[Path]:
    """Return where labels are looked for: the store, its parent, the videos' folder and its parent."""
    places = [store.folder, store.folder.absolute().parent]
    if store.manifest is not None:
        videos = Path(store.manifest["videos"])
        places += [videos, videos.parent]
    return places


def _narrowed(labels: LabelSet, targets: Sequence[str] | None, actions: Sequence[str] | None) -> LabelSet:
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
    return replace(labels, targets=kept, actions=acted, rows=tuple(row for row in rows if row.scores))


def _load(store: FeatureStore, labels: LabelSet, joined: Joined) -> Examples:
    """Load all joined features into memory; they must be of one width."""
    features = [store.load(name) for _, name in joined.pairs]
    first = features[0].shape[1]
    for (_, name), array in zip(joined.pairs, features, strict=True):
        if array.shape[1] != first:
            raise ValueError(
                f"{store.path(name)} has features of width {array.shape[1]}, {store.path(joined.pairs[0][1])} of "
                f"{first}; a store holds one width"
            )
    rows = [row for row, _ in joined.pairs]
    scores = np.array([[row.scores.get(target, np.nan) for target in labels.targets] for row in rows])
    actions = None
    if len(labels.actions) > 1:
        actions = np.array([labels.actions.index(row.action) for row in rows if row.action is not None])
    return Examples(rows, features, pool(features), scores, actions)


def _identity(store: FeatureStore, extractor: str | None, feature_dim: int) -> tuple[dict[str, str] | None, str | None]:
    """Return what made the features and where its weights came from, as far as anybody says."""
    if store.manifest is None:
        return parse_extractor(extractor, feature_dim) if extractor else (None, None)
    if extractor:
        raise ValueError(f"{store.folder} says itself what made its features; leave --extractor out")
    return store.identity, store.manifest["weights"]


def _as_csv(predictions: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(predictions[0]))
    writer.writeheader()
    writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()} for entry in predictions)
    return text.getvalue().encode()


def print_results(result: TrainingResult) -> None:
    """Print the figures of a training for people."""
    stdout.print(results_table(result.results))
    mean = result.results["average"]
    stdout.print(f"average: SRCC {mean['srcc']:.3f}, R-l2 {mean['r_l2']:.2f}")
    say(f"head: {result.head} (results, predictions and a plot beside it)")


def results_table(results: dict[str, Any]) -> Table:
    """Return results as a table, the baselines' SRCC beside the head's."""
    about = results["training"]
    how = f"{about['folds']} folds" if results["protocol"] == "cv" else "test split"
    table = Table(
        title=f"{results['dataset']}: {how}, {about['judged']} videos judged",
        caption=f"last {len(BASELINES)} columns: SRCC of the baselines",
    )
    table.add_column("target")
    for column in ("n", "SRCC", "95%", "R-l2", "MAE", *BASELINES):
        table.add_column(column.replace("_", " "), justify="right", no_wrap=column == "95%")
    for key, found in results["targets"].items():
        low, high = found["intervals"]["srcc"]
        table.add_row(
            key,
            str(found["n"]),
            f"{found['srcc']:.3f}",
            f"{low:.2f}-{high:.2f}",
            f"{found['r_l2']:.2f}",
            f"{found['mae']:.2f}",
            *(f"{results['baselines'][name][key]['srcc']:.3f}" for name in BASELINES),
        )
    return table
