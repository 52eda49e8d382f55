"""Train and apply a CoFInAl head on features in memory: no file formats, no worker processes.

Everything that depends on data (the standardisation of the features, the grades' edges, the scores' scale) is fitted
on the training part alone and kept in the network's buffers. The number of epochs is decided beforehand: no score of
a held-out routine chooses anything. The weights returned are the running average of those the optimiser visits.

Shape legend: N routines, T clips, C feature, P standardised feature, G grades.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.cofinal import CoFInAl, CoFInAlConfig
from models.coupling import grade_edges
from models.losses import losses as head_losses


@dataclass(frozen=True)
class TrainingRecipe:
    """Every choice of the training, fixed before it starts; the defaults were tried by cross-validation on Fis-V."""

    epochs: int | None = None
    """Passes over the training routines; None: as many as make `steps` updates."""
    steps: int = 800
    """Updates of the weights when `epochs` is not given, so that a small dataset trains as long as a large one."""
    batch_size: int = 16
    """Routines a batch."""
    learning_rate: float = 1e-3
    """Peak rate: linear warm-up over a tenth of the updates, then a half cosine to 0."""
    weight_decay: float = 0.05
    """AdamW's, on weight matrices."""
    clip_dropout: float = 0.5
    """Each routine of a batch loses up to this share of its clips, drawn anew every time."""
    averaging: float = 0.99
    """Decay of the running average of the weights; 0: none."""
    whitening: float = 0.5
    """0 leaves the principal components their variances, 1 makes all equal."""
    coarse_weight: float = 0.5
    """Weight of the coarse loss."""
    fine_weight: float = 0.5
    """Weight of the fine loss."""
    final_weight: float = 1.0
    """Weight of the final-score loss."""
    prototype_weight: float = 0.1
    """Weight of the prototype loss."""
    margin: float = 0.5
    """Of the prototype loss, in cosine distance."""
    softness: float = 0.5
    """A judge's error in units of the scores' standard deviation: how far coarse targets reach into other grades."""

    def num_epochs(self, num_routines: int) -> int:
        """Epochs for a training part of this many routines."""
        if self.epochs is not None:
            return self.epochs
        return math.ceil(self.steps / math.ceil(num_routines / self.batch_size))


@dataclass(frozen=True)
class EpochProgress:
    """How far the training is."""

    epoch: int
    """Epochs done, from 1."""
    epochs: int
    """Epochs in all."""
    losses: dict[str, float]
    """Mean over the epoch: total, coarse, fine, final, prototypes."""
    duration_s: float
    """Seconds since the training began."""


@dataclass(frozen=True)
class TargetPrediction:
    """What a head says of one target, an entry a routine."""

    score: np.ndarray
    """Final score (N,) in points, coupled from coarse and fine."""
    grade: np.ndarray
    """Most probable coarse grade (N,), counted from 1, lowest first."""
    probabilities: np.ndarray
    """Probability of each coarse grade (N, G)."""
    edges: np.ndarray
    """Grade edges (N, G+1) in points: grade g spans edges[g-1] to edges[g]."""
    subgrade: np.ndarray
    """Most probable sub-grade within that grade (N,), counted from 1, lowest first."""
    points: np.ndarray
    """Score (N,) that this grade and sub-grade alone stand for."""


def fit(
    features: Sequence[np.ndarray],
    scores: np.ndarray,
    actions: np.ndarray | None = None,
    *,
    config: CoFInAlConfig,
    recipe: TrainingRecipe = TrainingRecipe(),
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[EpochProgress], None] | None = None,
) -> CoFInAl:
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
        network = CoFInAl(config)
        _fit_buffers(network, features, scores, recipe.whitening)
        network.to(device)
        clips = [network.standardise(torch.from_numpy(x).to(device)) for x in features]  # N of (T, P)
        truth = torch.from_numpy(scores).float().to(device)
        action = None if actions is None else torch.from_numpy(np.asarray(actions)).long().to(device)

        epochs = recipe.num_epochs(len(clips))
        batches = math.ceil(len(clips) / recipe.batch_size)
        optimizer = _optimizer(network, recipe)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(epochs * batches))
        average = AveragedModel(network, multi_avg_fn=_running_average(recipe.averaging))
        network.train()
        for epoch in range(1, epochs + 1):
            sums: dict[str, float] = {}
            for rows in np.array_split(rng.permutation(len(clips)), batches):
                batch, mask = _pad([_drop_clips(clips[i], recipe.clip_dropout, rng) for i in rows])
                losses = _losses(network, recipe, batch, mask, truth[rows], None if action is None else action[rows])
                optimizer.zero_grad()
                losses["total"].backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                average.update_parameters(network)
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(loss.detach()) * len(rows) / len(clips)
            if on_progress is not None:
                on_progress(EpochProgress(epoch, epochs, sums, time.monotonic() - start))
    averaged = average.module
    assert isinstance(averaged, CoFInAl)
    return averaged.eval()


