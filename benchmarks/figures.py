"""The paper's figures, from the Fis-V programmes: PNG and CSV files in a folder.

    python -m benchmarks.figures [FISV] [--out docs/figures] [--figures NAME] [--epochs 50]

grades        Figure 4: SRCC over the number of grades and of sub-grades, random folds, fold seeds 0 to 2
predicted     Figure 5, right: predicted against true scores, held out, for gdlt, cofinal-paper and cofinal, fold seed 0
embeddings    Figure 5, left: t-SNE of a held-out fold's features: as they come in, fused, and parsed into grades
attention     how cofinal-paper's grade prototypes attend to the clips of three held-out programmes
clips         how much each clip moves the default head's grades: they are graded again without it

The three heads of Figure 5 train for their own number of epochs, which takes 35 minutes each for gdlt and
cofinal-paper; `--epochs` sets another number for these two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from torch import Tensor, nn

from cofinal.models.cofinal import CoFInAl, CoFInAlConfig, CoFInAlRecipe
from cofinal.models.cofinal_paper import PaperCoFInAl
from cofinal.models.gdlt import GDLT
from cofinal.models.head import HeadNetwork
from cofinal.models.predict import predict
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.evaluation import mae, r_l2, srcc
from cofinal.pipeline.examples import Examples
from cofinal.pipeline.plots import INK, MARK, PALE, png
from cofinal.pipeline.protocol import run_protocol
from cofinal.pipeline.results import as_csv
from cofinal.pipeline.trainings import HeadTraining

from .ablation import PAPER, with_epochs
from .cross_validation import (
    DEFAULT,
    FISV,
    FisvArgument,
    KeepOption,
    RoutinesOption,
    Source,
    Variant,
    as_arrays,
    cross_validate,
    folds_of,
    load,
)
from .tables import print_table

GRADES, SUBGRADES = (1, 2, 3, 4, 6), (2, 4, 8, 16)
PERPLEXITY = 20
SHOWN = 3
"""Routines of the pictures over time: the lowest, the middle and the highest score of a fold."""
COLOURS = "cividis"


@dataclass(frozen=True)
class Work:
    """What the figures are made from, and where they go."""

    source: Source
    out: Path
    seeds: int
    """Fold seeds of Figure 4."""
    epochs: int | None
    """Of gdlt and cofinal-paper; None for their own number."""
    keep: Path | None
    """Folder of finished folds."""

    def heads(self) -> list[Variant]:
        """Return the heads of Figure 5."""
        paper, gdlt = (variant if self.epochs is None else with_epochs(variant, self.epochs) for variant in PAPER)
        return [gdlt, paper, Variant("cofinal", DEFAULT.training)]

    def write(self, name: str, figure: Figure, rows: Sequence[dict[str, Any]]) -> None:
        """Write a figure and its numbers."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{name}.png").write_bytes(png(figure))
        (self.out / f"{name}.csv").write_bytes(as_csv(rows))
        print_message(f"{self.out / name}.png and .csv")


def grades(work: Work) -> None:
    """Draw SRCC over the number of grades with the default number of sub-grades, and the other way round."""
    swept = {
        "grades": [(number, CoFInAlConfig.num_subgrades) for number in GRADES],
        "sub-grades": [(CoFInAlConfig.num_grades, number) for number in SUBGRADES],
    }
    sizes = dict.fromkeys(size for of_axis in swept.values() for size in of_axis)
    variants = [
        Variant(
            f"{size}",
            HeadTraining(partial(CoFInAlConfig, num_grades=size[0], num_subgrades=size[1]), CoFInAlRecipe()),
        )
        for size in sizes
    ]
    entries = cross_validate(variants, work.source, ["random"], range(work.seeds), keep=work.keep)
    arrays = {variant.name: as_arrays(entries[variant.name, "random"]) for variant in variants}
    targets = load(work.source, "random").labels.targets
    rows = []
    figure = Figure(figsize=(8, 5), layout="constrained")
    for line, target in enumerate(targets):
        for place, (what, of_axis) in enumerate(swept.items()):
            numbers = [size[place] for size in of_axis]
            figures = np.array([_srcc_of_seeds(arrays[f"{size}"], line) for size in of_axis])  # (numbers, seeds)
            mean, spread = figures.mean(1), figures.std(1, ddof=1) if work.seeds > 1 else np.zeros(len(numbers))
            rows += [
                {"target": target, "of": what, "number": n, "srcc": float(m), "std": float(s)}
                for n, m, s in zip(numbers, mean, spread, strict=True)
            ]
            axes = figure.add_subplot(len(targets), 2, 1 + 2 * line + place)
            bars = axes.bar(range(len(numbers)), mean, yerr=spread, color=PALE, edgecolor=INK, ecolor=INK, capsize=3)
            axes.bar_label(bars, [f"{value:.3f}" for value in mean], padding=3)
            axes.set_xticks(range(len(numbers)), list(map(str, numbers)))
            axes.set(title=target, xlabel=f"number of {what}", ylabel="SRCC", ylim=(0, 1))
    work.write("grades", figure, rows)


