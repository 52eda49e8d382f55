"""One human judge against the rest of the panel, on the Fis-V programmes whose judges are known.

`panels.csv` has the columns `video`, `base_value` (what the technical panel gives for the elements), and of each of
nine judges `PCS_J1` and so on (the factored sum of the components) and `GOE_J1` (the sum of the grades of execution). A
judge's TES is the base value, which all judges share, plus the grades of execution. The panel's score is the trimmed
mean.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cofinal.pipeline.evaluation import fisher_average, mae, srcc
from cofinal.pipeline.human_ceiling import one_judge_against_the_rest

from .cross_validation import Entries, as_arrays

RULE = "trimmed"


def judges_and_head(panels: Path, of_kind: dict[str, Entries]) -> list[list[str]]:
    """Return a row of a table for each kind of folds and target: one judge's SRCC and MAE, and the head's.

    Args:
        panels: the file.
        of_kind: held-out entries by kind of folds, of several seeds; only programmes with a panel count.
    """
    table = pd.read_csv(panels, dtype={"video": str}).set_index("video")
    rows = []
    for kind, entries in of_kind.items():
        known = [entry for entry in entries if entry["video"] in table.index]
        for target in dict.fromkeys(entry["target"] for entry in known):
            of_target = [entry for entry in known if entry["target"] == target]
            marks = _marks(table.loc[list(dict.fromkeys(entry["video"] for entry in of_target))], target)
            judge = one_judge_against_the_rest(marks, RULE)
            assert judge is not None, "nine judges have scored more than three programmes"
            pairs = [(true[:, 0], predicted[:, 0]) for true, predicted in _of_seeds(of_target)]
            head = (
                fisher_average([srcc(*pair) for pair in pairs], [len(pair[0]) for pair in pairs]),
                float(np.mean([mae(*pair) for pair in pairs])),
            )
            figures = (judge["srcc"], judge["mae"]), head
            rows.append([kind, target, str(judge["n"]), *(f"{rank:.3f} ({points:.2f})" for rank, points in figures)])
    return rows


def _marks(table: pd.DataFrame, target: str) -> np.ndarray:
    """Return each judge's score of a target (routines, judges) in points."""
    if target == "PCS":
        return table.filter(regex=r"^PCS_J").to_numpy(float)
    return table.filter(regex=r"^GOE_J").to_numpy(float) + table[["base_value"]].to_numpy(float)


def _of_seeds(entries: Entries) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return true and predicted scores (N, 1) of each seed."""
    arrays = as_arrays(entries)
    return list(zip(arrays["true"], arrays["predicted"], strict=True))
