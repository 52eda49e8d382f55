"""How good a head is on routines that judges have scored: its scores against theirs. Nothing is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.datasets import join
from ..data.feature_store import FeatureStore
from ..data.labels import LabelRow, LabelSet, read_labels, with_ranges
from ..extractors.video import VIDEO_SUFFIXES
from ..models.checkpoint import Head
from ..models.reference import ReferenceCoFInAl
from .examples import groups_of, label_places, select_labels
from .options import LabelOptions
from .results import summarise_predictions
from .sources import is_store
from .sums import sum_predictions
from .verdict import Score


@dataclass(frozen=True)
class Judged:
    """The judges' scores of the routines to evaluate."""

    labels: LabelSet
    """The targets and actions that the head has too."""
    rows: dict[str, LabelRow]
    """By the routine's name."""
    notes: list[str]
    """What was taken for what, and what has no counterpart, in sentences."""
    warnings: list[str]


def read_judged(
    head: Head,
    head_path: Path,
    routines: Mapping[str, Path],
    dataset: str,
    places: Sequence[Path],
    options: LabelOptions,
) -> Judged:
    """Read judges' scores and match them to routines.

    Where some of the routines are of the test split, these alone are evaluated.

    Args:
        head: the head, for its targets and actions.
        head_path: its file, for messages.
        routines: path by name.
        dataset: the format of the label files.
        places: where they are looked for.
        options: how a table is read.

    Raises:
        ValueError: the labels cannot be read, match no routine, cut segments out of videos, or have no target or action
            of the head.
    """
    targets, actions = head.metadata["targets"], head.metadata["actions"]
    labels = with_ranges(read_labels(dataset, places, options.table(targets)), options.ranges or ())
    if labels.actions and not actions:
        raise ValueError(f"{head_path} was trained for one of {', '.join(labels.actions)}; name it with --action")
    shared = [target for target in targets if target in labels.targets]
    if not shared:
        raise ValueError(
            f"{labels.files[0]} has {', '.join(labels.targets)}, but {head_path} scores {', '.join(targets)}: name the "
            "head's targets in the labels"
        )
    selected = select_labels(labels, shared, [x for x in actions if x in labels.actions] if labels.actions else None)
    joined = join(selected, routines, VIDEO_SUFFIXES)
    if cut := [routines[name] for _, name in joined.whole if routines[name].suffix != ".npy"]:
        raise ValueError(
            f"{labels.files[0]} judges segments of {cut[0]}: extract them with `extract-features VIDEOS OUT --dataset "
            f"{dataset}` and score OUT"
        )
    rows = {name: row for row, name in joined.pairs}
    in_test = {name: row for name, row in rows.items() if row.split == "test"}
    warnings = []
    if isinstance(head.network, ReferenceCoFInAl) and in_test:
        warnings = ["the public code keeps the epoch that is best on the test split: this flatters its heads"]
    elif not in_test:
        warnings = ["nothing says that these are test videos: the figures hold if the head was not trained on them"]
    return Judged(selected, in_test or rows, [*labels.notes, *joined.leftovers()], warnings)


def places_of_labels(labels: Path | None, named: Sequence[Path]) -> list[Path]:
    """Return where labels are looked for: in `labels`, else with the one folder of routines that was named."""
    if labels is not None:
        return [labels]
    if len(named) > 1:
        raise ValueError("name the judges' scores with --labels where several videos or folders are named")
    (source,) = named
    if is_store(source):
        return label_places(FeatureStore(source), source)
    return [source, source.absolute().parent]


def evaluate_scores(judged: Judged, scores: Mapping[str, Score]) -> dict[str, Any]:
    """Compare scores with the judges'.

    Args:
        judged: from `read_judged`.
        scores: by name, of at least one of the routines; those without are counted, not evaluated.

    Returns:
        `targets` and `average` in the form of the results contract, `sums` where the labels have sums, `evaluated`
        ("test" or "all"), `unscored` and `warnings`.
    """
    rows = {name: row for name, row in judged.rows.items() if name in scores}
    groups, has_events = groups_of([*rows.values()]), all(row.event for row in rows.values())
    entries = [
        {
            "video": name,
            "action": row.action or "",
            **({} if groups is None else {"group": groups[place]}),
            **({"event": row.event} if has_events else {}),
            **_compared(target, row.scores[target], scores[name]),
        }
        for place, (name, row) in enumerate(rows.items())
        for target in judged.labels.targets
        if target in row.scores
    ]
    summary = summarise_predictions(entries)
    sums = sum_predictions(entries, judged.labels.sums)
    return {
        "evaluated": "test" if all(row.split == "test" for row in rows.values()) else "all",
        "targets": summary["targets"],
        "average": summary["average"],
        **({"sums": summarise_predictions(sums)["targets"]} if sums else {}),
        "unscored": len(judged.rows) - len(rows),
        "warnings": judged.warnings,
    }


def _compared(target: str, true: float, score: Score) -> dict[str, Any]:
    verdict = score.targets[target]
    bounds = {} if verdict.interval is None else dict(zip(("low", "high"), verdict.interval.span, strict=True))
    return {"target": target, "true": true, "predicted": verdict.score, **bounds}
