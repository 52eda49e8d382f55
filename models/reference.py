"""The public CoFInAl network, to run heads that others trained with the public code. Inference only.

Written from the paper (IJCAI 2024, arXiv 2404.13999) and from the names and sizes in the files. It keeps the
public network's ways (no positions, values of grades instead of edges, fine classes without order), because they are
what such a file's weights mean; `models.cofinal` is the head to train. Modules bear the files' names.

Shape legend: B batch, T clips, C feature, H hidden, D model width, G grades, E fine feature, K sub-grades.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHT_TYPES = (0, 1, 2, 3)
"""The tables of grade values that the public code knows, by the number of its `activate_regular_restrictions`."""
FULL_SCORE = 25.0
"""Points of the score 1: the public code divides the scores of every dataset by 25."""


@dataclass(frozen=True)
class ReferenceConfig:
    """Sizes of a public head, all of them read from its file, and what the file does not hold."""

    feature_dim: int
    """Width C of the clip features."""
    hidden: int
    """Width H between the two convolutions."""
    width: int
    """Model width D."""
    feedforward: int
    """Width of the transformer's feed-forward layers."""
    num_encoder_layers: int
    num_decoder_layers: int
    num_grades: int
    """G, the prototypes."""
    fine_hidden: int
    """Width between the two layers of the fine branch."""
    fine_dim: int
    """Dimension E of the fine feature."""
    num_subgrades: int
    """K, the columns of the simplex ETF."""
    weight_type: int
    """One of `WEIGHT_TYPES`: it is not in the file."""

    def __post_init__(self) -> None:
        if self.weight_type not in WEIGHT_TYPES:
            raise ValueError(f"unknown weight type {self.weight_type}; the public code knows 0, 1, 2 and 3")
        if self.weight_type in (2, 3) and self.num_grades != 4:
            raise ValueError(f"weight type {self.weight_type} is for 4 grades, this head has {self.num_grades}")


class ReferenceOutput(NamedTuple):
    """What a public head says of a batch of routines; scores in units of `FULL_SCORE`."""

    score: Tensor
    """(B,): (coarse + 1 - coarse_reverse) / 2, and 1/10000 for each fine class from 0."""
    coarse: Tensor
    """Coarse score (B,): the grades' values, weighed by their responses."""
    coarse_reverse: Tensor
    """The same (B,) with the reversed values and responses of their own."""
    weights: Tensor
    """What each grade weighs in the score (B, G), summing to 1: the mean of its two normalised responses."""
    fine: Tensor
    """Fine feature (B, E), of unit length."""
    subgrade: Tensor
    """Fine class (B,), from 0."""
    grades: Tensor
    """Grade embeddings (B, G, D)."""


