"""What the results of a training say of its labels, data and settings."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..data.labels import LabelSet
from . import conformal
from .examples import Dataset, Examples
from .human_ceiling import human_ceiling
from .manifest import versions
from .options import TrainingOptions
from .protocol import Outcome
from .results import summarise_predictions
from .splits import Split
from .trainings import HeadTraining


def describe_labels(
    all_labels: LabelSet, data: Dataset, splits: Sequence[Split], sums: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the entries of the results that labels with sums, panels or a table bring."""
    evaluated = data.examples.at(np.unique(np.concatenate([split.evaluated for split in splits])))
    ceiling = human_ceiling(evaluated, data.labels.panels)
    return {
        **({"sums": _describe_sums(data.labels, sums)} if sums else {}),
        **({"panel": ceiling} if ceiling else {}),
        **({"labels": all_labels.reading} if all_labels.reading else {}),
    }


def _describe_sums(labels: LabelSet, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the `sums` entry of the results: formulas, and the figures of the sums of predictions."""
    summary = summarise_predictions(entries)
    return {
        "formulas": {one.target: str(one) for one in labels.sums},
        **{name: summary[name] for name in ("targets", "baselines")},
    }


def describe_training(
    protocol: str,
    final: Split,
    examples: Examples,
    outcome: Outcome,
    training: HeadTraining,
    options: TrainingOptions,
) -> dict[str, Any]:
    """Return the `training` entry of the results: data, settings, command and versions."""
    grouped = examples.at(final.training).groups() is not None
    return {
        "videos": len(final.training),
        "judged": len({entry["video"] for entry in outcome.predictions}),
        **({"folds": len(final.calibration), "grouped": grouped} if protocol == "cv" else {}),
        **({"groups": options.groups} if options.groups else {}),
        **({"events": options.events} if options.events else {}),
        **({"interval_level": conformal.LEVEL} if options.intervals else {}),
        "head_type": options.head_type,
        "epochs": training.recipe.epochs,
        "config": asdict(outcome.network.config),
        "recipe": asdict(training.recipe),
        "seed": options.seed,
        "seeds": options.seeds,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions("cofinal", "torch", "numpy", "scipy", "scikit-learn"),
    }
