"""The demo over three sets of generated routines: is its SRCC on unseen routines luck?

    python -m benchmarks.demo_seeds [FOLDER]

Prints a table of SRCC on the unseen routines (head, ridge, kernel ridge) and of what must not tell the score. Runs of
the demo that the folder holds already are continued, not repeated.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.demo import TARGET, run_demo

from .tables import print_table

SEEDS = (0, 1, 2)


def _main(folder: Annotated[Path, typer.Argument(help="Gets a demo a seed.")] = Path("demo-seeds")) -> None:
    """Run the demo for three data seeds and print a table in Markdown."""
    rows, confounds = [], []
    for seed in SEEDS:
        print_message(f"data seed {seed}")
        results = run_demo(folder / str(seed), seed=seed)
        figures = [results["targets"], *(results["baselines"][name] for name in BASELINES)]
        rows.append([found[TARGET]["srcc"] for found in figures])
        confounds.append(results["confounds"])
    measures = list(confounds[0])
    table = [
        [str(seed), *(f"{value:.3f}" for value in row), *(f"{told[name]:+.2f}" for name in measures)]
        for seed, row, told in zip(SEEDS, rows, confounds, strict=True)
    ]
    table.append(["mean", *(f"{value:.3f}" for value in np.mean(rows, axis=0)), *("" for _ in measures)])
    print_table(["data seed", "head", *(name.replace("_", " ") for name in BASELINES), *measures], table)


if __name__ == "__main__":
    typer.run(ends_well(_main))
