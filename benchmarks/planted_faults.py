"""Does the evidence point at the fault? Generated routines with one failed element, and the clip that holds it.

    python -m benchmarks.planted_faults [FOLDER]

A routine has 20 elements in 16 or 17 clips. A failed element is bent, shaking, swaying and halting throughout. The head
learns from routines with none to `MAX_FAULTS` failed elements at any time; the routines that it is asked about have
exactly one, in halls that training never saw. Routines and features that the folder holds already are used again.
"""

from dataclasses import replace

import numpy as np

from cofinal.data.gymnastics.choreography import ELEMENT_VALUES, Element, judge
from cofinal.data.routines import Routine, plan_routines

NUM_TRAIN, NUM_TEST = 66, 30
NUM_ROUNDS = 4
"""Of all five kinds of elements."""
DURATION_S = (20.6, 22.6)
MAX_FAULTS = 5
CLEAN_LOAD, FAILED_LOAD = 0.05, 1.0
"""Level of all faults of an element, 0 to 1."""


def plan(seed: int = 0) -> list[Routine]:
    """Return the routines to learn from, then those with one planted fault, without drawing them."""
    rng = np.random.default_rng([seed, 20])
    planned = plan_routines(seed=seed, num_train=NUM_TRAIN, num_test=NUM_TEST)
    counts = np.concatenate([rng.permutation(np.arange(NUM_TRAIN) % (MAX_FAULTS + 1)), np.ones(NUM_TEST, int)])
    routines = []
    for routine, num_faults in zip(planned, counts, strict=True):
        elements = _perform(int(num_faults), rng)
        routines.append(replace(routine, elements=elements, judgement=judge(elements)))
    return routines


def _perform(num_faults: int, rng: np.random.Generator) -> tuple[Element, ...]:
    kinds = [str(kind) for _ in range(NUM_ROUNDS) for kind in rng.permutation(list(ELEMENT_VALUES))]
    failed = rng.permutation(len(kinds))[:num_faults]
    shares = rng.uniform(0.9, 1.1, len(kinds))
    durations = rng.uniform(*DURATION_S) * shares / shares.sum()
    loads = np.where(np.isin(np.arange(len(kinds)), failed), FAILED_LOAD, CLEAN_LOAD)
    return tuple(
        Element(
            kind=kind,
            duration_s=round(float(duration), 3),
            reach=round(float(rng.uniform(0.6, 0.9)), 3),
            slack=float(load),
            tremble=float(load),
            wobble=float(load),
            pause_s=round(0.28 * float(load), 3),
        )
        for kind, duration, load in zip(kinds, durations, loads, strict=True)
    )
