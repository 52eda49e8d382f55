"""How good the default head is on the 400 Fis-V programmes: random, skater-disjoint and event-disjoint folds.

    python -m benchmarks.accuracy [FISV]

Each kind of 5 folds is cut with fold seeds 0 to 4; figures are of pooled out-of-fold predictions, means over the seeds
with standard deviations and, of SRCC and R-l2, 95% bootstrap intervals (of whole groups where folds keep these
together), `pipeline.baselines` beside them. Prediction intervals and an ensemble of 5 networks take more trainings and
are judged on fold seed 0.
"""

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.head_training import train_head

from .cross_validation import FISV, KINDS, alone, feature_folder
from .tables import print_table

SEEDS = 5
MEMBERS = 5
FIGURES = {
    "srcc": "SRCC",
    "r_l2": "R-l2",
    "pearson": "Pearson",
    "mae": "MAE (points)",
    "rmse": "RMSE (points)",
    "srcc_within_events": "SRCC within events",
}
GOALS = {  # SRCC at least, R-l2 at most
    ("random", "TES"): (0.65, 1.60),
    ("random", "PCS"): (0.83, 1.15),
    ("skater-disjoint", "TES"): (0.58, 1.75),
    ("skater-disjoint", "PCS"): (0.76, 1.45),
    ("event-disjoint", "TES"): (0.50, 2.20),
    ("event-disjoint", "PCS"): (0.68, 2.10),
}


def judged(fisv: Path, kind: str, how: dict[str, Any]) -> dict[str, Any]:
    """The results of one cross-validation by train-head's function."""
    about = fisv / "skaters.csv"
    with tempfile.TemporaryDirectory() as folder:
        return train_head(
            feature_folder(fisv),
            "fisv",
            protocol="cv",
            groups=f"{about}:{KINDS[kind]}" if KINDS[kind] else None,
            events=f"{about}:event",
            out=Path(folder) / "head.safetensors",
            **how,
        ).results


def _main(
    fisv: Annotated[Path, typer.Argument(help="Folder with train.txt, skaters.csv and one folder of features.")] = FISV,
    seeds: Annotated[int, typer.Option(help="Fold seeds, from 0 on.")] = SEEDS,
) -> None:
    """Cross-validate the default head three ways and print tables in Markdown."""
    feature_folder(fisv)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), alone) as workers:
        ways: list[dict[str, Any]] = [{"seeds": seeds}, {"intervals": True}, {"ensemble": MEMBERS}]
        plain, with_intervals, with_ensemble = (
            {kind: workers.submit(judged, fisv, kind, how) for kind in KINDS} for how in ways
        )
        reached, beside, simple = [], [], []
        for kind, results in plain.items():
            print_message(f"{kind} folds")
            of_kind = results.result()
            for target, found in of_kind["targets"].items():
                at_least, at_most = GOALS[kind, target]
                srcc, r_l2, *others = (_figure(found, name) for name in FIGURES)
                srcc_bounds, r_l2_bounds = (_bounds(found, name) for name in ("srcc", "r_l2"))
                goals = f">= {at_least:.2f}", f"<= {at_most:.2f}"
                reached.append([kind, target, srcc, srcc_bounds, goals[0], r_l2, r_l2_bounds, goals[1]])
                beside.append([kind, target, *others])
                baselines = [of[target] for of in of_kind["baselines"].values()]
                simple.append([kind, target, *(f"{of['srcc']:.3f} ({of['r_l2']:.2f})" for of in baselines)])
            srcc, r_l2 = (_figure(of_kind["average"], name) for name in ("srcc", "r_l2"))
            reached.append([kind, "average", srcc, "", "", r_l2, "", ""])
        print_table(["5 folds", "target", "SRCC", "95%", "goal", "R-l2", "95%", "goal"], reached)
        print_table(["5 folds", "target", *list(FIGURES.values())[2:]], beside)
        print_table(["baselines: SRCC (R-l2)", "target", *(name.replace("_", " ") for name in BASELINES)], simple)

        rows = []
        for kind, results in with_intervals.items():
            for target, found in results.result()["targets"].items():
                rows.append([kind, target, f"{found['coverage']:.3f}", f"{found['width']:.1f}"])
        print_table(["5 folds", "target", "coverage of 90% intervals", "width in points"], rows)

        rows = []
        for kind, results in with_ensemble.items():
            for target, together in results.result()["ensemble"].items():
                single = results.result()["targets"][target]
                values = [_figure(found, name) for name in ("srcc", "r_l2") for found in (single, together)]
                rows.append([kind, target, *values])
        print_table(["5 folds", "target", "SRCC, single", f"ensemble of {MEMBERS}", "R-l2, single", "ensemble"], rows)


def _figure(found: dict[str, Any], name: str) -> str:
    places = 2 if name in ("r_l2", "mae", "rmse") else 3
    spread = f" ± {found['std'][name]:.{places}f}" if "std" in found else ""
    return f"{found[name]:.{places}f}{spread}"


def _bounds(found: dict[str, Any], name: str) -> str:
    low, high = found["intervals"][name]
    return f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    typer.run(ends_well(_main))
