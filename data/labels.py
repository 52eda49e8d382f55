"""Judges' scores, read from a club's own table or from the label files of a published dataset.

`rg`, `fisv`                       text files: `text_labels`
`mtl-aqa`, `unlv-dive`, `jigsaws`  pickles: `pickled_labels`
`csv`                              any other data: `score_tables`
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .label_rows import LabelRow, LabelSet
from .pickled_labels import MTL_AQA_FILES, read_jigsaws, read_mtl_aqa, read_unlv_dive
from .score_tables import TableOptions, read_score_table
from .tables import Faults, read_table
from .target_rules import find_name, parse_range
from .text_labels import read_fisv, read_rg

__all__ = ["DATASETS", "LabelRow", "LabelSet", "TableOptions", "read_column", "read_labels", "with_ranges"]

CSV_NAME = "labels.csv"


@dataclass(frozen=True)
class _Format:
    """How a dataset's labels are found and read."""

    read: Callable[[Sequence[Path]], LabelSet]
    names: tuple[str, ...]
    """File names to look for in a folder."""
    one_file: bool = False
    """Whether the first of them that is there says all."""


FORMATS = {
    "rg": _Format(read_rg, ("train.txt", "test.txt")),
    "fisv": _Format(read_fisv, ("train.txt", "test.txt")),
    "mtl-aqa": _Format(read_mtl_aqa, MTL_AQA_FILES, one_file=True),
    "unlv-dive": _Format(read_unlv_dive, MTL_AQA_FILES, one_file=True),
    "jigsaws": _Format(read_jigsaws, ("label.pkl",), one_file=True),
}
TABLE_NAMES = (CSV_NAME, "labels.xlsx")
DATASETS = (*FORMATS, "csv")


def read_labels(dataset: str, places: Iterable[Path], table: TableOptions = TableOptions()) -> LabelSet:
    """Read a dataset's label files from the first place that has any.

    Args:
        dataset: one of `DATASETS`.
        places: folders to look in, or label files themselves.
        table: what the user says of the table; for `csv` only.

    Raises:
        ValueError: the dataset is unknown, there is no label file, a row cannot be read (the message has file, line
            and what was expected), or a video is labelled twice.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; known are {', '.join(DATASETS)}")
    if dataset == "csv":
        (file,) = _label_files(places, TABLE_NAMES, one_file=True)
        return read_score_table(file, table)
    if replace(table, targets=None) != TableOptions():
        raise ValueError(
            "--video-column, --sheet, --panel, --panel-score and --sum are for tables; leave them out or give "
            "--dataset csv"
        )
    form = FORMATS[dataset]
    files = _label_files(places, form.names, one_file=form.one_file)
    labels = form.read(files)
    if not labels.rows:
        raise ValueError(f"{' and '.join(map(str, files))} have no row of labels")
    _refuse_repeats(labels.rows)
    return labels


def with_ranges(labels: LabelSet, ranges: Sequence[str]) -> LabelSet:
    """Return labels with the ranges that the user gives.

    Args:
        labels: the labels.
        ranges: `TARGET=LOW:HIGH` each.

    Raises:
        ValueError: a range is not understood, its target is unknown, or a score lies outside of it.
    """
    given = {}
    for text in ranges:
        name, span = parse_range(text)
        target = find_name(name, labels.targets)
        if target is None:
            raise ValueError(f"--range {text!r}: unknown target {name!r}; known are {', '.join(labels.targets)}")
        outside = next((row for row in labels.rows if not span[0] <= row.scores.get(target, span[0]) <= span[1]), None)
        if outside is not None:
            raise ValueError(
                f"{outside.where}: {target} is {outside.scores[target]:g}, outside of --range {text}; widen the range "
                "or correct the score"
            )
        given[target] = span
    return replace(labels, ranges=labels.ranges | given)


def read_column(file: Path, column: str) -> dict[str, str]:
    """Read one column of a table, by the video in its column `video`.

    Raises:
        ValueError: the file cannot be read, lacks a column or a value, or names a video twice.
    """
    table = read_table(file)
    names = list(table.fields.columns)
    found = [find_name(name, names) for name in ("video", column)]
    if None in found:
        raise ValueError(
            f"{table.where(table.header_line)}: expected the columns video and {column}, found {', '.join(names)}"
        )
    faults = Faults(file, table.word)
    values: dict[str, str] = {}
    for line, video, value in table.fields[found].itertuples():
        if video in values:
            faults.add(line, f"expected each video once, found {video!r} again")
        elif not video or not value:
            faults.add(line, f"expected a video and its {column}, found {video!r}, {value!r}")
        values[video] = value
    faults.refuse()
    return values


def _label_files(places: Iterable[Path], names: tuple[str, ...], *, one_file: bool) -> list[Path]:
    places = list(places)
    for place in places:
        files = [place] if place.is_file() else [place / name for name in names if (place / name).is_file()]
        if files:
            return files[:1] if one_file else files
    searched = ", ".join(str(place) for place in places)
    raise ValueError(f"no {' or '.join(names)} in {searched}; name the labels' folder or file with --labels")


def _refuse_repeats(rows: tuple[LabelRow, ...]) -> None:
    row_of: dict[str, LabelRow] = {}
    for row in rows:
        first = row_of.setdefault(row.video, row)
        if first is not row:
            raise ValueError(f"{row.where}: {row.video!r} is labelled already in {first.where}; keep one of the two")
