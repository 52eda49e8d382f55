"""The encoder and decoder that GDLT and the paper's CoFInAl share: clip features -> an embedding of each grade.

Temporal fusion (TFM): clips are projected and attend to each other. Grade parsing (GPM): learnable grade prototypes
query the clips. As in the public code there are no positions, one encoder layer, one attention head, and dropout .3.

Corrected here: padding takes part neither in attention nor in the statistics of batch normalisation; a crop can be the
last window of a routine. New here: prototypes of several targets share one encoder and decoder, and prototypes of
different targets do not attend to each other; an action's embedding is added to the prototypes.

Shape legend: B batch, T clips, C feature, D model width, M targets, G grades.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .head import HeadConfig, HeadNetwork, Recipe, pad


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(HeadConfig):
    """What both heads need to build their network beside what every head needs."""

    width: int = 256
    """Model width D."""
    decoder_layers: int = 2
    """Layers of the decoder."""
    dropout: float = 0.3
    """In encoder and decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 4 or self.width % 4:
            raise ValueError(f"the width must be a multiple of 4, not {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {self.dropout}")
        if not 1 <= self.decoder_layers <= 16:
            raise ValueError(f"the decoder has 1 to 16 layers, not {self.decoder_layers}")


@dataclass(frozen=True, kw_only=True)
class TransformerRecipe(Recipe):
    """The public code's training: SGD with a cosine schedule, on random windows."""

    epochs: int = 200
    learning_rate: float = 0.01
    last_learning_rate: float = 1e-4
    """Where the cosine ends."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    window: int = 68
    """Clips of a routine in a batch."""
    triplet_weight: float = 1.0
    """Weight of the prototype loss."""
    margin: float = 1.0
    """Of the prototype loss, in cosine distance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"a window has at least 1 clip, not {self.window}")
        if not (0 <= self.momentum < 1 and min(self.weight_decay, self.triplet_weight) >= 0):
            raise ValueError(
                "momentum must be at least 0 and less than 1, and weight_decay and triplet_weight at least 0"
            )

    def optimizer(
        self, network: nn.Module, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Return SGD and its cosine schedule; see `Recipe.optimizer`."""
        sgd = torch.optim.SGD(
            network.parameters(), self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps, self.last_learning_rate)


class GradeTransformer(nn.Module):
    """Clip features -> grade embeddings, and the attention of prototypes to clips."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, hidden = config.width, max(config.feature_dim // 2, 1)
        self.project = nn.Sequential(
            nn.Linear(config.feature_dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
            nn.BatchNorm1d(width),
        )
        self.encoder = nn.TransformerEncoderLayer(width, 1, 3 * width, config.dropout, batch_first=True)
        self.prototypes = nn.Parameter(torch.randn(len(config.targets), config.num_grades, width))
        self.actions = nn.Parameter(torch.zeros(config.num_actions, width))
        self.decoder = nn.ModuleList(DecoderLayer(width, config.dropout) for _ in range(config.decoder_layers))

    def forward(self, clips: Tensor, is_clip: Tensor, actions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return grade embeddings (B, M, G, D) and attention to clips (B, M, G, T).

        Args:
            clips: (B, T, C), padded at the end.
            is_clip: (B, T), False for padding.
            actions: index of each routine's action (B,).
        """
        projected = clips.new_zeros(*is_clip.shape, self.prototypes.shape[-1])
        projected[is_clip] = self.project(clips[is_clip])  # padding has no part in batch statistics
        fused = self.encoder(projected, src_key_padding_mask=~is_clip)  # (B, T, D)
        grades = self.prototypes.flatten(0, 1).expand(len(clips), -1, -1)  # (B, M G, D)
        if actions is not None:
            grades = grades + self.actions[actions][:, None]
        shape = self.prototypes.shape[:2]  # M, G
        target = torch.arange(shape[0], device=grades.device).repeat_interleave(shape[1])
        foreign = target[:, None] != target  # (M G, M G): prototypes attend to those of their own target only
        for layer in self.decoder:
            grades, attention = layer(grades, fused, ~is_clip, foreign)
        return grades.unflatten(1, shape), attention.unflatten(1, shape)


class DecoderLayer(nn.Module):
    """A transformer decoder layer that also returns its attention to the clips (Vaswani et al. 2017)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.among_grades = nn.MultiheadAttention(width, 1, dropout, batch_first=True)
        self.to_clips = nn.MultiheadAttention(width, 1, dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 3 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(3 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, grades: Tensor, clips: Tensor, is_padding: Tensor, foreign: Tensor) -> tuple[Tensor, Tensor]:
        """Return grades (B, M G, D) and their attention to the clips (B, M G, T)."""
        parsed, _ = self.among_grades(grades, grades, grades, attn_mask=foreign, need_weights=False)
        grades = self.norms[0](grades + self.dropout(parsed))
        parsed, attention = self.to_clips(grades, clips, clips, key_padding_mask=is_padding)
        grades = self.norms[1](grades + self.dropout(parsed))
        return self.norms[2](grades + self.dropout(self.feed_forward(grades))), attention


class TrainingSet(NamedTuple):
    """The training routines, on the network's device."""

    features: list[Tensor]
    """(T, C) a routine."""
    shares: Tensor
    """Scores (N, M) in units of the range, NaN where unknown."""
    actions: Tensor | None
    """(N,)."""

    def batch(
        self, rows: np.ndarray, window: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return clips (B, T, C) of random windows, which are no padding (B, T), scores (B, M) and actions (B,)."""
        clips, is_clip = crop_and_pad(self.features, rows, window, rng)
        return clips, is_clip, self.shares[rows], None if self.actions is None else self.actions[rows]


class TransformerHead(HeadNetwork):
    """The encoder and decoder, and the scale of the scores; what becomes of the grades is a subclass's."""

    low: Tensor
    span: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = GradeTransformer(config)
        low, high = torch.tensor(config.ranges).unbind(1)
        self.register_buffer("low", low)
        self.register_buffer("span", high - low)

    def fit_statistics(self, features: Sequence[Tensor], scores: np.ndarray, actions: Tensor | None) -> TrainingSet:
        """Put the training set on the device; there is nothing to fit. See `HeadNetwork.fit_statistics`."""
        truth = torch.from_numpy(scores).float().to(self.low)
        return TrainingSet(list(features), (truth - self.low) / self.span, actions)


def crop_and_pad(
    features: list[Tensor], rows: np.ndarray, num_clips: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random window of each routine (B, T, C), and which entries are clips (B, T).

    Args:
        features: clip features of all routines (T, C).
        rows: the routines of the batch.
        num_clips: clips in a window; shorter routines are padded with zeros.
        rng: of the windows.
    """
    windows = []
    for row in rows:
        start = int(rng.integers(max(len(features[row]) - num_clips, 0) + 1))  # the last window is possible too
        windows.append(features[row][start : start + num_clips])
    return pad(windows)


def triplet_loss(embeddings: Tensor, *, margin: float) -> Tensor:
    """Batch-hard triplet loss on cosine distance: embeddings of one grade are closer than those of different grades.

    Args:
        embeddings: (B, M, G, D), grade g of every routine in the same place.
        margin: the least difference between the closest embedding of another grade and the farthest of the same one.
    """
    batch, _, grades, _ = embeddings.shape
    unit = nn.functional.normalize(embeddings, dim=-1).transpose(0, 1).flatten(1, 2)  # (M, B G, D)
    distance = 1 - unit @ unit.mT
    grade = torch.arange(grades, device=unit.device).repeat(batch)
    is_same = grade[:, None] == grade
    farthest_same = distance.masked_fill(~is_same, -1).amax(-1)
    closest_other = distance.masked_fill(is_same, 3).amin(-1)
    return (farthest_same - closest_other + margin).relu().mean()
