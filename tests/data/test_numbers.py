"""Numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofinal.data.numbers import has_decimal_commas, is_missing, is_nearly_number, read_number


@pytest.mark.parametrize(
    "text", ["1_2", "nan", "inf", "1e999", "5 pts", "1,234.5", "1 000", "٣", "0x10", "", "--1", "#N/A"]
)
def test_what_is_no_number(text: str) -> None:
    assert read_number(text) is None
    assert read_number(text, decimal_comma=True) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_that_python_prints_is_read(number: float) -> None:
    assert read_number(repr(number)) == number


@given(st.integers(-10_000, 10_000), st.integers(0, 99))
def test_a_decimal_comma_is_a_decimal_point(whole: int, hundredths: int) -> None:
    text = f"{whole},{hundredths:02}"
    assert read_number(text, decimal_comma=True) == float(text.replace(",", "."))
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("texts", "separated_by_commas", "found"),
    [
        (["3,2", "4"], False, True),
        (["1,250", "10,5"], False, True),
        (["1,250", "10,125"], True, False),  # thousands: refused as no number
        (["3,2", "4,59"], True, True),
        (["3.2", "4.5", "4,5"], False, False),
        (["3", "4"], False, False),
    ],
)
def test_decimal_commas_are_those_of_a_column(texts: list[str], separated_by_commas: bool, found: bool) -> None:
    assert has_decimal_commas(texts, separated_by_commas=separated_by_commas) == found


def test_what_is_nearly_a_number() -> None:
    assert all(map(is_nearly_number, ["5.3 pts", "95%", "12s", "1,250", "12,345.5"]))
    assert not any(map(is_nearly_number, ["03.02.2024", "2024-02-03", "12:30", "A12", "5.3", "Anna", "3 of 4"]))


def test_what_means_not_judged() -> None:
    assert all(map(is_missing, ["", "-", "—", "DNS", "dnf"]))
    assert not any(map(is_missing, ["0", "NA", "nan", "DSQ"]))
