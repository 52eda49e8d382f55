"""score-video: a routine's video in; its coarse grade, fine grade and final score out."""

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.feature_store import describe_identity, find_store, load_features
from ..data.target_rules import parse_sum
from ..extractors.backbone import Backbone
from ..extractors.extract import extract
from ..extractors.frame_folders import is_frame_folder
from ..models.checkpoint import Head
from ..models.predict import Prediction, borderline, predict, predict_reference
from ..models.reference import ReferenceCoFInAl
from . import conformal
from .console import err, print_message, print_result, printable, progress
from .evidence import Evidence, explain
from .filming import Filming
from .heads import check_identity, extractor_of, head_warnings, open_head
from .options import ExtractorOptions, takes_fields_of
from .sources import NEEDS_FPS


@dataclass(frozen=True)
class CoarseGrade:
    """The grade whose span holds the score."""

    grade: int
    """Counted from 1, the lowest."""
    of: int
    span: tuple[float, float] | None
    """Lowest and highest score of this grade in points; None for public heads, whose grades have no bounds."""
    probabilities: list[float]
    """Of each grade, lowest first."""
    edges: list[float] | None
    """Where the grades meet, in points: one more than there are grades; None for public heads."""
    borderline: tuple[int, int] | None
    """The verdict's grade and its closest rival, lower first, where the rival is about as probable; else None. None for
    public heads, whose grades have weights but no probabilities."""


@dataclass(frozen=True)
class FineGrade:
    """The sub-grade, within the coarse grade, whose span holds the score."""

    subgrade: int
    """Counted from 1, the lowest within the coarse grade."""
    of: int
    span: tuple[float, float] | None
    """Lowest and highest score of this sub-grade in points; None for public heads."""


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
    warnings: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """How long the head and backbone took to load, and each stage of the extraction; empty for a `.npy`."""
    evidence: Evidence | None = None
    """Why the scores came out."""

    def as_json(self) -> dict[str, Any]:
        """Return the score as the JSON object that `--json` prints; fields that are None are absent."""
        values = asdict(self)
        for name in ("targets", "sums", "evidence"):
            values[name] = _without_none(values[name] or {})
        return {"format": 1, **values}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}


@takes_fields_of(ExtractorOptions)
def score_video(
    video: str | Path,
    head: str | Path | None = None,
    *,
    action: str | None = None,
    target: str | None = None,
    weight_type: int | None = None,
    extractor: str | None = None,
    weights: str | None = None,
    options: ExtractorOptions,
) -> Score:
    """Score a routine with the extractor that the head was trained with.

    Args:
        video: a video, a folder of numbered frames, or a `.npy` of clip features of the head's kind.
        head: a head file, or a `.pkl` that the public CoFInAl code saved; None for the default head.
        action: the apparatus or event, where the head has several; None to take it from the file's name. For a public
            head, the one that it was trained for.
        target: the score that a public head predicts.
        weight_type: the `activate_regular_restrictions` that a public head was trained with.
        extractor: `BACKBONE:RECIPE:WEIGHTS`, what made the training features of a head that does not record it.
        weights: the backbone's weights file, if it has moved since the training.
        options: the fields of `ExtractorOptions`, given as keyword arguments.

    Raises:
        VideoError: the video cannot be scored.
        ValueError: bad arguments, no head, or features of another kind than the head's.
    """
    path = Path(video)
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a video or a .npy of clip features")
    if path.is_dir() and not is_frame_folder(path):
        raise ValueError(f"{path} is a folder; name one video (extract-features takes folders)")
    if path.is_dir() and options.fps is None:
        raise ValueError(f"{path} {NEEDS_FPS}")
    if options.fps is not None and not path.is_dir():
        raise ValueError(f"{path} is no folder of numbered frames: leave --fps out")
    started = time.perf_counter()
    trained, head_path = open_head(head, target=target, weight_type=weight_type, action=action, extractor=extractor)
    named = _check_action(action, trained.metadata["actions"])
    if path.suffix == ".npy":
        if weights is not None or (options.precision, options.engine, options.decoder) != ("auto", "auto", "auto"):
            raise ValueError(f"{path} holds features already: leave --weights, --precision, --engine and --decoder out")
        routine = _load_routine(path, trained, head_path)
    else:
        if not err.is_terminal:
            print_message(f"scoring {path.name}")  # on a terminal the progress bar shows it
        backbone = extractor_of(trained, head_path, options, weights=weights)
        routine = _extract_routine(path, backbone, options, time.perf_counter() - started)
    action, action_warnings = (named, []) if named else _assume_action(path, trained, routine.features)
    evidence = explain(trained, routine.features, routine.clip_times, action=action, filming=routine.filming)
    targets = _verdicts(trained, routine.features, action)
    return Score(
        video=str(path),
        head=str(head_path),
        action=action,
        targets=targets,
        sums=_sums(trained, targets),
        trained_on=trained.metadata.get("routines"),
        extractor=trained.metadata["identity"],
        clips=len(routine.features),
        clip_times=routine.clip_times,
        warnings=[*head_warnings(trained.metadata), *action_warnings, *routine.warnings, *evidence.doubts],
        stage_seconds=routine.stage_seconds,
        evidence=evidence,
    )


