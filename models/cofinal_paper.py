"""The paper's CoFInAl made trainable: "Coarse-to-Fine Instruction Alignment" (IJCAI 2024, arXiv 2404.13999).

    TFM, GPM   `models.transformer`: clips attend to each other, grade prototypes query them
    coarse     each grade's response, normalised, weighs the grade's value; a second branch has the values reversed
    FGS        attention among grade embeddings, then a feature that is matched with a simplex ETF of 100 columns
    coupling   score = coarse score + fine class / 10,000, in units of the range

It follows the public code's sizes, losses and training recipe. Corrected, because they are bugs there:

- padding takes part neither in attention nor in batch statistics, and the last window can be cropped
- attention in FGS runs over a routine's grades, not over the routines of a batch
- value tables and ETF are in the state dict, and the ETF is the same for every seed
- scores are cut into digits without float truncation, and a score of 1 is the last class
- scores are scaled by the range of their target, not by 25 for every dataset

New: several targets share the encoder and decoder (the public code trains one network a target), and the verdict is
read off the score, as for all heads. For that the range is cut into equal grades of equal sub-grades.

Shape legend: B batch, T clips, C feature, D model width, M targets, G grades, K fine classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .head import Output, mean_over_known
from .simplex import simplex_etf
from .transformer import TrainingSet, TransformerConfig, TransformerHead, TransformerRecipe, triplet_loss

NUM_CLASSES = 100
"""K, the columns of the ETF: a fine class is the third and fourth digit of a score in units of the range."""


@dataclass(frozen=True, kw_only=True)
class PaperConfig(TransformerConfig):
    """What is needed to build the network; JSON-able with `dataclasses.asdict`."""

    num_subgrades: int = 25
    """Sub-grades of each grade in the verdict; they have no part in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_subgrades < 1:
            raise ValueError(f"the paper's head needs at least 1 sub-grade, not {self.num_subgrades}")

    def build(self) -> "PaperCoFInAl":
        """Build the untrained network."""
        return PaperCoFInAl(self)


def split_digits(shares: Tensor) -> tuple[Tensor, Tensor]:
    """Decouple scores in units of the range into the coarse score, two digits, and the fine class, the next two.

    Returns:
        Coarse scores in steps of .01, and fine classes 0 to 99.
    """
    # rounded to six digits first: .29 * 10000 is 2899.9999 in floats
    digits = (shares.double() * 1e6).round().div(100).floor().clamp(0, NUM_CLASSES**2 - 1).long()
    return (digits // NUM_CLASSES).float() / NUM_CLASSES, digits % NUM_CLASSES


class PaperCoFInAl(TransformerHead):
    """The network."""

    config: PaperConfig
    etf: Tensor
    values: Tensor

    def __init__(self, config: PaperConfig) -> None:
        super().__init__(config)
        targets, grades, width = len(config.targets), config.num_grades, config.width
        bound = width**-0.5
        self.response = nn.Parameter(torch.empty(2, targets, grades, width).uniform_(-bound, bound))
        self.response_bias = nn.Parameter(torch.zeros(2, targets, grades))
        self.among_grades = nn.MultiheadAttention(width, 4, batch_first=True)
        self.fine = nn.Sequential(nn.Linear(grades * width, width), nn.Linear(width, NUM_CLASSES))
        self.register_buffer("values", torch.linspace(0, 1, grades) if grades > 1 else torch.full((1,), 0.5))
        self.register_buffer("etf", simplex_etf(NUM_CLASSES, NUM_CLASSES))
        shares = torch.linspace(0, 1, grades * config.num_subgrades + 1)
        self.register_buffer("cells", self.low[:, None] + self.span[:, None] * shares)

    def losses(
        self, training: TrainingSet, rows: np.ndarray, recipe: TransformerRecipe, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Coarse and reversed coarse score, fine feature, and prototypes; see `HeadNetwork.losses`."""
        clips, is_clip, shares, actions = training.batch(rows, recipe.window, rng)
        is_known = ~shares.isnan()
        coarse, fine_class = split_digits(shares.nan_to_num())
        embeddings, weights, fine, _ = self.parse(clips, is_clip, actions)
        forwards, backwards = self.coarse_scores(weights)
        losses = {
            "coarse": mean_over_known((forwards - coarse).square(), is_known),
            "reversed": mean_over_known((backwards - (1 - coarse)).square(), is_known),
            "fine": mean_over_known((fine - self.etf.T[fine_class]).abs().mean(-1), is_known),
            "prototypes": triplet_loss(embeddings, margin=recipe.margin),
        }
        total = losses["coarse"] + losses["reversed"] + losses["fine"] + recipe.triplet_weight * losses["prototypes"]
        return losses | {"total": total}

    def parse(self, clips: Tensor, is_clip: Tensor, actions: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return embeddings (B, M, G, D), weights of both branches (2, B, M, G), fine features (B, M, K), attention."""
        embeddings, attention = self.transformer(clips, is_clip, actions)
        response = torch.einsum("bmgd,smgd->sbmg", embeddings, self.response) + self.response_bias[:, None]
        weights = response.sigmoid()
        weights = weights / weights.sum(-1, keepdim=True)
        by_routine = embeddings.flatten(0, 1)  # (B M, G, D): grades of one routine and target attend to each other
        mixed, _ = self.among_grades(by_routine, by_routine, by_routine, need_weights=False)
        fine = normalize(self.fine(mixed.flatten(1)), dim=-1).unflatten(0, embeddings.shape[:2])
        return embeddings, weights, fine, attention

    def coarse_scores(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse score and the reversed one (B, M) of the weights (2, B, M, G)."""
        return weights[0] @ self.values, weights[1] @ self.values.flip(0)

    def forward(self, clips: Tensor, actions: Tensor | None = None) -> Output:
        """Score routines of the same length; see `HeadNetwork.forward`."""
        is_clip = torch.ones(clips.shape[:2], dtype=torch.bool, device=clips.device)
        _, weights, fine, attention = self.parse(clips, is_clip, actions)
        forwards, backwards = self.coarse_scores(weights)
        fine_class = (fine @ self.etf).argmax(-1)  # of each routine and target, not of the whole batch
        share = (forwards + 1 - backwards) / 2 + fine_class / NUM_CLASSES**2
        return Output(self.low + self.span * share.clamp(0, 1), weights.mean(0), attention)
