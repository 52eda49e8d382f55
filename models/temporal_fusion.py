"""Temporal Fusion Module (CoFInAl, section 3.2): the clips of a routine -> what it shows as a whole, and when.

The paper lets clips attend to each other. A few hundred judged routines do not teach attention what matters
(docs/accuracy.md has the comparison), so the clips are fused by statistics over time, and the network learns to read
these: level, spread, extremes and change over the routine, the level of each quarter, which tells what came when, the
covariances of the clips' features, which tell what goes together, and how long the routine is. Beside them stands what
the judges said of training routines like this one (`models.likeness`).
Each routine is summed up by itself: no padding, no other routine of a batch can change a result.

Shape legend: B batch, T clips, C feature, P principal component, S statistics, V covariances, H fused width,
A actions, M targets.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .likeness import Likeness

LAGS = 1, 2, 4, 8, 16, 32
"""In clips: change is looked at from one clip to the next, and over longer times."""
NUM_QUARTERS = 4
NUM_STATISTICS = 5 + len(LAGS) + NUM_QUARTERS
COVARIED = 64
"""Principal components whose covariances are taken, or all of fewer."""
LEAST_VARIANCE = 0.1
"""Added to the variances, in means of these components' variances among the training clips."""


class Summary(NamedTuple):
    """What is known of a routine once its clips are summed up; of a batch, with one more axis in front."""

    statistics: Tensor
    """(S, C+P), of the clip features, compressed, and of their principal components."""
    covariances: Tensor
    """(V,): logarithm of the matrix of covariances of the first components."""
    duration: Tensor
    """(1,): logarithm of the number of clips."""

    @classmethod
    def of(cls, routines: Iterable["Summary"]) -> "Summary":
        """Those of several routines as one batch."""
        return cls(*(torch.stack(parts) for parts in zip(*routines, strict=True)))


class Evidence(NamedTuple):
    """What is read of B routines, standardised; but for likeness and duration linear in what sums a routine up."""

    statistics: Tensor
    """(B, S*C), of the clip features, compressed."""
    components: Tensor
    """(B, S*P), of their principal components."""
    covariances: Tensor
    """(B, V)."""
    likeness: Tensor
    """(B, M): what was said of routines like these."""
    duration: Tensor
    """(B, 1)."""


