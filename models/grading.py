"""What the heads share: clip features of a routine -> an embedding and a response of each grade of each target.

Standardise, fuse (TFM), parse grades (GPM). `models.cofinal` and `models.gdlt` make scores of it, each in its own way.
One network serves all targets (say TES and PCS) and all actions (say the four apparatus) of a dataset: each target has
grade prototypes and responses of its own, everything else is shared.

Shape legend: B batch, T clips, C feature, P standardised feature, D model width, M targets, G grades, K sub-grades.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.grade_parsing import GradeParsing
from models.temporal_fusion import TemporalFusion


@dataclass(frozen=True)
class GradingConfig:
    """What is needed to build a network; JSON-able with `dataclasses.asdict`."""

    feature_dim: int
    """Width C of the clip features."""
    targets: tuple[str, ...]
    """Names of the scores to predict."""
    ranges: tuple[tuple[float, float], ...]
    """Lowest and highest possible score of each target in points."""
    num_actions: int = 0
    """Number of actions (apparatus) the network is told apart by; 0: the dataset has no such notion."""
    num_components: int = 256
    """Principal components P of the clip features the network sees; at most `feature_dim` are kept."""
    width: int = 64
    """Model width D, even and divisible by `num_heads`."""
    num_heads: int = 4
    """Attention heads."""
    num_fusion_layers: int = 1
    """Layers of the Temporal Fusion Module."""
    num_parsing_layers: int = 1
    """Layers of each Grade Parsing Module."""
    num_grades: int = 4
    """Coarse grades G of each target."""
    dropout: float = 0.3
    """Inside attention and feed-forward layers."""
    feature_dropout: float = 0.3
    """On the clip features."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "ranges", tuple((float(low), float(high)) for low, high in self.ranges))
        if not self.targets or len(self.targets) != len(self.ranges) or len(set(self.targets)) != len(self.targets):
            raise ValueError(f"a head needs distinct targets with one range each, not {self.targets}, {self.ranges}")
        for target, (low, high) in zip(self.targets, self.ranges, strict=True):
            if not low < high:
                raise ValueError(f"the score range of {target!r} must grow, not run from {low} to {high}")
        if self.num_grades < 1:
            raise ValueError("a head needs at least 1 grade")
        if self.width % 2 or self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be even and divisible by {self.num_heads} heads")


class Output(NamedTuple):
    """What a network says of a batch of routines; targets in the order of the configuration."""

    score: Tensor
    """Scores (B, M) in points."""
    grade_logits: Tensor
    """(B, M, G), lowest grade first; their softmax is what the grades weigh in the score."""
    subgrade_logits: Tensor | None
    """(B, M, G, K), lowest sub-grade of each grade first; None where a head has no fine grades."""
    embeddings: Tensor
    """Grade embeddings (B, M, G, D)."""
    attention: Tensor
    """Each grade's attention over the clips (B, M, G, T)."""


class GradingNetwork(nn.Module):
    """Standardise, fuse (TFM) and parse grades (GPM); what becomes of the grades is a subclass's `conclude`.

    Buffers hold all that is fitted but not learnt, so the state dict is the whole head: the standardisation of the
    features, and the grade edges (M, G+1) and score scales (M,) in points.
    """

    feature_mean: Tensor
    feature_basis: Tensor
    edges: Tensor
    scale: Tensor

    def __init__(self, config: GradingConfig) -> None:
        super().__init__()
        self.config = config
        components = min(config.num_components, config.feature_dim)
        self.register_buffer("feature_mean", torch.zeros(config.feature_dim))
        self.register_buffer("feature_basis", torch.eye(config.feature_dim, components))  # (C, P)
        low, high = torch.tensor(config.ranges).unbind(1)
        share = torch.linspace(0, 1, config.num_grades + 1)
        self.register_buffer("edges", low[:, None] + (high - low)[:, None] * share)
        self.register_buffer("scale", (high - low) / 4)
        self.fusion = TemporalFusion(
            components,
            config.width,
            num_layers=config.num_fusion_layers,
            num_heads=config.num_heads,
            dropout=config.dropout,
            feature_dropout=config.feature_dropout,
        )
        self.action = nn.Embedding(config.num_actions, config.width) if config.num_actions else None
        self.parsing = GradeParsing(
            config.width,
            len(config.targets),
            config.num_grades,
            num_layers=config.num_parsing_layers,
            num_heads=config.num_heads,
            dropout=config.dropout,
        )

    def forward(self, features: Tensor, mask: Tensor, actions: Tensor | None = None) -> Output:
        """Grade and score routines.

        Args:
            features: clip features (B, T, C), padded at the end; any number of clips from 1.
            mask: (B, T) bool, True where a clip is real.
            actions: (B,) indices of the routines' actions; needed exactly when the network knows actions.

        Returns:
            `Output`; a routine's share of it depends on nothing else in the batch.
        """
        return self.forward_standardised(self.standardise(features), mask, actions)

    def standardise(self, features: Tensor) -> Tensor:
        """Principal components (..., P) of clip features (..., C), as fitted on the training part."""
        return (features.float() - self.feature_mean) @ self.feature_basis

    def forward_standardised(self, features: Tensor, mask: Tensor, actions: Tensor | None = None) -> Output:
        """As `forward`, from features that `standardise` has already prepared (training does so once)."""
        clips = self.fusion(features, mask)  # (B, T, D)
        if self.action is not None:
            if actions is None:
                raise ValueError("this head was trained on several actions: say which one each routine shows")
            clips = clips + self.action(actions)[:, None]
        return self.conclude(*self.parsing(clips, mask))

    def conclude(self, embeddings: Tensor, responses: Tensor, attention: Tensor) -> Output:
        """Make scores of grade embeddings (B, M, G, D), grade responses (B, M, G) and attention (B, M, G, T)."""
        raise NotImplementedError

    def cut_grades(self, target: int, scores: np.ndarray) -> None:
        """Fit the edges of a target's grades to its known training scores (N,) in points."""
        raise NotImplementedError
