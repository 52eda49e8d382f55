"""Train and apply a head on features in memory: no file formats, no worker processes.

Everything that depends on data (the principal components, the standardisation of the summaries, the routines that are
remembered, the grades' edges, the scores' scale and what they borrow from each other) is fitted on the training part
alone; what prediction needs of it is kept in the network's buffers. The readings of statistics and covariances learn in
the span of the training routines, where a few hundred numbers say all of a routine that tens of thousands do. The
number of epochs is decided beforehand: no score of a held-out routine chooses anything.

Shape legend: N routines, T clips, C feature, P principal component, S statistics, A actions, M targets, G grades,
D numbers in a part of the evidence, R rank of that part.
"""

import math
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.ensemble import Ensemble
from ..models.grading import GradingConfig, GradingNetwork
from ..models.losses import losses as head_losses
from ..models.losses import prototype_loss
from ..models.reference import FULL_SCORE, ReferenceCoFInAl
from ..models.temporal_fusion import COVARIED, LEAST_VARIANCE, Evidence, Summary, TemporalFusion
from .curds_and_whey import borrow


@dataclass(frozen=True)
class TrainingRecipe:
    """Every choice of the training, fixed before it starts; the defaults were tried by cross-validation on Fis-V."""

    epochs: int = 30
    """Passes over the training routines."""
    batch_size: int = 32
    """Routines a batch."""
    learning_rate: float = 3e-3
    """Peak rate: linear warm-up over a tenth of the updates, then a half cosine to 0."""
    weight_decay: float = 0.05
    """AdamW's, on weight matrices."""
    mixup: float = 0.3
    """Each routine of a batch is mixed with another, evidence and scores alike, in a share drawn from Beta(mixup,
    mixup) (Zhang et al. 2018); 0: none."""
    whitening: float = 0.5
    """0 leaves the principal components their variances, 1 makes all equal."""
    clips_per_component: int = 8
    """Training clips that each principal component must rest on: those of a few hundred clips are mostly noise."""
    coarse_weight: float = 0.5
    """Weight of the coarse loss."""
    fine_weight: float = 0.5
    """Weight of the fine loss."""
    final_weight: float = 1.0
    """Weight of the final-score loss."""
    prototype_weight: float = 0.0
    """Weight of the prototype loss, which does not help (docs/accuracy.md)."""
    margin: float = 0.5
    """Of the prototype loss, in cosine distance."""
    softness: float = 0.5
    """A judge's error in units of the scores' standard deviation: how far coarse targets reach into other grades."""


@dataclass(frozen=True)
class EpochProgress:
    """How far the training is."""

    epoch: int
    """Epochs done, from 1."""
    epochs: int
    """Epochs in all."""
    losses: dict[str, float]
    """Mean over the epoch: total, and each that the head has: coarse, fine, final, prototypes."""
    duration_s: float
    """Seconds since the training began."""


@dataclass(frozen=True)
class TargetPrediction:
    """What a head says of one target, an entry a routine."""

    score: np.ndarray
    """Final score (N,) in points, made of the grades alone."""
    grade: np.ndarray
    """Most probable (or most weighed) coarse grade (N,), counted from 1, lowest first."""
    probabilities: np.ndarray
    """Probability of each coarse grade (N, G)."""
    edges: np.ndarray | None
    """Grade edges (N, G+1) in points: grade g spans edges[g-1] to edges[g]. None for public heads: they have none."""
    subgrade: np.ndarray | None
    """Sub-grade within that grade (N,), counted from 1, lowest first: the median of their probabilities, which tells
    more than the most probable one (docs/accuracy.md); of public heads the latter. None without fine grades."""
    num_subgrades: int
    """Sub-grades within each grade; 0 without fine grades."""
    points: np.ndarray | None
    """Score (N,) that this grade and sub-grade alone stand for; None for public heads and without fine grades."""


