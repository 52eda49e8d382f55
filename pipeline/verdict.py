"""What a head says of one routine, and the JSON document of it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.target_rules import parse_sum
from ..models.checkpoint import Head
from ..models.predict import Prediction, borderline, predict, predict_reference
from ..models.reference import ReferenceCoFInAl
from ..models.transformer import TransformerHead
from . import conformal
from .evidence import Evidence
from .json_values import from_json, without_none


@dataclass(frozen=True)
class CoarseGrade:
    """The grade whose span holds the score."""

    grade: int
    """Counted from 1, the lowest."""
    of: int
    span: tuple[float, float] | None
    """Lowest and highest score of this grade in points; None for public heads, whose grades have no bounds."""
    probabilities: list[float]
    """Of each grade, lowest first; with the heads of the papers the weights of the grades."""
    edges: list[float] | None
    """Where the grades meet, in points: one more than there are grades; None for public heads."""
    borderline: tuple[int, int] | None
    """The verdict's grade and its closest rival, lower first, where the rival is about as probable; else None. None for
    the heads of the papers, whose grades have weights but no probabilities."""


@dataclass(frozen=True)
class FineGrade:
    """The sub-grade, within the coarse grade, whose span holds the score."""

    subgrade: int
    """Counted from 1, the lowest within the coarse grade."""
    of: int
    span: tuple[float, float] | None
    """Lowest and highest score of this sub-grade in points; None for public heads."""
    edges: list[float] | None
    """Where the sub-grades of the coarse grade meet, in points: one more than there are; None for public heads."""


@dataclass(frozen=True)
class Interval:
    """Where the judges' score probably lies."""

    span: tuple[float, float]
    """Lowest and highest score in points, within the rules' range."""
    level: float
    """Nominal share of routines like the training routines whose true score lies inside: .9."""


@dataclass(frozen=True)
class TargetScore:
    """One target's verdict."""

    coarse: CoarseGrade
    fine: FineGrade | None
    """None for heads without fine grades."""
    score: float
    """In points: the mean of the distribution over grades and sub-grades."""
    interval: Interval | None
    """None where the head has no held-out errors."""


@dataclass(frozen=True)
class SumScore:
    """A score that is a sum of others."""

    formula: str
    """Such as `Total = Difficulty + Execution - Penalty`."""
    score: float
    """In points: the sum of the scores of its parts; it has no grades of its own."""
    interval: Interval | None


@dataclass(frozen=True)
class Score:
    """The verdict on one routine."""

    video: str
    head: str
    action: str | None
    targets: dict[str, TargetScore]
    sums: dict[str, SumScore]
    """Scores that are sums of targets, where the head was trained with `--sum`."""
    trained_on: int | None
    """Number of routines that the head was trained on; None for public heads."""
    extractor: dict[str, str] | None
    """The features' identity; None where it is unknown."""
    clips: int
    clip_times: list[tuple[float, float]]
    """Start and end of each clip in seconds; empty for a `.npy` without a record of them."""
    warnings: list[str]
    stage_seconds: dict[str, float]
    """How long the head and backbone took to load, and each stage of the extraction; empty for a `.npy`."""
    evidence: Evidence
    """Why the scores came out."""
    provenance: dict[str, Any]
    """What the score comes from: `video` and `head` (sha256 and bytes), `versions` of the program and its libraries,
    and of a video how it was read (`container`, `decoder`, `precision`, `engine`, `device`)."""

    @property
    def scores(self) -> dict[str, TargetScore | SumScore]:
        """All scores by name: those of the targets, then the sums."""
        return {**self.targets, **self.sums}

    def as_json(self) -> dict[str, Any]:
        """Return the score as the JSON object that `--json` prints; fields that are None are absent."""
        values = asdict(self)
        values |= {name: without_none(values[name]) for name in ("targets", "sums", "evidence")}
        return {"format": 1, **values}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Score":
        """Return the score that `as_json` made a document of.

        Raises:
            TypeError, ValueError: the document is of another form.
        """
        score: Score = from_json(cls, document)
        return score


def verdicts(head: Head, features: np.ndarray, action: str | None) -> dict[str, TargetScore]:
    """Return a head's verdict on one routine for each target.

    Args:
        head: the head.
        features: the routine's clip features (T, C).
        action: its action, one of the head's, where there are several.
    """
    names = head.metadata["actions"]
    actions = np.array([names.index(action)]) if action is not None and len(names) > 1 else None
    if isinstance(head.network, ReferenceCoFInAl):
        predictions = {head.metadata["targets"][0]: predict_reference(head.network, [features])}
    else:
        predictions = predict(head.network, [features], actions)
    return {target: _verdict(head, target, prediction) for target, prediction in predictions.items()}


def _verdict(head: Head, target: str, prediction: Prediction) -> TargetScore:
    """Return the verdict of the one routine of a prediction."""
    grade, probabilities = int(prediction.grade[0]), _rounded(prediction.probabilities[0])
    edges = None if prediction.edges is None else _rounded(prediction.edges)
    has_weights = isinstance(head.network, (TransformerHead, ReferenceCoFInAl))
    return TargetScore(
        CoarseGrade(
            grade=grade,
            of=len(probabilities),
            span=None if edges is None else (edges[grade - 1], edges[grade]),
            probabilities=probabilities,
            edges=edges,
            borderline=None if has_weights else borderline(grade, probabilities),
        ),
        _fine_grade(prediction, grade),
        score=round(float(prediction.score[0]), 4),
        interval=_interval(head, target, prediction.score),
    )


def sum_scores(head: Head, targets: dict[str, TargetScore]) -> dict[str, SumScore]:
    """Return the sums of the targets' scores that the head was trained with."""
    scores = {target: verdict.score for target, verdict in targets.items()}
    sums = {}
    for text in head.metadata.get("sums", []):
        formula = parse_sum(text, list(targets))
        score = round(formula.value(scores), 4)
        sums[formula.target] = SumScore(text, score, _interval(head, formula.target, np.array([score])))
    return sums


def _fine_grade(prediction: Prediction, grade: int) -> FineGrade | None:
    if prediction.subgrade is None:
        return None
    subgrade, of = int(prediction.subgrade[0]), prediction.num_subgrades
    if prediction.cells is None:
        return FineGrade(subgrade, of, span=None, edges=None)
    edges = _rounded(prediction.cells[(grade - 1) * of : grade * of + 1])
    return FineGrade(subgrade, of, span=(edges[subgrade - 1], edges[subgrade]), edges=edges)


def _interval(head: Head, target: str, score: np.ndarray) -> Interval | None:
    intervals = head.metadata.get("intervals")
    if intervals is None or target not in intervals["radii"]:
        return None
    assert not isinstance(head.network, ReferenceCoFInAl), "public heads have no intervals"
    config = head.network.config
    # a true score may lie beyond all training scores, but not outside a stated range
    is_bounded = target in head.metadata["bounded"]
    score_range = dict(zip(config.targets, config.ranges, strict=True)).get(target) if is_bounded else None
    low, high = conformal.interval(score, intervals["radii"][target], score_range)
    return Interval((round(float(low[0]), 4), round(float(high[0]), 4)), intervals["level"])


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
