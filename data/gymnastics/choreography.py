"""What a generated gymnast shows, and what the judges make of it.

Modelled on rhythmic gymnastics: the difficulty judges add up the values of the elements shown, the execution judges
start from 10 and take off for every fault. An `Element` says how far its full form is reached and which faults it
shows. `judge` reads these numbers and `data.gymnastics.motion` moves the body by the same ones: the score is the score
of what is seen, and whatever costs points can be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

APPARATUS = ("Ball", "Clubs", "Hoop", "Ribbon")

ELEMENT_VALUES = {"leap": 3.1, "turn": 2.9, "balance": 3.0, "throw": 3.0, "wave": 2.8}
"""Difficulty of each kind of element in its full form. All together make 14.8, the most that was given in RG."""

DEDUCTIONS = {"slack": 0.45, "tremble": 0.4, "wobble": 0.32, "pause_s": 1.1}
"""Points of execution that each fault costs in one element, per unit of its size."""
DROP_DEDUCTION = 0.7

LOST_SPEED = 1.6
"""A dropped apparatus that rolls away faster than this, in metres a second, leaves the floor area..."""
LOST_PENALTY = 0.3
"""...and costs this many points besides."""


@dataclass(frozen=True)
class Element:
    """One element as it is shown."""

    kind: str
    """A key of `ELEMENT_VALUES`."""
    duration_s: float
    """How long it lasts, pauses included."""
    reach: float
    """Share of the full form that is reached, 0 to 1: height, split, turns, lift of the leg, height of the throw."""
    slack: float = 0.0
    """Lack of amplitude in the whole body, 0 to 1: bent knees and elbows, hanging head, rounded back."""
    tremble: float = 0.0
    """Lack of control, 0 to 1: shaking limbs."""
    wobble: float = 0.0
    """Lack of balance, 0 to 1: the trunk sways, the arms row, the foot steps to and fro."""
    pause_s: float = 0.0
    """Broken rhythm: seconds for which the motion stops within the element."""
    drop_speed: float | None = None
    """The apparatus falls and rolls away at this speed in metres a second; None: it does not fall."""


@dataclass(frozen=True)
class Judgement:
    """What the judges give, as RG's label files have it."""

    difficulty: float
    execution: float
    penalty: float

    @property
    def total(self) -> float:
        """Difficulty + execution - penalty."""
        return round(self.difficulty + self.execution - self.penalty, 2)


def execution_loss(element: Element) -> float:
    """Points of execution that one element's faults cost."""
    dropped = 0.0 if element.drop_speed is None else DROP_DEDUCTION
    return dropped + sum(points * getattr(element, fault) for fault, points in DEDUCTIONS.items())


def judge(elements: Sequence[Element]) -> Judgement:
    """Score a routine by what it shows.

    Args:
        elements: all that is shown; RG's ranges are met when each kind of element is shown once.

    Returns:
        Difficulty in steps of .1, execution from 0 to 10 in steps of .05, and the penalty.
    """
    difficulty = sum(ELEMENT_VALUES[element.kind] * element.reach for element in elements)
    execution = max(0.0, 10 - sum(map(execution_loss, elements)))
    lost = sum(element.drop_speed is not None and element.drop_speed > LOST_SPEED for element in elements)
    return Judgement(round(difficulty, 1), round(round(execution * 20) / 20, 2), round(LOST_PENALTY * lost, 2))


def compose(skill: float, duration_s: float, rng: np.random.Generator) -> tuple[Element, ...]:
    """Draw a choreography for a gymnast: every kind of element once, in any order.

    Difficulty and execution go with her skill, each with a will of its own. Every fault is spread over all elements,
    but for the drops, of which there are at most two.

    Args:
        skill: 0 to 1.
        duration_s: of the whole routine; nothing else depends on it.
        rng: decides all the rest.
    """
    kinds = rng.permutation(list(ELEMENT_VALUES))
    shares = rng.uniform(0.9, 1.1, len(kinds))
    shares /= shares.sum()
    ability = skill + rng.normal(0, 0.1)
    load = float(np.clip(1 - skill + rng.normal(0, 0.1), 0.03, 0.97))
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