class ReferenceCoFInAl(nn.Module):
    """The public network: project, encode (TFM), query by prototypes (GPM), score coarsely and finely (FGS)."""

    etf_vec1: Tensor
    values: Tensor
    values_reverse: Tensor

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.in_proj = nn.Sequential(
            nn.Conv1d(config.feature_dim, config.hidden, 1),
            nn.BatchNorm1d(config.hidden),
            nn.ReLU(),
            nn.Conv1d(config.hidden, width, 1),
            nn.BatchNorm1d(width),
        )
        encoder = nn.TransformerEncoderLayer(width, 1, config.feedforward, batch_first=True)
        self.transformer = nn.Transformer(
            width,
            1,
            num_decoder_layers=config.num_decoder_layers,
            dim_feedforward=config.feedforward,
            batch_first=True,
            custom_encoder=nn.TransformerEncoder(
                encoder, config.num_encoder_layers, nn.LayerNorm(width), enable_nested_tensor=False
            ),
        )
        self.prototype = nn.Embedding(config.num_grades, width)
        self.regressor = nn.Linear(width, config.num_grades)
        self.regressor_revert = nn.Linear(width, config.num_grades)
        self.regi = nn.ModuleList([nn.MultiheadAttention(width, 1)])
        fine = nn.Sequential(
            nn.Flatten(),
            nn.Linear(config.num_grades * width, config.fine_hidden),
            nn.Linear(config.fine_hidden, config.fine_dim),
        )
        self.regressori = nn.ModuleList([fine])
        self.register_buffer("etf_vec1", torch.zeros(config.fine_dim, config.num_subgrades))  # (E, K)
        values, reverse = grade_values(config.weight_type, config.num_grades)
        self.register_buffer("values", values, persistent=False)  # (G,)
        self.register_buffer("values_reverse", reverse, persistent=False)  # (G,)

    def forward(self, features: Tensor) -> ReferenceOutput:
        """Score routines of equally many clips, each as the public code scores it in a batch of one.

        Args:
            features: clip features (B, T, C), without padding.
        """
        clips = self.in_proj(features.transpose(1, 2)).transpose(1, 2)  # (B, T, D)
        grades = self.transformer(clips, self.prototype.weight.expand(len(clips), -1, -1))  # (B, G, D)
        responses = _normalised(self.regressor(grades))  # (B, G)
        responses_reverse = _normalised(self.regressor_revert(grades))  # (B, G)
        coarse, coarse_reverse = responses @ self.values, responses_reverse @ self.values_reverse  # (B,)
        # The public attention runs over the batch; over a batch of one it is the linear map of a single key.
        single = grades.flatten(0, 1)[None]  # (1, B*G, D): one key, B*G routines and grades side by side
        attended = self.regi[0](single, single, single, need_weights=False)[0].view_as(grades)
        fine = F.normalize(self.regressori[0](attended), dim=-1)  # (B, E)
        subgrade = (fine @ self.etf_vec1).argmax(-1)  # (B,)
        score = (coarse + 1 - coarse_reverse) / 2 + subgrade / 10_000
        weights = (responses + responses_reverse) / 2
        return ReferenceOutput(score, coarse, coarse_reverse, weights, fine, subgrade, grades)


def grade_values(weight_type: int, num_grades: int) -> tuple[Tensor, Tensor]:
    """Values (G,) of the grades, lowest grade first, and the values that the reverse responses weigh.

    In all tables the first grow with the grade and the second fall, so both responses to a grade mean the same grade.
    """
    if weight_type == 2:
        return torch.tensor([0.1, 0.2, 0.8, 1.0]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    if weight_type == 3:
        values = torch.tensor([-1.0, -0.8, 0.8, 1.0])
    else:
        values = torch.linspace(0, 1, num_grades) if weight_type == 0 else torch.arange(1, num_grades + 1) / num_grades
    return values, values.flip(0)


def sizes(tensors: Mapping[str, Tensor], weight_type: int) -> ReferenceConfig:
    """Read the sizes off a file's tensors.

    Raises:
        KeyError: a tensor is missing.
        IndexError: a tensor has too few axes.
        ValueError: the weight type is unknown or does not fit the number of grades.
    """
    project, prototype, fine = (
        tensors[f"{name}.weight"].shape for name in ("in_proj.0", "prototype", "regressori.0.2")
    )
    return ReferenceConfig(
        feature_dim=project[1],
        hidden=project[0],
        width=prototype[1],
        feedforward=tensors["transformer.encoder.layers.0.linear1.weight"].shape[0],
        num_encoder_layers=_layers(tensors, "encoder"),
        num_decoder_layers=_layers(tensors, "decoder"),
        num_grades=prototype[0],
        fine_hidden=fine[1],
        fine_dim=fine[0],
        num_subgrades=tensors["etf_vec1"].shape[1],
        weight_type=weight_type,
    )


def _layers(tensors: Mapping[str, Tensor], part: str) -> int:
    prefix = f"transformer.{part}.layers."
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})


def _normalised(responses: Tensor) -> Tensor:
    """Each grade's response (B, G) to its own embedding, from those of all to all (B, G, G); they sum to 1."""
    own = responses.diagonal(dim1=-2, dim2=-1).sigmoid()
    return own / own.sum(-1, keepdim=True)
