"""The benchmark of planted faults: what it plants, where it looks, and a small run of all of it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.planted_faults import FAILED_LOAD, MAX_FAILED, fault_clip, find_faults, plan


def num_failed(elements: tuple) -> int:
    return sum(element.slack == FAILED_LOAD for element in elements)


def test_every_test_routine_has_one_failed_element_and_at_least_15_clips() -> None:
    routines = plan(seed=3)
    training, test = routines[:66], routines[66:]
    assert [num_failed(routine.elements) for routine in test] == [1] * 30
    assert {num_failed(routine.elements) for routine in training} == set(range(MAX_FAILED + 1))
    assert min(routine.duration_s for routine in routines) > 16 * 1.28
    executions = {num_failed(routine.elements): routine.judgement.execution for routine in training}
    assert sorted(executions.values(), reverse=True) == [executions[number] for number in range(MAX_FAILED + 1)]


def test_the_clip_that_the_fault_fills_most_is_where_the_failed_element_is() -> None:
    for routine in plan(seed=4, num_train=2, num_test=10)[2:]:
        times = [(0.1 + 1.28 * clip, 0.1 + 1.28 * (clip + 1)) for clip in range(16)]
        start, end = times[fault_clip(routine, times)]
        ends = np.cumsum([element.duration_s for element in routine.elements])
        overlaps = np.minimum(end, ends) - np.maximum(start, ends - [e.duration_s for e in routine.elements])
        assert routine.elements[overlaps.argmax()].slack == FAILED_LOAD


@pytest.mark.slow
def test_a_small_run_ranks_the_clips_of_every_test_routine(tmp_path: Path) -> None:
    findings = find_faults(tmp_path, num_train=3, num_test=2)
    assert len(findings) == 2
    assert all(1 <= finding.rank <= finding.clips and finding.clips in (16, 17) for finding in findings)
