"""What the fine grade tells that the coarse one does not, on the Fis-V programmes.

    python -m benchmarks.fine_grades [FISV]

The default head on three kinds of folds; figures of pooled held-out verdicts, means over fold seeds with standard
deviations. SRCC with the true scores is within coarse grades, where these say nothing: that of each grade as given,
averaged in Fisher's z. The mean absolute error (MAE, points) is that of the score which coarse and fine grade alone
stand for, beside that of the best a coarse grade could say, the median true score of the programmes that were given it,
and that of the final score.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cofinal.models.cofinal import CoFInAlConfig
from cofinal.pipeline.console import ends_well
from cofinal.pipeline.evaluation import mae, srcc_within_events

from .cross_validation import FISV, KINDS, Variant, held_out_verdicts, load
from .tables import print_table

HEAD = Variant()
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
    said = held_out_verdicts([HEAD], fisv, KINDS, range(seeds), ("grade", "subgrade", "points", "score"))
    labels, examples = load(fisv, "random").labels, load(fisv, "random").examples
    rows = []
    for kind in KINDS:
        for column, target in enumerate(labels.targets):
            truth = examples.scores[:, column]
            found = np.array([_figures(truth, *fields.T) for fields in said[HEAD.name, kind][:, :, column]])
            cells = [f"{x:.2f} ± {y:.2f}" for x, y in zip(found.mean(0), found.std(0, ddof=1), strict=True)]
            rows.append([kind, target, *cells])
    print_table(["5 folds", "target", *COLUMNS], rows)


def _figures(
    truth: np.ndarray, grade: np.ndarray, subgrade: np.ndarray, points: np.ndarray, score: np.ndarray
) -> list[float]:
    best = np.empty_like(truth)
    for given in np.unique(grade):
        best[grade == given] = np.median(truth[grade == given])
    within = [srcc_within_events(truth, said, [str(given) for given in grade]) for said in (subgrade, score)]
    errors = [mae(truth, said) for said in (best, points, score)]
    ends = np.isin(subgrade, (1, CoFInAlConfig.num_subgrades)).mean()
    return [float("nan") if of is None else of for of in within] + [*errors, float(ends)]


if __name__ == "__main__":
    typer.run(ends_well(_main))
