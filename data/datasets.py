"""Match labels to features by name, and say what is left over on either side."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from .labels import LabelRow, LabelSet, read_column


@dataclass(frozen=True)
class Joined:
    """Label rows with the names of their features, and the rows and features that match nothing."""

    pairs: tuple[tuple[LabelRow, str], ...]
    rows_without_features: tuple[LabelRow, ...]
    features_without_label: tuple[str, ...]

    def leftovers(self) -> list[str]:
        """Return one sentence per side that has leftovers: their number and the first ten names."""
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
    """Match each label row to features: by the name in the store, else by the last part of the name if it is unique.

    Args:
        labels: the labels; a video's name may have a suffix and a folder that the store's name lacks.
        names: the names in the store.
        suffixes: the suffixes of video files, in lower case.

    Raises:
        ValueError: a row matches several features, two rows match the same features, or no row matches any.
    """
    names = dict.fromkeys(names)  # keeps their order, and looks a name up at once
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_stem[PurePosixPath(name).name].append(name)

    row_of: dict[str, LabelRow] = {}
    pairs, without_features = [], []
    for row in labels.rows:
        match = _matching_name(row, names, by_stem, suffixes)
        if match is None:
            without_features.append(row)
            continue
        first = row_of.setdefault(match, row)
        if first is not row:
            raise ValueError(f"{row.where} and {first.where} both mean the features {match!r}; keep one of the two")
        pairs.append((row, match))
    if not pairs:
        raise ValueError(
            f"none of the {len(labels.rows)} labels ({labels.rows[0].video!r}, ...) matches one of the "
            f"{len(names)} feature files ({next(map(repr, names), 'none')}, ...): labels are matched "
            "by the features' name without .npy"
        )
    return Joined(tuple(pairs), tuple(without_features), tuple(name for name in names if name not in row_of))


def with_column(
    labels: LabelSet, field: Literal["group", "event"], source: str, suffixes: Collection[str] = ()
) -> LabelSet:
    """Return labels with each row's group or event taken from a CSV file.

    Args:
        labels: the labels; their videos are matched to the file's by name, as in `join`.
        field: the field to set.
        source: `FILE:COLUMN`, a CSV file with the columns `video` and COLUMN.
        suffixes: the suffixes of video files, in lower case.

    Raises:
        ValueError: the file cannot be read, or lacks a labelled video.
    """
    file, _, column = source.rpartition(":")  # the last colon: a file name may contain others
    if not file or not column:
        raise ValueError(f"{source!r} is not FILE:COLUMN, for example skaters.csv:skater")
    values, by_stem = {}, defaultdict(list)
    for video, value in read_column(Path(file), column).items():
        name = PurePosixPath(video)
        name = name.with_suffix("") if name.suffix.lower() in suffixes else name
        if str(name) in values:
            raise ValueError(f"{file} has two lines for {str(name)!r}; keep one of the two")
        values[str(name)] = value
        by_stem[name.name].append(str(name))
    names = [_matching_name(row, values.keys(), by_stem, suffixes) for row in labels.rows]
    missing = [row.video for row, name in zip(labels.rows, names, strict=True) if name is None]
    if missing:
        raise ValueError(
            f"{file} lacks {len(missing)} of the {len(labels.rows)} labelled videos, the first is {missing[0]!r}; "
            f"add a line with the {column} of each"
        )
    pairs = ((row, values[name]) for row, name in zip(labels.rows, names, strict=True) if name)
    if field == "group":
        return replace(labels, rows=tuple(replace(row, group=value) for row, value in pairs))
    return replace(labels, rows=tuple(replace(row, event=value) for row, value in pairs))


def _matching_name(
    row: LabelRow, names: Collection[str], by_stem: dict[str, list[str]], suffixes: Collection[str]
) -> str | None:
    video = PurePosixPath(row.video)
    # only a video's suffix is removed: "v1.2" is a whole name
    for name in (video, video.with_suffix("")) if video.suffix.lower() in suffixes else (video,):
        if str(name) in names:
            return str(name)
        if len(candidates := by_stem.get(name.name, [])) == 1:
            return candidates[0]
        if candidates:
            raise ValueError(
                f"{row.where}: {row.video!r} matches {' and '.join(map(repr, candidates[:2]))}; "
                "write the name with its folder"
            )
    return None
