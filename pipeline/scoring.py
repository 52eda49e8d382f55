"""Score one routine: a video, or its clip features, and a loaded head -> coarse grade, fine grade and final score."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.arrays import load_features
from ..data.feature_store import find_store
from ..data.manifest import describe_identity
from ..data.source_files import source_facts
from ..data.target_rules import parse_sum
from ..extractors.backbone import Backbone
from ..extractors.extract import extract
from ..extractors.thumbnails import Thumbnail
from ..models.checkpoint import Head
from .evidence import explain
from .filming import Filming
from .heads import check_identity, extractor_of, head_warnings, open_head
from .manifest import versions
from .options import ExtractorOptions, HeadOptions, takes_fields_of
from .sources import find_routines, is_one_routine
from .stages import OnStage, show_stages
from .verdict import Score, sum_scores, verdicts


@dataclass(frozen=True)
class ScoredRoutine:
    """A score, and what its report shows beside it."""

    score: Score
    features: np.ndarray
    """(T, C) clip features."""
    thumbnails: list[Thumbnail]
    """Small pictures of the video in order of time; empty if they were not asked for, and for a `.npy`."""


@dataclass(frozen=True)
class _Routine:
    """A routine's clip features and how they were made."""

    features: np.ndarray
    warnings: list[str]
    filming: Filming
    clip_times: list[tuple[float, float]] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)
    thumbnails: list[Thumbnail] = field(default_factory=list)


