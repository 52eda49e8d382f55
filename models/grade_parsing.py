"""Grade Parsing Module (CoFInAl, section 3.3): which coarse grade is this routine?

Each target has G learnable prototypes, one a grade, which query the fused clips by cross-attention. Each gathers from
the whole routine what speaks for its grade; its response against the others' is the grade's probability.

Shape legend: B batch, T clips, D model width, M targets, G grades.
"""

import torch
from torch import Tensor, nn


class GradeParsing(nn.Module):
    """Grade prototypes that read the clips: one embedding and one response a grade."""

    def __init__(
        self, width: int, num_targets: int, num_grades: int, *, num_layers: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(num_targets, num_grades, width) * width**-0.5)
        self.layers = nn.ModuleList(ParsingLayer(width, num_heads, dropout) for _ in range(num_layers))
        self.normalise = nn.LayerNorm(width)
        self.response = nn.Parameter(torch.zeros(num_targets, num_grades, width))
        self.response_bias = nn.Parameter(torch.zeros(num_targets, num_grades))

    def forward(self, clips: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Parse routines into grades.

        Args:
            clips: fused clips (B, T, D).
            mask: (B, T) bool, True where a clip is real.

        Returns:
            Grade embeddings (B, M, G, D), grade logits (B, M, G), and each grade's attention over the clips
            (B, M, G, T) in the last layer, which sums to 1 over the real clips.
        """
        shape = self.prototypes.shape[:2]
        grades = self.prototypes.flatten(0, 1).expand(len(clips), -1, -1)  # (B, M*G, D)
        for layer in self.layers:
            grades, attention = layer(grades, clips, mask)
        embeddings = self.normalise(grades).unflatten(1, shape)  # (B, M, G, D)
        logits = (embeddings * self.response).sum(-1) + self.response_bias  # (B, M, G)
        return embeddings, logits, attention.unflatten(1, shape)


class ParsingLayer(nn.Module):
    """A pre-norm transformer decoder layer without self-attention: grades read the clips, then a feed-forward step."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.normalise_clips = nn.LayerNorm(width)
        self.normalise_grades = nn.LayerNorm(width)
        self.read = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, grades: Tensor, clips: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        clips = self.normalise_clips(clips)
        read, attention = self.read(self.normalise_grades(grades), clips, clips, key_padding_mask=~mask)
        grades = grades + self.dropout(read)  # (B, M*G, D)
        return grades + self.dropout(self.think(grades)), attention  # (B, M*G, D), (B, M*G, T)