def _srcc_of_seeds(arrays: dict[str, NDArray], target: int) -> list[float]:
    return [srcc(arrays["true"][0, :, target], predicted) for predicted in arrays["predicted"][..., target]]


def predicted(work: Work) -> None:
    """Draw held-out scores against true ones, a column a head, and print the heads' figures."""
    heads = work.heads()
    entries = cross_validate(heads, work.source, ["random"], [0], keep=work.keep)
    targets = load(work.source, "random").labels.targets
    figure = Figure(figsize=(4 * len(heads), 3.5 * len(targets)), layout="constrained")
    rows, table = [], []
    for place, head in enumerate(heads):
        of_head = entries[head.name, "random"]
        rows += [
            {"head": head.name, **{name: entry[name] for name in ("target", "video", "true", "predicted")}}
            for entry in of_head
        ]
        for line, target in enumerate(targets):
            pairs = [(entry["true"], entry["predicted"]) for entry in of_head if entry["target"] == target]
            truth, scores = np.array(pairs).T
            axes = figure.add_subplot(len(targets), len(heads), 1 + len(heads) * line + place)
            axes.scatter(truth, scores, s=9, color=INK, alpha=0.5, linewidths=0)
            ends = [min(truth.min(), scores.min()), max(truth.max(), scores.max())]
            axes.plot(ends, ends, color=MARK, linewidth=1)
            figures = [f"{srcc(truth, scores):.3f}", f"{r_l2(truth, scores):.2f}", f"{mae(truth, scores):.2f}"]
            table.append([head.name, target, *figures])
            title = f"{head.name}, {target}: SRCC {figures[0]}, R-l2 {figures[1]}"
            axes.set(title=title, xlabel="true (points)", ylabel="predicted (points)")
    work.write("predicted", figure, rows)
    print_table(["random folds, seed 0", "target", "SRCC", "R-l2", "MAE"], table)


