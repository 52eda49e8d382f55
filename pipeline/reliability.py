"""When a head should not be trusted: a sentence for each reason, and one on what pooled figures hide."""

from collections.abc import Mapping, Sequence
from typing import Any

from .evaluation import difference
from .examples import Examples
from .results import by_target, key_of

FEW, VERY_FEW = 50, 20
"""Training routines with a score of a target, below which a head carries a warning, and one with what to expect."""
EXPECTED = "with 20 routines of figure skating SRCC was about .2 (TES) and .35 (PCS), with 320 .64 and .82"
"""The learning curve of docs/accuracy.md, rounded."""
NAMED = 3
"""At most so many targets are named in a sentence."""
POOLED = -0.3
"""At this SRCC of the training mean, or below, pooling folds moves every figure much."""


def warnings_of(
    results: Mapping[str, Any], predictions: Sequence[dict[str, Any]], metadata: Mapping[str, Any], training: Examples
) -> list[str]:
    """Return a sentence for each reason not to trust a head.

    Args:
        results: the figures of `summarise_predictions`, and the `sums` where there are any.
        predictions: the entries that they are made of, those of sums included.
        metadata: the head's `targets`, `intervals` and `ranges`.
        training: the routines that it was trained on.
    """
    figures = results["targets"] | results.get("sums", {}).get("targets", {})
    return [
        *_few(training, metadata["targets"]),
        *_not_evaluated(figures, training, metadata["targets"]),
        *_no_rank(figures),
        *_worse_than_ridge(predictions),
        *_wide(metadata["intervals"]["radii"], metadata["ranges"]),
    ]


def pooling_notes(results: Mapping[str, Any]) -> list[str]:
    """Return a sentence where pooling the folds moves the figures of a cross-validation much.

    The training mean tells no routine from another. What SRCC it has comes from pooling alone: a fold with high scores
    leaves a low mean. The smaller the folds, the larger the effect.
    """
    if results["protocol"] != "cv":
        return []
    means = results["baselines"]["mean"]
    moved = [f"{figures['srcc']:.2f} ({key})" for key, figures in means.items() if figures["srcc"] <= POOLED]
    if not moved:
        return []
    return [
        "with so few routines in each fold the pooled figures mislead: the training mean, which ranks nothing, has "
        f"SRCC {_listed(moved)}, because a fold of high scores leaves a low mean; this lowers the head's SRCC too, and "
        "its interval does not show it"
    ]


def _few(training: Examples, targets: Sequence[str]) -> list[str]:
    counts = {target: sum(target in row.scores for row in training.rows) for target in targets}
    target, fewest = min(counts.items(), key=lambda count: count[1])
    if fewest >= FEW:
        return []
    routines = f"{fewest} routines" if fewest == len(training) else f"{fewest} routines with a score of {target}"
    if fewest >= VERY_FEW:
        return [f"this head was trained on {routines} only; expect more from {FEW} or more"]
    return [f"this head was trained on {routines} only; expect little: {EXPECTED} (docs/accuracy.md)"]


def _not_evaluated(figures: Mapping[str, Any], training: Examples, targets: Sequence[str]) -> list[str]:
    trained = dict.fromkeys(
        key_of(row.action, target) for row in training.rows for target in targets if target in row.scores
    )
    unknown = [key for key in trained if key not in figures]
    if not unknown:
        return []
    return [f"nobody knows how good this head is for {_listed(unknown)}: no such routine was evaluated"]


def _no_rank(figures: Mapping[str, Any]) -> list[str]:
    unranked = [
        "{} (SRCC {:.2f}, 95%: {:.2f} to {:.2f})".format(key, of_target["srcc"], *of_target["intervals"]["srcc"])
        for key, of_target in figures.items()
        if of_target["intervals"]["srcc"][0] <= 0
    ]
    return [f"this head is not shown to rank {_listed(unranked)}"] if unranked else []


def _worse_than_ridge(predictions: Sequence[dict[str, Any]]) -> list[str]:
    worse, of_targets = [], by_target(predictions)
    for key, found in of_targets.items():
        truth, head, ridge = found.column("true")[0], found.column("predicted"), found.column("ridge")
        # among many targets one would look worse by chance, so all of their intervals together hold at 95%
        differences = difference(truth, head, ridge, found.groups, level=1 - 0.05 / len(of_targets))
        for name, title, sign in (("srcc", "SRCC", -1), ("r_l2", "R-l2", 1), ("mae", "MAE", 1)):
            mean, bounds = differences[name]
            low, high = sorted(sign * bound for bound in bounds)
            if low > 0:
                worse.append(f"{title} of {key} by {sign * mean:.2f} ({low:.2f} to {high:.2f})")
    return [f"ridge regression on the same routines is better than this head: {_listed(worse)}"] if worse else []


def _wide(radii: Mapping[str, float], ranges: Mapping[str, Sequence[float]]) -> list[str]:
    wide = [
        f"{target} (plus and minus {radii[target]:.2f} points, {low:g} to {high:g})"
        for target, (low, high) in ranges.items()
        if target in radii and 2 * radii[target] > (high - low) / 2
    ]
    return [f"this head's 90% intervals span more than half of the range: {_listed(wide)}"] if wide else []


def _listed(items: Sequence[str]) -> str:
    """Join items as in a sentence; of many name the first ones."""
    named = [*items[:NAMED], *([f"{len(items) - NAMED} more"] if len(items) > NAMED else [])]
    return " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]
