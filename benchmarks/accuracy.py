"""How good the default head is on the 400 Fis-V programmes: random, skater-disjoint and event-disjoint folds.

    python -m benchmarks.accuracy [FISV]

Each kind of 5 folds is cut with fold seeds 0 to 4; figures are of pooled held-out predictions, means over the seeds
with standard deviations and, of SRCC and R-l2, 95% bootstrap intervals (of whole groups where folds keep these
together), `pipeline.baselines` beside them. Prediction intervals take 15 trainings instead of 5 and are judged on the
first fold seed.

Of the verdicts a table shows the share of scores that lie inside the coarse grade printed beside them, to the printed
digits; the share of coarse grades that are the true score's, or next to it; and the share of borderline verdicts.

If FISV holds `panels.csv`, a table shows how far one human judge lies from the others, and the head from the panel, on
the same programmes.
"""

from typing import Annotated, Any

import numpy as np
import typer

from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.console import ends_well, format_span
from cofinal.pipeline.results import format_figure, summarise_predictions

from .cross_validation import (
    ALL_KINDS,
    DEFAULT,
    FISV,
    Entries,
    FirstSeedOption,
    FisvArgument,
    KeepOption,
    KindsOption,
    RoutinesOption,
    SeedsOption,
    Source,
    as_arrays,
    cross_validate,
)
from .human_judges import judges_and_head
from .tables import print_table

FIGURES = {
    "pearson": ("Pearson", 3),
    "mae": ("MAE (points)", 2),
    "rmse": ("RMSE (points)", 2),
    "srcc_within_events": ("SRCC within events", 3),
}
GOALS = {  # SRCC at least, R-l2 at most
    ("random", "TES"): (0.645, 1.60),
    ("random", "PCS"): (0.825, 1.15),
    ("skater-disjoint", "TES"): (0.59, 1.75),
    ("skater-disjoint", "PCS"): (0.75, 1.48),
    ("event-disjoint", "TES"): (0.57, 2.05),
    ("event-disjoint", "PCS"): (0.72, 1.85),
}
WITHIN_ONE = {"TES": 0.91, "PCS": 0.96}
"""Goal of the share of coarse grades that are right or next to it."""
PRINTED_DIGITS = 2


def _main(
    fisv: FisvArgument = FISV,
    kinds: KindsOption = ALL_KINDS,
    seeds: SeedsOption = 5,
    first_seed: FirstSeedOption = 0,
    intervals: Annotated[bool, typer.Option(help="Judge prediction intervals too.")] = True,
    routines: RoutinesOption = None,
    keep: KeepOption = None,
) -> None:
    """Cross-validate the default head and print tables in Markdown."""
    source = Source(fisv, routines)
    entries = cross_validate(
        [DEFAULT], source, kinds, range(first_seed, first_seed + seeds), with_baselines=True, keep=keep
    )
    of_kind = {kind: entries[DEFAULT.name, kind] for kind in kinds}
    _print_figures({kind: summarise_predictions(of_kind[kind]) for kind in kinds})
    _print_verdicts(of_kind)
    if (panels := fisv / "panels.csv").is_file():
        columns = ["5 folds", "target", "programmes", "one human judge: SRCC (MAE)", "head: SRCC (MAE)"]
        print_table(columns, judges_and_head(panels, of_kind))
    if intervals:
        entries = cross_validate([DEFAULT], source, kinds, [first_seed], intervals=True, keep=keep)
        _print_intervals({kind: summarise_predictions(entries[DEFAULT.name, kind]) for kind in kinds})


def _print_figures(results: dict[str, dict[str, Any]]) -> None:
    """Print the figures of each kind of folds beside their goals, and the baselines'."""
    reached, others, baselines = [], [], []
    for kind, of_kind in results.items():
        for target, figures in of_kind["targets"].items():
            at_least, at_most = GOALS[kind, target]
            srcc = [format_figure(figures, "srcc", 3), format_span(figures["intervals"]["srcc"]), f">= {at_least:.3f}"]
            r_l2 = [format_figure(figures, "r_l2", 2), format_span(figures["intervals"]["r_l2"]), f"<= {at_most:.2f}"]
            reached.append([kind, target, *srcc, *r_l2])
            cells = (
                format_figure(figures, name, places) if name in figures else "" for name, (_, places) in FIGURES.items()
            )
            others.append([kind, target, *cells])
            of_baselines = (of_kind["baselines"][name][target] for name in BASELINES)
            baselines.append([kind, target, *(f"{x['srcc']:.3f} ({x['r_l2']:.2f})" for x in of_baselines)])
        average = of_kind["average"]
        reached.append(
            [kind, "average", format_figure(average, "srcc", 3), "", "", format_figure(average, "r_l2", 2), "", ""]
        )
    print_table(["5 folds", "target", "SRCC", "95%", "goal", "R-l2", "95%", "goal"], reached)
    print_table(["5 folds", "target", *(title for title, _ in FIGURES.values())], others)
    print_table(["baselines: SRCC (R-l2)", "target", *(name.replace("_", " ") for name in BASELINES)], baselines)


def _print_verdicts(of_kind: dict[str, Entries]) -> None:
    """Print how verdicts agree with themselves and with the true scores; all fold seeds count alike."""
    rows = []
    for kind, entries in of_kind.items():
        arrays = as_arrays(entries)
        score, low, high = (np.round(arrays[name], PRINTED_DIGITS) for name in ("predicted", "grade_low", "grade_high"))
        shares = {
            "inside": (low <= score) & (score <= high),
            "right": arrays["grade"] == arrays["true_grade"],
            "within one": np.abs(arrays["grade"] - arrays["true_grade"]) <= 1,
            "borderline": arrays["is_borderline"] == 1,
        }
        targets = list(dict.fromkeys(entry["target"] for entry in entries))
        for m, target in enumerate(targets):
            is_known = ~np.isnan(arrays["true"][..., m])
            of_target = {name: float(share[..., m][is_known].mean()) for name, share in shares.items()}
            rows.append(
                [
                    kind,
                    target,
                    f"{of_target['inside']:.1%}",
                    f"{of_target['right']:.3f}",
                    f"{of_target['within one']:.3f}",
                    f">= {WITHIN_ONE[target]:.2f}",
                    f"{of_target['borderline']:.3f}",
                ]
            )
    print_table(
        ["5 folds", "target", "score inside its grade", "grade right", "within one", "goal", "borderline"], rows
    )


def _print_intervals(results: dict[str, dict[str, Any]]) -> None:
    """Print the coverage and the width of the prediction intervals."""
    rows = [
        [kind, target, f"{figures['coverage']:.3f}", f"{figures['width']:.1f}"]
        for kind, of_kind in results.items()
        for target, figures in of_kind["targets"].items()
    ]
    print_table(["5 folds", "target", "coverage of 90% intervals", "width in points"], rows)


if __name__ == "__main__":
    typer.run(ends_well(_main))
