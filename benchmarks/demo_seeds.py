"""The demo with three data seeds, each another set of generated routines: how much does its SRCC vary?

    python -m benchmarks.demo_seeds [FOLDER]

It prints SRCC and mean absolute error (MAE, points) on the unseen routines, of the head and the baselines, and the SRCC
of trivial measures with the score, which must be low. Routines and features that the folder holds already are used
again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.demo import TARGET, run_demo

from .tables import print_table


def _main(
    folder: Annotated[Path, typer.Argument(help="Gets one demo per data seed.")] = Path("demo-seeds"),
    seeds: Annotated[int, typer.Option(help="Data seeds, from 0 on.")] = 3,
) -> None:
    """Run the demo for several data seeds and print a table in Markdown."""
    rows, confounds = [], []
    for seed in range(seeds):
        print_message(f"data seed {seed}")
        results = run_demo(folder / str(seed), seed=seed)
        figures = [results["targets"], *(results["baselines"][name] for name in BASELINES)]
        rows.append([[found[TARGET][figure] for figure in ("srcc", "mae")] for found in figures])
        confounds.append(results["confounds"])
    measures = list(confounds[0])
    table = [
        [str(seed), *map(_cell, row), *(f"{told[name]:+.2f}" for name in measures)]
        for seed, row, told in zip(range(seeds), rows, confounds, strict=True)
    ]
    table.append(["mean", *map(_cell, np.mean(rows, axis=0)), *("" for _ in measures)])
    print_table(["SRCC (MAE)", "head", *(name.replace("_", " ") for name in BASELINES), *measures], table)


def _cell(figures: Sequence[float]) -> str:
    srcc, mae = figures
    return f"{srcc:.3f} ({mae:.2f})"


if __name__ == "__main__":
    typer.run(ends_well(_main))