class Scorer:
    """A loaded head that scores routines one after another; its backbone is loaded with the first video.

    Close it after use, or use it in a `with` statement. Arguments as of `score_video`.

    Raises:
        ValueError: bad arguments, or no head.
    """

    def __init__(
        self,
        head: str | Path | None = None,
        *,
        action: str | None = None,
        head_options: HeadOptions = HeadOptions(),
        options: ExtractorOptions,
    ) -> None:
        started = time.perf_counter()
        self.head, self.head_path = open_head(head, action=action, options=head_options)
        self.head_facts = _file_facts(self.head_path)
        self.warnings = head_warnings(self.head.metadata)
        self._action, self._weights, self._options = action, head_options.weights, options
        self._backbone: Backbone | None = None
        self._reader = options.reader()
        self._load_seconds = time.perf_counter() - started

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def score_names(self) -> list[str]:
        """The names of the scores: the head's targets, then their sums."""
        targets = self.head.metadata["targets"]
        return [*targets, *(parse_sum(text, targets).target for text in self.head.metadata.get("sums", []))]

    def load_backbone(self) -> Backbone:
        """Load the extractor of the head's features, unless it is loaded.

        Raises:
            ValueError: the head does not record it, or its weights are not here.
        """
        if self._backbone is None:
            started = time.perf_counter()
            self._backbone = extractor_of(self.head, self.head_path, self._options, weights=self._weights)
            self._load_seconds += time.perf_counter() - started
        return self._backbone

    def score(
        self,
        video: Path,
        *,
        name: str | None = None,
        action: str | None = None,
        thumbnails: bool = False,
        on_stage: OnStage | None = None,
    ) -> ScoredRoutine:
        """Score one routine.

        Args:
            video: a video, or a `.npy` of clip features of the head's kind.
            name: what the video is called, if its file is called otherwise.
            action: what this routine shows, where it is known and no action is set for all.
            thumbnails: keep small pictures of the video.
            on_stage: is told of the progress.

        Raises:
            VideoError: the video cannot be scored.
            ValueError: bad arguments, or features of another kind than the head's.
        """
        report = on_stage or (lambda stage, done, total: None)
        named = _check_action(self._action or action, self.head.metadata["actions"])
        if video.suffix == ".npy":
            routine = self._load(video)
        else:
            report("loading", 0, None)
            self.load_backbone()
            routine = self._extract(video, thumbnails, report)
        report("scoring", 0, None)
        called = video if name is None else Path(name)
        action, assumed = (named, []) if named else _assume_action(called, self.head, routine.features)
        evidence = explain(self.head, routine.features, routine.clip_times, action=action, filming=routine.filming)
        targets = verdicts(self.head, routine.features, action)
        score = Score(
            video=str(called),
            head=str(self.head_path),
            action=action,
            targets=targets,
            sums=sum_scores(self.head, targets),
            trained_on=self.head.metadata.get("routines"),
            extractor=self.head.metadata["identity"],
            clips=len(routine.features),
            clip_times=routine.clip_times,
            warnings=[*self.warnings, *assumed, *routine.warnings, *evidence.doubts],
            stage_seconds=routine.stage_seconds,
            evidence=evidence,
            provenance={
                "video": _file_facts(video),
                "head": self.head_facts,
                "versions": versions("cofinal", "torch", "openvino", "av", "decord", "numpy"),
                **routine.made_with,
            },
        )
        return ScoredRoutine(score, routine.features, routine.thumbnails)

    def _load(self, path: Path) -> _Routine:
        """Load a `.npy` and check, as far as its store and the head record it, that one extractor made both."""
        chosen = (self._options.precision, self._options.engine, self._options.decoder)
        if self._weights is not None or chosen != ("auto", "auto", "auto"):
            raise ValueError(f"{path} holds features already: leave --weights, --precision, --engine and --decoder out")
        features = load_features(path)
        store = find_store(path)
        warnings = []
        if store is None or store.identity is None:
            warnings = [f"there is no record of what made {path.name}; only its width was checked"]
        elif self.head.metadata["identity"] is None:
            warnings = [
                f"{self.head_path} does not record what made its training features; of {path.name} "
                f"({describe_identity(store.identity)}) only the width was checked"
            ]
        else:
            check_identity(self.head, self.head_path, store.identity, f"{path} holds")
        width = self.head.network.config.feature_dim
        if features.shape[1] != width:
            raise ValueError(
                f"{path} has features of width {features.shape[1]}; {self.head_path} was trained on width {width}"
            )
        name = None if store is None else path.resolve().relative_to(store.folder.resolve()).as_posix()
        record = {} if store is None or name is None else store.records.get(name.removesuffix(".npy"), {})
        return _Routine(features, [*warnings, *record.get("warnings", ())], Filming.of(record), _clip_times(record))

    def _extract(self, path: Path, thumbnails: bool, report: OnStage) -> _Routine:
        """Extract a video's features; nothing is written."""
        backbone = self.load_backbone()
        report("extracting", 0, None)
        extraction = extract(
            path,
            backbone,
            reader=self._reader,
            thumbnails=thumbnails,
            on_progress=lambda done_s, total_s: report("extracting", done_s, total_s),
            **self._options.extract_options(),
        )
        record = extraction.record
        seconds, self._load_seconds = self._load_seconds, 0.0  # the first video alone waits for head and backbone
        return _Routine(
            extraction.features,
            record["warnings"],
            Filming.of(record),
            [(round(float(start), 3), round(float(end), 3)) for start, end in extraction.clip_times],
            {"load": round(seconds, 3), **record["stage_seconds"]},
            {
                **{key: record[key] for key in ("container", "decoder", "duration_s")},
                **{key: getattr(backbone, key) for key in ("precision", "engine", "device")},
            },
            extraction.thumbnails,
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


def _clip_times(record: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return start and end of each clip in seconds; empty where the record of an earlier version does not say."""
    if record.get("clip_grid_s") is None:
        return []
    start, length, step = record["clip_grid_s"]
    starts = [start + step * clip for clip in range(record["clips"])]
    return [(round(at, 3), round(at + length, 3)) for at in starts]


def _file_facts(path: Path) -> dict[str, Any]:
    facts = source_facts(path)
    return {"sha256": facts["sha256"], "bytes": facts["size"]}


@takes_fields_of(HeadOptions)
@takes_fields_of(ExtractorOptions)
def score_video(
    video: str | Path,
    head: str | Path | None = None,
    *,
    action: str | None = None,
    head_options: HeadOptions,
    options: ExtractorOptions,
) -> Score:
    """Score a routine with the extractor that the head was trained with.

    Args:
        video: a video, a folder of numbered frames, or a `.npy` of clip features of the head's kind.
        head: a head file, or a `.pkl` that the public CoFInAl code saved; None for the default head.
        action: the apparatus or event, where the head has several; None to take it from the file's name. For a public
            head, the one that it was trained for.
        head_options: the fields of `HeadOptions`, given as keyword arguments.
        options: the fields of `ExtractorOptions`, given as keyword arguments.

    Raises:
        VideoError: the video cannot be scored.
        ValueError: bad arguments, no head, or features of another kind than the head's.
    """
    path = Path(video)
    if not is_one_routine([path]):
        raise ValueError(f"{path} names several routines; score_videos takes folders, stores and lists")
    find_routines([path], options.fps)  # checks that it is there, and that fps fits it
    scorer = Scorer(head, action=action, head_options=head_options, options=options)
    with scorer, show_stages(1) as begin:
        return scorer.score(path, on_stage=begin(0, path)).score
