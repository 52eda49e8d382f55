"""How good a head is after so many training routines: the default head, ridge and kernel ridge on Fis-V.

    python -m benchmarks.learning_curve [FISV]

The programmes are cut into 5 folds. Each fold is predicted by models that learnt from a random draw of the others, and
figures are of pooled held-out predictions, means and standard deviations over the draws. A draw takes the first
programmes of a random order of each training part, so larger draws hold the smaller ones.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import typer

from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.console import ends_well, progress
from cofinal.pipeline.examples import Dataset
from cofinal.pipeline.protocol import run_seeds
from cofinal.pipeline.results import format_figure, summarise_predictions
from cofinal.pipeline.splits import Split
from cofinal.pipeline.trainings import make_jobs

from .cross_validation import DEFAULT, FISV, FisvArgument, KindsOption, Source, folds_of, load
from .tables import print_table

SIZES = [20, 40, 80, 160, 320]
METHODS = ("head", *(name for name in BASELINES if name != "mean"))


def drawn(splits: list[Split], routines: int, seed: int) -> list[Split]:
    """Return the splits with only so many training routines, drawn at random."""
    if routines > (largest := min(len(split.training) for split in splits)):
        raise ValueError(f"--sizes {routines} is too large: a training part has {largest} routines")
    rng = np.random.default_rng(seed)
    return [
        Split(f"{routines} {split.name}", rng.permutation(split.training)[:routines], split.evaluated)
        for split in splits
    ]


def _main(
    fisv: FisvArgument = FISV,
    kinds: KindsOption = ["random"],  # noqa: B006 (typer copies it)
    draws: Annotated[int, typer.Option(help="How many draws, each with its own folds.")] = 5,
    sizes: Annotated[list[int], typer.Option(help="Training routines; repeatable.")] = SIZES,
) -> None:
    """Train on draws of several sizes and print a table in Markdown."""
    rows = []
    for kind in kinds:
        dataset = load(Source(fisv), kind)
        for size in sizes:
            splits = {seed: drawn(folds_of(dataset, seed), size, seed) for seed in range(draws)}
            results = _evaluate(f"{kind} folds, {size} routines", splits, dataset)
            rows += [[kind, str(size), *cells] for cells in _figures(results)]
    methods = (f"{name.replace('_', ' ')}: SRCC (MAE)" for name in METHODS)
    print_table(["5 folds", "training routines", "target", *methods], rows)


def _evaluate(what: str, splits: dict[int, list[Split]], dataset: Dataset) -> dict[str, Any]:
    """Train on the splits of each draw and return the figures."""
    with progress("epochs") as bar:
        task = bar.add_task(what, total=len(make_jobs(splits)) * DEFAULT.training.recipe.epochs)
        outcome = run_seeds(splits, dataset, DEFAULT.training, on_epochs=lambda done: bar.update(task, completed=done))
    return summarise_predictions(outcome.predictions)


def _figures(results: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the name of each target with the figures of each method."""
    for target, figures in results["targets"].items():
        of_method = {"head": figures, **{name: of_name[target] for name, of_name in results["baselines"].items()}}
        yield [
            target,
            *(f"{format_figure(of_method[name], 'srcc', 3)} ({of_method[name]['mae']:.2f})" for name in METHODS),
        ]


if __name__ == "__main__":
    typer.run(ends_well(_main))
