"""score-video: a routine's video in; its coarse grade, fine grade and final score out."""

import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.feature_store import describe_identity, find_store, load_features
from ..extractors.extract import extract
from ..models.checkpoint import Head
from ..models.reference import ReferenceCoFInAl
from . import conformal
from .console import err, print_message, print_result, printable, progress
from .heads import check_identity, extractor_of, head_warnings, open_head
from .options import ExtractorOptions, takes_fields_of
from .training import predict, predict_reference


@dataclass(frozen=True)
class CoarseGrade:
    """The grade of a routine, as a judge would first place it."""

    grade: int
    """Counted from 1, the lowest."""
    of: int
    span: tuple[float, float] | None
    """The scores that fall in this grade, in points; None for public heads, whose grades have no bounds."""
    probabilities: list[float]
    """Of each grade, lowest first."""
    edges: list[float] | None
    """Where the grades meet, in points: one more than there are grades; None for public heads."""


@dataclass(frozen=True)
class FineGrade:
    """The variation within the coarse grade."""

    subgrade: int
    """Counted from 1, the lowest within the coarse grade."""
    of: int
    points: float | None
    """The score this sub-grade stands for; None for public heads."""


@dataclass(frozen=True)
class Interval:
    """Where the judges' score may lie."""

    span: tuple[float, float]
    """In points, within what the rules allow."""
    level: float
    """How often it lies there, of routines like those that the head was trained on: nominally .9."""


@dataclass(frozen=True)
class TargetScore:
    """One target's verdict."""

    coarse: CoarseGrade
    fine: FineGrade | None
    """None for heads without fine grades."""
    score: float
    """In points, made of all coarse and fine probabilities."""
    interval: Interval | None
    """None where the head does not know how far it may be off."""


@dataclass(frozen=True)
class Score:
    """The verdict on one routine."""

    video: str
    head: str
    action: str | None
    targets: dict[str, TargetScore]
    extractor: dict[str, str] | None
    """The features' identity; None where nobody knows it."""
    clips: int
    clip_times: list[tuple[float, float]]
    """Start and end of each clip in seconds; empty for a `.npy`."""
    warnings: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """How long the head and backbone took to load, and each stage of the extraction; empty for a `.npy`."""

    def as_json(self) -> dict[str, Any]:
        """Return the score as the JSON object that `--json` prints; what a head does not know of a target is absent."""
        targets = {target: _without_none(asdict(said)) for target, said in self.targets.items()}
        return {"format": 1, **asdict(self), "targets": targets}


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

    The fields of `ExtractorOptions` are keyword arguments too; the signature shows what each means.

    Args:
        video: a video, or a `.npy` of clip features of the head's kind.
        head: a head file, or a `.pkl` that the public CoFInAl code saved; None for the default head.
        action: the apparatus or event, where the head knows several; None to read it off the file's name. Of a public
            head, the one that it was trained for.
        target: what a public head scores.
        weight_type: the `activate_regular_restrictions` that a public head was trained with.
        extractor: `BACKBONE:RECIPE:WEIGHTS`, what made the features of a head that does not know it.
        weights: where the head's backbone weights lie now, if they were a file that has moved.

    Raises:
        VideoError: the video cannot be scored.
        ValueError: bad arguments, no head, or features of another kind than the head's.
    """
    started = time.perf_counter()
    path = Path(video)
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a video or a .npy of clip features")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one video (extract-features takes folders)")
    trained, head_path = open_head(head, target=target, weight_type=weight_type, action=action, extractor=extractor)
    warnings = head_warnings(trained.metadata)
    action, remark = _choose_action(path, action, trained.metadata["actions"])
    warnings += remark

    clip_times: list[tuple[float, float]] = []
    stage_seconds: dict[str, float] = {}
    if path.suffix == ".npy":
        if weights is not None or (options.precision, options.engine, options.decoder) != ("auto", "auto", "auto"):
            raise ValueError(f"{path} holds features already: leave --weights, --precision, --engine and --decoder out")
        features, remark = _cached_features(path, trained, head_path)
        warnings += remark
    else:
        if not err.is_terminal:
            print_message(f"scoring {path.name}")  # on a terminal a bar shows it
        backbone = extractor_of(trained, head_path, options, weights=weights)
        stage_seconds["load"] = round(time.perf_counter() - started, 3)
        with options.reader() as reader, progress("s of video") as bar:
            task = bar.add_task(f"scoring {printable(path.name)}", total=None)

            def show(seconds_done: float, seconds_total: float | None) -> None:
                bar.update(task, completed=seconds_done, total=seconds_total)

            extraction = extract(
                path,
                backbone,
                decoder=options.decoder,
                allow_partial=options.allow_partial,
                reader=reader,
                on_progress=show,
            )
        features = extraction.features
        clip_times = [(round(float(start), 3), round(float(end), 3)) for start, end in extraction.clip_times]
        warnings += extraction.record["warnings"]
        stage_seconds |= extraction.record["stage_seconds"]
    return Score(
        video=str(path),
        head=str(head_path),
        action=action,
        targets=_verdicts(trained, features, action),
        extractor=trained.metadata["identity"],
        clips=len(features),
        clip_times=clip_times,
        warnings=warnings,
        stage_seconds=stage_seconds,
    )


def _choose_action(path: Path, action: str | None, known: list[str]) -> tuple[str | None, list[str]]:
    """Return the routine's action, and a remark where it was assumed."""
    if not known:
        if action is not None:
            raise ValueError(f"this head knows no actions, so --action {action} says nothing; leave it out")
        return None, []
    if action is not None:
        found = next((name for name in known if name.lower() == action.lower()), None)
        if found is None:
            raise ValueError(f"unknown action {action!r}; this head knows {', '.join(known)}")
        return found, []
    if len(known) == 1:
        return known[0], [f"assumed --action {known[0]}, the only one that this head knows"]
    named = [name for name in known if re.match(rf"{re.escape(name)}(?![a-z])", path.stem, re.IGNORECASE)]
    if len(named) != 1:
        raise ValueError(f"which action does {path.name} show? name it with --action: {', '.join(known)}")
    return named[0], [f"assumed --action {named[0]}, because the file's name says so"]


