"""Held-out predictions of variants of the head on the Fis-V programmes, several trainings at a time."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cofinal.data.datasets import with_column
from cofinal.data.feature_store import FeatureStore
from cofinal.data.labels import read_labels
from cofinal.extractors.video import VIDEO_SUFFIXES
from cofinal.models.cofinal import CoFInAlConfig
from cofinal.models.grading import GradingConfig
from cofinal.pipeline.console import progress
from cofinal.pipeline.examples import Dataset, label_places, load_dataset
from cofinal.pipeline.splits import cut_folds
from cofinal.pipeline.training import TrainingRecipe, fit, predict

FISV = Path(os.environ.get("COFINAL_SHARED", "../shared")) / "data/fisv"
FOLDS = 5
KINDS = {"random": None, "skater-disjoint": "skater", "event-disjoint": "event"}
"""Kinds of folds, and the column of skaters.csv whose values stay together in each."""


@dataclass(frozen=True)
class Variant:
    """A head and its training; the default one without arguments."""

    name: str = "default"
    config: type[GradingConfig] = CoFInAlConfig
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the configuration."""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)


def feature_folder(fisv: Path) -> Path:
    """The one folder of features beside skaters.csv.

    Raises:
        ValueError: something is missing.
    """
    about = fisv / "skaters.csv"
    if not about.is_file():
        raise ValueError(f"{about} does not exist; name the folder of Fis-V's labels, features and skaters.csv")
    folders = [path for path in fisv.iterdir() if path.is_dir()]
    if len(folders) != 1:
        raise ValueError(f"{fisv} has {len(folders)} folders; one of features is expected")
    return folders[0]


def alone() -> None:
    """Let this process have one core: there is one process for each."""
    torch.set_num_threads(1)


@cache
def load(fisv: Path, kind: str) -> Dataset:
    """The programmes, grouped for a kind of folds."""
    folder = feature_folder(fisv)
    store = FeatureStore(folder)
    labels = read_labels("fisv", label_places(store, folder))
    if KINDS[kind]:
        labels = with_column(labels, "group", f"{fisv / 'skaters.csv'}:{KINDS[kind]}", VIDEO_SUFFIXES)
    return load_dataset(store, labels)


def config_of(variant: Variant, dataset: Dataset) -> GradingConfig:
    """The configuration of a variant's network."""
    labels = dataset.labels
    ranges = tuple(labels.ranges[target] for target in labels.targets)
    return variant.config(dataset.examples.features[0].shape[1], labels.targets, ranges, **variant.settings)


def cross_validate(variant: Variant, fisv: Path, kind: str, seed: int, fields: Sequence[str]) -> np.ndarray:
    """Fields (N, M, F) of `TargetPrediction`, held out: a training for each of `FOLDS` folds."""
    dataset = load(fisv, kind)
    examples, config = dataset.examples, config_of(variant, dataset)
    held_out = np.full((*examples.scores.shape, len(fields)), np.nan)
    for rows in cut_folds(len(examples), FOLDS, seed=seed, groups=examples.groups()):
        training, test = examples.at(np.setdiff1d(np.arange(len(examples)), rows)), examples.at(rows)
        network = fit(training.features, training.scores, config=config, recipe=variant.recipe, seed=seed)
        predicted = predict(network, test.features)
        for column, target in enumerate(dataset.labels.targets):
            held_out[rows, column] = np.stack([getattr(predicted[target], name) for name in fields], axis=1)
    return held_out


def held_out_predictions(
    variants: Iterable[Variant], fisv: Path, kinds: Iterable[str], seeds: range
) -> dict[tuple[str, str], np.ndarray]:
    """As `held_out_verdicts`, of the scores alone: (S, N, M) in points."""
    said = held_out_verdicts(variants, fisv, kinds, seeds, ("score",))
    return {key: fields[..., 0] for key, fields in said.items()}


def held_out_verdicts(
    variants: Iterable[Variant], fisv: Path, kinds: Iterable[str], seeds: range, fields: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Cross-validate variants on several kinds and seeds of folds.

    Returns:
        Fields (S, N, M, F) of `TargetPrediction`, of S seeds, by name of the variant and kind of folds.
    """
    feature_folder(fisv)
    keys = [(variant, kind, seed) for variant in variants for kind in kinds for seed in seeds]
    found: dict[tuple[str, str, int], np.ndarray] = {}
    context = get_context("spawn")
    with progress("cross-validations") as bar, ProcessPoolExecutor(os.cpu_count(), context, alone) as workers:
        task = bar.add_task("training", total=len(keys))
        running = {
            workers.submit(cross_validate, variant, fisv, kind, seed, fields): (variant.name, kind, seed)
            for variant, kind, seed in keys
        }
        for done in as_completed(running):
            found[running[done]] = done.result()
            bar.update(task, advance=1)
    names = dict.fromkeys((variant.name, kind) for variant, kind, _ in keys)
    return {(name, kind): np.stack([found[name, kind, seed] for seed in seeds]) for name, kind in names}
