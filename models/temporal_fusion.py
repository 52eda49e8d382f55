"""Temporal Fusion Module (CoFInAl, section 3.2): clips attend to each other.

A clip feature says little alone; fused with the other clips and its place in the routine it says what happened when.
Three things differ from the public code: every clip knows its position, padding is masked, and all normalisation
is per clip (LayerNorm), so neither padding nor the other routines of a batch can change a result.

Shape legend: B batch, T clips, C feature, D model width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TemporalFusion(nn.Module):
    """Project clip features to the model width, tell each its position, and let them attend to each other."""

    def __init__(
        self,
        feature_dim: int,
        width: int,
        *,
        num_layers: int,
        num_heads: int,
        dropout: float,
        feature_dropout: float,
    ) -> None:
        super().__init__()
        self.feature_dropout = ChannelDropout(feature_dropout)
        self.project = nn.Linear(feature_dim, width)
        self.normalise = nn.LayerNorm(width)
        self.position_scale = nn.Parameter(torch.full((width,), 0.1))
        self.layers = nn.ModuleList(FusionLayer(width, num_heads, dropout) for _ in range(num_layers))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Fuse the clips of each routine.

        Args:
            features: standardised clip features (B, T, C).
            mask: (B, T) bool, True where a clip is real, False where it is padding.

        Returns:
            Fused clips (B, T, D). Rows of padding hold arbitrary finite values.
        """
        x = self.normalise(self.project(self.feature_dropout(features)))  # (B, T, D)
        x = x + self.position_scale * relative_positions(mask, x.shape[-1])
        for layer in self.layers:
            x = layer(x, mask)
        return x


class FusionLayer(nn.Module):
    """A pre-norm transformer encoder layer: clips attend to the real clips, then a feed-forward step each."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.normalise(x)
        x = x + self.dropout(self.attend(y, y, y, key_padding_mask=~mask, need_weights=False)[0])  # (B, T, D)
        return x + self.dropout(self.think(x))


class ChannelDropout(nn.Module):
    """Dropout of whole channels: a routine loses the same ones in all its clips, so none can stand in for another."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[-1]), self.rate)  # (B, T, D) * (B, 1, D)


def relative_positions(mask: Tensor, width: int) -> Tensor:
    """Sinusoids of each clip's place in its own routine: 0 at the start, 1 at the end, whatever the length.

    Args:
        mask: (B, T) bool, True where a clip is real.
        width: number of channels D, even.

    Returns:
        (B, T, D), with periods from two routines down to 1/16 of one.
    """
    place = (mask.cumsum(1) - 0.5) / mask.sum(1, keepdim=True)  # (B, T)
    frequencies = math.pi * torch.logspace(0, 5, width // 2, base=2, device=mask.device)  # (D/2,)
    angles = place.unsqueeze(-1) * frequencies  # (B, T, D/2)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