def _check_action(action: str | None, actions: list[str]) -> str | None:
    """Return the head's own spelling of an action that the user names."""
    if action is None:
        return None
    if not actions:
        raise ValueError(f"this head was trained without actions, so leave --action {action} out")
    named = next((name for name in actions if name.lower() == action.lower()), None)
    if named is None:
        raise ValueError(f"unknown action {action!r}; this head has {', '.join(actions)}")
    return named


def _assume_action(path: Path, head: Head, features: np.ndarray) -> tuple[str | None, list[str]]:
    """Return which of a head's actions the routine probably shows, and a warning that it is assumed."""
    actions, neighbours = head.metadata["actions"], head.neighbourhood
    if not actions:
        return None, []
    if len(actions) == 1:
        return actions[0], [f"assumed --action {actions[0]}, the only one of this head"]
    if (named := _action_in_name(path, actions)) is not None:
        return named, [f"assumed --action {named} from the file's name"]
    if neighbours is None:
        raise ValueError(f"which action does {path.name} show? name it with --action: {', '.join(actions)}")
    probabilities = neighbours.action_probabilities(neighbours.place(features))
    action = actions[int(probabilities.argmax())]
    return action, [f"assumed --action {action}, which the clips show with a probability of {probabilities.max():.0%}"]


def _action_in_name(path: Path, actions: list[str]) -> str | None:
    """Return the action that a file's name starts with."""
    starts = [name for name in actions if re.match(rf"{re.escape(name)}(?![a-z])", path.stem, re.IGNORECASE)]
    return starts[0] if len(starts) == 1 else None


@dataclass(frozen=True)
class _Routine:
    """A routine's clip features and how they were made."""

    features: np.ndarray
    """(clips, C)."""
    warnings: list[str]
    filming: Filming
    clip_times: list[tuple[float, float]] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)


def _load_routine(path: Path, head: Head, head_path: Path) -> _Routine:
    """Load a `.npy` and check, as far as its store and the head record it, that one extractor made both."""
    features = load_features(path)
    store = find_store(path)
    warnings = []
    if store is None or store.identity is None:
        warnings = [f"there is no record of what made {path.name}; only its width was checked"]
    elif head.metadata["identity"] is None:
        warnings = [
            f"{head_path} does not record what made its training features; of {path.name} "
            f"({describe_identity(store.identity)}) only the width was checked"
        ]
    else:
        check_identity(head, head_path, store.identity, f"{path} holds")
    width = head.network.config.feature_dim
    if features.shape[1] != width:
        raise ValueError(f"{path} has features of width {features.shape[1]}; {head_path} was trained on width {width}")
    name = None if store is None else path.resolve().relative_to(store.folder.resolve()).as_posix()
    record = {} if store is None or name is None else store.records.get(name.removesuffix(".npy"), {})
    return _Routine(features, [*warnings, *record.get("warnings", ())], Filming.of(record), _clip_times(record))


