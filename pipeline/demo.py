"""The whole pipeline on generated routines: render, extract, train, and score routines that training never saw.

    python -m cofinal.pipeline.demo [FOLDER] [--seed N]

Everything is written into the folder (`demo/`): routines and their labels, the feature store, the head with its
results, and the ranking and reports of the unseen routines. A second run uses the routines and features of the first.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..data.files import write_atomic
from ..data.routines import confounds, render_routines
from .baselines import BASELINES
from .console import ends_well, print_message, print_result, print_table, progress
from .extraction import extract_features
from .head_training import train_head
from .results import summarise_predictions
from .score_output import print_score
from .scoring_many import score_videos

TARGET = "Total"


def run_demo(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Run the whole pipeline on generated routines.

    Args:
        folder: where everything is written.
        seed: of the routines; another seed is another set of gymnasts, halls and performances.

    Returns:
        The results as `results.json` has them, over all unseen routines of all apparatus together, with
        `confounds` and `unseen`.

    Raises:
        ValueError: a routine could not be extracted.
    """
    print_message("1 of 4: rendering routines")
    with progress("routines") as bar:
        task = bar.add_task("rendering", total=None)
        render_routines(
            folder, seed=seed, on_progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    print_message("2 of 4: extracting features with the Kinetics-400 I3D (its weights, 47 MB, are fetched once)")
    summary = extract_features(folder / "videos", folder / "features", backbone="i3d")
    if summary.failed:
        raise ValueError(f"{len(summary.failed)} routines failed, the first: {summary.failed[0]['error']}")
    print_message("3 of 4: training the head")
    trained = train_head(folder / "features", "rg", labels=folder, protocol="official", out=folder / "head.safetensors")
    print_message("4 of 4: scoring routines that training never saw")
    results = {
        **trained.results,
        **summarise_predictions(trained.predictions, by_action=False),
        "confounds": confounds(folder),
    }
    write_atomic(folder / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    return {**results, "unseen": [entry for entry in trained.predictions if entry["target"] == TARGET]}


def print_demo(folder: Path, results: dict[str, Any]) -> None:
    """Print the results, score the unseen routines from their raw videos and write their reports."""
    unseen = results["unseen"]
    table = Table(title=f"{len(unseen)} routines that training never saw: {TARGET} in points")
    for column in ("routine", "true", "predicted", "coarse grade", "fine grade"):
        table.add_column(column, justify="left" if column == "routine" else "right")
    for entry in unseen:
        table.add_row(
            entry["video"],
            f"{entry['true']:.2f}",
            f"{entry['predicted']:.2f}",
            str(entry["grade"]),
            str(entry["subgrade"]),
        )
    print_table(table)

    figures_table = Table(title="all unseen routines")
    for column in ("", "SRCC", "R-l2", "MAE"):
        figures_table.add_column(column, justify="right" if column else "left")
    rows = {f"head, {target}": figures for target, figures in results["targets"].items()}
    rows |= {f"{name.replace('_', ' ')}, {TARGET}": results["baselines"][name][TARGET] for name in BASELINES}
    for name, figures in rows.items():
        figures_table.add_row(name, f"{figures['srcc']:.3f}", f"{figures['r_l2']:.2f}", f"{figures['mae']:.2f}")
    print_table(figures_table)
    confounds = ", ".join(f"{name} {value:+.2f}" for name, value in results["confounds"].items())
    print_result(f"SRCC of trivial measures with {TARGET}, which must be low: {confounds}")

    print_message("scoring them again, from their raw videos")
    listed = folder / "unseen.txt"
    write_atomic(listed, "".join(f"videos/{entry['video']}.mp4\n" for entry in unseen).encode())
    outputs = {"csv": folder / "scores.csv", "report": folder / "reports"}
    scored = score_videos(listed, folder / "head.safetensors", dataset="rg", labels=folder, **outputs)
    print_result("one of them:")
    print_score(next(iter(scored.scores.values())))
    files = {
        "results": "results.json",
        "plot": "head.predicted.png",
        "ranking": "scores.csv",
        "reports": "reports/index.html",
        "head": "head.safetensors",
        "videos": "videos",
    }
    for kind, name in files.items():
        print_result(f"{kind + ':':<8} {folder / name}")


def _main(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the routines.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Render routines, extract features, train a head and score routines that training never saw."""
    started = time.perf_counter()
    print_demo(folder, run_demo(folder, seed=seed))
    print_message(f"done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(ends_well(_main))
