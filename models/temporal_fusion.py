"""Temporal Fusion Module (CoFInAl, section 3.2): the clips of a routine -> what it shows as a whole, and when.

The paper lets clips attend to each other. A few hundred judged routines do not teach attention what matters
(docs/accuracy.md has the comparison), so the clips are fused by statistics over time, and the network learns to read
these: level, spread, extremes and change over the routine, and the level of each quarter, which tells what came when.
Each routine is summed up by itself: no padding, no other routine of a batch can change a result.

Shape legend: B batch, T clips, C feature, P principal component, S statistics, H fused width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_QUARTERS = 4
NUM_STATISTICS = 5 + NUM_QUARTERS


def summarise(clips: Tensor) -> Tensor:
    """Sum up a routine.

    Args:
        clips: (T, C), any number of clips from 1.

    Returns:
        (S, C): mean, standard deviation, 10th and 90th percentile, mean absolute difference from clip to clip, and the
        mean of each quarter (of the nearest clips, where there are fewer than quarters).
    """
    deciles = torch.quantile(clips, clips.new_tensor([0.1, 0.9]), dim=0)  # (2, C)
    change = clips.diff(dim=0).abs().sum(0) / max(len(clips) - 1, 1)
    bounds = [(q * len(clips) // NUM_QUARTERS, -(-(q + 1) * len(clips) // NUM_QUARTERS)) for q in range(NUM_QUARTERS)]
    quarters = [clips[start:end].mean(0) for start, end in bounds]
    return torch.stack([clips.mean(0), clips.std(0, correction=0), *deciles, change, *quarters])


class TemporalFusion(nn.Module):
    """Read the statistics of a routine all at once, in two ways.

    One reading is of the features as they are, where the strong directions speak; the other of their principal
    components, partly whitened, where the weak ones are heard, too. Each has judges of its own.
    """

    feature_mean: Tensor
    feature_basis: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_components: int,
        width: int,
        *,
        num_actions: int,
        dropout: float,
        feature_dropout: float,
    ) -> None:
        super().__init__()
        self.widths = (feature_dim, num_components)
        self.feature_dropout = feature_dropout
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_basis", torch.eye(feature_dim, num_components))  # (C, P)
        self.register_buffer("mean", torch.zeros(NUM_STATISTICS, sum(self.widths)))
        self.register_buffer("spread", torch.ones(NUM_STATISTICS, sum(self.widths)))
        self.read = nn.ModuleList(nn.Linear(NUM_STATISTICS * channels, width) for channels in self.widths)
        self.normalise = nn.ModuleList(nn.LayerNorm(width) for _ in self.widths)
        self.action = nn.Linear(num_actions, width, bias=False) if num_actions else None
        self.dropout = nn.Dropout(dropout)

    def summarise(self, clips: Tensor) -> Tensor:
        """Statistics (S, C+P) of a routine's clip features (T, C) and of their principal components."""
        clips = clips.float()
        return summarise(torch.cat([clips, (clips - self.feature_mean) @ self.feature_basis], dim=1))

    def forward(self, summaries: Tensor, actions: Tensor | None) -> Tensor:
        """Fuse routines.

        Args:
            summaries: (B, S, C+P) of `summarise`.
            actions: share of each action in each routine (B, A), where the network knows actions.

        Returns:
            Both readings (B, 2, H).
        """
        x = F.dropout((summaries - self.mean) / self.spread, self.feature_dropout, self.training)
        readings = [read(part.flatten(1)) for read, part in zip(self.read, x.split(self.widths, 2), strict=True)]
        if self.action is not None:
            readings = [reading + self.action(actions) for reading in readings]
        readings = [normalise(reading) for normalise, reading in zip(self.normalise, readings, strict=True)]
        return self.dropout(F.gelu(torch.stack(readings, dim=1)))
