"""Judges' scores, read from label files in the formats of the published datasets, or from a CSV file.

`rg`    Rhythmic Gymnastics (ACTION-NET): `train.txt` and `test.txt` with a header line, fields separated by
        tabs and spaces: Video_Name Difficulty_Score Execution_Score Total_Score Penalty Video_length.
`fisv`  Fis-V (MS_LSTM): `train.txt` and `test.txt` without a header: id TES PCS deductions.
`csv`   `labels.csv` for any other data: a header `video,<score>...[,split][,group]`; each score column is a target.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True)
class LabelRow:
    """The scores of one video."""

    video: str
    """Its name in the label file."""
    scores: dict[str, float]
    """Points by target; a target without a score is absent."""
    where: str
    """File and line, for messages."""
    action: str | None = None
    """The kind of routine within the dataset, such as RG's apparatus."""
    split: Split | None = None
    group: str | None = None
    """Videos of one group (a skater, an event) stay together in one fold."""
    event: str | None = None
    """The competition that the video is from."""


@dataclass(frozen=True)
class LabelSet:
    """All labelled videos of a dataset and the ranges of their scores."""

    dataset: str
    targets: tuple[str, ...]
    ranges: dict[str, tuple[float, float]]
    """Lowest and highest possible score by target, in points; empty for csv, whose rules are unknown."""
    actions: tuple[str, ...]
    """The kinds of routines in the dataset; empty if it has only one."""
    rows: tuple[LabelRow, ...]
    files: tuple[Path, ...]


# The rules' bounds, rounded up to hold every published score (RG: 14.8, 9.4, 24; Fis-V: 42.81, 38.28).
RG_RANGES = {"Difficulty": (0.0, 15.0), "Execution": (0.0, 10.0), "Total": (0.0, 25.0)}
RG_ACTIONS = ("Ball", "Clubs", "Hoop", "Ribbon")
RG_HEADER = ["Video_Name", "Difficulty_Score", "Execution_Score", "Total_Score", "Penalty", "Video_length"]
FISV_RANGES = {"TES": (0.0, 45.0), "PCS": (0.0, 40.0)}
DATASETS = ("rg", "fisv", "csv")
CSV_NAME = "labels.csv"
GENERATED_RECORDS = "routines.jsonl"
"""File beside the labels of generated routines (`data.routines`); it marks heads trained on them as such."""


