"""The elements that a generated gymnast performs, and their scores.

The scoring is modelled on rhythmic gymnastics. Difficulty is the sum of the elements' values; execution starts from 10
and every fault is deducted. An `Element` holds how much of its full form is reached, and its faults. `judge` scores
these numbers and `data.gymnastics.motion` moves the body by the same numbers, so everything that costs points is
visible in the video.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

APPARATUS = ("Ball", "Clubs", "Hoop", "Ribbon")

ELEMENT_VALUES = {"leap": 3.1, "turn": 2.9, "balance": 3.0, "throw": 3.0, "wave": 2.8}
"""Difficulty of each kind of element in its full form. The sum is 14.8, the highest difficulty score in RG."""

DEDUCTIONS = {"slack": 0.45, "tremble": 0.4, "wobble": 0.32, "pause_s": 1.1}
"""Points of execution that a fault costs in one element, per unit of the fault's size."""
DROP_DEDUCTION = 0.7

LOST_SPEED = 1.6
"""Metres per second; an apparatus that rolls away faster than this leaves the floor area."""
LOST_PENALTY = 0.3
"""Points for an apparatus that leaves the floor area, in addition to the drop."""


@dataclass(frozen=True)
class Element:
    """One element as it is performed."""

    kind: str
    """A key of `ELEMENT_VALUES`."""
    duration_s: float
    """Duration in seconds, pauses included."""
    reach: float
    """Share of the full form, 0 to 1: height of the leap, split, turns, lift of the leg, height of the throw."""
    slack: float = 0.0
    """Lack of amplitude in the whole body, 0 to 1: bent knees and elbows, hanging head, rounded back."""
    tremble: float = 0.0
    """Lack of control, 0 to 1: shaking limbs."""
    wobble: float = 0.0
    """Lack of balance, 0 to 1: the trunk sways, the arms swing, the foot steps back and forth."""
    pause_s: float = 0.0
    """Broken rhythm: seconds during which the motion stops within the element."""
    drop_speed: float | None = None
    """Speed in metres per second at which the dropped apparatus rolls away; None if it is not dropped."""


@dataclass(frozen=True)
class Judgement:
    """The scores of a routine, as in RG's label files."""

    difficulty: float
    execution: float
    penalty: float

    @property
    def total(self) -> float:
        """Difficulty + execution - penalty."""
        return round(self.difficulty + self.execution - self.penalty, 2)


def execution_loss(element: Element) -> float:
    """Return the points of execution that one element's faults cost."""
    dropped = 0.0 if element.drop_speed is None else DROP_DEDUCTION
    return dropped + sum(points * getattr(element, fault) for fault, points in DEDUCTIONS.items())


def judge(elements: Sequence[Element]) -> Judgement:
    """Score a routine.

    Args:
        elements: the whole performance; with one element of each kind the scores are within RG's ranges.

    Returns:
        Difficulty in steps of 0.1, execution from 0 to 10 in steps of 0.05, and the penalty.
    """
    difficulty = sum(ELEMENT_VALUES[element.kind] * element.reach for element in elements)
    execution = max(0.0, 10 - sum(map(execution_loss, elements)))
    lost = sum(element.drop_speed is not None and element.drop_speed > LOST_SPEED for element in elements)
    return Judgement(round(difficulty, 1), round(round(execution * 20) / 20, 2), round(LOST_PENALTY * lost, 2))


def compose(skill: float, duration_s: float, rng: np.random.Generator) -> tuple[Element, ...]:
    """Draw a performance: every kind of element once, in random order.

    Difficulty and execution rise with the skill, each with its own random deviation. Every fault is spread over all
    elements, except the drops, of which there are at most two.

    Args:
        skill: the gymnast's skill, 0 to 1.
        duration_s: duration of the whole routine; only the elements' durations depend on it.
        rng: random numbers for everything else.
    """
    # the order of the random draws is part of a seed's meaning: a change needs a new GENERATOR_VERSION
    kinds = rng.permutation(list(ELEMENT_VALUES))
    shares = rng.uniform(0.9, 1.1, len(kinds))
    shares /= shares.sum()
    ability = skill + rng.normal(0, 0.1)
    load = float(np.clip(1 - skill + rng.normal(0, 0.1), 0.03, 0.97))
    # `load` is the level of all faults; up to 0.3 the apparatus is never dropped
    num_drops = min(int(2.6 * max(load - 0.3, 0) + rng.random()), 2)
    dropped = set(rng.permutation(len(kinds))[:num_drops])

    def fault() -> float:
        return round(min(load * rng.uniform(0.75, 1.25), 1.0), 3)

    return tuple(
        Element(
            kind=str(kind),
            duration_s=round(float(duration_s * share), 3),
            reach=round(float(np.clip(0.13 + 0.86 * ability + rng.normal(0, 0.06), 0.13, 1)), 3),
            slack=fault(),
            tremble=fault(),
            wobble=fault(),
            pause_s=round(0.28 * fault(), 3),
            drop_speed=round(rng.uniform(0.5, 1.9), 2) if place in dropped else None,
        )
        for place, (kind, share) in enumerate(zip(kinds, shares, strict=True))
    )