def summarise(clips: Tensor) -> Tensor:
    """Sum up a routine.

    Args:
        clips: (T, C), any number of clips from 1.

    Returns:
        (S, C): mean, standard deviation, 10th and 90th percentile, median, mean absolute difference between clips that
        are 1, 2, 4, 8, 16 and 32 apart (or as far as there are clips), and the mean of each quarter (of the nearest
        clips, where there are fewer than quarters).
    """
    quantiles = torch.quantile(clips, clips.new_tensor([0.1, 0.9, 0.5]), dim=0)  # (3, C)
    lags = [min(lag, len(clips) - 1) for lag in LAGS]
    changes = [(clips[lag:] - clips[: len(clips) - lag]).abs().mean(0) for lag in lags]
    bounds = [(q * len(clips) // NUM_QUARTERS, -(-(q + 1) * len(clips) // NUM_QUARTERS)) for q in range(NUM_QUARTERS)]
    quarters = [clips[start:end].mean(0) for start, end in bounds]
    return torch.stack([clips.mean(0), clips.std(0, correction=0), *quantiles, *changes, *quarters])


def log_covariances(components: Tensor, least: Tensor) -> Tensor:
    """Logarithm of a routine's matrix of covariances (Arsigny et al. 2006): distances between such are log-Euclidean.

    Args:
        components: (T, P), any number of clips from 1.
        least: variance () to be added, more than 0.

    Returns:
        (V,), V = P (P+1) / 2: the diagonal and, times the root of 2, what is above it.
    """
    centred = components.double() - components.double().mean(0)
    covariance = centred.T @ centred / len(centred) + least * torch.eye(centred.shape[1], device=centred.device)
    variances, directions = torch.linalg.eigh(covariance)
    logarithm = (directions * variances.clamp(min=float(least)).log()) @ directions.T
    row, column = torch.triu_indices(*logarithm.shape, device=logarithm.device)
    return (logarithm[row, column] * torch.where(row == column, 1, 2**0.5)).float()


class TemporalFusion(nn.Module):
    """Read what is known of a routine all at once, in four ways.

    One reading is of the statistics of the features, compressed as by a logarithm, so that single strong ones do not
    drown the others; one of those of their principal components, partly whitened, where weak directions are heard, too;
    one of the components' covariances; and one of the likeness to training routines. Each has judges of its own.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    feature_basis: Tensor
    least_variance: Tensor
    mean: Tensor
    spread: Tensor
    covariance_mean: Tensor
    covariance_spread: Tensor
    duration_mean: Tensor
    duration_spread: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_components: int,
        width: int,
        *,
        num_actions: int,
        num_targets: int,
        num_remembered: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.widths = (feature_dim, num_components)
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("feature_basis", torch.eye(feature_dim, num_components))  # (C, P)
        self.register_buffer("least_variance", torch.tensor(LEAST_VARIANCE))
        self.register_buffer("mean", torch.zeros(NUM_STATISTICS, sum(self.widths)))
        self.register_buffer("spread", torch.ones(NUM_STATISTICS, sum(self.widths)))
        covaried = min(COVARIED, num_components)
        num_covariances = covaried * (covaried + 1) // 2
        self.register_buffer("covariance_mean", torch.zeros(num_covariances))
        self.register_buffer("covariance_spread", torch.ones(()))
        self.register_buffer("duration_mean", torch.zeros(()))
        self.register_buffer("duration_spread", torch.ones(()))
        self.likeness = Likeness(num_remembered, NUM_STATISTICS * feature_dim, num_actions, num_targets)
        sizes = (NUM_STATISTICS * feature_dim, NUM_STATISTICS * num_components, num_covariances, num_targets)
        self.read = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.normalise = nn.ModuleList(nn.LayerNorm(width) for _ in sizes)
        self.duration = nn.Linear(1, width, bias=False)
        self.action = nn.Linear(num_actions, width, bias=False) if num_actions else None
        self.dropout = nn.Dropout(dropout)

    def summarise(self, clips: Tensor) -> Summary:
        """Sum up a routine's clip features (T, C)."""
        clips = clips.float()
        components = (clips - self.feature_mean) @ self.feature_basis
        covariances = log_covariances(components[:, :COVARIED], self.least_variance)
        compressed = (clips / self.feature_scale).asinh()
        duration = clips.new_tensor([len(clips)]).log()
        return Summary(summarise(torch.cat([compressed, components], dim=1)), covariances, duration)

    def evidence(self, summaries: Summary, actions: Tensor | None) -> Evidence:
        """Standardise what is known of routines, and look for routines like them; arguments as `forward`."""
        standard = (summaries.statistics - self.mean) / self.spread
        statistics, components = (part.flatten(1) for part in standard.split(self.widths, 2))
        covariances = (summaries.covariances - self.covariance_mean) / self.covariance_spread
        duration = ((summaries.duration - self.duration_mean) / self.duration_spread).clamp(-3, 3)
        likeness = self.likeness(statistics, duration, actions)
        return Evidence(statistics, components, covariances, likeness, duration)

    def forward(self, evidence: Evidence, actions: Tensor | None) -> Tensor:
        """Fuse routines.

        Args:
            evidence: of B routines.
            actions: share of each action in each routine (B, A), where the network knows actions.

        Returns:
            The readings (B, 4, H).
        """
        *parts, duration = evidence
        readings = [read(part) + self.duration(duration) for read, part in zip(self.read, parts, strict=True)]
        if self.action is not None:
            readings = [reading + self.action(actions) for reading in readings]
        readings = [normalise(reading) for normalise, reading in zip(self.normalise, readings, strict=True)]
        return self.dropout(F.gelu(torch.stack(readings, dim=1)))
