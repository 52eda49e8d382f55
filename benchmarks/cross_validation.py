"""Held-out predictions of variants of the head on the Fis-V programmes, several trainings at a time."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cofinal.data.datasets import with_column
from cofinal.data.feature_store import FeatureStore
from cofinal.data.files import write_atomic
from cofinal.data.labels import read_labels
from cofinal.extractors.video import VIDEO_SUFFIXES
from cofinal.models.cofinal import CoFInAlConfig, CoFInAlRecipe
from cofinal.models.head import HeadNetwork
from cofinal.models.predict import borderline, predict, read_verdict
from cofinal.pipeline.console import progress
from cofinal.pipeline.examples import Dataset, Examples, label_places, load_dataset
from cofinal.pipeline.protocol import run_protocol
from cofinal.pipeline.splits import FOLDS, Split, make_splits
from cofinal.pipeline.trainings import HeadTraining

FISV = Path(os.environ.get("COFINAL_SHARED", "../shared")) / "data/fisv"
KINDS = {"random": None, "skater-disjoint": "skater", "event-disjoint": "event"}
"""Kinds of folds, and the column of skaters.csv whose values stay together in each."""
ALL_KINDS = list(KINDS)
Entries = list[dict[str, Any]]
"""Entries of `run_protocol`, each with its `seed` and the columns of `_verdict_columns`."""

FisvArgument = Annotated[Path, typer.Argument(help="Folder with train.txt, skaters.csv and one folder of features.")]
KindsOption = Annotated[list[str], typer.Option("--kinds", help=f"Kinds of folds: {', '.join(KINDS)}; repeatable.")]
SeedsOption = Annotated[int, typer.Option(help="How many fold seeds.")]
FirstSeedOption = Annotated[int, typer.Option(help="The first fold seed.")]
RoutinesOption = Annotated[int | None, typer.Option(help="Take only the first routines; by default all.")]
KeepOption = Annotated[
    Path | None,
    typer.Option("--keep", help="Keep finished folds here and go on with them. Remove it when the code has changed."),
]


@dataclass(frozen=True)
class Variant:
    """A head and its training, by a name."""

    name: str
    training: HeadTraining


DEFAULT = Variant("default", HeadTraining(CoFInAlConfig, CoFInAlRecipe()))


@dataclass(frozen=True)
class Source:
    """Where the programmes are."""

    fisv: Path
    """Folder with train.txt, skaters.csv and one folder of features."""
    routines: int | None = None
    """Only the first routines; None for all."""

    def features(self) -> Path:
        """Return the folder of features.

        Raises:
            ValueError: something is missing.
        """
        if not (self.fisv / "skaters.csv").is_file():
            raise ValueError(f"{self.fisv} has no skaters.csv; name the folder of Fis-V's labels and features")
        folders = [path for path in self.fisv.iterdir() if path.is_dir()]
        if len(folders) != 1:
            raise ValueError(f"{self.fisv} has {len(folders)} folders; one of features is expected")
        return folders[0]


@cache
def load(source: Source, kind: str) -> Dataset:
    """Load the programmes with their events, grouped for a kind of folds."""
    folder = source.features()
    store = FeatureStore(folder)
    table = source.fisv / "skaters.csv"
    labels = with_column(read_labels("fisv", label_places(store, folder)), "event", f"{table}:event", VIDEO_SUFFIXES)
    if column := KINDS[kind]:
        labels = with_column(labels, "group", f"{table}:{column}", VIDEO_SUFFIXES)
    dataset = load_dataset(store, labels)
    first = np.arange(len(dataset.examples))[: source.routines]
    return replace(dataset, examples=dataset.examples.at(first))


def folds_of(dataset: Dataset, seed: int, *, intervals: bool = False) -> list[Split]:
    """Return the folds of a cross-validation, without its final training."""
    splits = make_splits(dataset.examples, "cv", folds=FOLDS, seed=seed, intervals=intervals)[1]
    return [split for split in splits if len(split.evaluated)]


def cross_validate(
    variants: Iterable[Variant],
    source: Source,
    kinds: Sequence[str],
    seeds: Iterable[int],
    *,
    with_baselines: bool = False,
    intervals: bool = False,
    keep: Path | None = None,
) -> dict[tuple[str, str], Entries]:
    """Cross-validate variants on several kinds and seeds of folds, in a process for each core.

    Args:
        variants: what to train.
        source: the programmes.
        kinds: names of `KINDS`.
        seeds: of the cut into folds and of the trainings.
        with_baselines: whether baselines' predictions stand beside the head's.
        intervals: whether predictions get intervals; 5 folds then take 15 trainings instead of 5.
        keep: folder that keeps finished folds, and that has those of an earlier run; None for none.

    Returns:
        Held-out entries by name of the variant and kind of folds, sorted by seed, routine and target.

    Raises:
        ValueError: a kind is unknown, or files are missing.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kind of folds {', '.join(sorted(unknown))}; known are {', '.join(KINDS)}")
    source.features()
    # the trainings for intervals are shared by the folds, so all folds run in one process then
    folds: Sequence[int | None] = [None] if intervals else range(FOLDS)
    jobs = [(variant, kind, seed, fold) for variant in variants for kind in kinds for seed in seeds for fold in folds]
    entries: dict[tuple[str, str], Entries] = {(variant.name, kind): [] for variant, kind, _, _ in jobs}
    workers = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"))
    with workers, progress("cross-validations" if intervals else "folds") as bar:
        task = bar.add_task("training", total=len(jobs))
        running = {workers.submit(_run_or_read, keep, source, *job, with_baselines): job for job in jobs}
        for done in as_completed(running):
            variant, kind, _, _ = running[done]
            entries[variant.name, kind] += done.result()
            bar.advance(task)
    for kind in kinds:
        place = {row.video: i for i, row in enumerate(load(source, kind).examples.rows)}
        for variant in variants:
            # sorting is stable: the targets of a routine keep their order
            entries[variant.name, kind].sort(key=lambda entry: (entry["seed"], place[entry["video"]]))
    return entries


