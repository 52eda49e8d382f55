"""What a head file keeps of its training routines, so that scores can be compared with them."""

from collections.abc import Sequence
from typing import Any

from ..data.feature_store import FeatureStore
from ..data.labels import LabelSet
from .examples import Examples
from .filming import Filming, filming_of_training


def record_training_set(
    examples: Examples, labels: LabelSet, store: FeatureStore, *, anonymous: bool
) -> dict[str, Any]:
    """Return the entry `training_set` of a head's metadata.

    Args:
        examples: the training routines.
        labels: all labels of the dataset.
        store: the features, whose records say how each routine was filmed.
        anonymous: leave the routines' names out.

    Returns:
        `set`, the training set's name; `names` of its routines or None; `scores` in points by target, None where
        unknown; lowest and highest number of `clips`; `filming` (`filming_of_training`).
    """
    records = [store.records.get(name, {}) for name in examples.names]
    lengths = [len(x) for x in examples.features]
    return {
        "set": labels.files[0].name if labels.dataset == "csv" else labels.dataset,
        "names": None if anonymous else [row.video for row in examples.rows],
        "scores": {target: [row.scores.get(target) for row in examples.rows] for target in labels.targets},
        "clips": [min(lengths), max(lengths)],
        "filming": filming_of_training(map(Filming.of, records)),
    }


def is_training_set(record: Any, targets: Sequence[str], num_training: int) -> bool:
    """Whether this is what `record_training_set` returns for so many routines; strangers' files may hold anything."""
    if not isinstance(record, dict) or record.keys() != {"set", "names", "scores", "clips", "filming"}:
        return False
    names, scores, filming = record["names"], record["scores"], record["filming"]
    return (
        isinstance(record["set"], str)
        and (names is None or _is_list_of(names, str, num_training))
        and isinstance(scores, dict)
        and scores.keys() == set(targets)
        and all(_is_list_of(of_target, (int, float, type(None)), num_training) for of_target in scores.values())
        and _is_list_of(record["clips"], int, 2)
        and isinstance(filming, dict)
        and filming.keys() == filming_of_training([]).keys()
        and all(
            filming[name] is None or _is_list_of(filming[name], (int, float), 2) for name in ("frames_per_s", "aspect")
        )
    )


def _is_list_of(values: Any, kind: type | tuple[type, ...], length: int) -> bool:
    return isinstance(values, list) and len(values) == length and all(isinstance(value, kind) for value in values)
