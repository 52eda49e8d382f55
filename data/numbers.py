"""Numbers as people write them in score tables."""

import math
import re
from collections.abc import Iterable

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)
_WITH_UNIT = re.compile(r"[-+]?\d+([.,]\d+)?\s*(%|[A-Za-z]+\.?)", re.ASCII)
_WITH_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)
NOT_JUDGED = ("", "-", "–", "—", "DNS", "DNF")
"""What stands in place of a score: did not start, did not finish."""


def is_missing(text: str) -> bool:
    """Whether a field says that there is no score."""
    return text.upper() in NOT_JUDGED


def read_number(text: str, *, decimal_comma: bool = False) -> float | None:
    """Return the number that a text is, or None: neither `1_2`, `nan`, `5 pts` nor `1,234` is a number."""
    if decimal_comma and _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def is_nearly_number(text: str) -> bool:
    """Whether a text would be a number without its unit or its commas between thousands: `5.3 pts`, `1,250`."""
    return bool(_WITH_UNIT.fullmatch(text) or _WITH_THOUSANDS.fullmatch(text))


def has_decimal_commas(texts: Iterable[str], *, separated_by_commas: bool) -> bool:
    """Whether the numbers of a column are written as 3,25.

    Args:
        texts: the column.
        separated_by_commas: whether the file separates its fields by commas. Such a file hardly has decimal commas:
            1,250 in quotes is then more than a thousand, and is left for the user to change.
    """
    texts = list(texts)
    with_comma = [text for text in texts if _COMMA.fullmatch(text)]
    if separated_by_commas and all(_WITH_THOUSANDS.fullmatch(text) for text in with_comma):
        return False
    return len(with_comma) > sum("." in text for text in texts if read_number(text) is not None)