@torch.inference_mode()
def predict(
    network: CoFInAl, features: Sequence[np.ndarray], actions: np.ndarray | None = None
) -> dict[str, TargetPrediction]:
    """Grade and score routines, one at a time: no padding, so no routine can touch another's result.

    Args:
        network: a trained head.
        features: clip features of each routine, N arrays (T, C).
        actions: index of each routine's action (N,), exactly when the head knows actions.

    Returns:
        A `TargetPrediction` a target, entries in the order of `features`.
    """
    device = network.edges.device
    network.eval()
    edges = network.edges  # (M, G+1)
    parts: dict[str, list[TargetPrediction]] = {target: [] for target in network.config.targets}
    for i, x in enumerate(features):
        clips = torch.from_numpy(x).to(device)[None]  # (1, T, C)
        mask = torch.ones(clips.shape[:2], dtype=torch.bool, device=device)
        action = None if actions is None else torch.tensor([int(actions[i])], device=device)
        output = network(clips, mask, action)
        for m, target in enumerate(network.config.targets):
            probabilities = output.grade_logits[:, m].softmax(-1)  # (1, G)
            grade = probabilities.argmax(-1)  # (1,)
            subgrade = output.subgrade_logits[0, m, grade].argmax(-1)
            place = subgrade / (network.config.num_subgrades - 1)
            points = edges[m, grade] + (edges[m, grade + 1] - edges[m, grade]) * place
            values = (output.score[:, m], grade + 1, probabilities, edges[m : m + 1], subgrade + 1, points)
            parts[target].append(TargetPrediction(*(value.cpu().numpy() for value in values)))
    return {target: _concatenate(part) for target, part in parts.items()}


