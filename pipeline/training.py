"""The training loop of every head, on features in memory: no file formats, no worker processes.

What depends on data is fitted by the head's own `fit_statistics`, on the training part alone. The number of epochs is
fixed before the training starts: no score of a held-out routine chooses anything.

Shape legend: N routines, T clips, C feature, M targets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..models.head import LARGEST, HeadConfig, HeadNetwork, Recipe


@dataclass(frozen=True)
class EpochProgress:
    """What `fit` reports after an epoch."""

    epoch: int
    """Epochs done, from 1."""
    losses: dict[str, float]
    """Mean over the epoch of each loss of the head, and of their weighted sum `total`."""


def fit(
    features: Sequence[np.ndarray],
    scores: np.ndarray,
    actions: np.ndarray | None = None,
    *,
    config: HeadConfig,
    recipe: Recipe,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[EpochProgress], object] = lambda progress: None,
) -> HeadNetwork:
    """Train a head for all targets and actions at once.

    Args:
        features: clip features of each routine, N arrays (T, C), float32 or float16.
        scores: true scores (N, M) in points, NaN where a target has no score.
        actions: index of each routine's action (N,); needed if `config.num_actions` is not 0.
        config: the head to build; its `ranges` must hold all scores.
        recipe: how to train it, the recipe of the same head.
        seed: of weights, batches and augmentation. The same seed gives the same numbers on the same machine. The global
            random state does not change.
        device: torch device.
        on_progress: called after every epoch.

    Returns:
        The trained network in eval mode, on `device`. Its weights are rounded to numbers that half precision holds, so
        that its file is short.

    Raises:
        ValueError: the arrays do not fit together or the configuration.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _check_sizes(features, scores, actions, config)
    _check_scores(scores, config)
    rng = np.random.default_rng(seed)
    clips = [torch.from_numpy(np.asarray(x, np.float32)).to(device) for x in features]
    batches = math.ceil(len(features) / recipe.batch_size)
    gpus = [device] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:  # torch.manual_seed would seed all of the machine
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        network = replace(config, num_training=len(features)).build().to(device)
        action = None if actions is None else torch.as_tensor(actions, device=device)
        with torch.no_grad():
            training = network.fit_statistics(clips, scores, action)
        optimizer, schedule = recipe.optimizer(network, recipe.epochs * batches)
        network.train()
        for epoch in range(1, recipe.epochs + 1):
            sums: dict[str, float] = {}
            for rows in np.array_split(rng.permutation(len(features)), batches):
                losses = network.losses(training, rows, recipe, rng)
                optimizer.zero_grad()
                losses["total"].backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(loss.detach()) * len(rows) / len(features)
            on_progress(EpochProgress(epoch, sums))
        for weights in network.parameters():
            weights.data.copy_(weights.half())
    return network.eval()


def _check_sizes(
    features: Sequence[np.ndarray], scores: np.ndarray, actions: np.ndarray | None, config: HeadConfig
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
        if not (np.abs(x) <= np.float32(LARGEST)).all():  # NaN is not either
            raise ValueError(f"features of routine {i} hold NaN, infinity or absurd values: extract them again")


def _check_scores(scores: np.ndarray, config: HeadConfig) -> None:
    for target, (low, high), column in zip(config.targets, config.ranges, scores.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) == 0:
            raise ValueError(f"no training routine has a score for {target!r}")
        if known.min() < low or known.max() > high:
            raise ValueError(
                f"scores for {target!r} run from {known.min()} to {known.max()}, outside its range {low} to {high}"
            )