def read_labels(dataset: str, places: Iterable[Path]) -> LabelSet:
    """Read a dataset's label files from the first place that has any.

    Args:
        dataset: `rg`, `fisv` or `csv`.
        places: folders to look in, or label files themselves.

    Raises:
        ValueError: the dataset is unknown, there is no label file, a row cannot be read (the message has file, line
            and what was expected), or a video is labelled twice.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; known are {', '.join(DATASETS)}")
    file_names = (CSV_NAME,) if dataset == "csv" else ("train.txt", "test.txt")
    places = list(places)
    files = next((files for place in places if (files := _label_files(place, file_names))), None)
    if files is None:
        searched = ", ".join(str(place) for place in places)
        raise ValueError(f"no {' or '.join(file_names)} in {searched}; name the labels' folder or file with --labels")
    reader = {"rg": _read_rg, "fisv": _read_fisv, "csv": _read_csv}[dataset]
    rows = tuple(row for file in files for row in reader(file))
    if not rows:
        raise ValueError(f"{' and '.join(map(str, files))} have no row of labels")
    _refuse_repeats(rows)
    if dataset == "rg":
        return LabelSet("rg", tuple(RG_RANGES), RG_RANGES, RG_ACTIONS, rows, tuple(files))
    if dataset == "fisv":
        return LabelSet("fisv", tuple(FISV_RANGES), FISV_RANGES, (), rows, tuple(files))
    targets = tuple(dict.fromkeys(target for row in rows for target in row.scores))
    return LabelSet("csv", targets, {}, (), rows, tuple(files))


def read_column(file: Path, column: str) -> dict[str, str]:
    """Read one column of a CSV file, by the video in its column `video`.

    Raises:
        ValueError: the file cannot be read, lacks a column or a value, or names a video twice.
    """
    values: dict[str, str] = {}
    lines = csv.DictReader(_lines(file))
    lines.fieldnames = [name.strip() for name in lines.fieldnames or ()]
    for name in ("video", column):
        if name not in lines.fieldnames:
            raise ValueError(f"{file} line 1: expected the columns video and {column}, found {lines.fieldnames}")
    for row in lines:
        video, value = ((row[name] or "").strip() for name in ("video", column))
        if not video or not value or video in values:
            expected = "each video once" if video in values else f"a video and its {column}"
            raise ValueError(f"{file} line {lines.line_num}: expected {expected}, found {video!r}, {value!r}")
        values[video] = value
    return values


def _label_files(place: Path, file_names: tuple[str, ...]) -> list[Path]:
    if place.is_file():
        return [place]
    return [place / name for name in file_names if (place / name).is_file()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()  # utf-8-sig: Excel writes a byte order mark
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file} cannot be read as text ({error}); expected a label file") from error


def _split_of(file: Path) -> Split:
    # a file that is named with --labels may have any name, such as test_ball.txt
    return "test" if file.stem.startswith("test") else "train"


def _number(text: str, where: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a number for {what}, found {text!r}")
    return value


def _fields(file: Path, names: list[str], skip: Callable[[list[str]], bool]) -> Iterator[tuple[list[str], str]]:
    """Yield the fields, and the file and line number, of every line that is not blank and not skipped."""
    for number, line in enumerate(_lines(file), start=1):
        fields = line.split()
        if not fields or skip(fields):
            continue
        where = f"{file} line {number}"
        if len(fields) != len(names):
            raise ValueError(f"{where}: expected {len(names)} fields ({' '.join(names)}), found {len(fields)}")
        yield fields, where


def _read_rg(file: Path) -> Iterator[LabelRow]:
    for fields, where in _fields(file, RG_HEADER, skip=lambda fields: fields[0] == RG_HEADER[0]):
        action = fields[0].split("_")[0]
        if action not in RG_ACTIONS:
            raise ValueError(
                f"{where}: expected a name such as Ball_001 that begins with one of {', '.join(RG_ACTIONS)}, "
                f"found {fields[0]!r}"
            )
        scores = {
            target: _checked(_number(text, where, target), RG_RANGES[target], where, target)
            for target, text in zip(RG_RANGES, fields[1:4], strict=True)
        }
        # penalty and length are not used, but a text there means that the columns are shifted
        for what, text in zip(RG_HEADER[4:], fields[4:], strict=True):
            _number(text, where, what)
        yield LabelRow(fields[0], scores, where, action=action, split=_split_of(file))


def _read_fisv(file: Path) -> Iterator[LabelRow]:
    for fields, where in _fields(file, ["id", "TES", "PCS", "deductions"], skip=lambda fields: False):
        scores = {
            target: _checked(_number(text, where, target), FISV_RANGES[target], where, target)
            for target, text in zip(FISV_RANGES, fields[1:3], strict=True)
        }
        _number(fields[3], where, "deductions")
        yield LabelRow(fields[0], scores, where, split=_split_of(file))


def _checked(value: float, span: tuple[float, float], where: str, target: str) -> float:
    if not span[0] <= value <= span[1]:
        raise ValueError(f"{where}: expected {target} between {span[0]:g} and {span[1]:g}, found {value:g}")
    return value


def _read_csv(file: Path) -> Iterator[LabelRow]:
    lines = csv.reader(_lines(file))
    header = [name.strip() for name in next(lines, [])]
    targets = [name for name in header if name not in ("video", "split", "group")]
    if "video" not in header or not targets or len(set(header)) < len(header) or "" in header:
        hint = " separated by commas" if any(";" in name for name in header) else ""
        raise ValueError(f"{file} line 1: expected a header such as video,score[,split][,group]{hint}, found {header}")
    for fields in lines:
        where = f"{file} line {lines.line_num}"
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise ValueError(f"{where}: expected {len(header)} fields ({','.join(header)}), found {len(fields)}")
        row = dict(zip(header, (field.strip() for field in fields), strict=True))
        scores = {target: _number(row[target], where, target) for target in targets if row[target]}
        if not row["video"] or not scores:
            raise ValueError(f"{where}: expected a video and at least one score, found {','.join(fields)!r}")
        field = row.get("split") or None
        split: Split | None = "train" if field == "train" else "test" if field == "test" else None
        if split != field:
            raise ValueError(f"{where}: expected the split train or test, found {field!r}")
        yield LabelRow(row["video"], scores, where, split=split, group=row.get("group") or None)


def _refuse_repeats(rows: tuple[LabelRow, ...]) -> None:
    row_of: dict[str, LabelRow] = {}
    for row in rows:
        first = row_of.setdefault(row.video, row)
        if first is not row:
            raise ValueError(f"{row.where}: {row.video!r} is labelled already in {first.where}; keep one of the two")
