"""Why a score came out, from cached features: what each clip contributes, similar routines, and reasons for doubt.

`models.contributions` says what a clip contributes: points that it adds to the score or, where negative, takes from it,
compared with the routine's other clips. The contributions of a routine sum to 0. They are the model's contributions,
never deductions by the rules.

Shape legend: T clips, C feature, G grades.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.checkpoint import Head
from ..models.contributions import contributions
from ..models.head import Output
from ..models.reference import FULL_SCORE, ReferenceCoFInAl
from .doubts import doubts_of
from .filming import UNKNOWN, Filming

NUM_SHOWN = 3
"""Training routines that are shown as the nearest."""


@dataclass(frozen=True)
class Neighbour:
    """A training routine that is similar to the scored one."""

    name: str
    score: float | None
    """Its true score in points; None where it has none for this target."""
    similarity: float
    """Cosine of the two routines' standardised summaries: at most 1, about 0 for two routines without relation."""


@dataclass(frozen=True)
class TargetEvidence:
    """Why one target's score came out."""

    contributions: list[float]
    """(T,) points that each clip adds to the score or, where negative, takes from it, compared with the routine's other
    clips, as the model sees it; they sum to 0."""
    grade_effects: list[list[float]]
    """(T, G) how much each clip adds to each grade's probability; they sum to 0 over grades and over clips."""
    attention: list[list[float]] | None
    """(G, T) how each grade prototype attends to each clip, each row summing to 1; None for heads whose prototypes
    attend to statistics over all clips."""
    percentile: float | None
    """Percent of the training routines with a lower score, of the same action if the head has several."""
    nearest: list[Neighbour]
    """The most similar training routines, of the same action if the head has several, most similar first. Empty where
    the head holds no names."""


@dataclass(frozen=True)
class Evidence:
    """Why a routine's scores came out."""

    times: list[tuple[float, float]]
    """(T, 2) start and end of each clip in seconds; empty where they are unknown."""
    targets: dict[str, TargetEvidence]
    training_set: str | None
    """What percentiles and nearest routines refer to; None where the head does not record it."""
    doubts: list[str]
    """A sentence for each reason not to trust the scores; the score's warnings hold them too."""


@torch.inference_mode()
def explain(
    head: Head,
    features: np.ndarray,
    times: Sequence[tuple[float, float]] = (),
    *,
    action: str | None = None,
    filming: Filming = UNKNOWN,
) -> Evidence:
    """Explain the scores of a routine.

    Args:
        head: the head.
        features: the routine's clip features (T, C).
        times: start and end of each clip in seconds; empty where they are unknown.
        action: the action that it was scored as, for a head with several.
        filming: how it was filmed.
    """
    metadata = head.metadata
    names = metadata["actions"]
    index = names.index(action) if action is not None and len(names) > 1 else None
    forward = _forward_of(head, index)
    whole = forward(torch.from_numpy(np.asarray(features, np.float32))[None])
    of_clips = contributions(lambda clips: forward(clips)[:2], features)
    training = _Training(head, features, index)
    targets = {
        target: TargetEvidence(
            contributions=_rounded(of_clips.score[:, m]),
            grade_effects=[_rounded(row) for row in of_clips.grades[:, m]],
            attention=None if whole.attention is None else [_rounded(row) for row in whole.attention[0, m].numpy()],
            percentile=training.percentile(target, float(whole.score[0, m])),
            nearest=training.nearest(target),
        )
        for m, target in enumerate(metadata["targets"])
    }
    return Evidence(list(times), targets, training.name, doubts_of(head, features, filming))


class _Training:
    """What a head knows of its training routines; those of one action if it has several."""

    def __init__(self, head: Head, features: np.ndarray, action: int | None) -> None:
        self.record: dict[str, Any] | None = head.metadata.get("training_set")
        self.name, self.rows, self.similarities = None, np.array([], int), np.array([])
        if self.record is None or head.neighbourhood is None:
            return
        neighbours = head.neighbourhood
        is_alike = np.full(len(neighbours.places), True) if action is None else neighbours.actions == action
        self.rows = np.flatnonzero(is_alike)
        self.similarities = neighbours.similarities(neighbours.place(features))
        which = "" if action is None else f"{head.metadata['actions'][action]} "
        self.name = f"the {len(self.rows)} {which}routines of {self.record['set']} that the head was trained on"

    def percentile(self, target: str, score: float) -> float | None:
        """Return the percent of training routines whose true score is lower; equal ones count half."""
        if self.record is None:
            return None
        known = [self.record["scores"][target][row] for row in self.rows]
        scores = np.array([x for x in known if x is not None])
        if len(scores) == 0:
            return None
        return round(float(50 * ((scores < score).mean() + (scores <= score).mean())), 1)

    def nearest(self, target: str) -> list[Neighbour]:
        """Return the most similar training routines, if the head holds their names."""
        if self.record is None or self.record["names"] is None:
            return []
        order = self.rows[np.argsort(-self.similarities[self.rows], kind="stable")][:NUM_SHOWN]
        names, scores = self.record["names"], self.record["scores"][target]
        return [Neighbour(names[row], scores[row], round(float(self.similarities[row]), 3)) for row in order]


def _forward_of(head: Head, action: int | None) -> Callable[[Tensor], Output]:
    """Return the forward pass of any head for routines of one action, clips (B, T, C)."""
    network = head.network
    if isinstance(network, ReferenceCoFInAl):

        def forward(clips: Tensor) -> Output:
            output = network(clips)
            return Output(FULL_SCORE * output.score[:, None], output.weights[:, None], None)
    else:

        def forward(clips: Tensor) -> Output:
            return network(clips, None if action is None else torch.full((len(clips),), action))

    return forward


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
