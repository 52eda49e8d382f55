"""Tables as people keep them: whatever program wrote the file, the same fields come out."""

import tempfile
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofinal.data.tables import read_table

ROWS = [["video", "Punkte", "note"], ["Müller", "3.25", "erst; dann, so"], ["002", "", 'said "good"'], ["003", "4", ""]]


def fields(file: Path, sheet: str | None = None) -> list[list[str]]:
    table = read_table(file, sheet)
    return [list(table.fields.columns), *table.fields.values.tolist()]


def as_text(rows: list[list[str]], separator: str, end: str) -> str:
    quoted = [
        ['"' + cell.replace('"', '""') + '"' if set(cell) & set(separator + '";,') else cell for cell in row]
        for row in rows
    ]
    return end.join(separator.join(row) for row in quoted) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_way_to_write_a_table_gives_the_same(tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(as_text(ROWS, separator, end).encode(encoding))
    assert fields(file) == ROWS


@given(st.lists(st.text("ab ,;\t\"'\n", max_size=5), min_size=2, max_size=2))
def test_quoted_fields_keep_what_they_hold(cells: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.csv")
        rows = [["video", "note"], ["x", cells[0]], ["y", cells[1]]]
        file.write_text("\n".join(",".join('"' + c.replace('"', '""') + '"' for c in row) for row in rows))
        assert fields(file) == [[c.strip() for c in row] for row in rows]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('\n\nvideo,note\n\na,"two\nlines"\n,\nb,x\n')
    table = read_table(file)
    assert list(table.fields.index) == [5, 8]
    assert table.header_line == 3
    assert table.where(8) == f"{file} line 8"


def write_excel(file: Path, sheets: dict[str, list[list[object]]]) -> None:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(file)


def test_excel_files_are_known_by_their_content(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    scores = [[], ["video", "score", "date", None], [1, 3.2, datetime(2024, 2, 3), None], [], ["002", 4, "x", None]]
    write_excel(file.with_suffix(".xlsx"), {"Notes": [["nothing"]], "Scores": scores})
    file.with_suffix(".xlsx").rename(file)
    assert fields(file, "Scores") == [["video", "score", "date"], ["1", "3.2", "2024-02-03"], ["002", "4", "x"]]
    table = read_table(file, "Scores")
    assert table.form == "Excel, sheet 'Scores' of 2"
    assert table.where(5) == f"{file} row 5"
    assert fields(file) == [["nothing"]]
    with pytest.raises(ValueError, match="no sheet 'Score'; its sheets are 'Notes', 'Scores'"):
        read_table(file, "Score")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"video,score\na,1\nb,1,2\nc\n",
            r"2 faults: line 3: expected 2 fields .*, found 3; line 4: .*found 1",
        ),
        (b"video,score\n# by hand\na,1\n", r"line 2: expected 2 fields .* remove the comment"),
        (b"sep=;\nvideo;score\na;1\n", r"line 1: 'sep=' is no column name; remove this line"),
        (b",video,score\n0,a,1\n", r"line 1: column 1 has values but no name; name it or remove it"),
        (b"video,score,score\na,1,2\n", r"line 1: 2 columns are named 'score'"),
        (b"\xd0\xcf\x11\xe0\xa1", r"old kind of Excel file; save it as .xlsx or as CSV UTF-8"),
        (b"PK\x03\x04nothing", r"cannot be read as an Excel file .*; save it as"),
        (b"\x00\x01\x02", r"cannot be read as text; save it as"),
        (b"\xff\xfe\x00", r"cannot be read as text; save it as"),
        (b'video,score\n"a,1\n', r"cannot be read as a table"),
        (b" \n\n", r"is empty"),
        (b",\n,\n", r"is empty"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(file)


@given(st.one_of(st.binary(max_size=60), st.text('va,;\t"\n\r# 1.', max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused_in_a_sentence(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.csv")
        file.write_bytes(content)
        try:
            table = read_table(file)
        except ValueError as error:
            refusal = str(error)
        else:
            assert all(name and name == name.strip() for name in table.fields.columns)
            assert all(isinstance(cell, str) for row in table.fields.values for cell in row)
            return
    assert refusal.startswith(f"{file} ")


def test_a_line_of_a_million_fields_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("video,score\n" + "," * 1_000_000)
    with pytest.raises(ValueError, match="a line of 1000001 fields"):
        read_table(tmp_path / "t.csv")


def test_a_sheet_of_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("video,score\na,1\n")
    with pytest.raises(ValueError, match="--sheet is for Excel files"):
        read_table(tmp_path / "t.csv", "Scores")
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(tmp_path / "gone.csv")


def test_the_first_ten_faults_and_their_number(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("video,score\n" + "a\n" * 12)
    with pytest.raises(ValueError, match=r"t.csv has 12 faults: line 2: .*; line 11: [^;]*; and 2 more$"):
        read_table(file)
