"""What users say of targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofinal.data.target_rules import Formula, parse_range, parse_sum

NAMES = ["Difficulty", "E-score", "E", "Time bonus", "Penalty (+)"]


@given(
    st.lists(st.tuples(st.sampled_from([1, -1]), st.sampled_from(NAMES)), min_size=1, unique_by=lambda term: term[1])
)
def test_a_sum_is_read_as_it_is_written(terms: list[tuple[int, str]]) -> None:
    formula = Formula("Total", tuple(terms))
    assert parse_sum(str(formula), NAMES) == formula
    assert (
        parse_sum(str(formula).replace(" + ", "+").replace(" - ", "-").lower().replace("total", "Total"), NAMES)
        == formula
    )


def test_the_value_of_a_sum() -> None:
    assert parse_sum("Total=E-score+Difficulty-E", NAMES).value({"E-score": 8, "Difficulty": 5, "E": 0.5}) == 12.5


@pytest.mark.parametrize(
    "text", ["Total", "Total=", "=E", "Total=E E", "Total=E*2", "Total=E+E", "E=E", "Total=X", "Total=E+"]
)
def test_sums_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--sum"):
        parse_sum(text, NAMES)


def test_ranges() -> None:
    assert parse_range("Final = -5:30.5") == ("Final", (-5, 30.5))
    for text in ("Final", "Final=30", "Final=30:0", "Final=0:30:60", "Final=low:30", "Final=5:5"):
        with pytest.raises(ValueError, match="Final=0:30"):
            parse_range(text)
