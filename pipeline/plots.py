"""Plots as PNG bytes: predicted against true scores, and learning curves."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

INK, PALE, MARK = "#1b3a4b", "#c9d6df", "#c8553d"  # distinct in grey print and for the colour-blind


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def plot_predictions(predictions: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> bytes:
    """Plot predicted against true scores, a panel a target.

    Args:
        predictions: entries with `target`, `true` and `predicted`, all actions together.
        results: the figures of each target, for the panels' titles.
    """
    targets = list(dict.fromkeys(entry["target"] for entry in predictions))
    columns = min(3, len(targets))
    rows = math.ceil(len(targets) / columns)
    figure = Figure(figsize=(4.2 * columns, 4.2 * rows), layout="constrained")
    for place, target in enumerate(targets, start=1):
        axes = figure.add_subplot(rows, columns, place)
        true = [entry["true"] for entry in predictions if entry["target"] == target]
        predicted = [entry["predicted"] for entry in predictions if entry["target"] == target]
        low, high = min(*true, *predicted), max(*true, *predicted)
        axes.plot([low, high], [low, high], color=PALE, linewidth=2, zorder=0)
        axes.scatter(true, predicted, s=16, color=INK, alpha=0.7, linewidths=0)
        figures = results[target]
        axes.set(title=f"{target}: SRCC {figures['srcc']:.3f}, n = {figures['n']}", xlabel="true (points)")
        axes.set_ylabel("predicted (points)")
        axes.set_aspect("equal", adjustable="datalim")
    return png(figure)


def losses_by_name(curves: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return each loss (trainings, epochs) of learning curves, as of `plot_curves`."""
    epochs = max(row["epoch"] for row in curves)
    names = [name for name in curves[0] if name not in ("seed", "split", "epoch")]
    return {name: np.array([row[name] for row in curves], float).reshape(-1, epochs) for name in names}


def plot_curves(curves: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot training losses over epochs, a panel a loss: mean, lowest and highest over all trainings.

    Args:
        curves: an entry for each epoch of each training, in order: `seed`, `split`, `epoch` and losses.
    """
    by_name = losses_by_name(curves)
    figure = Figure(figsize=(3.2 * len(by_name), 3), layout="constrained")
    for place, (name, losses) in enumerate(by_name.items(), start=1):
        axes = figure.add_subplot(1, len(by_name), place)
        epoch = np.arange(1, losses.shape[1] + 1)
        axes.fill_between(epoch, losses.min(0), losses.max(0), color=PALE, linewidth=0)
        axes.plot(epoch, losses.mean(0), color=INK)
        axes.set(title=name, xlabel="epoch", ylim=(0, None))
    figure.suptitle(f"training losses, mean and range over {len(losses)} trainings")
    return png(figure)
