"""The paper's figures, from the Fis-V programmes: PNG and CSV files in a folder.

    python -m benchmarks.figures [FISV] [--out docs/figures]

grades        Figure 4: SRCC over the number of grades and of sub-grades, random folds, fold seeds 0 to 2
predicted     Figure 5, right: predicted against true scores, held out, CoFInAl beside GDLT, fold seed 0
embeddings    Figure 5, left: t-SNE of the held-out fold's features: as they come in, fused, and parsed into grades
clips         how far each clip moves a routine's grades: they are graded again without it
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from cofinal.models.cofinal import CoFInAlConfig
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.grading import GradingNetwork
from cofinal.models.temporal_fusion import Summary
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.evaluation import r_l2, srcc
from cofinal.pipeline.plots import INK, MARK, PALE, png
from cofinal.pipeline.results import as_csv
from cofinal.pipeline.splits import cut_folds
from cofinal.pipeline.training import fit

from .cross_validation import FISV, FOLDS, Variant, config_of, held_out_predictions, load

COFINAL, GDLT = Variant("CoFInAl"), Variant("GDLT", GDLTConfig)
GRADES, SUBGRADES = (1, 2, 3, 4, 6), (2, 4, 8, 16)
PERPLEXITY = 20
SHOWN = 3
"""Routines whose clips are left out one by one."""
COLOURS = "cividis"


def grades(fisv: Path, out: Path, seeds: int) -> None:
    """SRCC over the number of grades with the default number of sub-grades, and the other way round."""
    labels, examples = load(fisv, "random").labels, load(fisv, "random").examples
    default = CoFInAlConfig(1, ("score",), ((0.0, 1.0),))
    swept = {
        "grades": [(number, default.num_subgrades) for number in GRADES],
        "sub-grades": [(default.num_grades, number) for number in SUBGRADES],
    }
    variants = {
        sizes: Variant(f"{sizes}", settings=dict(zip(("num_grades", "num_subgrades"), sizes, strict=True)))
        for each in swept.values()
        for sizes in each
    }
    said = held_out_predictions(variants.values(), fisv, ["random"], range(seeds))
    rows = []
    figure = Figure(figsize=(8, 5), layout="constrained")
    for line, target in enumerate(labels.targets):
        truth = examples.scores[:, line]
        for place, (what, each) in enumerate(swept.items()):
            numbers = [sizes[place] for sizes in each]
            found = np.array([[srcc(truth, x) for x in said[f"{sizes}", "random"][..., line]] for sizes in each])
            mean, spread = found.mean(1), found.std(1, ddof=1)  # of (numbers, seeds)
            rows += [
                {"target": target, "of": what, "number": n, "srcc": float(m), "std": float(s)}
                for n, m, s in zip(numbers, mean, spread, strict=True)
            ]
            axes = figure.add_subplot(len(labels.targets), 2, 1 + 2 * line + place)
            bars = axes.bar(range(len(numbers)), mean, yerr=spread, color=PALE, edgecolor=INK, ecolor=INK, capsize=3)
            axes.bar_label(bars, [f"{value:.3f}" for value in mean], padding=3)
            axes.set_xticks(range(len(numbers)), list(map(str, numbers)))
            axes.set(title=target, xlabel=f"number of {what}", ylabel="SRCC", ylim=(0, 1))
    _write(out, "grades", figure, rows)


def predicted(fisv: Path, out: Path) -> None:
    """Held-out scores against true ones, a column a head."""
    labels, examples = load(fisv, "random").labels, load(fisv, "random").examples
    heads = (GDLT, COFINAL)
    said = held_out_predictions(heads, fisv, ["random"], range(1))
    rows = []
    figure = Figure(figsize=(8, 7), layout="constrained")
    for line, target in enumerate(labels.targets):
        truth = examples.scores[:, line]
        for place, head in enumerate(heads):
            scores = said[head.name, "random"][0, :, line]
            axes = figure.add_subplot(2, 2, 1 + 2 * line + place)
            axes.scatter(truth, scores, s=9, color=INK, alpha=0.5, linewidths=0)
            ends = [min(truth.min(), scores.min()), max(truth.max(), scores.max())]
            axes.plot(ends, ends, color=MARK, linewidth=1)
            found = f"SRCC {srcc(truth, scores):.3f}, R-l2 {r_l2(truth, scores):.2f}"
            axes.set(title=f"{head.name}, {target}: {found}", xlabel="true (points)", ylabel="predicted (points)")
            rows += [
                {"head": head.name, "target": target, "video": row.video, "true": t, "predicted": float(s)}
                for row, t, s in zip(examples.rows, truth, scores, strict=True)
            ]
    _write(out, "predicted", figure, rows)


def embeddings(fisv: Path, out: Path) -> None:
    """t-SNE of held-out routines: mean clip features, fused routines and grade embeddings, coloured by true score."""
    labels, examples = load(fisv, "random").labels, load(fisv, "random").examples
    networks, held_out = _fold(fisv)
    judged = examples.at(held_out)
    stages: dict[str, np.ndarray] = {"input": np.stack([x.mean(0) for x in judged.features])}
    for head, network in networks.items():
        summaries = Summary.of(network.fusion.summarise(torch.from_numpy(x)) for x in judged.features)
        evidence = network.fusion.evidence(summaries, None)
        stages[f"{head}, TFM"] = network.fusion(evidence, None).flatten(1).numpy()
        stages[f"{head}, grades"] = network.judge(evidence).embeddings.flatten(1).numpy()
    places = {
        name: TSNE(perplexity=PERPLEXITY, random_state=0, init="pca").fit_transform(points.astype(np.float64))
        for name, points in stages.items()
    }
    figure = Figure(figsize=(3 * len(places), 3 * len(labels.targets)), layout="constrained")
    for line, target in enumerate(labels.targets):
        for place, (name, points) in enumerate(places.items()):
            axes = figure.add_subplot(len(labels.targets), len(places), 1 + line * len(places) + place)
            shown = axes.scatter(points[:, 0], points[:, 1], c=judged.scores[:, line], cmap=COLOURS, s=16)
            axes.set(title=name if line == 0 else "", xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes, label=f"{target} (points)")
    rows = [
        {"stage": name, "video": row.video, "x": float(x), "y": float(y), **row.scores}
        for name, points in places.items()
        for row, (x, y) in zip(judged.rows, points, strict=True)
    ]
    _write(out, "embeddings", figure, rows)


def clips(fisv: Path, out: Path) -> None:
    """Change of each grade's probability by each clip: that with all clips less that without it."""
    labels, examples = load(fisv, "random").labels, load(fisv, "random").examples
    networks, held_out = _fold(fisv)
    network = networks[COFINAL.name]
    ranked = held_out[np.argsort(examples.scores[held_out, 0])]
    shown = ranked[np.linspace(0, len(ranked) - 1, SHOWN).round().astype(int)]
    rows: list[dict[str, Any]] = []
    figure = Figure(figsize=(10, 2 * SHOWN), layout="constrained")
    for line, chosen in enumerate(shown):
        x = torch.from_numpy(examples.features[chosen])
        without = torch.stack([torch.cat([x[:t], x[t + 1 :]]) for t in range(len(x))])  # (T, T-1, C)
        whole = network(x[None], torch.ones(1, len(x), dtype=torch.bool)).grade_logits.softmax(-1)
        mask = torch.ones(without.shape[:2], dtype=torch.bool)
        moved = 100 * (whole - network(without, mask).grade_logits.softmax(-1))  # (T, M, G)
        for column, target in enumerate(labels.targets):
            change = moved[:, column].numpy()
            axes = figure.add_subplot(SHOWN, 2, 1 + 2 * line + column)
            limit = np.abs(change).max()
            image = axes.imshow(
                change.T,
                extent=(0.5, len(change) + 0.5, 0.5, change.shape[1] + 0.5),  # both counted from 1
                origin="lower",
                aspect="auto",
                cmap="PuOr",
                vmin=-limit,
                vmax=limit,
                interpolation="nearest",
            )
            score = examples.scores[chosen, column]
            axes.set(title=f"programme {examples.rows[chosen].video}, {target} {score:.2f} points", ylabel="grade")
            axes.set_yticks(range(1, change.shape[1] + 1))
            axes.set_xlabel("clip" if line == SHOWN - 1 else "")
            figure.colorbar(image, ax=axes, label="points of %")
            rows += [
                {
                    "video": examples.rows[chosen].video,
                    "target": target,
                    "clip": t,
                    "grade": g,
                    "change": value,
                }
                for t, of_clip in enumerate(change.tolist(), start=1)
                for g, value in enumerate(of_clip, start=1)
            ]
    _write(out, "clips", figure, rows)


