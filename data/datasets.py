"""Labels joined to features: which judged video has which array, and what was left over on either side."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from .labels import LabelRow, LabelSet, read_column


@dataclass(frozen=True)
class Joined:
    """Label rows with their features' names, and the leftovers."""

    pairs: tuple[tuple[LabelRow, str], ...]
    rows_without_features: tuple[LabelRow, ...]
    features_without_label: tuple[str, ...]

    def leftovers(self) -> list[str]:
        """Return a sentence for each side that has leftovers: their number and the first ten names."""
        sides = (
            ("label rows have no feature file", [row.video for row in self.rows_without_features]),
            ("feature files have no label", list(self.features_without_label)),
        )
        return [
            f"{len(names)} {what}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
            for what, names in sides
            if names
        ]


def join(labels: LabelSet, names: Iterable[str], suffixes: Collection[str] = ()) -> Joined:
    """Match each label row to a feature: by the store's relative name, else by a stem that is unique.

    Args:
        labels: the judged videos; their names may carry a folder that the store's lack, and a video's suffix.
        names: the store's names.
        suffixes: those of videos, in lower case.

    Raises:
        ValueError: a stem fits several features, two rows fit one feature, or nothing matches at all.
    """
    names = list(names)
    known = set(names)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_stem[PurePosixPath(name).name].append(name)

    owner: dict[str, LabelRow] = {}
    pairs, without = [], []
    for row in labels.rows:
        found = _find(row, known, by_stem, suffixes)
        if found is None:
            without.append(row)
            continue
        other = owner.setdefault(found, row)
        if other is not row:
            raise ValueError(f"{row.where} and {other.where} both mean the features {found!r}; keep one of the two")
        pairs.append((row, found))
    if not pairs:
        raise ValueError(
            f"none of the {len(labels.rows)} labels ({labels.rows[0].video!r}, ...) matches one of the "
            f"{len(names)} feature files ({', '.join(map(repr, names[:1])) or 'none'}, ...): labels are matched "
            "by the features' name without .npy"
        )
    return Joined(tuple(pairs), tuple(without), tuple(name for name in names if name not in owner))


def with_column(
    labels: LabelSet, field: Literal["group", "event"], source: str, suffixes: Collection[str] = ()
) -> LabelSet:
    """Return labels with each row's group or event as a CSV file has it.

    Args:
        labels: the judged videos, matched to the file's by name as `join` does.
        field: what to set.
        source: `FILE:COLUMN`, a CSV file with a column `video` and this one.
        suffixes: those of videos, in lower case.

    Raises:
        ValueError: the file cannot be read, or lacks a judged video.
    """
    file, _, column = source.rpartition(":")
    if not file or not column:
        raise ValueError(f"{source!r} is not FILE:COLUMN, say skaters.csv:skater")
    values, by_stem = {}, defaultdict(list)
    for video, value in read_column(Path(file), column).items():
        name = PurePosixPath(video)
        name = name.with_suffix("") if name.suffix.lower() in suffixes else name
        if str(name) in values:
            raise ValueError(f"{file} has two lines for {str(name)!r}; keep one of the two")
        values[str(name)] = value
        by_stem[name.name].append(str(name))
    names = [_find(row, values.keys(), by_stem, suffixes) for row in labels.rows]
    missing = [row.video for row, name in zip(labels.rows, names, strict=True) if name is None]
    if missing:
        raise ValueError(
            f"{file} lacks {len(missing)} of the {len(labels.rows)} labelled videos, the first is {missing[0]!r}; "
            f"add a line with the {column} of each"
        )
    told = ((row, values[name]) for row, name in zip(labels.rows, names, strict=True) if name)
    if field == "group":
        return replace(labels, rows=tuple(replace(row, group=value) for row, value in told))
    return replace(labels, rows=tuple(replace(row, event=value) for row, value in told))


def _find(
    row: LabelRow, known: Collection[str], by_stem: dict[str, list[str]], suffixes: Collection[str]
) -> str | None:
    video = PurePosixPath(row.video)
    for name in (video, video.with_suffix("")) if video.suffix.lower() in suffixes else (video,):
        if str(name) in known:
            return str(name)
        if len(candidates := by_stem.get(name.name, [])) == 1:
            return candidates[0]
        if candidates:
            raise ValueError(
                f"{row.where}: {row.video!r} fits {' and '.join(map(repr, candidates[:2]))}; "
                "write the name with its folder"
            )
    return None