def _cached_features(path: Path, head: Head, head_path: Path) -> tuple[np.ndarray, list[str]]:
    features = load_features(path)
    store = find_store(path)
    remark = []
    if store is None or store.identity is None:
        remark = [f"what made {path.name} is not on record; only its width was checked"]
    elif head.metadata["identity"] is None:
        made = describe_identity(store.identity)
        remark = [
            f"{head_path} does not know what made its features; of {path.name} ({made}) only the width was checked"
        ]
    else:
        check_identity(head, head_path, store.identity, f"{path} holds")
    width = head.network.config.feature_dim
    if features.shape[1] != width:
        raise ValueError(f"{path} has features of width {features.shape[1]}; {head_path} was trained on width {width}")
    return features, remark


def _verdicts(head: Head, features: np.ndarray, action: str | None) -> dict[str, TargetScore]:
    known = head.metadata["actions"]
    actions = np.array([known.index(action)]) if action is not None and len(known) > 1 else None
    if isinstance(head.network, ReferenceCoFInAl):
        predictions = {head.metadata["targets"][0]: predict_reference(head.network, [features])}
    else:
        predictions = predict(head.network, [features], actions)
    verdicts = {}
    for target, said in predictions.items():
        grade = int(said.grade[0])
        edges = None if said.edges is None else _rounded(said.edges[0])
        verdicts[target] = TargetScore(
            CoarseGrade(
                grade=grade,
                of=head.network.config.num_grades,
                span=None if edges is None else (edges[grade - 1], edges[grade]),
                probabilities=_rounded(said.probabilities[0]),
                edges=edges,
            ),
            None
            if said.subgrade is None
            else FineGrade(
                subgrade=int(said.subgrade[0]),
                of=said.num_subgrades,
                points=None if said.points is None else round(float(said.points[0]), 4),
            ),
            score=round(float(said.score[0]), 4),
            interval=_interval(head, target, said.score),
        )
    return verdicts


def _interval(head: Head, target: str, score: np.ndarray) -> Interval | None:
    known = head.metadata.get("intervals")  # public heads do not know any
    if known is None or target not in known["radii"]:
        return None
    assert not isinstance(head.network, ReferenceCoFInAl), "public heads know no intervals"
    config = head.network.config
    ruled = head.metadata.get("dataset") != "csv"  # scores without rules may lie beyond all that were seen in training
    span = dict(zip(config.targets, config.ranges, strict=True))[target] if ruled else None
    low, high = conformal.interval(score, known["radii"][target], span)
    return Interval((round(float(low[0]), 4), round(float(high[0]), 4)), known["level"])


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def print_score(score: Score) -> None:
    """Print a verdict for people: a line a target on stdout, remarks on stderr."""
    for warning in score.warnings:
        print_message(f"warning: {warning}")
    print_result(score.video + (f" ({score.action})" if score.action else ""))
    width = max(map(len, score.targets))
    for target, said in score.targets.items():
        coarse = f"coarse grade {said.coarse.grade} of {said.coarse.of}"
        if said.coarse.span is not None:
            coarse += " ({:.2f} to {:.2f})".format(*said.coarse.span)
        fine = ""
        if said.fine is not None:
            fine = f"   fine grade {said.fine.subgrade} of {said.fine.of}"
            fine += "" if said.fine.points is None else f" ({said.fine.points:.2f})"
        held = ""
        if said.interval is not None:
            held = " ({:.0%}: {:.2f} to {:.2f})".format(said.interval.level, *said.interval.span)
        print_result(f"  {target:<{width}}  {said.score:6.2f} points{held}   {coarse}{fine}")
    spans = [(said.score, said.coarse.span) for said in score.targets.values() if said.coarse.span is not None]
    if not all(low <= points <= high for points, (low, high) in spans):
        print_message(
            "note: a score weighs all grades by their probabilities, so it may lie outside the most probable one"
        )
