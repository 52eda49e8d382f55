"""Label files of the datasets that are published as plain text: Rhythmic Gymnastics and Fis-V.

`rg`    Rhythmic Gymnastics (ACTION-NET): `train.txt` and `test.txt` with a header line, fields separated by
        tabs and spaces: Video_Name Difficulty_Score Execution_Score Total_Score Penalty Video_length.
`fisv`  Fis-V (MS_LSTM): `train.txt` and `test.txt` without a header: id TES PCS deductions.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .label_rows import LabelRow, LabelSet, Split
from .numbers import read_number
from .target_rules import Formula

# The rules' bounds, rounded up to hold every published score (RG: 14.8, 9.4, 24; Fis-V: 42.81, 38.28).
RG_RANGES = {"Difficulty": (0.0, 15.0), "Execution": (0.0, 10.0), "Total": (0.0, 25.0)}
RG_SUM = Formula("Total", ((1, "Difficulty"), (1, "Execution")))
"""But for the penalty."""
RG_ACTIONS = ("Ball", "Clubs", "Hoop", "Ribbon")
RG_HEADER = ["Video_Name", "Difficulty_Score", "Execution_Score", "Total_Score", "Penalty", "Video_length"]
FISV_RANGES = {"TES": (0.0, 45.0), "PCS": (0.0, 40.0)}


def read_rg(files: Sequence[Path]) -> LabelSet:
    """Read the label files of Rhythmic Gymnastics.

    Raises:
        ValueError: a row cannot be read; the message has file, line and what was expected.
    """
    rows = tuple(row for file in files for row in _rg_rows(file))
    return LabelSet("rg", tuple(RG_RANGES), RG_RANGES, RG_ACTIONS, rows, tuple(files), checks=(RG_SUM,))


def read_fisv(files: Sequence[Path]) -> LabelSet:
    """Read the label files of Fis-V.

    Raises:
        ValueError: a row cannot be read; the message has file, line and what was expected.
    """
    rows = tuple(row for file in files for row in _fisv_rows(file))
    return LabelSet("fisv", tuple(FISV_RANGES), FISV_RANGES, (), rows, tuple(files))


def _rg_rows(file: Path) -> Iterator[LabelRow]:
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


def _fisv_rows(file: Path) -> Iterator[LabelRow]:
    for fields, where in _fields(file, ["id", "TES", "PCS", "deductions"], skip=lambda fields: False):
        scores = {
            target: _checked(_number(text, where, target), FISV_RANGES[target], where, target)
            for target, text in zip(FISV_RANGES, fields[1:3], strict=True)
        }
        _number(fields[3], where, "deductions")
        yield LabelRow(fields[0], scores, where, split=_split_of(file))


def _fields(file: Path, names: list[str], skip: Callable[[list[str]], bool]) -> Iterator[tuple[list[str], str]]:
    """Yield the fields, and the file and line number, of every line that is not blank and not skipped."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # utf-8-sig: Excel writes a byte order mark
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file} cannot be read as text ({error}); expected a label file") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or skip(fields):
            continue
        where = f"{file} line {number}"
        if len(fields) != len(names):
            raise ValueError(f"{where}: expected {len(names)} fields ({' '.join(names)}), found {len(fields)}")
        yield fields, where


def _split_of(file: Path) -> Split:
    # a file that is named with --labels may have any name, such as test_ball.txt
    return "test" if file.stem.startswith("test") else "train"


def _number(text: str, where: str, what: str) -> float:
    value = read_number(text)
    if value is None:
        raise ValueError(f"{where}: expected a number for {what}, found {text!r}")
    return value


def _checked(value: float, span: tuple[float, float], where: str, target: str) -> float:
    if not span[0] <= value <= span[1]:
        raise ValueError(f"{where}: expected {target} between {span[0]:g} and {span[1]:g}, found {value:g}")
    return value
