"""CoFInAl, the coarse-to-fine head: clip features of a routine -> coarse grade, fine grade and score of each target.

Full definition of the default head, with everything that it fits, in the order of the paper ("CoFInAl: Enhancing Action
Quality Assessment with Coarse-to-Fine Instruction Alignment", IJCAI 2024, arXiv 2404.13999):

    TFM       a routine becomes tokens: one for each statistic over its clips, or its clips, or both
    GPM       grade prototypes query the tokens by cross-attention; each returns an embedding and a logit of its grade
    FGS       each grade's embedding is matched with K sub-grade prototypes, the columns of a simplex ETF
    coupling  G x K cells on the score axis; the score is the mean of their distribution

It differs from the paper's own head (`models.cofinal_paper`) because a few hundred scored routines must do: tokens are
coordinates in the span of the training routines, several members with prototypes of their own share one network, and
the score is learnt through soft cells instead of digits.

Shape legend: B batch, N training routines, T clips, C feature, S statistics, L tokens of a routine, R coordinates,
J members, M targets, G grades, K sub-grades, D model width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .head import HeadConfig, HeadNetwork, Output, Recipe, mean_over_known, pad
from .kernel_ridge import KernelRidge, mix_targets
from .simplex import simplex_etf

LAGS = 1, 2, 4, 8, 16, 32
"""Distances in clips over which change is measured."""
NUM_QUARTERS = 4
NUM_STATISTICS = 5 + len(LAGS) + NUM_QUARTERS
TOKENS = ("summaries", "clips", "both")
DURATION_SHARE, ACTION_SHARE = 0.03, 0.7
"""Squared distance between two routines whose durations are one standard deviation apart, and between two of different
actions, in mean squared distances between routines."""
MIN_SPAN = 0.2
"""The narrowest cell, as a share of an equal span: quantiles of tied scores would coincide."""


@dataclass(frozen=True, kw_only=True)
class CoFInAlConfig(HeadConfig):
    """What is needed to build the network; JSON-able with `dataclasses.asdict`."""

    tokens: str = "summaries"
    """What prototypes query, one of `TOKENS`: "clips" is the paper's way."""
    num_coordinates: int = 400
    """Coordinates R of a routine, at most one fewer than training routines."""
    width: int = 128
    """Model width D."""
    num_members: int = 6
    """Members J; the head's distribution is the mean of theirs."""
    temperature: float = 0.2
    """Of the sub-grades: cosines are divided by it."""
    dropout: float = 0.3
    """On embeddings."""
    grade_edges: tuple[tuple[float, ...], ...] = ()
    """Where the grades of each target meet, in points, lowest first; of a target without any, and of all if there is
    none, the grades hold equally many training scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "grade_edges", tuple(tuple(map(float, edges)) for edges in self.grade_edges))
        self._check_grade_edges()
        if self.tokens not in TOKENS:
            raise ValueError(f"unknown tokens {self.tokens!r}; known are {', '.join(TOKENS)}")
        if self.num_subgrades < 2:
            raise ValueError(f"a CoFInAl head needs at least 2 sub-grades, not {self.num_subgrades}")
        if min(self.num_coordinates, self.width, self.num_members) < 1 or not self.temperature > 0:
            raise ValueError("num_coordinates, width and num_members must be at least 1, and temperature more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {self.dropout}")

    def _check_grade_edges(self) -> None:
        if self.grade_edges and len(self.grade_edges) != len(self.targets):
            raise ValueError(f"grade edges of {len(self.grade_edges)} targets do not fit {len(self.targets)} targets")
        for target, edges, (low, high) in zip(self.targets, self.grade_edges, self.ranges, strict=False):
            bounds = [low, *edges, high]
            if edges and (len(edges) != self.num_grades - 1 or any(a >= b for a, b in pairwise(bounds))):
                raise ValueError(
                    f"the {self.num_grades} grades of {target!r} need {self.num_grades - 1} edges that ascend between "
                    f"{low:g} and {high:g}, not {', '.join(f'{edge:g}' for edge in edges)}"
                )

    def build(self) -> "CoFInAl":
        """Build the untrained network."""
        return CoFInAl(self)


@dataclass(frozen=True, kw_only=True)
class CoFInAlRecipe(Recipe):
    """Every choice of the training; the defaults were chosen by cross-validation on Fis-V (docs/accuracy.md)."""

    epochs: int = 30
    learning_rate: float = 3e-3
    """Peak rate: linear warm-up over a tenth of the updates, then a half cosine to 0."""
    weight_decay: float = 1.0
    """AdamW's, on weight matrices."""
    mixup: float = 1.0
    """Each routine of a batch is mixed with another, tokens and targets alike, in a share drawn from Beta(mixup, mixup)
    (Zhang et al. 2018); 0 for none. Clips of different routines are not mixed."""
    target_mixing: bool = True
    """Learn scores that borrow from the other targets (`models.kernel_ridge.mix_targets`)."""
    softness: float = 0.5
    """A judge's error in standard deviations of the scores: how far soft targets reach into other cells."""
    coarse_weight: float = 0.5
    fine_weight: float = 0.5
    final_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.softness > 0 and self.mixup >= 0):
            raise ValueError(f"softness {self.softness} must be more than 0, and mixup {self.mixup} at least 0")
        if not min(self.weight_decay, self.coarse_weight, self.fine_weight, self.final_weight) >= 0:
            raise ValueError("weight_decay, coarse_weight, fine_weight and final_weight must be at least 0")

    def optimizer(
        self, network: nn.Module, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """Return AdamW, which decays matrices only, and its schedule; see `Recipe.optimizer`."""
        matrices = [p for name, p in network.named_parameters() if p.ndim > 1 and not name.endswith("bias")]
        others = [p for name, p in network.named_parameters() if p.ndim <= 1 or name.endswith("bias")]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)
        warmup = max(1, steps // 10)

        def rate(step: int) -> float:
            return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))

        return adamw, torch.optim.lr_scheduler.LambdaLR(adamw, rate)


