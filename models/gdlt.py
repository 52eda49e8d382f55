"""GDLT, the paper's baseline: "Likert Scoring with Grade Decoupling for Long-term Action Assessment" (CVPR 2022).

The encoder and decoder are those of the paper's CoFInAl (`models.transformer`, which lists what is corrected). Fixed
grade values are spread evenly over the range, and the score is their mean, weighed by the grades' normalised responses.
There are no fine grades, and two losses: squared error of the score, and the prototypes' triplet loss.

Shape legend: B batch, T clips, C feature, D model width, M targets, G grades.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .head import Output, mean_over_known
from .transformer import TrainingSet, TransformerConfig, TransformerHead, TransformerRecipe, triplet_loss


@dataclass(frozen=True, kw_only=True)
class GDLTConfig(TransformerConfig):
    """What is needed to build the network; JSON-able with `dataclasses.asdict`."""

    num_subgrades: int = 0
    """GDLT has no fine grades."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_grades < 2 or self.num_subgrades:
            raise ValueError(
                f"GDLT needs at least 2 grades and no sub-grades, not {self.num_grades}, {self.num_subgrades}"
            )

    def build(self) -> "GDLT":
        """Build the untrained network."""
        return GDLT(self)


class GDLT(TransformerHead):
    """The network."""

    config: GDLTConfig
    values: Tensor

    def __init__(self, config: GDLTConfig) -> None:
        super().__init__(config)
        targets, grades, width = len(config.targets), config.num_grades, config.width
        bound = width**-0.5
        self.response = nn.Parameter(torch.empty(targets, grades, width).uniform_(-bound, bound))
        self.response_bias = nn.Parameter(torch.zeros(targets, grades))
        self.register_buffer("values", torch.linspace(0, 1, grades))
        # a grade spans the scores that are closer to its value than to another's
        shares = torch.cat([self.values[:1], (self.values[1:] + self.values[:-1]) / 2, self.values[-1:]])
        self.register_buffer("cells", self.low[:, None] + self.span[:, None] * shares)

    def losses(
        self, training: TrainingSet, rows: np.ndarray, recipe: TransformerRecipe, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Squared error of the score, and prototypes; see `HeadNetwork.losses`."""
        clips, is_clip, shares, actions = training.batch(rows, recipe.window, rng)
        embeddings, _ = self.transformer(clips, is_clip, actions)
        error = (self.weights_of(embeddings) @ self.values - shares.nan_to_num()).square()
        losses = {
            "final": mean_over_known(error, ~shares.isnan()),
            "prototypes": triplet_loss(embeddings, margin=recipe.margin),
        }
        return losses | {"total": losses["final"] + recipe.triplet_weight * losses["prototypes"]}

    def weights_of(self, embeddings: Tensor) -> Tensor:
        """Return the weight of each grade in the score (B, M, G) from the embeddings (B, M, G, D)."""
        weights = ((embeddings * self.response).sum(-1) + self.response_bias).sigmoid()
        return weights / weights.sum(-1, keepdim=True)

    def forward(self, clips: Tensor, actions: Tensor | None = None) -> Output:
        """Score routines of the same length; see `HeadNetwork.forward`."""
        is_clip = torch.ones(clips.shape[:2], dtype=torch.bool, device=clips.device)
        embeddings, attention = self.transformer(clips, is_clip, actions)
        weights = self.weights_of(embeddings)
        return Output(self.low + self.span * (weights @ self.values), weights, attention)
