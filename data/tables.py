"""Tables as people keep them: text files from Excel and other programs, and Excel files. pandas reads; we look closely.

A text file may be separated by commas, semicolons or tabs, in UTF-8, UTF-16 or cp1252 (Windows). Every field stays
text here: whether `001` is a number or a name is for the reader of the scores to say.
"""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""A message lists so many faults."""
SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
ZIP, OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
"""How .xlsx and .xls files begin, whatever their names are."""
MOST_FIELDS = 1000
"""In a line; more would fill the memory."""
SAVE_AS = "save it as .xlsx or as CSV UTF-8"


@dataclass
class Faults:
    """All that is wrong with a table, to be listed at once."""

    file: Path
    word: str = "line"
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, fault: str, column: str | None = None) -> None:
        """Note a fault of a line, or of one of its columns."""
        place = f"{self.word} {line}" if column is None else f"{self.word} {line}, column {column}"
        self.found.append((line, f"{place}: {fault}"))

    def refuse(self) -> None:
        """Raise a ValueError with the first faults and their number, if there are any."""
        if not self.found:
            return
        faults = [fault for _, fault in sorted(self.found, key=lambda entry: entry[0])]
        if len(faults) == 1:
            raise ValueError(f"{self.file} {faults[0]}")
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(f"{self.file} has {len(faults)} faults: {'; '.join(faults[:SHOWN])}{more}")


@dataclass(frozen=True)
class Table:
    """The fields of a table as text, without surrounding blanks."""

    file: Path
    fields: "pd.DataFrame"
    """Its index is the line (the row of an Excel file) that each row stands in."""
    form: str
    """How the file is written, for people."""
    separated_by_commas: bool
    header_line: int
    word: str
    """What a row is called in messages: line or row."""

    def where(self, line: int) -> str:
        """Return file and line, for messages."""
        return f"{self.file} {self.word} {line}"


def read_table(file: Path, sheet: str | None = None) -> Table:
    """Read a table whose first row that is not blank names the columns.

    Args:
        file: a text file or an Excel file; its content says which, not its name.
        sheet: of an Excel file, the sheet's name; None for the first.

    Raises:
        ValueError: the file cannot be read; or columns lack a name or share one, or rows have too many or too few
            fields: all such faults together, with their lines.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}); expected a table of scores") from error
    if content.startswith(OLD_EXCEL):
        raise ValueError(f"{file} is of an old kind of Excel file; {SAVE_AS}")
    if content.startswith(ZIP):
        cells, form = _read_excel(file, content, sheet)
        return _with_header(file, cells, list(range(1, len(cells) + 1)), form, "row", separated_by_commas=False)
    if sheet is not None:
        raise ValueError(f"--sheet is for Excel files, and {file} is a text file; leave it out")
    cells, form, separator = _read_text(file, content)
    lines, line = [], 1
    for row in cells:
        lines.append(line)
        line += 1 + sum((cell or "").count("\n") for cell in row)  # a quoted field may hold line ends
    return _with_header(file, cells, lines, form, "line", separated_by_commas=separator == ",")


def _read_excel(file: Path, content: bytes, sheet: str | None) -> tuple[list[list[str | None]], str]:
    import pandas as pd

    try:
        with pd.ExcelFile(io.BytesIO(content), engine="openpyxl") as book:
            names = [str(name) for name in book.sheet_names]
            if sheet is not None and sheet not in names:
                raise ValueError(f"there is no sheet {sheet!r}; its sheets are {', '.join(map(repr, names))}")
            name = sheet or names[0]
            frame = pd.read_excel(book, sheet_name=name, header=None, dtype=object, keep_default_na=False)
    except Exception as error:  # openpyxl raises nearly anything for a zip file of another kind
        raise ValueError(f"{file} cannot be read as an Excel file ({error}); {SAVE_AS}") from error
    cells: list[list[str | None]] = [[_as_text(cell) for cell in row] for row in frame.itertuples(index=False)]
    others = f" of {len(names)}" if len(names) > 1 else ""
    return cells, f"Excel, sheet {name!r}{others}"


def _as_text(cell: Any) -> str:
    if cell != cell:  # pandas makes NaN of Excel's error values
        return "#N/A"
    return str(cell).removesuffix(" 00:00:00").strip()  # a date has no time of day


def _read_text(file: Path, content: bytes) -> tuple[list[list[str | None]], str, str]:
    """Return the fields (None where a row has no more of them), how the file is written, and its separator."""
    import pandas as pd

    text, encoding = _decode(file, content)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    header = next((line for line in text.split("\n") if line.strip()), None)
    if header is None:
        raise ValueError(f"{file} is empty; expected a table of scores with a line of column names")
    separator = max(SEPARATORS, key=header.count)  # of equal ones the first
    most_fields = 1 + max(line.count(separator) for line in text.split("\n"))
    if most_fields > MOST_FIELDS:
        raise ValueError(f"{file} has a line of {most_fields} fields; expected a table of scores")
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            names=list(range(most_fields)),
            index_col=False,
            dtype=str,
            keep_default_na=False,  # "NA" and "nan" stay texts, so that they can be refused by line
            skip_blank_lines=False,  # so that lines can be counted
            engine="python",  # unlike the C engine, it tells an empty field from one that is not there
        )
    except (pd.errors.ParserError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read as a table ({error}); {SAVE_AS}") from error
    cells = [[cell.strip() if isinstance(cell, str) else None for cell in row] for row in frame.itertuples(index=False)]
    return cells, f"text separated by {SEPARATORS[separator]}, {encoding}", separator


def _decode(file: Path, content: bytes) -> tuple[str, str]:
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding, name in [("utf-16", "UTF-16")] if utf_16 else [("utf-8-sig", "UTF-8"), ("cp1252", "Windows cp1252")]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, name
    raise ValueError(f"{file} cannot be read as text; {SAVE_AS}")


def _with_header(
    file: Path, cells: list[list[str | None]], lines: list[int], form: str, word: str, *, separated_by_commas: bool
) -> Table:
    """Take the first row that is not blank for the names of the columns, and leave out blank rows and columns."""
    import pandas as pd

    filled = [(line, row) for line, row in zip(lines, cells, strict=True) if any(row)]
    if not filled:
        raise ValueError(f"{file} is empty; expected a table of scores with a {word} of column names")
    (header_line, header), *rows = filled
    faults = Faults(file, word)
    if (header[0] or "").lower().startswith("sep="):
        faults.add(header_line, f"{header[0]!r} is no column name; remove this line")
        faults.refuse()
    width = sum(name is not None for name in header)
    for line, row in rows:
        present = [cell is not None for cell in row].index(False) if None in row else len(row)
        while present > width and not row[present - 1]:
            present -= 1
        if present != width:
            comment = "; remove the comment" if (row[0] or "").startswith("#") else ""
            columns = ", ".join(name or "" for name in header[:width])
            faults.add(line, f"expected {width} fields ({columns}), found {present}{comment}")
    used = [place for place in range(width) if header[place] or any(row[place] for _, row in rows)]
    names = [header[place] or "" for place in used]
    for place in used:
        if not header[place]:
            faults.add(header_line, f"column {place + 1} has values but no name; name it or remove it")
    for name in dict.fromkeys(names):
        if name and names.count(name) > 1:
            faults.add(header_line, f"{names.count(name)} columns are named {name!r}; rename or remove one")
    faults.refuse()
    data = [[row[place] for place in used] for _, row in rows]
    fields = pd.DataFrame(data, columns=names, index=[line for line, _ in rows], dtype=object)
    return Table(file, fields, form, separated_by_commas, header_line, word)