def embeddings(work: Work) -> None:
    """Draw t-SNE of held-out routines: mean clip features, fused routines and grade embeddings, coloured by score."""
    targets = load(work.source, "random").labels.targets
    routines = _held_out(work.source)
    stages: dict[str, NDArray] = {"input": np.stack([x.mean(0) for x in routines.features])}
    for head in work.heads():
        network = _trained(work.source, head)
        fused, parsed = zip(*(_embeddings(network, x) for x in routines.features), strict=True)
        stages |= {f"{head.name}, TFM": np.stack(fused), f"{head.name}, grades": np.stack(parsed)}
    perplexity = min(PERPLEXITY, len(routines) // 4 + 0.5)
    places = {
        name: TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(points.astype(np.float64))
        for name, points in stages.items()
    }
    figure = Figure(figsize=(3 * len(places), 3 * len(targets)), layout="constrained")
    for line, target in enumerate(targets):
        for place, (name, points) in enumerate(places.items()):
            axes = figure.add_subplot(len(targets), len(places), 1 + line * len(places) + place)
            shown = axes.scatter(points[:, 0], points[:, 1], c=routines.scores[:, line], cmap=COLOURS, s=16)
            axes.set(title=name if line == 0 else "", xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes, label=f"{target} (points)")
    rows = [
        {"stage": name, "video": row.video, "x": float(x), "y": float(y), **row.scores}
        for name, points in places.items()
        for row, (x, y) in zip(routines.rows, points, strict=True)
    ]
    work.write("embeddings", figure, rows)


@torch.inference_mode()
def _embeddings(network: HeadNetwork, features: NDArray) -> tuple[NDArray, NDArray]:
    """Return the fused routine and its grade embeddings, both flat, of clip features (T, C)."""
    clips = torch.from_numpy(features).float()
    if isinstance(network, CoFInAl):
        # the last norm returns the embeddings (B, J, M, G, D)
        parsed = _output_of(network.norms[1], network, clips)
        return network.tfm([network.tfm.compress(clips)], None)[0].sum(0).numpy(), parsed.flatten().numpy()
    assert isinstance(network, GDLT | PaperCoFInAl), "a head of Figure 5"
    fused = _output_of(network.transformer.encoder, network, clips)  # (B, T, D)
    grade_embeddings, _ = _output_of(network.transformer, network, clips)
    return fused[0].mean(0).numpy(), grade_embeddings.flatten().numpy()


def _output_of(module: nn.Module, network: HeadNetwork, clips: Tensor) -> Any:
    """Return what a module of a network returns while the network scores a routine (T, C)."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    network(clips[None])
    hook.remove()
    return outputs[-1]


def attention(work: Work) -> None:
    """Draw how each grade prototype of cofinal-paper attends to each clip."""
    head = work.heads()[1]
    network, routines = _trained(work.source, head), _shown(work.source)
    predictions = predict(network, routines.features)
    maps: dict[str, list[NDArray]] = {}
    for target, prediction in predictions.items():
        assert prediction.attention is not None, "it attends to clips"
        maps[target] = [100 * attended.T for attended in prediction.attention]
    _draw_over_time(work, "attention", routines, maps, "% of attention", is_signed=False)


def clips(work: Work) -> None:
    """Draw the change of each grade's probability by each clip: that with all clips less that without it."""
    network, routines = _trained(work.source, work.heads()[2]), _shown(work.source)
    maps: dict[str, list[NDArray]] = {target: [] for target in network.config.targets}
    for x in routines.features:
        variants = [x, *(np.delete(x, t, axis=0) for t in range(len(x)))]
        for target, prediction in predict(network, variants).items():
            maps[target].append(100 * (prediction.probabilities[0] - prediction.probabilities[1:]))  # (T, G)
    _draw_over_time(work, "clips", routines, maps, "points of %", is_signed=True)


def _draw_over_time(
    work: Work, name: str, routines: Examples, maps: dict[str, list[NDArray]], label: str, *, is_signed: bool
) -> None:
    """Draw and write values (T, G) of each grade over the clips, a line a routine and a column a target."""
    figure = Figure(figsize=(10, 2 * len(routines)), layout="constrained")
    rows: list[dict[str, Any]] = []
    for line, row in enumerate(routines.rows):
        for column, (target, of_target) in enumerate(maps.items()):
            values = of_target[line]
            axes = figure.add_subplot(len(routines), len(maps), 1 + len(maps) * line + column)
            title = f"programme {row.video}, {target} {row.scores[target]:.2f} points"
            axes.set(title=title, ylabel="grade", xlabel="clip" if line == len(routines) - 1 else "")
            figure.colorbar(_draw_map(axes, values, is_signed), ax=axes, label=label)
            rows += [
                {"video": row.video, "target": target, "clip": t, "grade": g, "value": value}
                for t, of_clip in enumerate(values.tolist(), start=1)
                for g, value in enumerate(of_clip, start=1)
            ]
    work.write(name, figure, rows)


def _draw_map(axes: Axes, values: NDArray, is_signed: bool) -> AxesImage:
    """Draw values (T, G); clips and grades are counted from 1."""
    num_clips, num_grades = values.shape
    limit = float(np.abs(values).max())
    axes.set_yticks(range(1, num_grades + 1))
    return axes.imshow(
        values.T,
        extent=(0.5, num_clips + 0.5, 0.5, num_grades + 0.5),
        origin="lower",
        aspect="auto",
        cmap="PuOr" if is_signed else COLOURS,
        vmin=-limit if is_signed else 0,
        vmax=limit,
        interpolation="nearest",
    )


@cache
def _trained(source: Source, head: Variant) -> HeadNetwork:
    """Return a head trained without the first fold of fold seed 0."""
    dataset = load(source, "random")
    print_message(f"training {head.name}")
    return run_protocol(folds_of(dataset, 0)[:1], dataset, head.training).network


def _held_out(source: Source) -> Examples:
    """Return the routines of the first fold."""
    dataset = load(source, "random")
    return dataset.examples.at(folds_of(dataset, 0)[0].evaluated)


def _shown(source: Source) -> Examples:
    """Return held-out routines from the lowest to the highest score of the first target."""
    routines = _held_out(source)
    ranked = np.argsort(routines.scores[:, 0])
    return routines.at(ranked[np.linspace(0, len(ranked) - 1, SHOWN).round().astype(int)])


FIGURES = {
    "embeddings": embeddings,
    "attention": attention,
    "clips": clips,
    "predicted": predicted,
    "grades": grades,
}
ALL_FIGURES = list(FIGURES)


def _main(
    fisv: FisvArgument = FISV,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/figures"),
    figures: Annotated[
        list[str], typer.Option("--figures", help=f"Which: {', '.join(FIGURES)}; repeatable.")
    ] = ALL_FIGURES,
    seeds: Annotated[int, typer.Option(help="Fold seeds of Figure 4, from 0 on.")] = 3,
    epochs: Annotated[int | None, typer.Option(help="Of gdlt and cofinal-paper; by default their own number.")] = None,
    routines: RoutinesOption = None,
    keep: KeepOption = None,
) -> None:
    """Draw figures."""
    if unknown := [name for name in figures if name not in FIGURES]:
        raise ValueError(f"unknown figure {unknown[0]!r}; known are {', '.join(FIGURES)}")
    work = Work(Source(fisv, routines), out, seeds, epochs, keep)
    for name in figures:
        FIGURES[name](work)


if __name__ == "__main__":
    typer.run(ends_well(_main))
