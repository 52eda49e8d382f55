"""What the results of a training look like: figures from predictions, the files beside the head, tables for people."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from ..data.files import write_atomic
from .baselines import BASELINES
from .console import format_span, printable
from .evaluation import average, evaluate, over_seeds, r_l2, srcc
from .plots import plot_curves, plot_predictions
from .training_page import render_training

if TYPE_CHECKING:
    from pandas import DataFrame


class Rows(list[dict[str, Any]]):
    """Entries, a dict each; predictions or learning curves."""

    def to_frame(self) -> "DataFrame":
        """Return them as a pandas table, a row an entry."""
        from pandas import DataFrame  # slow to import

        return DataFrame(list(self))


class Results(dict[str, Any]):
    """The figures of a training, as `results.json` has them."""

    def to_frame(self) -> "DataFrame":
        """Return them as a pandas table: a row for each target of the head and of each baseline, sums included."""
        from pandas import json_normalize

        rows = []
        for figures in (self, self.get("sums", {})):
            of_methods = {"head": figures.get("targets", {}), **figures.get("baselines", {})}
            rows += [
                {"method": method, "target": target, **of_target}
                for method, of_targets in of_methods.items()
                for target, of_target in of_targets.items()
            ]
        return json_normalize(rows)


@dataclass(frozen=True)
class Evaluated:
    """The entries of one action and target, of all seeds one after the other."""

    entries: list[dict[str, Any]]
    num_seeds: int

    def column(self, name: str) -> np.ndarray:
        """Return a column (seeds, routines)."""
        return np.array([entry[name] for entry in self.entries]).reshape(self.num_seeds, -1)

    @property
    def groups(self) -> list[str] | None:
        """Each routine's group; None where it is unknown, or one group has all: drawing that one tells nothing."""
        groups = self._of_routines("group")
        return groups if groups and len(set(groups)) > 1 else None

    @property
    def events(self) -> list[str] | None:
        """Each routine's event; None where it is unknown."""
        return self._of_routines("event")

    def _of_routines(self, name: str) -> list[str] | None:
        return self.column(name)[0].tolist() if name in self.entries[0] else None


def key_of(action: str | None, target: str) -> str:
    """Return the key of a target's figures: `Ball/Total` where there are actions, else `Total`."""
    return f"{action}/{target}" if action else target


def by_target(predictions: Sequence[dict[str, Any]], *, by_action: bool = True) -> dict[str, Evaluated]:
    """Return predictions by the keys of the results.

    Args:
        predictions: as for `summarise_predictions`.
        by_action: as for `summarise_predictions`.
    """
    by_key: dict[str, list[dict[str, Any]]] = {}
    for entry in predictions:
        by_key.setdefault(key_of(entry["action"] if by_action else "", entry["target"]), []).append(entry)
    num_seeds = len({entry.get("seed") for entry in predictions})
    return {key: Evaluated(entries, num_seeds) for key, entries in by_key.items()}


def summarise_predictions(predictions: Sequence[dict[str, Any]], *, by_action: bool = True) -> dict[str, Any]:
    """Return the figures of predictions in the form of the results contract.

    Args:
        predictions: entries of `protocol.run_seeds`, or of scores without baselines; of several seeds with a `seed`
            each, and every seed evaluates the same routines in the same order.
        by_action: one result for each action and target (`Ball/Total`), not one for each target over all actions.

    Returns:
        `targets`, `average` and `baselines`; for several seeds means over them, with `std`.
    """
    of_targets = by_target(predictions, by_action=by_action)

    def figures(name: str) -> dict[str, Any]:
        return {key: figures_of(found, name) for key, found in of_targets.items()}

    def figures_of(found: Evaluated, name: str) -> dict[str, Any]:
        has_bounds = name == "predicted" and "low" in found.entries[0]
        return evaluate(
            found.column("true")[0],
            found.column(name),
            bounds=(found.column("low"), found.column("high")) if has_bounds else None,
            groups=found.groups,
            events=found.events,
        )

    def average_of(seed: int) -> dict[str, float]:
        pairs = [(found.column("true")[seed], found.column("predicted")[seed]) for found in of_targets.values()]
        return average([{"srcc": srcc(*pair), "r_l2": r_l2(*pair), "n": len(pair[0])} for pair in pairs])

    num_seeds = next(iter(of_targets.values())).num_seeds
    return {
        "targets": figures("predicted"),
        "average": over_seeds([average_of(seed) for seed in range(num_seeds)]),
        "baselines": {name: figures(name) for name in BASELINES if name in predictions[0]},
    }