def fit(
    features: Sequence[np.ndarray],
    scores: np.ndarray,
    actions: np.ndarray | None = None,
    *,
    config: GradingConfig,
    recipe: TrainingRecipe = TrainingRecipe(),
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[EpochProgress], None] | None = None,
) -> GradingNetwork:
    """Train a head for all targets and actions at once.

    Args:
        features: clip features of each routine, N arrays (T, C), float32 or float16.
        scores: true scores (N, targets) in points, NaN where a routine has no such score.
        actions: index of each routine's action (N,), exactly when `config.num_actions` is not 0.
        config: what to build; its `ranges` must hold all scores.
        recipe: how to train.
        seed: of weights, batches and augmentation. The same seed gives the same numbers on the same machine; the
            global random state is left as it was.
        device: torch device.
        on_progress: called after every epoch.

    Returns:
        The trained network in eval mode, on `device`.

    Raises:
        ValueError: the arrays do not fit together or the configuration.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _check(features, scores, actions, config)
    start = time.monotonic()
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        affordable = sum(map(len, features)) // recipe.clips_per_component
        components = max(1, min(config.num_components, affordable))
        network = replace(config, num_components=components, num_remembered=len(features)).build()
        _fit_components(network.fusion, features, recipe.whitening)
        network.to(device)
        summaries = Summary.of(network.fusion.summarise(torch.from_numpy(x).to(device)) for x in features)
        _fit_buffers(network, summaries, scores)
        action = None  # (N, A)
        if actions is not None:
            action = F.one_hot(torch.as_tensor(actions, device=device), config.num_actions).float()
        evidence, said = _remember(network, summaries, action, scores)
        truth = torch.from_numpy(borrow(said, scores, config.ranges)).float().to(device)  # (N, M)
        whole = network.fusion.read
        network.fusion.read, evidence, bases = _in_their_span(whole, evidence)

        judged = ~np.isnan(scores)
        batches = math.ceil(len(features) / recipe.batch_size)
        optimizer = _optimizer(network, recipe)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(recipe.epochs * batches))
        network.train()
        for epoch in range(1, recipe.epochs + 1):
            sums: dict[str, float] = {}
            for rows in np.array_split(rng.permutation(len(features)), batches):
                share, others = _partners(rows, judged, recipe.mixup, rng)
                *parts, scored = (_mix(x[rows], x[others], share) for x in (*evidence, truth))
                acted = None if action is None else _mix(action[rows], action[others], share)
                losses = _losses(network, recipe, Evidence(*parts), scored, acted)
                optimizer.zero_grad()
                losses["total"].backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(loss.detach()) * len(rows) / len(features)
            if on_progress is not None:
                on_progress(EpochProgress(epoch, recipe.epochs, sums, time.monotonic() - start))
        _leave_their_span(whole, network.fusion.read, bases)
        network.fusion.read = whole
    return network.eval()


@torch.inference_mode()
def predict(
    network: GradingNetwork | Ensemble, features: Sequence[np.ndarray], actions: np.ndarray | None = None
) -> dict[str, TargetPrediction]:
    """Grade and score routines, one at a time: no padding, so no routine can touch another's result.

    Args:
        network: a trained head, of one network or several.
        features: clip features of each routine, N arrays (T, C).
        actions: index of each routine's action (N,), exactly when the head knows actions.

    Returns:
        A `TargetPrediction` a target, entries in the order of `features`.
    """
    device = network.edges.device
    network.eval()
    outputs = []
    for i, x in enumerate(features):
        clips = torch.from_numpy(x).to(device)[None]  # (1, T, C)
        mask = torch.ones(clips.shape[:2], dtype=torch.bool, device=device)
        action = None if actions is None else torch.tensor([int(actions[i])], device=device)
        outputs.append(network(clips, mask, action))
    return {
        target: _target_prediction(
            torch.cat([output.score[:, m] for output in outputs]),
            torch.cat([output.grade_logits[:, m] for output in outputs]),
            None if outputs[0].subgrade_logits is None else torch.cat([o.subgrade_logits[:, m] for o in outputs]),
            network.edges[m],
        )
        for m, target in enumerate(network.config.targets)
    }


@torch.inference_mode()
def predict_reference(network: ReferenceCoFInAl, features: Sequence[np.ndarray]) -> TargetPrediction:
    """Grade and score routines by a public head, one at a time.

    Args:
        network: the head.
        features: clip features of each routine, N arrays (T, C).

    Returns:
        For its one target, in the points of the public code: its output times `FULL_SCORE`, not held within any range.
        A grade's probability is what it weighs in the score.
    """
    outputs = [network(torch.from_numpy(x).float()[None]) for x in features]
    weights = torch.cat([output.weights for output in outputs])  # (N, G)
    return TargetPrediction(
        score=FULL_SCORE * torch.cat([output.score for output in outputs]).numpy(),
        grade=weights.argmax(-1).numpy() + 1,
        probabilities=weights.numpy(),
        edges=None,
        subgrade=torch.cat([output.subgrade for output in outputs]).numpy() + 1,
        num_subgrades=network.config.num_subgrades,
        points=None,
    )


def _check(
    features: Sequence[np.ndarray], scores: np.ndarray, actions: np.ndarray | None, config: GradingConfig
) -> None:
    if len(features) < 2:
        raise ValueError(f"a head needs at least 2 routines to train on, not {len(features)}")
    if scores.shape != (len(features), len(config.targets)):
        raise ValueError(
            f"{len(features)} routines x {len(config.targets)} targets need as many scores, not {scores.shape}"
        )
    if (actions is not None) != (config.num_actions > 0):
        raise ValueError(f"a head for {config.num_actions} actions was {'not ' * (actions is None)}given the actions")
    for i, x in enumerate(features):
        if x.ndim != 2 or len(x) == 0 or x.shape[1] != config.feature_dim:
            raise ValueError(f"features of routine {i} are {x.shape}: expected (clips, {config.feature_dim})")
        if not np.isfinite(x).all():
            raise ValueError(f"features of routine {i} hold NaN or infinity: extract them again")
    for target, (low, high), column in zip(config.targets, config.ranges, scores.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) == 0:
            raise ValueError(f"no training routine has a score for {target!r}")
        if known.min() < low or known.max() > high:
            raise ValueError(
                f"scores for {target!r} run from {known.min()} to {known.max()}, outside its range {low} to {high}"
            )


def _fit_components(fusion: TemporalFusion, features: Sequence[np.ndarray], whitening: float) -> None:
    """Fit the principal components of the clip features on the training part."""
    clips = torch.from_numpy(np.concatenate(features)).float()
    mean = clips.mean(0)
    centred = clips - mean
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(clips))  # ascending
    variance, directions = variance.flip(0).clamp(min=0), directions.flip(1)
    variance = variance + 1e-3 * variance.mean() + 1e-12  # directions the training part hardly shows stay small
    components = fusion.feature_basis.shape[1]
    fusion.feature_mean.copy_(mean)
    fusion.feature_scale.copy_(_or_one(centred.square().mean().sqrt()))
    fusion.feature_basis.copy_(directions[:, :components] * variance[:components] ** (-whitening / 2))
    fusion.least_variance.copy_(LEAST_VARIANCE * (variance[: min(components, COVARIED)] ** (1 - whitening)).mean())


def _fit_buffers(network: GradingNetwork, summaries: Summary, scores: np.ndarray) -> None:
    """Fit the standardisation of the summaries, grade edges and score scales on the training part."""
    fusion = network.fusion
    fusion.mean.copy_(summaries.statistics.mean(0))
    fusion.covariance_mean.copy_(summaries.covariances.mean(0))
    fusion.duration_mean.copy_(summaries.duration.mean())
    fusion.duration_spread.copy_(_or_one(summaries.duration.std(correction=0), least=1e-4))
    centred = (summaries.statistics - fusion.mean).split(fusion.widths, -1)
    for part, spread in zip(centred, fusion.spread.split(fusion.widths, -1), strict=True):
        spread.copy_(_or_one(part.square().mean((0, 2)).sqrt()[:, None]))  # of routines of one clip, some do not vary
    found = (summaries.covariances - fusion.covariance_mean).square().mean().sqrt()
    fusion.covariance_spread.copy_(_or_one(found, least=1e-4))  # of logarithms, which have no unit
    for i, column in enumerate(scores.T):
        known = column[~np.isnan(column)]
        network.cut_grades(i, known)
        low, high = network.config.ranges[i]
        network.scale[i] = max(known.std(), 0.01 * (high - low))


def _or_one(spread: Tensor, least: float = 0.0) -> Tensor:
    """A spread to divide by: 1 where nothing varies."""
    return torch.where(spread > least, spread, 1)


def _remember(
    network: GradingNetwork, summaries: Summary, actions: Tensor | None, scores: np.ndarray
) -> tuple[Evidence, np.ndarray]:
    """Let the network remember the training routines.

    Returns:
        The evidence on them, their likeness being to all others, and what that makes of their scores (N, M) in points.
    """
    centre, scale = np.nanmean(scores, axis=0), network.scale.cpu().numpy().astype(np.float64)
    standard = torch.from_numpy((scores - centre) / scale).to(network.scale)
    evidence = network.fusion.evidence(summaries, actions)
    likeness = network.fusion.likeness.remember(evidence.statistics, evidence.duration, actions, standard)
    return evidence._replace(likeness=likeness), centre + scale * likeness.cpu().numpy().astype(np.float64)


def _in_their_span(whole: nn.ModuleList, evidence: Evidence) -> tuple[nn.ModuleList, Evidence, list[Tensor]]:
    """Put the training routines' statistics, components and covariances in coordinates of the space that they span.

    Args:
        whole: the layers that read the parts of the evidence.
        evidence: on the training routines.

    Returns:
        New layers for the coordinates, the evidence in coordinates (N, R), and the bases (D, R) that make these.
    """
    width = cast(nn.Linear, whole[0]).out_features
    layers, parts, bases = [], [], []
    for part in evidence[:3]:
        wide = part.double()
        size, directions = torch.linalg.eigh(wide @ wide.T)  # (N,), ascending
        kept = size > 1e-6 * size[-1]
        kept[-1] = True
        size, directions = size[kept].clamp(min=1e-12), directions[:, kept]
        scale = (len(part) * len(size) / size.sum()).sqrt()  # coordinates have a mean square of 1
        basis = wide.T @ (directions / size.sqrt()) * scale
        layers.append(nn.Linear(len(size), width))
        parts.append((wide @ basis).float())
        bases.append(basis.float())
    small = nn.ModuleList([*layers, whole[3]]).to(evidence.duration.device)
    statistics, components, covariances = parts
    return small, Evidence(statistics, components, covariances, evidence.likeness, evidence.duration), bases


def _leave_their_span(whole: nn.ModuleList, learnt: nn.ModuleList, bases: list[Tensor]) -> None:
    """Give the layers for the evidence itself what those for its coordinates have learnt."""
    with torch.no_grad():
        for i, basis in enumerate(bases):  # the layer after these, that of the likeness, is the same in both
            large, small = cast(nn.Linear, whole[i]), cast(nn.Linear, learnt[i])
            large.weight.copy_(small.weight @ basis.T)
            large.bias.copy_(small.bias)


def _optimizer(network: GradingNetwork, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in network.named_parameters():
        (others if name.endswith("bias") or parameter.ndim <= 1 else matrices).append(parameter)
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _warmup_cosine(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 10)

    def rate(step: int) -> float:
        return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    return rate


def _partners(
    rows: np.ndarray, judged: np.ndarray, mixup: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The share (B,) that each routine of a batch keeps, and the routine (B,) it is mixed with.

    That is itself if the other one was not judged on the same targets, as `judged` (N, M) says.
    """
    if not mixup:
        return np.ones(len(rows)), rows
    others = rng.permutation(rows)
    alike = (judged[rows] == judged[others]).all(1)
    return rng.beta(mixup, mixup, len(rows)), np.where(alike, others, rows)


