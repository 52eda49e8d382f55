"""How good the default head is on the 400 Fis-V programmes: random, skater-disjoint and event-disjoint folds.

    python -m benchmarks.accuracy [FISV]

Each kind of 5 folds is cut with fold seeds 0 to 4; figures are of pooled out-of-fold predictions, means over the seeds
with standard deviations, kernel ridge (`pipeline.baselines`) beside them. Intervals and an ensemble of 5 networks take
more trainings and are judged on fold seed 0.
"""

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cross_validation import FISV, KINDS, alone, feature_folder, print_table
from pipeline.console import ends_well, say
from pipeline.head_training import train_head

SEEDS = 5
MEMBERS = 5


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
    """Cross-validate the default head three ways and print three tables in Markdown."""
    feature_folder(fisv)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), alone) as workers:
        ways: list[dict[str, Any]] = [{"seeds": seeds}, {"intervals": True}, {"ensemble": MEMBERS}]
        plain, with_intervals, with_ensemble = (
            {kind: workers.submit(judged, fisv, kind, how) for kind in KINDS} for how in ways
        )
        rows = []
        for kind, results in plain.items():
            say(f"{kind} folds")
            baselines = results.result()["baselines"]["kernel_ridge"]
            for target, found in results.result()["targets"].items():
                values = [_figure(found, name) for name in ("srcc", "r_l2", "pearson", "mae", "srcc_within_events")]
                simple = baselines[target]
                rows.append([kind, target, *values, f"{simple['srcc']:.3f}", f"{simple['r_l2']:.2f}"])
        columns = ["5 folds", "target", "SRCC", "R-l2", "Pearson", "MAE", "SRCC within events"]
        print_table([*columns, "kernel ridge SRCC", "R-l2"], rows)

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
    places = 2 if name in ("r_l2", "mae") else 3
    spread = f" ± {found['std'][name]:.{places}f}" if "std" in found else ""
    return f"{found[name]:.{places}f}{spread}"


if __name__ == "__main__":
    typer.run(ends_well(_main))
