"""Conformal intervals cover what they say, whatever the errors look like."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cofinal.pipeline.conformal import FEWEST, interval, radius

distinct_errors = st.lists(st.integers(-1000, 1000), min_size=2, max_size=60, unique_by=abs)


@given(distinct_errors, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_of_exchangeable_errors_the_level_is_covered_and_hardly_more(errors: list[int], level: float) -> None:
    """Of n + 1 errors each is as likely the new one: counted over all of them, the guarantee is exact."""
    covered = sum(
        abs(x) <= radius(np.array([*errors[:i], *errors[i + 1 :]], float), level) for i, x in enumerate(errors)
    )
    total = len(errors)
    if math.isinf(radius(np.array(errors[1:], float), level)):
        assert covered == total
    else:
        assert level * total - 1e-9 <= covered < level * total + 1


@given(st.integers(1, 300))
def test_the_quantile_is_the_one_of_n_plus_1_in_whole_numbers(n: int) -> None:
    k = -(-9 * (n + 1) // 10)  # ceil(.9 (n + 1)), no float
    assert radius(np.arange(1, n + 1, dtype=float)) == (k if k <= n else math.inf)
    assert math.isfinite(radius(np.zeros(n))) == (n >= FEWEST)


def test_what_was_not_judged_does_not_count_and_signs_do_not_matter() -> None:
    errors = np.array([-3.0, np.nan, 1.0, 2.0])
    assert radius(errors, 0.5) == radius(np.array([1.0, 2.0, 3.0]), 0.5) == 2
    assert radius(np.array([])) == math.inf


def test_intervals_end_where_the_rules_do() -> None:
    low, high = interval(np.array([1.0, 5.0, 9.0]), 2.0, (0.0, 10.0))
    assert (low.tolist(), high.tolist()) == ([0, 3, 7], [3, 7, 10])
    low, high = interval(np.array([1.0]), 2.0, None)
    assert (low.tolist(), high.tolist()) == ([-1], [3])
