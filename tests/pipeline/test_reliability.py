"""A head says when it should not be trusted, and pooled figures what they hide."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cofinal.data.label_rows import LabelRow
from cofinal.pipeline.baselines import BASELINES
from cofinal.pipeline.examples import Examples
from cofinal.pipeline.heads import head_warnings
from cofinal.pipeline.reliability import pooling_notes, warnings_of
from cofinal.pipeline.results import summarise_predictions

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0, 10, 60)


def entries(errors: np.ndarray, ridge_errors: np.ndarray, *, target: str = "score", group: bool = False) -> list[dict]:
    """Predictions of the head and of ridge that are off by so many points."""
    return [
        {"video": f"v{i}", "action": "", **({"group": f"g{i // 10}"} if group else {}), "target": target}
        | {"true": TRUE[i], "predicted": TRUE[i] + errors[i], "mean": 5.0, "ridge": TRUE[i] + ridge_errors[i]}
        | {"kernel_ridge": 5.0}
        for i in range(len(errors))
    ]


def said(predictions: list[dict], *, routines: int = 60, radius: float = 2.0, also: dict | None = None) -> list[str]:
    """What a head says that was trained on so many routines; the first of them have further scores `also`."""
    metadata = {"targets": ["score", *(also or {})]}
    metadata |= {"intervals": {"radii": {"score": radius}}, "ranges": {"score": [0, 10]}}
    rows = [LabelRow(f"v{i}", {"score": 5.0}, "made up") for i in range(routines)]
    for target, number in (also or {}).items():
        rows[:number] = [replace(row, scores=row.scores | {target: 1.0}) for row in rows[:number]]
    none = np.empty((routines, 0))
    training = Examples(rows, [], none, None, [])
    return warnings_of(summarise_predictions(predictions), predictions, metadata, training)


SMALL, LARGE = RNG.normal(size=60), RNG.normal(size=60) * 4


def test_a_good_head_carries_no_warning() -> None:
    assert said(entries(SMALL, SMALL)) == []


def test_a_head_that_does_not_rank_says_so_for_each_target() -> None:
    shuffled = TRUE[np.random.default_rng(1).permutation(60)] - TRUE
    (sentence,) = said([*entries(shuffled, shuffled), *entries(SMALL, SMALL, target="other")])
    assert sentence.startswith("this head is not shown to rank score (SRCC ")
    assert "other" not in sentence
    (sentence,) = said(entries(10 - 2 * TRUE, 10 - 2 * TRUE))  # the wrong way round is no better
    assert "not shown to rank score (SRCC -1.00, 95%: -1.00 to -1.00)" in sentence


def test_a_head_that_ridge_beats_names_the_measures() -> None:
    (sentence,) = said(entries(LARGE, SMALL))
    assert sentence.startswith("ridge regression on the same routines is better than this head: SRCC of score by 0.")
    assert "R-l2 of score by" in sentence
    assert "MAE of score by" in sentence
    (sentence,) = said(entries(SMALL + 3, SMALL))  # the same order, other points
    assert "better than this head: R-l2 of score by 9" in sentence
    assert said(entries(SMALL, LARGE)) == []
    assert said(entries(SMALL[::-1], SMALL)) == []  # within chance


def test_differences_are_of_whole_groups() -> None:
    one_group_is_bad = SMALL + 2 * (np.arange(60) < 10)
    assert any("better" in sentence for sentence in said(entries(one_group_is_bad, SMALL)))
    assert not said(entries(one_group_is_bad, SMALL, group=True))


@pytest.mark.parametrize(("radius", "is_wide"), [(2.5, False), (2.51, True)])
def test_an_interval_of_more_than_half_the_range_is_said(radius: float, is_wide: bool) -> None:
    expected = "this head's 90% intervals span more than half of the range: score (plus and minus 2.51 points, 0 to 10)"
    assert said(entries(SMALL, SMALL), radius=radius) == ([expected] if is_wide else [])


@pytest.mark.parametrize(("routines", "words"), [(19, "expect little"), (20, "20 routines only"), (50, "")])
def test_few_routines_are_said_in_one_sentence(routines: int, words: str) -> None:
    sentences = said(entries(SMALL, SMALL), routines=routines)
    assert len(sentences) == bool(words)
    assert words in "".join(sentences)
    assert ("docs/accuracy.md" in "".join(sentences)) == (routines < 20)


def test_few_scores_of_one_target_are_said() -> None:
    (sentence,) = said([*entries(SMALL, SMALL), *entries(SMALL, SMALL, target="rare")], routines=400, also={"rare": 12})
    assert "trained on 12 routines with a score of rare only; expect little" in sentence


def test_a_target_that_is_not_evaluated_is_said() -> None:
    (sentence,) = said(entries(SMALL, SMALL), also={"other": 60})
    assert sentence == "nobody knows how good this head is for other: no such routine was evaluated"


def test_one_group_of_all_routines_is_as_none() -> None:
    apart, alike = entries(LARGE, SMALL), [row | {"group": "one"} for row in entries(LARGE, SMALL)]
    assert said(alike) == said(apart)
    assert summarise_predictions(alike) == summarise_predictions(apart)


def test_a_heads_outputs_carry_its_warnings() -> None:
    metadata: dict[str, Any] = {"generated": False, "identity": None, "warnings": ["one", "two"]}
    assert head_warnings(metadata) == ["one", "two"]


def pooled(num_routines: int, folds: int) -> dict[str, Any]:
    """Results whose predictions are the mean of the other folds."""
    truth, fold = TRUE[:num_routines], np.arange(num_routines) % folds
    mean = [truth[fold != fold[i]].mean() for i in range(num_routines)]
    rows = entries(SMALL[:num_routines], SMALL)
    for row, value in zip(rows, mean, strict=True):
        row.update(dict.fromkeys(("predicted", *BASELINES), value))
    return {"protocol": "cv", **summarise_predictions(rows)}


def test_pooled_figures_of_few_routines_are_explained() -> None:
    results = pooled(6, 6)
    assert results["targets"]["score"]["srcc"] == pytest.approx(-1)  # a perfect order, the wrong way round
    (note,) = pooling_notes(results)
    assert "SRCC -1.00 (score)" in note
    assert pooling_notes(pooled(60, 2)) == []
    assert pooling_notes({**results, "protocol": "official"}) == []
