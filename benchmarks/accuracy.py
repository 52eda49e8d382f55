"""How good the default head is on the 400 Fis-V programmes: random, skater-disjoint and event-disjoint folds.

    python -m benchmarks.accuracy [FISV]

Each kind of 5 folds is cut with fold seeds 0 to 4; figures are of pooled out-of-fold predictions, means over the seeds
with standard deviations, kernel ridge (`pipeline.baselines`) beside them. Intervals, which take thrice the trainings,
are judged on fold seed 0.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import ends_well, out, say
from pipeline.head_training import train_head

FISV = Path(os.environ.get("COFINAL_SHARED", "../shared")) / "data/fisv"
SEEDS = 5
KINDS = {"random": None, "skater-disjoint": "skater", "event-disjoint": "event"}


def _main(
    fisv: Annotated[Path, typer.Argument(help="Folder with train.txt, skaters.csv and one folder of features.")] = FISV,
    seeds: Annotated[int, typer.Option(help="Fold seeds, from 0 on.")] = SEEDS,
) -> None:
    """Cross-validate the default head three ways and print two tables in Markdown."""
    about = fisv / "skaters.csv"
    if not about.is_file():
        raise ValueError(f"{about} does not exist; name the folder of Fis-V's labels, features and skaters.csv")
    (store,) = (path for path in fisv.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as folder:

        def judged(kind: str, **how: Any) -> dict[str, Any]:
            say(f"{kind} folds")
            groups = f"{about}:{KINDS[kind]}" if KINDS[kind] else None
            head = Path(folder) / "head.safetensors"
            return train_head(
                store, "fisv", protocol="cv", groups=groups, events=f"{about}:event", out=head, **how
            ).results

        rows = []
        for kind in KINDS:
            results = judged(kind, seeds=seeds)
            for target, found in results["targets"].items():
                ridge = results["baselines"]["kernel_ridge"][target]
                values = [_figure(found, name) for name in ("srcc", "r_l2", "pearson", "mae", "srcc_within_events")]
                rows.append([kind, target, *values, f"{ridge['srcc']:.3f}", f"{ridge['r_l2']:.2f}"])
        columns = ["5 folds", "target", "SRCC", "R-l2", "Pearson", "MAE", "SRCC within events"]
        _table([*columns, "kernel ridge SRCC", "R-l2"], rows)

        rows = []
        for kind in KINDS:
            for target, found in judged(kind, intervals=True)["targets"].items():
                rows.append([kind, target, f"{found['coverage']:.3f}", f"{found['width']:.1f}"])
        _table(["5 folds", "target", "coverage of 90% intervals", "width in points"], rows)


def _figure(found: dict[str, Any], name: str) -> str:
    places = 2 if name in ("r_l2", "mae") else 3
    spread = f" ± {found['std'][name]:.{places}f}" if "std" in found else ""
    return f"{found[name]:.{places}f}{spread}"


def _table(columns: list[str], rows: list[list[str]]) -> None:
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    lines.insert(1, "|---" * len(columns) + "|")
    out.print("\n".join(lines) + "\n", markup=False)


if __name__ == "__main__":
    typer.run(ends_well(_main))