def _mix(own: Tensor, other: Tensor, share: np.ndarray) -> Tensor:
    """Mix (B, ...) with (B, ...)."""
    weight = torch.from_numpy(share).to(own).view(-1, *[1] * (own.ndim - 1))
    return weight * own + (1 - weight) * other


def _losses(
    network: GradingNetwork, recipe: TrainingRecipe, evidence: Evidence, truth: Tensor, actions: Tensor | None
) -> dict[str, Tensor]:
    """The head's losses and their weighted total."""
    output = network.judge(evidence, actions)
    losses = head_losses(output, truth, network.edges, network.scale, softness=recipe.softness)
    if recipe.prototype_weight:
        losses["prototypes"] = prototype_loss(output.embeddings.flatten(2, 3), margin=recipe.margin)
    weights = {
        "coarse": recipe.coarse_weight,
        "fine": recipe.fine_weight,
        "final": recipe.final_weight,
        "prototypes": recipe.prototype_weight,
    }
    return losses | {"total": reduce(operator.add, (weights[name] * loss for name, loss in losses.items()))}


def _target_prediction(
    score: Tensor, grade_logits: Tensor, subgrade_logits: Tensor | None, edges: Tensor
) -> TargetPrediction:
    """Put one target's (N,), (N, G), (N, G, K) and (G+1,) into words."""
    probabilities = grade_logits.softmax(-1)
    grade = probabilities.argmax(-1)  # (N,)
    subgrade = points = None
    num_subgrades = 0
    if subgrade_logits is not None:
        num_subgrades = subgrade_logits.shape[-1]
        fine = subgrade_logits[torch.arange(len(grade)), grade].softmax(-1)  # (N, K)
        subgrade = (fine.cumsum(-1)[:, :-1] < 0.5).sum(-1)  # (N,)
        points = edges[grade] + (edges[grade + 1] - edges[grade]) * (subgrade / (num_subgrades - 1))
    return TargetPrediction(
        score=score.cpu().numpy(),
        grade=grade.cpu().numpy() + 1,
        probabilities=probabilities.cpu().numpy(),
        edges=edges.expand(len(grade), -1).cpu().numpy(),
        subgrade=None if subgrade is None else subgrade.cpu().numpy() + 1,
        num_subgrades=num_subgrades,
        points=None if points is None else points.cpu().numpy(),
    )
