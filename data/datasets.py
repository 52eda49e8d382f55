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
    whole: tuple[tuple[LabelRow, str], ...] = ()
    """The pairs of a segment and what has the name of the longer video."""

    def leftovers(self) -> list[str]:
        """Return one sentence per side that has leftovers, and one each on leading zeros and on segments.

        Each names the first ten.
        """
        sides = (
            ("label rows have no feature file", [row.video for row in self.rows_without_features]),
            ("feature files have no label", list(self.features_without_label)),
            (
                "labels match but for leading zeros, which Excel takes off",
                [f"{row.video} is {name}" for row, name in self.by_number],
            ),
            (
                "segments have features that are named as the longer video: they count as those of the segment alone",
                [f"{row.video} is {name}" for row, name in self.whole],
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
            if (number := _number(path.name)) is not None:
                self.by_number[number].append(name)

    def find(self, wanted: str, segment: str = "") -> tuple[str | None, bool]:
        """Find the one name that is meant.

        The same name comes first, then the same path (however its accents are coded), then the longest end of the path,
        down to the file's name alone, then the same number but for leading zeros.

        Args:
            wanted: the name as people write it.
            segment: what a segment's name adds to it (`Segment.suffix`).

        Returns:
            The name, or None; and whether it was found as a number.

        Raises:
            ValueError: two names may be meant.
        """
        spellings = [spelling + segment for spelling in _spellings(wanted, self.suffixes)]
        for video in spellings:
            if video in self.names:
                return video, False
            parts = PurePosixPath(_composed(video)).parts
            for start in range(max(1, len(parts) - 1)):
                if candidates := self.by_path.get("/".join(parts[start:])):
                    return _only(wanted, candidates), False
            if parts and (candidates := self.by_stem.get(parts[-1])):
                return _only(wanted, candidates), False
        number = _number(PurePosixPath(spellings[-1]).name)
        if number is not None and (candidates := self.by_number.get(number)):
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
    pairs, without_features, by_number, whole = [], [], [], []
    for row in labels.rows:
        found = find_row(row, index)
        if found is None:
            without_features.append(row)
            continue
        first = row_of.setdefault(found.name, row)
        if first is not row:
            remedy = "extract its segments" if found.is_whole else "keep one of the two"
            raise ValueError(f"{row.where} and {first.where} both mean the features {found.name!r}; {remedy}")
        pairs.append((row, found.name))
        by_number += [pairs[-1]] if found.is_number else []
        whole += [pairs[-1]] if found.is_whole else []
    if not pairs:
        raise ValueError(
            f"none of the {len(labels.rows)} labels ({labels.rows[0].video!r}, ...) matches one of the "
            f"{len(index.names)} feature files ({next(map(repr, index.names), 'none')}, ...): labels are matched "
            "by the features' name without .npy"
        )
    unlabelled = tuple(name for name in index.names if name not in row_of)
    return Joined(tuple(pairs), tuple(without_features), unlabelled, tuple(by_number), tuple(whole))


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
    names = [found.name if (found := find_row(row, index)) else None for row in labels.rows]
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


@dataclass(frozen=True)
class Found:
    """What a label row means."""

    name: str
    is_number: bool
    """Whether it matches but for leading zeros."""
    is_whole: bool
    """Whether the row is about a segment, and this is the longer video."""


def find_row(row: LabelRow, index: NameIndex) -> Found | None:
    """Find what a row means: its segment, else its own name or one of its aliases, else the video of its segment.

    Raises:
        ValueError: two names may be meant.
    """
    wanted = [(name, "", False) for name in (row.video, *row.aliases)]
    if row.segment is not None:
        wanted = [(row.segment.video, row.segment.suffix, False), *wanted, (row.segment.video, "", True)]
    try:
        for name, segment, is_whole in wanted:
            match, is_number = index.find(name, segment)
            if match is not None:
                return Found(match, is_number, is_whole)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from error
    return None


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


def _number(name: str) -> str | None:
    """The number that is a name, or a segment's longer video, without leading zeros; None if there is none."""
    digits, at, segment = name.partition("@")
    return digits.lstrip("0") + at + segment if digits.isascii() and digits.isdigit() else None
