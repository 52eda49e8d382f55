"""Match labels to features by name, and say what is left over on either side."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from .label_rows import LabelRow, LabelSet
from .labels import read_column


@dataclass(frozen=True)
class Joined:
    """Label rows with the names of their features, and the rows and features that match nothing."""

    pairs: tuple[tuple[LabelRow, str], ...]
    rows_without_features: tuple[LabelRow, ...]
    features_without_label: tuple[str, ...]
    by_number: tuple[tuple[LabelRow, str], ...] = ()
    """The pairs that match but for leading zeros."""

    def leftovers(self) -> list[str]:
        """Return one sentence per side that has leftovers, and one on leading zeros, with the first ten names."""
        sides = (
            ("label rows have no feature file", [row.video for row in self.rows_without_features]),
            ("feature files have no label", list(self.features_without_label)),
            (
                "labels match but for leading zeros, which Excel takes off",
                [f"{row.video} is {name}" for row, name in self.by_number],
            ),
        )
        return [
            f"{len(names)} {what}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
            for what, names in sides
            if names
        ]


class NameIndex:
    """Names to look up as people write them."""

    def __init__(self, names: Iterable[str], suffixes: Collection[str]) -> None:
        """Index names.

        Args:
            names: the names to find.
            suffixes: the suffixes of video files, in lower case; a name that is looked up may end in one.
        """
        self.names = dict.fromkeys(names)  # keeps their order, and looks a name up at once
        self.suffixes = suffixes
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        self.by_number: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            path = PurePosixPath(_composed(name))
            self.by_path[str(path)].append(name)
            self.by_stem[path.name].append(name)
            if _is_number(path.name):
                self.by_number[path.name.lstrip("0")].append(name)

    def find(self, wanted: str) -> tuple[str | None, bool]:
        """Find the one name that is meant.

        The same name comes first, then the same path (however its accents are coded), then the longest end of the path,
        down to the file's name alone, then the same number but for leading zeros.

        Returns:
            The name, or None; and whether it was found as a number.

        Raises:
            ValueError: two names may be meant.
        """
        spellings = _spellings(wanted, self.suffixes)
        for video in spellings:
            if video in self.names:
                return video, False
            parts = PurePosixPath(_composed(video)).parts
            for start in range(max(1, len(parts) - 1)):
                if candidates := self.by_path.get("/".join(parts[start:])):
                    return _only(wanted, candidates), False
            if parts and (candidates := self.by_stem.get(parts[-1])):
                return _only(wanted, candidates), False
        stem = PurePosixPath(spellings[-1]).name
        if _is_number(stem) and (candidates := self.by_number.get(stem.lstrip("0"))):
            return _only(wanted, candidates), True
        return None, False


def join(labels: LabelSet, names: Iterable[str], suffixes: Collection[str] = ()) -> Joined:
    """Match each label row to features, by the rules of `NameIndex.find`.

    Args:
        labels: the labels; a video's name may have a suffix and a folder that the store's name lacks.
        names: the names in the store.
        suffixes: the suffixes of video files, in lower case.

    Raises:
        ValueError: a row matches several features, two rows match the same features, or no row matches any.
    """
    index = NameIndex(names, suffixes)
    row_of: dict[str, LabelRow] = {}
    pairs, without_features, by_number = [], [], []
    for row in labels.rows:
        match, is_number = _find_row(row, index)
        if match is None:
            without_features.append(row)
            continue
        first = row_of.setdefault(match, row)
        if first is not row:
            raise ValueError(f"{row.where} and {first.where} both mean the features {match!r}; keep one of the two")
        pairs.append((row, match))
        if is_number:
            by_number.append((row, match))
    if not pairs:
        raise ValueError(
            f"none of the {len(labels.rows)} labels ({labels.rows[0].video!r}, ...) matches one of the "
            f"{len(index.names)} feature files ({next(map(repr, index.names), 'none')}, ...): labels are matched "
            "by the features' name without .npy"
        )
    unlabelled = tuple(name for name in index.names if name not in row_of)
    return Joined(tuple(pairs), tuple(without_features), unlabelled, tuple(by_number))


def with_column(
    labels: LabelSet, field: Literal["group", "event"], source: str, suffixes: Collection[str] = ()
) -> LabelSet:
    """Return labels with each row's group or event taken from a table.

    Args:
        labels: the labels; their videos are matched to the table's by name, as in `join`.
        field: the field to set.
        source: `FILE:COLUMN`, a table with the columns `video` and COLUMN.
        suffixes: the suffixes of video files, in lower case.

    Raises:
        ValueError: the file cannot be read, or lacks a labelled video.
    """
    file, _, column = source.rpartition(":")  # the last colon: a file name may contain others
    if not file or not column:
        raise ValueError(f"{source!r} is not FILE:COLUMN, for example skaters.csv:skater")
    values = {}
    for video, value in read_column(Path(file), column).items():
        name = _spellings(video, suffixes)[-1]
        if name in values:
            raise ValueError(f"{file} has two lines for {name!r}; keep one of the two")
        values[name] = value
    index = NameIndex(values, suffixes)
    names = [_find_row(row, index)[0] for row in labels.rows]
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


def _spellings(name: str, suffixes: Collection[str]) -> list[str]:
    """The name as it is and with Windows' folders as folders, each also without the suffix of a video."""
    spellings = []
    for spelling in (name, re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/")):
        path = PurePosixPath(spelling)
        spellings.append(str(path))
        if path.suffix.lower() in suffixes:  # "v1.2" is a whole name
            spellings.append(str(path.with_suffix("")))
    return list(dict.fromkeys(spellings))


def _find_row(row: LabelRow, index: NameIndex) -> tuple[str | None, bool]:
    """Find a row's name or one of its aliases."""
    try:
        for wanted in (row.video, *row.aliases):
            match, is_number = index.find(wanted)
            if match is not None:
                return match, is_number
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from error
    return None, False


def _only(wanted: str, candidates: list[str]) -> str:
    if len(candidates) > 1:
        raise ValueError(
            f"{wanted!r} matches {' and '.join(map(repr, candidates[:2]))}; write the name with its folder and all of "
            "its digits"
        )
    return candidates[0]


def _composed(name: str) -> str:
    """The name with each accent and its letter as one character; macOS writes two."""
    return unicodedata.normalize("NFC", name)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
