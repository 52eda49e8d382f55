"""Do doubts, percentiles and assumed actions hold on the demo's unseen routines, and do other videos raise doubts?

    python -m benchmarks.evidence demo
    python -m benchmarks.evidence demo --others FOLDER    # videos that show something else, or their features

FOLDER `demo` is the one that `make demo` wrote.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import spearmanr

from cofinal.data.text_labels import read_rg
from cofinal.models.checkpoint import load_head
from cofinal.pipeline.console import ends_well
from cofinal.pipeline.scoring import score_video
from cofinal.pipeline.verdict import Score

from .tables import print_table

TARGET = "Total"


def _main(
    demo: Annotated[Path, typer.Argument(help="The folder of `make demo`.")] = Path("demo"),
    others: Annotated[Path | None, typer.Option(help="Videos of something else, or their features.")] = None,
) -> None:
    """Score routines that training never saw, and print a table on what the evidence says of them."""
    head = demo / "head.safetensors"
    rows = [row for row in read_rg([demo / "test.txt"]).rows if row.split == "test"]
    unseen = {row.video: score_video(demo / "features" / f"{row.video}.npy", head, action=row.action) for row in rows}
    table = [
        *_percentiles(head, {row.video: row.scores[TARGET] for row in rows}, unseen),
        *_actions(demo, {row.video: str(row.action) for row in rows}),
        ("unseen routines flagged as unlike the training routines", _share([_is_unlike(s) for s in unseen.values()])),
        ("unseen routines with any doubt", _share([bool(_doubts(score)) for score in unseen.values()])),
    ]
    if others is not None:
        scores = [
            score_video(path, head, action=rows[0].action) for path in sorted(others.iterdir()) if _is_media(path)
        ]
        table.append(("other videos flagged as unlike the training routines", _share(list(map(_is_unlike, scores)))))
    print_table([f"{len(unseen)} unseen routines", "measured"], table)


def _percentiles(head: Path, true: dict[str, float], unseen: dict[str, Score]) -> list[tuple[str, str]]:
    """Compare percentiles of predicted scores with those of true scores among the same training routines."""
    loaded = load_head(head)
    assert loaded.neighbourhood is not None
    scores, actions = np.array(loaded.metadata["training_set"]["scores"][TARGET]), loaded.neighbourhood.actions
    expected, found = [], []
    for video, score in unseen.items():
        assert score.action is not None
        same = scores[actions == loaded.metadata["actions"].index(score.action)]
        expected.append(100 * (same < true[video]).mean())
        found.append(score.evidence.targets[TARGET].percentile)
    error, naive = (np.abs(np.array(x) - expected).mean() for x in (found, 50.0))
    return [
        (
            f"percentile of {TARGET}: mean difference from that of the true score",
            f"{error:.1f} (always 50: {naive:.1f})",
        ),
        ("rank correlation of the two", f"{spearmanr(found, expected).statistic:.2f}"),
    ]


def _actions(demo: Path, true: dict[str, str]) -> list[tuple[str, str]]:
    """Let the head say which apparatus each routine shows."""
    head = load_head(demo / "head.safetensors")
    assert head.neighbourhood is not None
    places = [head.neighbourhood.place(np.load(demo / "features" / f"{video}.npy")) for video in true]
    probabilities = np.stack([head.neighbourhood.action_probabilities(place) for place in places])
    is_right = [
        head.metadata["actions"][i] == action for i, action in zip(probabilities.argmax(1), true.values(), strict=True)
    ]
    return [("apparatus told right", f"{_share(is_right)}, mean probability {probabilities.max(1).mean():.0%}")]


def _doubts(score: Score) -> list[str]:
    return score.evidence.doubts


def _is_unlike(score: Score) -> bool:
    return any("unlike" in doubt for doubt in _doubts(score))


def _is_media(path: Path) -> bool:
    return path.suffix not in (".json", ".jsonl", "")


def _share(values: list[bool]) -> str:
    return f"{sum(values)} of {len(values)}"


if __name__ == "__main__":
    typer.run(ends_well(_main))