class TrainingSet(NamedTuple):
    """The training routines as the network reads them."""

    tokens: Tensor
    """(N, S + 1, R) summary tokens."""
    clips: list[Tensor] | None
    """Clip tokens (T, R) of each routine; None if the configuration has none."""
    scores: Tensor
    """True scores (N, M) in points, NaN where unknown."""
    mixed: Tensor
    """The same after target mixing."""


class Parsed(NamedTuple):
    """What prototypes make of the tokens."""

    grade_logits: Tensor
    """(B, J, M, G)."""
    subgrade_logits: Tensor
    """(B, J, M, G, K)."""
    attention: Tensor
    """(B, J, M, G, L) of prototypes to tokens."""


class SummaryTokens(nn.Module):
    """The fitted part of TFM: a routine -> a token for each statistic over its clips, and one of duration and action.

    The tokens are coordinates in the span of the training routines, scaled so that their sum places the routine.
    """

    feature_scale: Tensor
    mean: Tensor
    basis_bytes: Tensor
    basis_scale: Tensor
    duration: Tensor
    scales: Tensor

    def __init__(self, feature_dim: int, num_span: int, num_actions: int) -> None:
        super().__init__()
        self.num_span, self.num_actions = num_span, num_actions
        self.num_coordinates = num_span + 1 + num_actions  # the span, the duration, the action
        self.register_buffer("feature_scale", torch.tensor(1.0))
        self.register_buffer("mean", torch.zeros(NUM_STATISTICS, feature_dim))
        # one byte a number keeps the file small; the training reads the same rounded numbers
        self.register_buffer("basis_bytes", torch.zeros(NUM_STATISTICS, feature_dim, num_span, dtype=torch.int8))
        self.register_buffer("basis_scale", torch.ones(NUM_STATISTICS, 1, num_span))
        self.register_buffer("duration", torch.tensor([0.0, 1.0]))  # mean and deviation of the logarithm
        self.register_buffer("scales", torch.ones(1 + num_actions))  # of the duration's and the actions' coordinates

    def compress(self, clips: Tensor) -> Tensor:
        """Return clip features (..., C) with large values compressed: a few features exceed the others by far."""
        return (clips / self.feature_scale).asinh()

    def forward(self, routines: Sequence[Tensor], actions: Tensor | None) -> Tensor:
        """Return the tokens (B, S + 1, R) of routines.

        Args:
            routines: compressed clips (T, C) of each routine.
            actions: (B,), None if the network has none.
        """
        return self.place(*_summaries(routines), actions)

    def place(self, summaries: Tensor, durations: Tensor, actions: Tensor | None) -> Tensor:
        """Return the tokens (B, S + 1, R) of routines with statistics (B, S, C) over a number of clips (B,)."""
        span = torch.einsum("bsc,scr->bsr", summaries - self.mean, self.basis_bytes.float()) * self.basis_scale[:, 0]
        # durations beyond three deviations say no more
        context = self.scales[:1] * ((durations.log() - self.duration[0]) / self.duration[1]).clamp(-3, 3)[:, None]
        if actions is not None:
            context = torch.cat([context, self.scales[1:] * F.one_hot(actions, self.num_actions)], 1)
        span = F.pad(span, (0, context.shape[1]))
        return torch.cat([span, F.pad(context, (self.num_span, 0))[:, None]], 1)

    def of_clips(self, clips: Tensor) -> Tensor:
        """Return the coordinates (T, R) of compressed clips (T, C); their mean over time is the token of the mean."""
        span = (clips - self.mean[0]) @ self.basis_bytes[0].float() * self.basis_scale[0]
        return F.pad(span, (0, self.num_coordinates - self.num_span))

    def fit(self, features: Sequence[Tensor], actions: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Fit scale and coordinates to training routines; return their tokens and their compressed clips (T, C)."""
        clips = torch.cat(list(features))
        square = (clips - clips.mean(0)).square().mean()
        self.feature_scale.copy_(square.sqrt() if square > 0 else square + 1)
        compressed = [self.compress(x) for x in features]
        summaries, durations = _summaries(compressed)
        self._fit_span(summaries)
        logarithm = durations.log()
        deviation = logarithm.std(correction=0)
        self.duration.copy_(torch.stack([logarithm.mean(), deviation if deviation > 0 else deviation + 1]))
        distance = 2.0 * self.num_span  # mean squared distance between routines with coordinates of mean square 1
        self.scales[0], self.scales[1:] = (DURATION_SHARE * distance) ** 0.5, (ACTION_SHARE * distance / 2) ** 0.5
        if actions is not None:  # nothing is learnt of an action without training routines
            self.scales[1:] *= torch.bincount(actions, minlength=self.num_actions) > 0
        return self.place(summaries, durations, actions), compressed

    def _fit_span(self, summaries: Tensor) -> None:
        """Fit the coordinates: principal components of all statistics together, each statistic with the same weight."""
        self.mean.copy_(summaries.mean(0))
        centred = summaries - self.mean
        spread = centred.square().mean((0, 2)).sqrt()  # (S,)
        weight = 1 / torch.where(spread > 0, spread, 1)
        wide = (centred * weight[:, None]).flatten(1).double()  # (N, S C)
        # the routines span at most N dimensions, so the N x N Gram matrix has all there is to decompose
        size, directions = torch.linalg.eigh(wide @ wide.T)
        size, directions = size.flip(0)[: self.num_span].clamp(min=1e-9), directions.flip(1)[:, : self.num_span]
        unit = (directions * size.sqrt()).square().mean().sqrt()  # coordinates have a mean square of 1
        basis = (wide.T @ (directions / size.sqrt()) / unit).view(*self.mean.shape, -1).float() * weight[:, None, None]
        self.basis_scale.copy_(basis.abs().amax(1, keepdim=True).clamp(min=1e-9) / 127)
        self.basis_bytes.copy_((basis / self.basis_scale).round())


class CoFInAl(HeadNetwork):
    """The network."""

    config: CoFInAlConfig
    cells: Tensor
    values: Tensor
    spread: Tensor
    etf: Tensor

    def __init__(self, config: CoFInAlConfig) -> None:
        super().__init__()
        self.config = config
        members, targets, grades = config.num_members, len(config.targets), config.num_grades
        width, num_cells = config.width, grades * config.num_subgrades
        # --- TFM ---
        num_span = max(1, min(config.num_coordinates, config.num_training - 1))
        self.tfm = SummaryTokens(config.feature_dim, num_span, config.num_actions)
        coordinates = self.tfm.num_coordinates
        if config.tokens != "summaries":
            self.position = nn.Linear(2, coordinates)
            self.encoder = nn.TransformerEncoderLayer(coordinates, 1, width, config.dropout, batch_first=True)
        # --- GPM ---
        self.queries = nn.Parameter(torch.randn(members, targets, grades, coordinates) * coordinates**-0.5)
        self.query_bias = nn.Parameter(torch.zeros(members, targets, grades, NUM_STATISTICS + 1))
        self.prototypes = nn.Parameter(torch.randn(members, targets, grades, width) * width**-0.5)
        self.read = MemberLinear(members, coordinates, width)
        self.embed = MemberLinear(members, width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.response = nn.Parameter(torch.zeros(members, targets, grades, width))
        self.response_bias = nn.Parameter(torch.zeros(members, targets, grades))
        self.dropout = nn.Dropout(config.dropout)
        # --- FGS ---
        fine_width = max(width, config.num_subgrades)
        self.fine = MemberLinear(members, width, fine_width)
        self.register_buffer("etf", simplex_etf(fine_width, config.num_subgrades))
        # --- coupling, fitted ---
        low, high = torch.tensor(config.ranges).unbind(1)
        edges = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, num_cells + 1)
        self.register_buffer("cells", edges)
        self.register_buffer("values", (edges[:, 1:] + edges[:, :-1]) / 2)  # (M, G K): what a cell stands for
        self.register_buffer("spread", (high - low) / 4)  # of the scores

    # --- TFM: clips -> tokens ---

    def encode_clips(self, clips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Let the clips of each routine (T, R) attend to each other: tokens (B, T, R), and which are clips (B, T)."""
        positions = [torch.linspace(0, 1, len(x), device=x.device)[:, None] for x in clips]
        placed = [x + self.position(torch.cat([p, 1 - p], 1)) for x, p in zip(clips, positions, strict=True)]
        padded, is_clip = pad(placed)
        return self.encoder(padded, src_key_padding_mask=~is_clip), is_clip

    # --- GPM and FGS: tokens -> grades and sub-grades ---

    def parse(self, summaries: Tensor, clips: list[Tensor] | None) -> Parsed:
        """Let the grade prototypes query the tokens.

        Args:
            summaries: summary tokens (B, S + 1, R).
            clips: clip coordinates (T, R) of each routine; None if the configuration has none.
        """
        logits = torch.einsum("blr,jmgr->bjmgl", summaries, self.queries) + self.query_bias
        tokens, scale = summaries, float(summaries.shape[1])  # even attention reads the sum of the summary tokens
        if clips is not None:
            encoded, is_clip = self.encode_clips(clips)
            clip_logits = torch.einsum("blr,jmgr->bjmgl", encoded, self.queries)
            clip_logits = clip_logits.masked_fill(~is_clip[:, None, None, None], -torch.inf)
            if self.config.tokens == "clips":  # and of the summary tokens only the one of duration and action
                logits, tokens, scale = logits[..., -1:], summaries[:, -1:], 1.0
            logits, tokens = torch.cat([logits, clip_logits], -1), torch.cat([tokens, encoded], 1)
        attention = logits.softmax(-1)
        seen = scale * torch.einsum("bjmgl,blr->bjmgr", attention, tokens)
        embedding = self.embed(self.dropout(F.gelu(self.norms[0](self.read(seen)))))
        embedding = self.norms[1](self.prototypes + embedding)  # (B, J, M, G, D)
        grade_logits = (embedding * self.response).sum(-1) + self.response_bias
        subgrade_logits = F.normalize(self.fine(embedding), dim=-1) @ self.etf / self.config.temperature
        return Parsed(grade_logits, subgrade_logits, attention)

    # --- coupling: the score is the mean of the distribution over cells ---

    def couple(self, probabilities: Tensor) -> Tensor:
        """Return scores (..., M) in points of probabilities (..., M, G, K) of all cells."""
        return (probabilities.flatten(-2) * self.values).sum(-1)

    def forward(self, clips: Tensor, actions: Tensor | None = None) -> Output:
        """Score routines of the same length; see `HeadNetwork.forward`."""
        routines = list(self.tfm.compress(clips))
        has_clips = self.config.tokens != "summaries"
        parsed = self.parse(self.tfm(routines, actions), [*map(self.tfm.of_clips, routines)] if has_clips else None)
        grades, subgrades = parsed.grade_logits.softmax(-1), parsed.subgrade_logits.softmax(-1)
        cells = (grades[..., None] * subgrades).mean(1)  # (B, M, G, K)
        attention = None
        if has_clips:
            to_clips = parsed.attention[..., -clips.shape[1] :].mean(1)  # (B, M, G, T)
            attention = to_clips / to_clips.sum(-1, keepdim=True)
        return Output(self.couple(cells), cells.sum(-1), attention)

    # --- training ---

    def fit_statistics(self, features: Sequence[Tensor], scores: np.ndarray, actions: Tensor | None) -> TrainingSet:
        """Fit coordinates, cells and target mixing on the training routines; see `HeadNetwork.fit_statistics`."""
        tokens, compressed = self.tfm.fit(features, actions)
        regression = KernelRidge(tokens.sum(1).double().cpu().numpy(), scores)
        self._cut_cells(scores)
        clips = [*map(self.tfm.of_clips, compressed)] if self.config.tokens != "summaries" else None
        mixed = mix_targets(regression.leave_one_out, scores, self.config.ranges)
        return TrainingSet(tokens, clips, torch.from_numpy(scores).to(tokens), torch.from_numpy(mixed).to(tokens))

    def _cut_cells(self, scores: np.ndarray) -> None:
        """Cut the score axes into cells by the scores (N, M)."""
        num_subgrades, num_cells = self.config.num_subgrades, self.config.num_grades * self.config.num_subgrades
        for m, (column, score_range) in enumerate(zip(scores.T, self.config.ranges, strict=True)):
            known = column[~np.isnan(column)]
            if own := self.config.grade_edges[m] if self.config.grade_edges else ():
                edges, values = cut_grades(known, [score_range[0], *own, score_range[1]], num_subgrades)
            else:
                edges, values = cut_cells(known, score_range, num_cells)
            self.cells[m], self.values[m] = torch.from_numpy(edges), torch.from_numpy(values)
            self.spread[m] = max(float(np.nanstd(column)), 0.01 * (score_range[1] - score_range[0]))

    def losses(
        self, training: TrainingSet, rows: np.ndarray, recipe: CoFInAlRecipe, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Cross-entropy of grades and of sub-grades, and squared error of the score; see `HeadNetwork.losses`."""
        batch = len(rows)
        partners, shares = self._partners(training, rows, recipe, rng)

        def mix(values: Tensor) -> Tensor:
            weight = shares.view(batch, *[1] * (values.ndim - 1))
            return weight * values[rows] + (1 - weight) * values[partners]

        clips = None if training.clips is None else [training.clips[row] for row in rows]
        parsed = self.parse(mix(training.tokens), clips)
        scores = training.mixed if recipe.target_mixing else training.scores
        is_known = ~scores[rows].isnan()
        # in place of an unknown score any within the cells: far from them all soft targets are 0 / 0
        scores = torch.where(scores.isnan(), self.values[:, 0], scores)
        truth = mix(scores)[:, None]  # (B, 1, M)
        soft = mix(self._soft_targets(scores, recipe.softness))[:, None]  # (B, 1, M, G, K)
        grades, subgrades = parsed.grade_logits.log_softmax(-1), parsed.subgrade_logits.log_softmax(-1)
        predicted = self.couple(grades.exp()[..., None] * subgrades.exp())  # (B, J, M): every member learns by itself
        losses = {
            "coarse": -(soft.sum(-1) * grades).sum(-1),
            "fine": -(soft * subgrades).sum((-1, -2)),  # each grade answers for the scores that may be its own
            "final": ((predicted - truth) / self.spread).square(),
        }
        means = {name: mean_over_known(loss.mean(1), is_known) for name, loss in losses.items()}
        total = (
            recipe.coarse_weight * means["coarse"]
            + recipe.fine_weight * means["fine"]
            + recipe.final_weight * means["final"]
        )
        return means | {"total": total}

    def _soft_targets(self, scores: Tensor, softness: float) -> Tensor:
        """Return the shares (N, M, G, K) of all cells in a normal distribution around scores (N, M)."""
        cells = soft_cells(scores, self.cells, softness * self.spread.expand(scores.shape))
        return cells.unflatten(-1, (self.config.num_grades, self.config.num_subgrades))

    def _partners(
        self, training: TrainingSet, rows: np.ndarray, recipe: CoFInAlRecipe, rng: np.random.Generator
    ) -> tuple[np.ndarray, Tensor]:
        """Return the routine that each routine of a batch is mixed with (B,), and the share (B,) that it keeps."""
        if not recipe.mixup or training.clips is not None:
            return rows, torch.ones(len(rows), device=self.values.device)
        others = rng.permutation(rows)
        # only routines with scores of the same targets can be mixed
        is_known = ~training.scores.isnan()
        alike = (is_known[rows] == is_known[others]).all(1).cpu().numpy()
        shares = torch.from_numpy(rng.beta(recipe.mixup, recipe.mixup, len(rows))).to(self.values)
        return np.where(alike, others, rows), shares


def _summaries(routines: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the statistics (B, S, C) of routines (T, C), and their numbers of clips (B,)."""
    durations = torch.tensor([float(len(x)) for x in routines], device=routines[0].device)
    return torch.stack([*map(summarise, routines)]), durations


class MemberLinear(nn.Module):
    """A linear layer for each member: (B, J, ..., I) -> (B, J, ..., O)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-(inputs**-0.5), inputs**-0.5))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's layer to its part of x."""
        by_member = x.transpose(0, 1).flatten(1, -2)  # (J, B ..., I)
        out = by_member @ self.weight + self.bias
        return out.view(x.shape[1], x.shape[0], *x.shape[2:-1], -1).transpose(0, 1)


def summarise(clips: Tensor) -> Tensor:
    """Return statistics (S, C) over the clips (T, C) of a routine.

    These are mean, standard deviation, 10th and 90th percentile, median, mean absolute change over each of `LAGS`, and
    the mean of each quarter. A routine that is shorter than a lag takes its longest distance instead.
    """
    num_clips = len(clips)
    # numpy sorts 20 times as fast as torch.quantile on a CPU
    ascending = torch.from_numpy(np.sort(clips.cpu().numpy(), axis=0)).to(clips)
    places = [(num_clips - 1) * share for share in (0.1, 0.9, 0.5)]
    percentiles = [ascending[int(x)].lerp(ascending[math.ceil(x)], x - int(x)) for x in places]
    lags = [min(lag, num_clips - 1) for lag in LAGS]
    changes = [(clips[lag:] - clips[: num_clips - lag]).abs().mean(0) for lag in lags]
    # of fewer clips than quarters, neighbouring quarters share a clip
    bounds = [(q * num_clips // NUM_QUARTERS, -(-(q + 1) * num_clips // NUM_QUARTERS)) for q in range(NUM_QUARTERS)]
    quarters = [clips[start:end].mean(0) for start, end in bounds]
    return torch.stack([clips.mean(0), clips.std(0, correction=0), *percentiles, *changes, *quarters])


def cut_cells(scores: np.ndarray, score_range: tuple[float, float], num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the score axis into cells that hold about equally many scores.

    Args:
        scores: known scores (N,) in points.
        score_range: lowest and highest possible score in points; they become the outer edges.
        num_cells: G K.

    Returns:
        Ascending edges (G K + 1,), and the score that each cell stands for (G K,), within its edges.
    """
    low, high = score_range
    inner = np.quantile(scores, np.arange(1, num_cells) / num_cells)
    spans = np.diff([low, *inner, high]) / (high - low)
    spans = np.maximum(spans, MIN_SPAN / num_cells)
    edges = low + (high - low) * np.concatenate(([0.0], np.cumsum(spans) / spans.sum()))
    edges[-1] = high
    # a cell stands for the mean of its scores: the outermost cells are wide, and nearly empty towards the range's ends
    fine = np.quantile(scores, (np.arange(10 * num_cells) + 0.5) / (10 * num_cells)).reshape(num_cells, 10).mean(1)
    return edges, np.clip(fine, edges[:-1], edges[1:])


def cut_grades(scores: np.ndarray, bounds: Sequence[float], num_subgrades: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut each grade into sub-grades that hold about equally many of its scores.

    Args:
        scores: known scores (N,) in points.
        bounds: ascending edges of the grades (G + 1,) in points, the range's ends included.
        num_subgrades: K; a grade of fewer scores is cut evenly.

    Returns:
        As for `cut_cells`.
    """
    all_edges, all_values = [], []
    for low, high in pairwise(bounds):
        inside = scores[(low <= scores) & ((scores < high) | (high == bounds[-1]))]
        even = np.linspace(low, high, 10 * num_subgrades)
        edges, values = cut_cells(inside if len(inside) >= num_subgrades else even, (low, high), num_subgrades)
        all_edges.append(edges[:-1])
        all_values.append(values)
    return np.concatenate([*all_edges, bounds[-1:]]), np.concatenate(all_values)


def soft_cells(scores: Tensor, edges: Tensor, softness: Tensor) -> Tensor:
    """Return the share of each cell (..., G K) in a normal distribution around each score (...).

    Args:
        scores: in points.
        edges: (..., G K + 1) in points.
        softness: standard deviation (...) in points.
    """
    shares = torch.special.ndtr((edges - scores[..., None]) / softness[..., None]).diff()
    return shares / shares.sum(-1, keepdim=True)
