"""A feature store and its labels as arrays in memory: what every training and evaluation starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.datasets import join
from ..data.feature_store import FeatureStore
from ..data.labels import LabelRow, LabelSet
from ..data.target_rules import find_name
from ..extractors.video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Examples:
    """Scored routines: an entry a routine in every field."""

    rows: list[LabelRow]
    features: list[np.ndarray]
    """Clip features `(clips, C)` of each routine."""
    scores: np.ndarray
    """`(routines, targets)` in points, NaN where a target has no score."""
    actions: np.ndarray | None
    """Index of each routine's action; None where there is only one."""
    names: list[str]
    """Each routine's name in the feature store."""

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, indices: np.ndarray) -> "Examples":
        """Return some of the routines."""
        return Examples(
            [self.rows[i] for i in indices],
            [self.features[i] for i in indices],
            self.scores[indices],
            None if self.actions is None else self.actions[indices],
            [self.names[i] for i in indices],
        )

    def groups(self) -> list[str] | None:
        """Return each routine's group, as of `groups_of`."""
        return groups_of(self.rows)

    def published_folds(self) -> list[np.ndarray] | None:
        """Return the routines of each published fold; None where a routine has none, or only one fold is there."""
        folds = [row.fold for row in self.rows if row.fold is not None]
        if len(folds) < len(self.rows) or len(set(folds)) < 2:
            return None
        return [np.flatnonzero(np.array(folds) == fold) for fold in sorted(set(folds))]


def groups_of(rows: Sequence[LabelRow]) -> list[str] | None:
    """Return the group of each row; one without a group is its own. None where no row has a group."""
    if not any(row.group for row in rows):
        return None
    return [f"group {row.group}" if row.group else f"row {row.where}" for row in rows]


@dataclass(frozen=True)
class Dataset:
    """The labels of a dataset and the features that were found for them."""

    labels: LabelSet
    """The selected targets, and the actions that have features."""
    examples: Examples
    """The selected rows that have features."""
    leftovers: list[str]
    """A sentence each about labels without features and features without a label."""


def label_places(store: FeatureStore, source: Path) -> list[Path]:
    """Return where labels are looked for: the store, its parent, the videos' folder and its parent.

    Args:
        store: the feature store.
        source: what the user named, the store or the videos.
    """
    videos = Path(store.manifest["videos"]) if store.manifest is not None else source.absolute()
    return list(dict.fromkeys([store.folder, store.folder.absolute().parent, videos, videos.parent]))


def select_labels(labels: LabelSet, targets: Sequence[str] | None, actions: Sequence[str] | None) -> LabelSet:
    """Return the labels of some targets and actions only; None selects all of them.

    Raises:
        ValueError: a name is unknown, or no row is left.
    """
    wanted_targets = _wanted_targets(labels, targets or ())
    for action in actions or ():
        if action not in labels.actions:
            raise ValueError(f"unknown action {action!r}; {labels.dataset} has {', '.join(labels.actions) or 'none'}")
    kept_targets = tuple(target for target in labels.targets if not targets or target in wanted_targets)
    kept_actions = tuple(action for action in labels.actions if not actions or action in actions)
    rows = (
        replace(row, scores={target: row.scores[target] for target in kept_targets if target in row.scores})
        for row in labels.rows
        if row.action is None or row.action in kept_actions
    )
    scored = tuple(row for row in rows if row.scores)
    if not scored:
        raise ValueError(f"no label row is left for {', '.join([*(targets or ()), *(actions or ())])}")
    sums = tuple(one for one in labels.sums if set(one.parts) <= set(kept_targets))
    return replace(labels, targets=kept_targets, actions=kept_actions, rows=scored, sums=sums)


def _wanted_targets(labels: LabelSet, names: Sequence[str]) -> list[str]:
    """Return the targets that names stand for: a sum's name stands for its parts."""
    parts_of = {one.target: one.parts for one in labels.sums}
    wanted: list[str] = []
    for name in names:
        found = find_name(name, [*labels.targets, *parts_of])
        if found is None:
            known = ", ".join([*labels.targets, *parts_of])
            raise ValueError(f"unknown target {name!r}; {labels.dataset} has {known}")
        wanted += parts_of.get(found, (found,))
    return wanted


def load_dataset(store: FeatureStore, labels: LabelSet, selected: LabelSet | None = None) -> Dataset:
    """Load the features of labelled videos into memory.

    Args:
        store: the feature store.
        labels: all labels of the dataset. Features are matched to all of them, so that only features of no row at all
            count as unlabelled.
        selected: the labels to load; None for all.

    Raises:
        ValueError: no label matches a feature, a match is ambiguous, features are of a whole video and labels of a
            segment of it, or features differ in width.
    """
    joined = join(labels, store.names(), VIDEO_SUFFIXES)
    if joined.whole and store.manifest is not None:
        row, name = joined.whole[0]
        assert row.segment is not None
        raise ValueError(
            f"{row.where} is about a segment, and {store.path(name)} holds features of the whole video "
            f"{row.segment.video}: extract the segments (extract-features --dataset), or if the files are the segments "
            "already, take start and end out of the labels"
        )
    selected = selected or labels
    selected_rows = {row.where: row for row in selected.rows}
    pairs = [(selected_rows[row.where], name) for row, name in joined.pairs if row.where in selected_rows]
    if not pairs:
        raise ValueError(f"none of the {len(selected.rows)} selected label rows has features")
    rows, names = zip(*pairs, strict=True)
    present = {row.action for row in rows}
    selected = replace(selected, actions=tuple(action for action in selected.actions if action in present))
    features = [store.load(name) for name in names]
    width = features[0].shape[1]
    for name, array in zip(names, features, strict=True):
        if array.shape[1] != width:
            raise ValueError(
                f"{store.path(name)} has features of width {array.shape[1]}, {store.path(names[0])} of width {width}; "
                "a store holds one width"
            )
    scores = np.array([[row.scores.get(target, np.nan) for target in selected.targets] for row in rows])
    actions = None
    if len(selected.actions) > 1:
        actions = np.array([selected.actions.index(row.action) for row in rows])
    return Dataset(selected, Examples(list(rows), features, scores, actions, list(names)), joined.leftovers())