def write_results(
    head: Path,
    results: dict[str, Any],
    predictions: Sequence[dict[str, Any]],
    curves: Sequence[dict[str, Any]],
    identity: Mapping[str, str] | None,
    sources: Mapping[str, str],
) -> None:
    """Write figures, predictions, learning curves, plots and a page of them beside a head file.

    Args:
        head: the head file.
        results: as `results.json` has them.
        predictions: an entry for each seed, evaluated routine and target.
        curves: an entry for each epoch of each training.
        identity: what made the features, where that is known.
        sources: by a label's video its file, where that is known.

    Raises:
        OSError: a file cannot be written.
    """
    all_actions = summarise_predictions(predictions, by_action=False)["targets"]
    write_atomic(head.with_suffix(".predictions.csv"), as_csv(predictions))
    write_atomic(head.with_suffix(".predicted.png"), plot_predictions(predictions, all_actions))
    write_atomic(head.with_suffix(".curves.csv"), as_csv(curves))
    write_atomic(head.with_suffix(".curves.png"), plot_curves(curves))
    page = render_training(head, results, predictions, curves, all_actions, identity, sources)
    write_atomic(head.with_suffix(".html"), page.encode("utf-8", "backslashreplace"))
    write_atomic(head.with_suffix(".results.json"), (json.dumps(results, indent=2) + "\n").encode())


def as_csv(entries: Sequence[dict[str, Any]]) -> bytes:
    """Return entries, the first of which has all keys, as a CSV file, numbers to 4 decimals."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(entries[0]))
    writer.writeheader()
    writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()} for entry in entries)
    return text.getvalue().encode()


def results_tables(results: dict[str, Any]) -> tuple[Table, Table]:
    """Return results as two tables: the head's figures, and the baselines'."""
    training = results["training"]
    protocol = f"{training['folds']} folds" if results["protocol"] == "cv" else "test split"
    if training["seeds"] > 1:
        protocol += f" x {training['seeds']} seeds (mean ± deviation)"
    sums = results.get("sums", {})
    head = figures_table(
        f"{results['dataset']}, {training['head_type']}: {protocol}, {training['judged']} videos evaluated",
        results["targets"] | {f"{key} (sum)": figures for key, figures in sums.get("targets", {}).items()},
    )
    baselines = _table("baselines: SRCC (R-l2)", [name.replace("_", " ") for name in BASELINES])
    for target, ceiling in results.get("panel", {}).items():
        known = [str(ceiling["n"]), f"{ceiling['srcc']:.3f}", "", "", f"{ceiling['mae']:.2f}", ""]
        head.add_row(f"{target}: one judge of {ceiling['judges']} against the others", *known)
    for found, note in ((results, ""), (sums, " (sum)")):
        for key in found.get("targets", {}):
            of_baselines = (found["baselines"][name][key] for name in BASELINES)
            cells = (f"{format_figure(x, 'srcc', 3)} ({x['r_l2']:.2f})" for x in of_baselines)
            baselines.add_row(Text(printable(key + note)), *cells)
    return head, baselines


def figures_table(title: str, targets: Mapping[str, dict[str, Any]]) -> Table:
    """Return the figures of each target as a table."""
    extra = {"srcc_within_events": "in events", "coverage": "covered", "width": "width"}
    extra = {name: title for name, title in extra.items() if any(name in figures for figures in targets.values())}
    table = _table(title, ["n", "SRCC", "95%", "R-l2", "MAE", "RMSE", *extra.values()])
    for key, figures in targets.items():
        table.add_row(
            Text(printable(key)),
            str(figures["n"]),
            format_figure(figures, "srcc", 3),
            format_span(figures["intervals"]["srcc"]),
            format_figure(figures, "r_l2", 2),
            f"{figures['mae']:.2f}",
            f"{figures['rmse']:.2f}",
            *(f"{figures[name]:.2f}" if name in figures else "" for name in extra),
        )
    return table


def format_figure(figures: dict[str, Any], name: str, decimals: int) -> str:
    """Return a figure with its standard deviation over seeds, where there are several: 0.564 ±0.021."""
    deviation = f" ±{figures['std'][name]:.{decimals}f}" if "std" in figures else ""
    return f"{figures[name]:.{decimals}f}{deviation}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in ("target", *columns):
        table.add_column(column, justify="left" if column == "target" else "right")
    return table
