"""What the judges said of routines like this one: kernel ridge regression on the training routines.

Part of the Temporal Fusion Module: the grades are parsed from it as from the other readings. A few hundred routines say
more by their likeness to a new one than what a network learns of them can say (docs/accuracy.md has both).

Shape legend: N training routines, B batch, D numbers that sum up a routine, A actions, M targets.
"""

import torch
from torch import Tensor, nn

PENALTY = 0.01
"""Of the ridge regression; a routine's likeness to itself is 1."""
REACH = 2.0
"""Bandwidth of the likeness of summaries, in median squared distances among the training routines."""
DURATION_SHARE = 0.1
"""Share of the likeness that is one of durations alone."""
DURATION_REACH = 2.5
"""Its standard deviation, in those of the training routines' durations."""


class Likeness(nn.Module):
    """Remembers the training routines and what was said of them."""

    statistics: Tensor
    duration: Tensor
    actions: Tensor
    weights: Tensor
    distance: Tensor

    def __init__(self, num_remembered: int, num_numbers: int, num_actions: int, num_targets: int) -> None:
        super().__init__()
        self.register_buffer("statistics", torch.zeros(num_remembered, num_numbers))
        self.register_buffer("duration", torch.zeros(num_remembered, 1))
        self.register_buffer("actions", torch.zeros(num_remembered, num_actions))
        self.register_buffer("weights", torch.zeros(num_remembered, num_targets))
        self.register_buffer("distance", torch.ones(()))

    def forward(self, statistics: Tensor, duration: Tensor, actions: Tensor | None) -> Tensor:
        """Scores of routines, by what was said of those that are like them.

        Args:
            statistics: standardised (B, D).
            duration: standardised (B, 1).
            actions: share of each action in each routine (B, A), where the network knows actions.

        Returns:
            (B, M), in standard deviations of the training scores from their mean.
        """
        return self.to_remembered(statistics, duration, actions) @ self.weights

    def to_remembered(self, statistics: Tensor, duration: Tensor, actions: Tensor | None) -> Tensor:
        """Likeness (B, N) to each remembered routine, from 0 to 1; arguments as `forward`."""
        apart = _squared_distances(statistics, self.statistics) / (REACH * self.distance)
        apart_in_time = _squared_distances(duration, self.duration) / (2 * DURATION_REACH**2)
        like = (1 - DURATION_SHARE) * (-apart).exp() + DURATION_SHARE * (-apart_in_time).exp()
        return like if actions is None else like * (1 + actions @ self.actions.T) / 2

    def remember(self, statistics: Tensor, duration: Tensor, actions: Tensor | None, scores: Tensor) -> Tensor:
        """Fit to the training routines.

        Args:
            statistics: standardised (N, D).
            duration: standardised (N, 1).
            actions: one-hot (N, A), where the network knows actions.
            scores: (N, M) in standard deviations from their mean, NaN where unknown.

        Returns:
            What all others say of each routine (N, M), in closed form.
        """
        self.statistics.copy_(statistics)
        self.duration.copy_(duration)
        if actions is not None:
            self.actions.copy_(actions)
        squared = _squared_distances(statistics, statistics)
        median = squared[~torch.eye(len(squared), dtype=torch.bool, device=squared.device)].median()
        self.distance.copy_(torch.where(median > 0, median, 1))
        like = self.to_remembered(statistics, duration, actions).double()
        said = torch.zeros_like(scores)
        for target, column in enumerate(scores.double().T):
            known = ~column.isnan()
            inverse = torch.linalg.inv(like[known][:, known] + PENALTY * torch.eye(int(known.sum())).to(like))
            weights = inverse @ column[known]
            self.weights[known, target] = weights.to(self.weights)
            of_all = like[:, known] @ weights
            of_all[known] = column[known] - weights / inverse.diagonal()
            said[:, target] = of_all
        return said


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """(B, N) of (B, D) and (N, D)."""
    products = first @ second.T
    return (first.square().sum(1)[:, None] + second.square().sum(1) - 2 * products).clamp(min=0)
