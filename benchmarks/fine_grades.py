"""What the fine grade tells that the coarse one does not, on the Fis-V programmes.

    python -m benchmarks.fine_grades [FISV]

The default head on three kinds of folds; figures of pooled held-out verdicts, means over fold seeds with standard
deviations. SRCC with the true scores is within coarse grades, where these say nothing: that of each grade as given,
averaged in Fisher's z. The mean absolute error (MAE, points) is that of the score which coarse and fine grade alone
stand for, beside that of the best a coarse grade could say, the median true score of the programmes that were given it,
and that of the final score.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.cross_validation import FISV, KINDS, Variant, alone, feature_folder, load, verdicts
from benchmarks.tables import print_table
from pipeline.console import ends_well, say
from pipeline.evaluation import mae, srcc_within_events

COLUMNS = (
    "SRCC, fine grade",
    "SRCC, score",
    "MAE, coarse grade",
    "MAE, coarse and fine",
    "MAE, score",
    "first or last",
)


def _main(
    fisv: Annotated[Path, typer.Argument(help="Folder with train.txt, skaters.csv and one folder of features.")] = FISV,
    seeds: Annotated[int, typer.Option(help="Fold seeds, from 0 on.")] = 5,
) -> None:
    """Cross-validate the default head and print a table in Markdown."""
    feature_folder(fisv)
    labels, _ = load(fisv, "random")
    rows = []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), alone) as workers:
        running = {kind: [workers.submit(_figures, fisv, kind, seed) for seed in range(seeds)] for kind in KINDS}
        for kind, each in running.items():
            say(f"{kind} folds")
            found = np.stack([one.result() for one in each])  # (seeds, targets, columns)
            for target, mean, spread in zip(labels.targets, found.mean(0), found.std(0, ddof=1), strict=True):
                cells = [f"{x:.2f} ± {y:.2f}" for x, y in zip(mean, spread, strict=True)]
                rows.append([kind, target, *cells])
    print_table(["5 folds", "target", *COLUMNS], rows)


def _figures(fisv: Path, kind: str, seed: int) -> list[list[float]]:
    labels, examples = load(fisv, kind)
    held_out = [*verdicts(Variant(), fisv, kind, seed)]
    order = np.concatenate([rows for rows, _ in held_out])
    found = []
    for column, target in enumerate(labels.targets):
        truth = examples.scores[order, column]
        of_target = [said[target] for _, said in held_out]
        grade, fine, points, score = (
            np.concatenate([getattr(said, name) for said in of_target])
            for name in ("grade", "subgrade", "points", "score")
        )
        best = np.empty_like(truth)
        for given in np.unique(grade):
            best[grade == given] = np.median(truth[grade == given])
        within = [srcc_within_events(truth, said, [str(given) for given in grade]) for said in (fine, score)]
        errors = [mae(truth, said) for said in (best, points, score)]
        ends = np.isin(fine, (1, of_target[0].num_subgrades)).mean()
        found.append([float("nan") if of is None else of for of in within] + [*errors, float(ends)])
    return found


if __name__ == "__main__":
    typer.run(ends_well(_main))
