"""The page that train-head writes beside a head: how good it is, where it errs most, and how its losses fell."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..data.manifest import describe_identity
from .pages import policy, render
from .plots import losses_by_name

NUM_MISSES = 5
"""The largest errors that are listed for each target."""


@dataclass(frozen=True)
class _Plot:
    """Predicted against true scores of one target; places in percent of the axes, which have the same range."""

    target: str
    srcc: float
    low: float
    high: float
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True)
class _Curve:
    """A training loss over epochs; paths in the coordinates of the chart."""

    name: str
    epochs: int
    first: float
    last: float
    highest: float
    mean: str
    range: str


def render_training(
    head: Path,
    results: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Mapping[str, Any]],
    identity: Mapping[str, str] | None,
    sources: Mapping[str, str],
) -> str:
    """Return the page.

    Args:
        head: the head file, beside which the page lies.
        results: as `results.json` has them.
        predictions: an entry for each seed, evaluated routine and target.
        curves: an entry for each epoch of each training.
        figures: of each target over all actions together.
        identity: what made the features, where that is known.
        sources: by a label's video its file, for the links.
    """
    training = results["training"]
    seeds = f", {training['seeds']} fold seeds" if training["seeds"] > 1 else ""
    return render(
        "training.html.j2",
        policy=policy(),
        head_name=head.name,
        results=results,
        protocol=("test split" if results["protocol"] == "official" else f"{training['folds']} folds") + seeds,
        baselines=list(results["baselines"]),
        plots=[_plot(target, predictions, of_target["srcc"]) for target, of_target in figures.items()],
        misses=[(target, _misses(target, predictions, head.parent, sources)) for target in figures],
        curves=[_curve(name, losses) for name, losses in losses_by_name(curves).items()],
        trainings=sum(row["epoch"] == 1 for row in curves),
        provenance=[
            ("extractor", describe_identity(identity)),
            ("command", " ".join(training["command"])),
            ("versions", ", ".join(f"{name} {version}" for name, version in training["versions"].items())),
        ],
    )


def _plot(target: str, predictions: Sequence[Mapping[str, Any]], srcc: float) -> _Plot:
    entries = [entry for entry in predictions if entry["target"] == target]
    pairs = np.array([(entry["true"], entry["predicted"]) for entry in entries])
    low, high = float(pairs.min()), float(pairs.max())
    places = 100 * (pairs - low) / ((high - low) or 1.0)
    labels = [f"{entry['video']}: true {entry['true']:.2f}, predicted {entry['predicted']:.2f}" for entry in entries]
    dots = [(float(x), float(y), label) for (x, y), label in zip(places, labels, strict=True)]
    return _Plot(target, srcc, low, high, dots)


def _misses(
    target: str, predictions: Sequence[Mapping[str, Any]], folder: Path, sources: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the routines with the largest errors, the mean over seeds, with a link to each video that is known."""
    by_video: dict[str, list[Mapping[str, Any]]] = {}
    for entry in predictions:
        if entry["target"] == target:
            by_video.setdefault(entry["video"], []).append(entry)
    rows = [
        {
            "video": video,
            "true": entries[0]["true"],
            "predicted": float(np.mean([entry["predicted"] for entry in entries])),
            "link": _link(sources[video], folder) if video in sources else None,
        }
        for video, entries in by_video.items()
    ]
    return sorted(rows, key=lambda row: -abs(row["predicted"] - row["true"]))[:NUM_MISSES]


def _link(file: str, folder: Path) -> str:
    """Return a link that still works when head and videos move together."""
    return quote(Path(os.path.relpath(file, folder.absolute())).as_posix(), errors="surrogateescape")


def _curve(name: str, losses: np.ndarray) -> _Curve:  # losses (trainings, epochs)
    epochs, highest = losses.shape[1], float(losses.max()) or 1.0
    x = 30 + 200 * np.arange(epochs) / max(1, epochs - 1)

    def points(values: np.ndarray, order: slice = slice(None)) -> str:
        places = zip(x[order], (110 - 100 * values / highest)[order], strict=True)
        return "L".join(f"{a:.1f} {b:.1f}" for a, b in places)

    mean = losses.mean(0)
    outline = f"M{points(losses.max(0))}L{points(losses.min(0), slice(None, None, -1))}Z"
    return _Curve(name, epochs, float(mean[0]), float(mean[-1]), highest, f"M{points(mean)}", outline)
