"""What every trainable head has in common: its configuration, its output and what the training loop asks of it.

A head is one file with a configuration, a recipe and a network, and one line in `models.head_types`.

Shape legend: B batch, N routines, T clips, C feature, M targets, G grades, K sub-grades.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

LARGEST, SMALLEST_SPAN = 1e15, 1e-4
"""The largest score and feature, and the least span of a range as a share of its ends: they suit single precision."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What is needed to build a head's network; JSON-able with `dataclasses.asdict`."""

    feature_dim: int
    """Width C of the clip features."""
    targets: tuple[str, ...]
    """Names of the scores to predict."""
    ranges: tuple[tuple[float, float], ...]
    """Lowest and highest possible score of each target in points."""
    num_actions: int = 0
    """Number of actions (apparatus); 0 if the dataset has no actions."""
    num_training: int = 0
    """Number of training routines; the training sets it."""
    num_grades: int = 4
    """Coarse grades G of each target."""
    num_subgrades: int = 8
    """Sub-grades K of each grade; 0 for a head without fine grades."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "ranges", tuple((float(low), float(high)) for low, high in self.ranges))
        is_named = all(isinstance(target, str) for target in self.targets)
        if not is_named or not len(set(self.targets)) == len(self.targets) == len(self.ranges) > 0:
            raise ValueError(f"a head needs distinct targets with one range each, not {self.targets}, {self.ranges}")
        for target, (low, high) in zip(self.targets, self.ranges, strict=True):
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"the score range of {target!r} must ascend, not run from {low} to {high}")
            if (largest := max(abs(low), abs(high))) > LARGEST or high - low < SMALLEST_SPAN * largest:
                raise ValueError(
                    f"the score range of {target!r} runs from {low:g} to {high:g}, which single precision does not "
                    "tell apart; scale the scores"
                )
        if min(self.feature_dim, 1 + self.num_actions, 1 + self.num_training) < 1:
            raise ValueError(
                f"{self.feature_dim} features, {self.num_actions} actions, {self.num_training} training routines: "
                "a head needs at least 1 feature"
            )
        if self.num_grades < 1 or self.num_subgrades < 0:
            raise ValueError(
                f"{self.num_grades} grades of {self.num_subgrades} sub-grades: a head needs at least 1 grade"
            )

    def build(self) -> "HeadNetwork":
        """Build the untrained network."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a head is trained, fixed before the training starts."""

    epochs: int
    """Passes over the training routines."""
    batch_size: int = 32
    """Routines in a batch."""
    learning_rate: float
    """The highest learning rate."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, not {self.epochs} and {self.batch_size}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"the learning rate must be more than 0, not {self.learning_rate}")

    def optimizer(self, network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Return the optimizer, and the schedule that is stepped after each of the updates."""
        raise NotImplementedError


class Output(NamedTuple):
    """A head's output for a batch of routines; targets in the order of the configuration."""

    score: Tensor
    """(B, M) in points."""
    probabilities: Tensor
    """(B, M, G) of the grades, lowest first: their probabilities, or weights of their values; each row sums to 1."""
    attention: Tensor | None
    """(B, M, G, T): how each grade prototype attends to each clip; each row sums to 1. None without clip tokens."""


class HeadNetwork(nn.Module):
    """A head's network. All that is fitted is in its state dict, so the state dict is the whole head.

    Attributes:
        config: its configuration.
        cells: ascending edges (M, G K + 1) of all sub-grades in points, (M, G + 1) without fine grades.
    """

    config: HeadConfig
    cells: Tensor

    def fit_statistics(self, features: Sequence[Tensor], scores: np.ndarray, actions: Tensor | None) -> Any:
        """Fit what is not learnt by gradient descent, and prepare the training routines.

        Args:
            features: clip features of each training routine, N tensors (T, C).
            scores: true scores (N, M) in points, NaN where a target has no score.
            actions: index of each routine's action (N,).

        Returns:
            The training set, in whatever form `losses` takes it.
        """
        raise NotImplementedError

    def losses(self, training: Any, rows: np.ndarray, recipe: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the losses of a batch by name, with their weighted sum as "total".

        Args:
            training: the result of `fit_statistics`.
            rows: indices of the batch's routines.
            recipe: how the head is trained.
            rng: of crops and augmentation.
        """
        raise NotImplementedError

    def forward(self, clips: Tensor, actions: Tensor | None = None) -> Output:
        """Score routines of the same length.

        Args:
            clips: (B, T, C).
            actions: index of each routine's action (B,), needed if the configuration has actions.
        """
        raise NotImplementedError


def mean_over_known(loss: Tensor, is_known: Tensor) -> Tensor:
    """Return the mean of a loss (B, M) over the known scores (B, M) of a batch."""
    return torch.where(is_known, loss, 0).sum() / is_known.sum().clamp(min=1)


def pad(routines: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return routines (T, C) padded with zeros to the longest (B, T, C), and which entries are clips (B, T)."""
    lengths = torch.tensor([len(x) for x in routines], device=routines[0].device)
    padded = nn.utils.rnn.pad_sequence(list(routines), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
