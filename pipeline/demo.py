"""The main job end to end on generated routines: render, extract, train, score what training never saw.

    python -m cofinal.pipeline.demo [FOLDER] [--seed N]

Everything lands in the folder (`demo/`): routines and their labels, the feature store, the head with its results, and
the report of one scored routine. A second run finds the routines and the features ready.
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
from .console import ends_well, out, print_message, print_result, progress
from .extraction import extract_features
from .head_training import train_head
from .protocol import summarise
from .report import write_report
from .scoring import print_score, score_video

TARGET = "Total"


def run_demo(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Run the whole path on generated routines.

    Args:
        folder: where everything lands.
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
        **summarise(trained.predictions, by_action=False),
        "confounds": confounds(folder),
    }
    write_atomic(folder / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    return {**results, "unseen": [entry for entry in trained.predictions if entry["target"] == TARGET]}


def print_demo(folder: Path, results: dict[str, Any]) -> None:
    """Score one unseen routine from its raw video and print everything a person wants to see."""
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
    out.print(table)

    figures = Table(title="over all unseen routines")
    for column in ("", "SRCC", "R-l2", "MAE"):
        figures.add_column(column, justify="right" if column else "left")
    rows = {f"head, {target}": found for target, found in results["targets"].items()}
    rows |= {f"{name.replace('_', ' ')}, {TARGET}": results["baselines"][name][TARGET] for name in BASELINES}
    for name, found in rows.items():
        figures.add_row(name, f"{found['srcc']:.3f}", f"{found['r_l2']:.2f}", f"{found['mae']:.2f}")
    out.print(figures)
    told = ", ".join(f"{name} {value:+.2f}" for name, value in results["confounds"].items())
    out.print(f"what must not tell the score (SRCC with {TARGET}): {told}")

    first = unseen[0]["video"]
    video = folder / "videos" / f"{first}.mp4"
    out.print("\none of them, from its raw video again:")
    score = score_video(video, folder / "head.safetensors")
    print_score(score)
    write_report(score, folder / "report.html")
    out.print()
    where = {
        "results": "results.json",
        "plot": "head.predicted.png",
        "report": "report.html",
        "head": "head.safetensors",
        "videos": "videos",
    }
    for what, name in where.items():
        print_result(f"{what + ':':<8} {folder / name}")


def _main(
    folder: Annotated[Path, typer.Argument(help="Where everything lands.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the routines.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Render routines, extract features, train a head and score routines that training never saw."""
    started = time.perf_counter()
    print_demo(folder, run_demo(folder, seed=seed))
    print_message(f"done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(ends_well(_main))
