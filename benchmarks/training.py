"""What an epoch of training costs: `fit` beside a plain loop in the public style, on Fis-V's features.

    python -m benchmarks.training [FISV]

Both train the default head with its losses and its optimiser, in as many batches. The plain loop
reads features from disk in every epoch, through a DataLoader with worker processes, pads each routine to the longest of
the dataset, and summarises the clips in every batch; `fit` loads and summarises once. They take turns, and the medians
of their epochs are compared, by the clock and by seconds of CPU, which tell more where other programs run.
"""

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
from cofinal.models.cofinal import CoFInAl, CoFInAlRecipe, TrainingSet
from cofinal.models.head import HeadNetwork
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.training import fit

from .cross_validation import DEFAULT, FISV, FisvArgument, RoutinesOption, Source, load
from .tables import print_table

WORKERS = 8
TURNS = 2
EPOCHS = 3
"""Timed in each turn; the first one of `fit`, which prepares the features, is not among them."""


class PaddedFiles(Dataset[tuple[Tensor, int, Tensor]]):
    """Routines read from disk: features (T, C) padded to the longest, number of clips, and scores (M,)."""

    def __init__(self, paths: list[Path], scores: np.ndarray, longest: int) -> None:
        self.paths, self.scores, self.longest = paths, torch.from_numpy(scores).float(), longest

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        clips = torch.from_numpy(np.load(self.paths[index])).float()
        return torch.nn.functional.pad(clips, (0, 0, 0, self.longest - len(clips))), len(clips), self.scores[index]


def clock() -> np.ndarray:
    """Return seconds by the clock, and of CPU time, that of child processes that have ended included."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def plain_epochs(network: CoFInAl, files: PaddedFiles, recipe: CoFInAlRecipe, workers: int) -> np.ndarray:
    """Train a fitted network the plain way; return the seconds of each epoch (EPOCHS, 2)."""
    network.train()
    rng = np.random.default_rng(0)
    loader = DataLoader(files, recipe.batch_size, shuffle=True, num_workers=workers)
    optimizer, schedule = recipe.optimizer(network, EPOCHS * len(loader))
    ends = [clock()]
    for _ in range(EPOCHS):
        for padded, num_clips, scores in loader:
            with torch.no_grad():
                pairs = zip(padded, num_clips.tolist(), strict=True)
                tokens = network.tfm([network.tfm.compress(clips[:length]) for clips, length in pairs], None)
            batch = TrainingSet(tokens, None, scores, mixed=scores)
            losses = network.losses(batch, np.arange(len(scores)), recipe, rng)
            optimizer.zero_grad()
            losses["total"].backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        ends.append(clock())
    return np.diff(ends, axis=0)


def _main(
    fisv: FisvArgument = FISV,
    routines: RoutinesOption = None,
    workers: Annotated[int, typer.Option(help="Processes of the plain loop that read files.")] = WORKERS,
) -> None:
    """Time both and print a table in Markdown."""
    source = Source(fisv, routines)
    dataset = load(source, "random")
    examples, store = dataset.examples, FeatureStore(source.features())
    paths = [store.path(row.video) for row in examples.rows]
    files = PaddedFiles(paths, examples.scores, max(map(len, examples.features)))
    recipe = CoFInAlRecipe()

    def fit_epochs() -> tuple[HeadNetwork, np.ndarray]:
        """Return the head and the seconds of each epoch (1 + EPOCHS, 2), the preparation in the first."""
        ends = [clock()]
        network = fit(
            examples.features,
            examples.scores,
            config=DEFAULT.training.config_for(examples, dataset.labels),
            recipe=replace(recipe, epochs=1 + EPOCHS),
            on_progress=lambda _: ends.append(clock()),
        )
        return network, np.diff(ends, axis=0)

    plain_turns, fit_turns, preparations = [], [], []
    for turn in range(1, TURNS + 1):
        print_message(f"turn {turn} of {TURNS}")
        network, seconds = fit_epochs()
        assert isinstance(network, CoFInAl), "the default head"
        fit_turns.append(seconds[1:])
        preparations.append(np.maximum(seconds[0] - np.median(seconds[1:], axis=0), 0))
        plain_turns.append(plain_epochs(network, files, recipe, workers))
    plain, ours = (np.median(np.concatenate(turns), axis=0) for turns in (plain_turns, fit_turns))
    prepared = np.median(preparations, axis=0)
    whole = recipe.epochs * ours + prepared
    title = f"{len(files)} routines of up to {files.longest} clips, {torch.get_num_threads()} threads"
    print_table(
        [title, "s", "CPU s"],
        [
            [f"an epoch of the plain loop, {workers} workers", *(f"{x:.2f}" for x in plain)],
            ["an epoch of fit", *(f"{x:.2f}" for x in ours)],
            ["plain loop / fit", *(f"{x:.1f}" for x in plain / ours)],
            ["fit, before its first epoch", *(f"{x:.2f}" for x in prepared)],
            [f"fit, {recipe.epochs} epochs and that", *(f"{x:.2f}" for x in whole)],
            ["plain loop / fit, all epochs", *(f"{x:.1f}" for x in recipe.epochs * plain / whole)],
        ],
    )


if __name__ == "__main__":
    typer.run(ends_well(_main))
