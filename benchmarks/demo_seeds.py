"""The demo over three sets of generated routines: is its SRCC on unseen routines luck?

    python -m benchmarks.demo_seeds [FOLDER]

Prints a table of SRCC on the unseen routines (head, ridge, kernel ridge) and of what must not tell the score. Runs of
the demo that the folder holds already are continued, not repeated.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipeline.baselines import BASELINES
from pipeline.console import ends_well, out, say
from pipeline.demo import TARGET, run_demo

SEEDS = (0, 1, 2)


def _main(folder: Annotated[Path, typer.Argument(help="Gets a demo a seed.")] = Path("demo-seeds")) -> None:
    """Run the demo for three data seeds and print a table in Markdown."""
    rows, confounds = [], []
    for seed in SEEDS:
        say(f"data seed {seed}")
        results = run_demo(folder / str(seed), seed=seed)
        figures = [results["targets"], *(results["baselines"][name] for name in BASELINES)]
        rows.append([found[TARGET]["srcc"] for found in figures])
        confounds.append(results["confounds"])
    measures = list(confounds[0])
    columns = ["head", *(name.replace("_", " ") for name in BASELINES), *measures]
    out.print("| data seed | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|", markup=False)
    for seed, row, told in zip(SEEDS, rows, confounds, strict=True):
        values = [*(f"{value:.3f}" for value in row), *(f"{told[name]:+.2f}" for name in measures)]
        out.print(f"| {seed} | " + " | ".join(values) + " |", markup=False)
    means = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
    out.print(f"| mean | {means} |" + " |" * len(measures), markup=False)


if __name__ == "__main__":
    typer.run(ends_well(_main))