def as_arrays(entries: Entries) -> dict[str, np.ndarray]:
    """Return each numeric column of entries as an array (S, N, M): S seeds, N routines, M targets.

    An entry that is absent, because the routine has no score of the target, is NaN.
    """
    places = [
        {value: place for place, value in enumerate(dict.fromkeys(entry[key] for entry in entries))}
        for key in ("seed", "video", "target")
    ]
    seeds, videos, targets = places
    columns = [name for name, value in entries[0].items() if isinstance(value, (int, float)) and name != "seed"]
    arrays = {name: np.full([len(values) for values in places], np.nan) for name in columns}
    for entry in entries:
        at = seeds[entry["seed"]], videos[entry["video"]], targets[entry["target"]]
        for name in columns:
            arrays[name][at] = entry[name]
    return arrays


def _run_or_read(keep: Path | None, *job: Any) -> Entries:
    """Run one fold, or all folds with intervals, unless its file is there."""
    if keep is None:
        return _run(*job)
    file = keep / f"{hashlib.sha256(repr(job).encode()).hexdigest()}.json"
    if not file.exists():
        keep.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(_run(*job)).encode())
    entries: Entries = json.loads(file.read_bytes())
    return entries


def _run(source: Source, variant: Variant, kind: str, seed: int, fold: int | None, with_baselines: bool) -> Entries:
    """Run one fold, or all folds with intervals."""
    dataset = load(source, kind)
    how: dict[str, Any] = {"seed": seed, "with_baselines": with_baselines, "workers": 1}  # this is a worker itself
    if fold is None:
        splits = folds_of(dataset, seed, intervals=True)
        outcome = run_protocol(splits, dataset, variant.training, **how)
        return [{"seed": seed, **entry} for entry in outcome.predictions]
    split = folds_of(dataset, seed)[fold]
    outcome = run_protocol([split], dataset, variant.training, **how)
    verdicts = _verdict_columns(outcome.network, dataset.examples.at(split.evaluated))
    return [{"seed": seed, **entry, **verdicts[entry["video"], entry["target"]]} for entry in outcome.predictions]


def _verdict_columns(network: HeadNetwork, routines: Examples) -> dict[tuple[str, str], dict[str, float]]:
    """Return the grade of the true score, the span of the verdict's grade, and whether it is borderline."""
    predicted = predict(network, routines.features, routines.actions)
    columns = {}
    for m, target in enumerate(network.config.targets):
        verdict = predicted[target]
        assert verdict.cells is not None, "only public heads have no cells"
        assert verdict.edges is not None, "only public heads have no edges"
        true_grades = read_verdict(routines.scores[:, m], verdict.cells, verdict.num_subgrades).grade
        for i, row in enumerate(routines.rows):
            grade = int(verdict.grade[i])
            columns[row.video, target] = {
                "true_grade": int(true_grades[i]),
                "grade_low": float(verdict.edges[grade - 1]),
                "grade_high": float(verdict.edges[grade]),
                "is_borderline": float(borderline(grade, verdict.probabilities[i].tolist()) is not None),
            }
    return columns
