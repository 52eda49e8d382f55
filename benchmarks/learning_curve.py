"""How good a head is after so many training routines: the default head, ridge and kernel ridge on Fis-V.

    python -m benchmarks.learning_curve [FISV]

The programmes are cut into 5 folds. Each fold is predicted by models that learnt from a random draw of the others, and
figures are of pooled held-out predictions, means and standard deviations over the draws. A draw takes the first
programmes of a random order of each training part, so larger draws hold the smaller ones.
"""

from typing import Annotated

import numpy as np
import typer

from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.console import ends_well, progress
from cofinal.pipeline.protocol import run_protocol
from cofinal.pipeline.results import format_figure, summarise_predictions
from cofinal.pipeline.splits import Split

from .cross_validation import DEFAULT, FISV, FisvArgument, KindsOption, Source, folds_of, load
from .tables import print_table

SIZES = [20, 40, 80, 160, 320]
METHODS = ("head", *(name for name in BASELINES if name != "mean"))


def drawn(splits: list[Split], routines: int, seed: int) -> list[Split]:
    """Return the splits with only so many training routines, drawn at random."""
    rng = np.random.default_rng(seed)
    return [
        Split(f"{routines} {split.name}", rng.permutation(split.training)[:routines], split.evaluated)
        for split in splits
    ]


def _main(
    fisv: FisvArgument = FISV,
    kinds: KindsOption = ["random", "event-disjoint"],  # noqa: B006 (typer copies it)
    draws: Annotated[int, typer.Option(help="How many draws, each with its own folds.")] = 5,
    sizes: Annotated[list[int], typer.Option(help="Training routines; repeatable.")] = SIZES,
) -> None:
    """Train on draws of several sizes and print a table in Markdown."""
    rows = []
    with progress("cross-validations") as bar:
        task = bar.add_task("training", total=len(kinds) * len(sizes) * draws)
        for kind in kinds:
            dataset = load(Source(fisv), kind)
            for size in sizes:
                entries = []
                for seed in range(draws):
                    splits = drawn(folds_of(dataset, seed), size, seed)
                    outcome = run_protocol(splits, dataset, DEFAULT.training, seed=seed)
                    entries += [{"seed": seed, **entry} for entry in outcome.predictions]
                    bar.advance(task)
                results = summarise_predictions(entries)
                for target, figures in results["targets"].items():
                    of_method = {"head": figures, **{name: results["baselines"][name][target] for name in BASELINES}}
                    cells = [
                        f"{format_figure(of_method[name], 'srcc', 3)} ({of_method[name]['mae']:.2f})"
                        for name in METHODS
                    ]
                    rows.append([kind, target, str(size), *cells])
    columns = ["5 folds", "target", "training routines", *(f"{name.replace('_', ' ')}: SRCC (MAE)" for name in METHODS)]
    print_table(columns, rows)


if __name__ == "__main__":
    typer.run(ends_well(_main))
