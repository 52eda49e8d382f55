"""The training routines as a head remembers them: which are nearest, how far is far, and which action it looks like.

A routine is summarised by the mean and the standard deviation of its clip features, each column standardised over the
training routines. All limits and probabilities come from leaving out one training routine at a time.

Shape legend: N training routines, T clips, C feature, A actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from .kernel_ridge import KernelRidge

NUM_NEAREST = 3
"""Routines that a distance is averaged over."""
FAR_SHARE = 0.05
"""Of the training routines, each left out, so many are farther from the others than `Neighbourhood.far`."""


STEP = 1 / 16
"""Of a column's standard deviation. The farthest that a byte reaches is 8 standard deviations."""
SMALLEST_VARIANCE = 1e-2
"""Of a column when a routine is left out, as a share of its variance: it may be the only one that differs."""


def summarise_routine(features: np.ndarray) -> np.ndarray:
    """Return the summary (2 C,) of a routine's clip features (T, C)."""
    clips = features.astype(np.float64)
    return np.concatenate([clips.mean(0), clips.std(0)])


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The training routines of a head."""

    places: np.ndarray
    """Standardised summaries (N, 2 C) in units of `STEP`, int8: one byte a number keeps the file small."""
    mean: np.ndarray
    """(2 C,) of the summaries, float32."""
    spread: np.ndarray
    """Standard deviation (2 C,) of the summaries, float32."""
    far: np.ndarray
    """() distance that few training routines have from the others, float32."""
    actions: np.ndarray | None
    """Index of each routine's action (N,), int64; None for a head with one action or none."""

    @classmethod
    def fit(cls, features: Sequence[np.ndarray], actions: np.ndarray | None) -> "Neighbourhood":
        """Remember training routines.

        Args:
            features: clip features of each routine, N arrays (T, C).
            actions: index of each routine's action (N,).
        """
        summaries = np.stack([summarise_routine(x) for x in features])
        mean, spread = summaries.mean(0), summaries.std(0)
        spread[spread == 0] = 1
        places = ((summaries - mean) / spread / STEP).round().clip(-127, 127) * STEP
        far = np.quantile(_left_out_distances(places), 1 - FAR_SHARE, method="higher")
        mean, spread, far = (np.asarray(x, np.float32) for x in (mean, spread, far))
        return cls((places / STEP).astype(np.int8), mean, spread, far, actions)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all fields that are there, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def place(self, features: np.ndarray) -> np.ndarray:
        """Return the standardised summary (1, 2 C) of a routine's clip features (T, C)."""
        return ((summarise_routine(features) - self.mean) / self.spread)[None]

    def similarities(self, place: np.ndarray) -> np.ndarray:
        """Return the cosine (N,) of a routine's place (1, 2 C) with that of each training routine."""
        lengths = np.linalg.norm(self._summaries, axis=1) * np.linalg.norm(place)
        return self._summaries @ place[0] / np.maximum(lengths, np.finfo(float).tiny)

    def distance(self, place: np.ndarray) -> float:
        """Return the mean distance of a routine's place (1, 2 C) to the nearest training routines."""
        return float(_mean_of_nearest(cdist(place, self._summaries))[0])

    def action_probabilities(self, place: np.ndarray) -> np.ndarray:
        """Return how probable each action is (A,) for a routine's place (1, 2 C), for a head with several actions.

        Kernel ridge regression predicts the actions. Its outputs become probabilities by a softmax, whose sharpness is
        the one that suits the left-out predictions of the training routines best.
        """
        assert self.actions is not None, "a head with one action has nothing to tell apart"
        regression = KernelRidge(self._summaries, np.eye(self.actions.max() + 1)[self.actions])

        def surprise(log_sharpness: float) -> float:
            logits = np.exp(log_sharpness) * regression.leave_one_out
            return -float(log_softmax(logits, 1)[np.arange(len(logits)), self.actions].mean())

        sharpness = np.exp(minimize_scalar(surprise, bounds=(-3, 4), method="bounded").x)
        return softmax(sharpness * regression.predict(place)[0])

    @cached_property
    def _summaries(self) -> np.ndarray:
        return self.places * STEP


def _left_out_distances(places: np.ndarray) -> np.ndarray:
    """Return the distance (N,) of each training routine's place (N, 2 C) to its nearest others.

    Each is measured in the spread of the others. In the spread of all it would seem nearer than an unseen routine.
    """
    num = len(places)
    distances = np.empty(num)
    for row, place in enumerate(places):
        # the variance of all is 1, to which this place adds its own square
        variance = np.maximum(num / (num - 1) * (1 - place**2 / (num - 1)), SMALLEST_VARIANCE)
        others = np.delete(places, row, 0)
        distances[row] = _mean_of_nearest(np.sqrt(((others - place) ** 2 / variance).sum(1))[None])[0]
    return distances


def _mean_of_nearest(distances: np.ndarray) -> np.ndarray:
    """Return the mean of the smallest `NUM_NEAREST` distances in each row."""
    return np.sort(distances, 1)[:, :NUM_NEAREST].mean(1)