def fold_rows(num_rows: int, folds: int, *, seed: int, groups: Sequence[str] | None = None) -> list[np.ndarray]:
    """Cut rows into folds at random, rows of one group staying together.

    Args:
        num_rows: N.
        folds: number of folds.
        seed: of the cut.
        groups: group of each row (N,), say its skater; None: every row is its own.

    Returns:
        The held-out rows of each fold: together every row once.

    Raises:
        ValueError: there are fewer rows, or groups, than folds.
    """
    names = np.arange(num_rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    distinct = np.random.default_rng(seed).permutation(names.max() + 1 if num_rows else 0)
    if not 2 <= folds <= len(distinct):
        what = "routines" if groups is None else "groups"
        raise ValueError(f"{len(distinct)} {what} cannot be cut into {folds} folds: ask for 2 to {len(distinct)} folds")
    fold_of = np.empty(len(distinct), dtype=int)
    fills = np.zeros(folds)
    sizes = np.bincount(names)
    for name in distinct:  # each group goes to the fold that holds least so far
        fold_of[name] = fills.argmin()
        fills[fold_of[name]] += sizes[name]
    return [np.flatnonzero(fold_of[names] == fold) for fold in range(folds)]


def cross_validate(
    features: Sequence[np.ndarray],
    scores: np.ndarray,
    actions: np.ndarray | None = None,
    *,
    config: CoFInAlConfig,
    recipe: TrainingRecipe = TrainingRecipe(),
    folds: int = 5,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    device: str = "cpu",
    on_progress: Callable[[int, EpochProgress], None] | None = None,
) -> dict[str, TargetPrediction]:
    """Out-of-fold predictions: every routine is graded by a head that never saw it.

    Args:
        features, scores, actions, config, recipe, device: as `fit`.
        folds: number of folds.
        seed: of the cut into folds and of every fold's training.
        groups: as `fold_rows`.
        on_progress: called with the fold, from 1, and its progress after every epoch.

    Returns:
        A `TargetPrediction` a target, entries in the order of `features`.
    """
    held_out = fold_rows(len(features), folds, seed=seed, groups=groups)
    parts = []
    for fold, rows in enumerate(held_out, start=1):
        rest = np.setdiff1d(np.arange(len(features)), rows)
        network = fit(
            [features[i] for i in rest],
            scores[rest],
            None if actions is None else actions[rest],
            config=config,
            recipe=recipe,
            seed=seed,
            device=device,
            on_progress=None if on_progress is None else partial(on_progress, fold),
        )
        parts.append(predict(network, [features[i] for i in rows], None if actions is None else actions[rows]))
    order = np.argsort(np.concatenate(held_out))
    return {t: _concatenate([part[t] for part in parts], order) for t in config.targets}


def _check(
    features: Sequence[np.ndarray], scores: np.ndarray, actions: np.ndarray | None, config: CoFInAlConfig
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


def _fit_buffers(network: CoFInAl, features: Sequence[np.ndarray], scores: np.ndarray, whitening: float) -> None:
    """Fit the feature standardisation, grade edges and score scales on the training part."""
    config = network.config
    clips = torch.from_numpy(np.concatenate(features)).float()
    mean = clips.mean(0)
    centred = clips - mean
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(clips))  # ascending
    variance, directions = variance.flip(0).clamp(min=0), directions.flip(1)
    variance = variance + 1e-3 * variance.mean() + 1e-12  # directions the training part hardly shows stay small
    components = network.feature_basis.shape[1]
    basis = directions[:, :components] * variance[:components] ** (-whitening / 2)
    spread = variance[:components] ** (1 - whitening)
    network.feature_mean.copy_(mean)
    network.feature_basis.copy_(basis / spread.mean().sqrt())
    for i, column in enumerate(scores.T):
        known = column[~np.isnan(column)]
        network.edges[i] = torch.from_numpy(grade_edges(known, config.ranges[i], config.num_grades))
        low, high = config.ranges[i]
        network.scale[i] = max(known.std(), 0.01 * (high - low))


def _optimizer(network: CoFInAl, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _warmup_cosine(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 10)

    def rate(step: int) -> float:
        return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    return rate


def _running_average(decay: float) -> Any:
    """Exponential average of the weights that forgets the first ones quickly, as most steps are still to come."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        steps = float(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return update


def _drop_clips(clips: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Keep a random choice of the clips (T, P), in order: at least 1 - share of them, any of them."""
    keep = max(1, round(len(clips) * (1 - share * rng.random())))
    return clips[np.sort(rng.permutation(len(clips))[:keep])]


def _pad(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Batch (B, T, P), padded to the longest of its routines, and its mask (B, T)."""
    batch = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    lengths = torch.tensor([len(x) for x in clips], device=batch.device)
    return batch, torch.arange(batch.shape[1], device=batch.device) < lengths[:, None]


def _losses(
    network: CoFInAl, recipe: TrainingRecipe, batch: Tensor, mask: Tensor, truth: Tensor, actions: Tensor | None
) -> dict[str, Tensor]:
    """The four losses and their weighted total."""
    output = network.forward_standardised(batch, mask, actions)
    losses = head_losses(output, truth, network.edges, network.scale, softness=recipe.softness, margin=recipe.margin)
    losses["total"] = (
        recipe.coarse_weight * losses["coarse"]
        + recipe.fine_weight * losses["fine"]
        + recipe.final_weight * losses["final"]
        + recipe.prototype_weight * losses["prototypes"]
    )
    return losses


def _concatenate(parts: Sequence[TargetPrediction], order: np.ndarray | None = None) -> TargetPrediction:
    def join(name: str) -> np.ndarray:
        joined = np.concatenate([getattr(part, name) for part in parts])
        return joined if order is None else joined[order]

    return TargetPrediction(*(join(name) for name in TargetPrediction.__dataclass_fields__))