def _clip_times(record: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return start and end of each clip in seconds; empty where the record does not say it."""
    if record.get("clip_grid_s") is None:
        return []
    start, length, step = record["clip_grid_s"]
    starts = [start + step * clip for clip in range(record["clips"])]
    return [(round(at, 3), round(at + length, 3)) for at in starts]


def _extract_routine(path: Path, backbone: Backbone, options: ExtractorOptions, load_seconds: float) -> _Routine:
    """Extract a video's features; nothing is written."""
    with options.reader() as reader, progress("s of video") as bar:
        task = bar.add_task(f"scoring {printable(path.name)}", total=None)

        def show(seconds_done: float, seconds_total: float | None) -> None:
            bar.update(task, completed=seconds_done, total=seconds_total)

        extraction = extract(path, backbone, reader=reader, on_progress=show, **options.extract_options())
    return _Routine(
        extraction.features,
        extraction.record["warnings"],
        Filming.of(extraction.record),
        [(round(float(start), 3), round(float(end), 3)) for start, end in extraction.clip_times],
        {"load": round(load_seconds, 3), **extraction.record["stage_seconds"]},
    )


def _verdicts(head: Head, features: np.ndarray, action: str | None) -> dict[str, TargetScore]:
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
    return TargetScore(
        CoarseGrade(
            grade=grade,
            of=len(probabilities),
            span=None if edges is None else (edges[grade - 1], edges[grade]),
            probabilities=probabilities,
            edges=edges,
            borderline=None if edges is None else borderline(grade, probabilities),
        ),
        _fine_grade(prediction, grade),
        score=round(float(prediction.score[0]), 4),
        interval=_interval(head, target, prediction.score),
    )


def _sums(head: Head, targets: dict[str, TargetScore]) -> dict[str, SumScore]:
    """Return the sums of the targets' scores."""
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
        return FineGrade(subgrade, of, span=None)
    cells, cell = _rounded(prediction.cells), (grade - 1) * of + subgrade - 1
    return FineGrade(subgrade, of, span=(cells[cell], cells[cell + 1]))


def _interval(head: Head, target: str, score: np.ndarray) -> Interval | None:
    intervals = head.metadata.get("intervals")
    if intervals is None or target not in intervals["radii"]:
        return None
    assert not isinstance(head.network, ReferenceCoFInAl), "public heads have no intervals"
    config = head.network.config
    # csv labels have no rules: a true score may lie beyond all training scores
    has_rules = head.metadata.get("dataset") != "csv"
    score_range = dict(zip(config.targets, config.ranges, strict=True)).get(target) if has_rules else None
    low, high = conformal.interval(score, intervals["radii"][target], score_range)
    return Interval((round(float(low[0]), 4), round(float(high[0]), 4)), intervals["level"])


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def print_score(score: Score) -> None:
    """Print a verdict for people: a line a target on stdout, warnings on stderr."""
    for warning in score.warnings:
        print_message(f"warning: {warning}")
    print_result(score.video + (f" ({score.action})" if score.action else ""))
    width = max(map(len, [*score.targets, *score.sums]))
    for target, verdict in score.targets.items():
        coarse, fine = verdict.coarse, verdict.fine
        parts = [f"coarse grade {coarse.grade} of {coarse.of}{_span(coarse.span)}"]
        if fine is not None:
            parts.append(f"fine grade {fine.subgrade} of {fine.of}{_span(fine.span)}")
        if coarse.borderline is not None:
            parts.append("borderline {} / {}".format(*coarse.borderline))
        print_result(f"  {target:<{width}}  {_points(verdict)}   {'   '.join(parts)}")
    for target, one in score.sums.items():
        print_result(f"  {target:<{width}}  {_points(one)}   {one.formula}, from the scores above")
    if score.trained_on is not None:
        print_message(f"head: {score.head}, trained on {score.trained_on} routines")


def _points(scored: TargetScore | SumScore) -> str:
    points = f"{scored.score:6.2f} points"
    if scored.interval is None:
        return points
    return points + " ({:.0%}: {:.2f} to {:.2f})".format(scored.interval.level, *scored.interval.span)


def _span(span: tuple[float, float] | None) -> str:
    return "" if span is None else " ({:.2f} to {:.2f})".format(*span)
