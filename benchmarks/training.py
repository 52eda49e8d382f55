"""What an epoch of training costs: `fit` beside a plain loop in the public style, on Fis-V's features.

    python -m benchmarks.training [STORE]

Both train the same head with the same losses and optimiser, in batches of the same number of whole routines. The plain
loop reads features from disk in every epoch, through a DataLoader with 8 worker processes, pads each routine to the
longest of the data set, sums up the clips in every batch and learns all numbers of the layers that read them; `fit`
loads and sums up once, and learns these layers in the span of the training routines. They take turns, and the medians
of their epochs are compared, by the clock and by seconds of CPU, which tell more where other programs run. The default
training, with its mixup, is timed apart.
"""

import copy
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cofinal.data.feature_store import FeatureStore
from cofinal.data.labels import read_labels
from cofinal.models.cofinal import CoFInAlConfig
from cofinal.models.grading import GradingNetwork
from cofinal.models.temporal_fusion import Summary
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.examples import label_places, load_dataset
from cofinal.pipeline.training import TrainingRecipe, _losses, _optimizer, fit

from .tables import print_table

STORE = Path(os.environ.get("COFINAL_SHARED", "../shared")) / "data/fisv/swintx_avg_fps25_clip32"
WORKERS = 8
TURNS = 2
EPOCHS = 3
"""Timed in each turn; the first one of `fit`, which prepares the features, is not among them."""


class PaddedFiles(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Routines read from disk: features (T, C) padded to the longest, mask (T,) and scores (M,)."""

    def __init__(self, paths: list[Path], scores: np.ndarray, longest: int) -> None:
        self.paths, self.scores, self.longest = paths, torch.from_numpy(scores).float(), longest

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        clips = torch.from_numpy(np.load(self.paths[index])).float()
        padded = torch.nn.functional.pad(clips, (0, 0, 0, self.longest - len(clips)))
        return padded, torch.arange(self.longest) < len(clips), self.scores[index]


def clock() -> np.ndarray:
    """Seconds, by the clock and of CPU time, child processes that have ended included."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def plain_epochs(network: GradingNetwork, files: PaddedFiles, recipe: TrainingRecipe) -> np.ndarray:
    """Train a network the plain way; return the seconds of each epoch (EPOCHS, 2)."""
    network = copy.deepcopy(network).train()
    optimizer = _optimizer(network, recipe)
    loader = DataLoader(files, recipe.batch_size, shuffle=True, num_workers=WORKERS)
    ends = [clock()]
    for _ in range(EPOCHS):
        for batch, mask, truth in loader:
            summaries = Summary.of(
                network.fusion.summarise(clips[real]) for clips, real in zip(batch, mask, strict=True)
            )
            losses = _losses(network, recipe, network.fusion.evidence(summaries, None), truth, None)
            optimizer.zero_grad()
            losses["total"].backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        ends.append(clock())
    return np.diff(ends, axis=0)


def _main(store: Annotated[Path, typer.Argument(help="Fis-V's features, labels in it or its parent.")] = STORE) -> None:
    """Time both and print a table in Markdown."""
    if not store.is_dir():
        raise ValueError(f"{store} does not exist; name the folder of Fis-V's features")
    found = FeatureStore(store)
    labels = read_labels("fisv", label_places(found, store))
    examples = load_dataset(found, labels).examples
    paths = [found.path(row.video) for row in examples.rows]
    files = PaddedFiles(paths, examples.scores, max(map(len, examples.features)))
    config = CoFInAlConfig(
        feature_dim=examples.features[0].shape[1], targets=labels.targets, ranges=tuple(labels.ranges.values())
    )

    def fit_epochs(recipe: TrainingRecipe) -> tuple[GradingNetwork, np.ndarray]:
        """Return the head and the seconds of each epoch (1 + EPOCHS, 2), the preparation in the first."""
        ends = [clock()]
        network = fit(
            examples.features,
            examples.scores,
            config=config,
            recipe=replace(recipe, epochs=1 + EPOCHS),
            on_progress=lambda _: ends.append(clock()),
        )
        return network, np.diff(ends, axis=0)

    whole = replace(TrainingRecipe(), mixup=0.0)
    turns: dict[str, list[np.ndarray]] = {"plain": [], "ours": []}
    for turn in range(1, TURNS + 1):
        print_message(f"turn {turn} of {TURNS}")
        network, seconds = fit_epochs(whole)
        turns["ours"].append(seconds[1:])
        turns["plain"].append(plain_epochs(network, files, whole))
    plain, ours = (np.median(np.concatenate(turns[name]), axis=0) for name in ("plain", "ours"))
    seconds = fit_epochs(TrainingRecipe())[1]
    default = np.median(seconds[1:], axis=0)
    epochs = TrainingRecipe().epochs
    prepared = np.maximum(seconds[0] - default, 0)
    what = f"{len(files)} routines of up to {files.longest} clips, {torch.get_num_threads()} threads"
    print_table(
        [what, "s an epoch", "CPU s an epoch"],
        [
            [f"plain loop, {WORKERS} workers", *(f"{x:.2f}" for x in plain)],
            ["fit, batches of the same size", *(f"{x:.2f}" for x in ours)],
            ["plain loop / fit", *(f"{x:.1f}" for x in plain / ours)],
            ["fit by default, with mixup", *(f"{x:.2f}" for x in default)],
            ["once, before its first epoch", *(f"{x:.2f}" for x in prepared)],
            [
                f"plain loop / fit, {epochs} epochs and that",
                *(f"{x:.1f}" for x in epochs * plain / (epochs * ours + prepared)),
            ],
        ],
    )


if __name__ == "__main__":
    typer.run(ends_well(_main))
