"""What every reader of labels returns: one row a routine, and the targets, ranges and actions of the dataset."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .target_rules import Formula

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Segment:
    """The part of a longer video that a row is about."""

    video: str
    """The longer video's name in the label file."""
    start: float
    """Seconds after the first frame, or the number of the segment's first frame, counted from 0."""
    end: float
    """The first second, or the number of the first frame, that is not part of the segment any more."""
    unit: Literal["seconds", "frames"]

    @property
    def suffix(self) -> str:
        """What the segment's features add to the name of the longer video: @12.5-16.0s, or @7377-7462f for frames."""
        if self.unit == "frames":
            return f"@{self.start:.10g}-{self.end:.10g}f"
        return f"@{round(self.start, 3)}-{round(self.end, 3)}s"

    @property
    def span(self) -> tuple[float, float, str]:
        """Start, end and unit."""
        return self.start, self.end, self.unit


@dataclass(frozen=True)
class LabelRow:
    """The scores of one video."""

    video: str
    """Its name in the label file; a table's segment adds `Segment.suffix`."""
    scores: dict[str, float]
    """Points by target; a target without a score is absent."""
    where: str
    """File and line, for messages."""
    action: str | None = None
    """The kind of routine within the dataset, such as RG's apparatus."""
    split: Split | None = None
    group: str | None = None
    """Videos of one group (a skater, an event) stay together in one fold."""
    event: str | None = None
    """The competition that the video is from."""
    fold: int | None = None
    """The fold of the published cross-validation that the video is in."""
    aliases: tuple[str, ...] = ()
    """Other names that published files use for the same video."""
    segment: Segment | None = None
    marks: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """By target the mark of each judge in points, NaN where a judge gave none."""
    info: dict[str, str] = field(default_factory=dict)
    """What else the file says of the video; nothing is learnt from it."""


@dataclass(frozen=True)
class LabelSet:
    """All labelled videos of a dataset and the ranges of their scores."""

    dataset: str
    targets: tuple[str, ...]
    ranges: dict[str, tuple[float, float]]
    """Lowest and highest possible score by target, in points; absent where the rules are unknown."""
    actions: tuple[str, ...]
    """The kinds of routines in the dataset; empty if it has only one."""
    rows: tuple[LabelRow, ...]
    files: tuple[Path, ...]
    sums: tuple[Formula, ...] = ()
    """Scores that are not learnt themselves: they are computed from predictions of their parts."""
    checks: tuple[Formula, ...] = ()
    """What targets, each learnt by itself, nearly add up to; the rest is what judges deduct."""
    panels: dict[str, str] = field(default_factory=dict)
    """By target the rule that makes its score from the judges' marks, one of `panels.RULES`."""
    notes: tuple[str, ...] = ()
    """What the reader took for what, in sentences for the user."""
    reading: dict[str, Any] = field(default_factory=dict)
    """The same for the results file; empty for the published formats."""
