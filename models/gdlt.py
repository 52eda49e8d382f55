"""GDLT, the paper's baseline: "Likert Scoring with Grade Decoupling for Long-term Action Assessment" (CVPR 2022).

The encoder and decoder are those of the paper's CoFInAl (`models.transformer`, which lists what is corrected). Fixed
grade values are spread evenly over the range, and the score is their mean, weighed by the grades' normalised responses.
There are no fine grades, and two losses: squared error of the score, and the prototypes' triplet loss.

Shape legend: B batch, T clips, C feature, D model width, M targets, G grades.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .cofinal_paper import PaperRecipe, TrainingSet
from .head import HeadConfig, HeadNetwork, Output, mean_over_known
from .transformer import GradeTransformer, check_sizes, crop_and_pad, triplet_loss


@dataclass(frozen=True, kw_only=True)
class GDLTConfig(HeadConfig):
    """What is needed to build the network; JSON-able with `dataclasses.asdict`."""

    num_subgrades: int = 0
    """GDLT has no fine grades."""
    width: int = 256
    """Model width D."""
    decoder_layers: int = 2
    """Layers of the decoder."""
    dropout: float = 0.3
    """In encoder and decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self.width, self.decoder_layers)
        if self.num_grades < 2 or self.num_subgrades:
            raise ValueError(
                f"GDLT needs at least 2 grades and no sub-grades, not {self.num_grades}, {self.num_subgrades}"
            )

    def build(self) -> "GDLT":
        """Build the untrained network."""
        return GDLT(self)


@dataclass(frozen=True, kw_only=True)
class GDLTRecipe(PaperRecipe):
    """The training of the public code, as for the paper's CoFInAl."""


class GDLT(HeadNetwork):
    """The network."""

    config: GDLTConfig
    values: Tensor
    low: Tensor
    span: Tensor

    def __init__(self, config: GDLTConfig) -> None:
        super().__init__()
        self.config = config
        targets, grades, width = len(config.targets), config.num_grades, config.width
        self.transformer = GradeTransformer(
            config.feature_dim,
            targets,
            grades,
            config.num_actions,
            width=width,
            decoder_layers=config.decoder_layers,
            dropout=config.dropout,
        )
        bound = width**-0.5
        self.response = nn.Parameter(torch.empty(targets, grades, width).uniform_(-bound, bound))
        self.response_bias = nn.Parameter(torch.zeros(targets, grades))
        low, high = torch.tensor(config.ranges).unbind(1)
        self.register_buffer("low", low)
        self.register_buffer("span", high - low)
        self.register_buffer("values", torch.linspace(0, 1, grades))
        # a grade spans the scores that are closer to its value than to another's
        shares = torch.cat([self.values[:1], (self.values[1:] + self.values[:-1]) / 2, self.values[-1:]])
        self.register_buffer("cells", low[:, None] + (high - low)[:, None] * shares)

    def fit_statistics(self, features: Sequence[Tensor], scores: np.ndarray, actions: Tensor | None) -> TrainingSet:
        """Put the training set on the device; there is nothing to fit. See `HeadNetwork.fit_statistics`."""
        truth = torch.from_numpy(scores).float().to(self.low)
        return TrainingSet(list(features), (truth - self.low) / self.span, actions)

    def losses(
        self, training: TrainingSet, rows: np.ndarray, recipe: GDLTRecipe, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Squared error of the score, and prototypes; see `HeadNetwork.losses`."""
        clips, is_clip = crop_and_pad(training.features, rows, recipe.window, rng)
        shares = training.shares[rows]
        actions = None if training.actions is None else training.actions[rows]
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
