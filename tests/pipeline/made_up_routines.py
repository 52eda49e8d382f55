"""Made-up routines in memory, for tests of splits, protocols and results."""

import numpy as np

from cofinal.data.labels import LabelRow, LabelSet
from cofinal.pipeline.examples import Dataset, Examples


def dataset_of(scores: np.ndarray, groups: list[str | None] | None = None, *, test_every: int = 0) -> Dataset:
    """Routines whose features are always the same; the first of the 8 features tells the score, more or less.

    Args:
        scores: true scores (N,), from 0 to 20.
        groups: each routine's group.
        test_every: put every n-th routine into the test split; 0 for none.
    """
    features = [np.random.default_rng(i).normal(size=(4, 8)).astype(np.float32) for i in range(len(scores))]
    for i, x in enumerate(features):
        x[:, 0] += i / len(scores) * 4
    groups = groups or [None] * len(scores)
    rows = [
        LabelRow(
            f"v{i}",
            {"score": score},
            f"row {i}",
            split="test" if test_every and i % test_every == 0 else "train",
            group=group,
        )
        for i, (score, group) in enumerate(zip(scores, groups, strict=True))
    ]
    labels = LabelSet("csv", ("score",), {"score": (0, 20)}, (), tuple(rows), ())
    return Dataset(labels, Examples(rows, features, np.asarray(scores)[:, None], None, [row.video for row in rows]), [])
