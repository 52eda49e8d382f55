"""Grade Parsing Module (CoFInAl, section 3.3): which coarse grade is this routine?

Each target has G learnable prototypes, one a grade. Each takes from the fused routine what speaks for its grade; its
response against the others' is the grade's probability. As in a hall, several judges look at the same routine: each has
prototypes and responses of its own. Half of them hold with what was said of routines like this one, and each of the
other readings has as many of the rest.

Shape legend: B batch, H fused width, J judges, M targets, G grades, D model width.
"""

import torch
from torch import Tensor, nn

SHARES = (1, 1, 1, 3)
"""Of the judges, for each reading of the Temporal Fusion Module."""


class GradeParsing(nn.Module):
    """Grade prototypes that read the fused routine: one embedding and one response a judge, target and grade."""

    def __init__(self, fused_width: int, width: int, *, num_judges: int, num_targets: int, num_grades: int) -> None:
        super().__init__()
        shape = (num_judges, num_targets, num_grades, width)
        self.prototypes = nn.Parameter(torch.randn(shape) * width**-0.5)
        share = self.prototypes.numel() // sum(SHARES)
        self.read = nn.ModuleList(nn.Linear(fused_width, share * judges, bias=False) for judges in SHARES)
        self.normalise = nn.LayerNorm(width)
        self.response = nn.Parameter(torch.zeros(shape))
        self.response_bias = nn.Parameter(torch.zeros(shape[:-1]))

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Parse routines into grades.

        Args:
            fused: the readings (B, 4, H) of the Temporal Fusion Module.

        Returns:
            Grade embeddings (B, J, M, G, D) and grade logits (B, J, M, G).
        """
        parts = [read(reading) for read, reading in zip(self.read, fused.unbind(1), strict=True)]
        read = torch.cat(parts, dim=1).unflatten(1, self.prototypes.shape)  # (B, J, M, G, D)
        embeddings = self.normalise(self.prototypes + read)
        return embeddings, (embeddings * self.response).sum(-1) + self.response_bias