@cache
def _fold(fisv: Path) -> tuple[dict[str, GradingNetwork], np.ndarray]:
    """Both heads trained without the first fold of fold seed 0, and that fold's rows."""
    examples = load(fisv, "random").examples
    held_out = cut_folds(len(examples.rows), FOLDS, seed=0)[0]
    training = examples.at(np.setdiff1d(np.arange(len(examples.rows)), held_out))
    networks = {
        head.name: fit(training.features, training.scores, config=config_of(head, load(fisv, "random")), seed=0)
        for head in (GDLT, COFINAL)
    }
    for network in networks.values():
        network.requires_grad_(False)
    return networks, held_out


def _write(out: Path, name: str, figure: Figure, rows: Sequence[dict[str, Any]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.png").write_bytes(png(figure))
    (out / f"{name}.csv").write_bytes(as_csv(rows))
    print_message(f"{out / name}.png and .csv")


def _main(
    fisv: Annotated[Path, typer.Argument(help="Folder with train.txt, skaters.csv and one folder of features.")] = FISV,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/figures"),
    seeds: Annotated[int, typer.Option(help="Fold seeds of the bars, from 0 on.")] = 3,
) -> None:
    """Draw all figures."""
    embeddings(fisv, out)
    clips(fisv, out)
    predicted(fisv, out)
    grades(fisv, out, seeds)


if __name__ == "__main__":
    typer.run(ends_well(_main))
