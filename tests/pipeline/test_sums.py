"""Sums of predictions."""

import pytest

from cofinal.data.target_rules import Formula
from cofinal.pipeline.sums import consistency, sum_predictions

SUM = Formula("Total", ((1, "D"), (1, "E"), (-1, "P")))


def entry(seed: int, video: str, target: str, true: float, predicted: float) -> dict:
    baselines = {"mean": 1.0, "ridge": 2.0, "kernel_ridge": 3.0}
    return {
        "seed": seed,
        "video": video,
        "action": "",
        "target": target,
        "true": true,
        "predicted": predicted,
        "grade": 1,
        **baselines,
        "low": 0.0,
        "high": 9.0,
    }


def test_parts_are_added_by_seed_and_routine_and_incomplete_ones_left_out() -> None:
    predictions = [
        entry(seed, video, target, true, true + seed)
        for seed in (0, 1)
        for video, scores in (("a", {"D": 5.0, "E": 8.0, "P": 0.5}), ("b", {"D": 5.0, "E": 8.0}))
        for target, true in scores.items()
    ]
    found = sum_predictions(predictions, [SUM])
    assert [(one["seed"], one["video"]) for one in found] == [(0, "a"), (1, "a")]
    assert found[1] == {
        "seed": 1,
        "video": "a",
        "action": "",
        "target": "Total",
        "true": 12.5,
        "predicted": 13.5,
        "mean": 1.0,
        "ridge": 2.0,
        "kernel_ridge": 3.0,
    }
    assert found[0]["predicted"] == pytest.approx(12.5)
    assert sum_predictions(predictions, []) == []


def test_targets_that_nearly_add_up_are_compared_with_their_sum() -> None:
    check = Formula("T", ((1, "D"), (1, "E")))
    scores = {"a": {"D": 5.0, "E": 8.0, "T": 12.5}, "b": {"D": 5.0, "E": 7.0, "T": 12.0}, "c": {"D": 5.0, "E": 8.0}}
    predictions = [
        entry(0, video, target, true, true + (target == "T"))
        for video, of_video in scores.items()
        for target, true in of_video.items()
    ]
    assert consistency(predictions, [check]) == {"T = D + E": {"judged": 0.25, "predicted": 0.75}}
    assert consistency(predictions[6:], [check]) == {}
