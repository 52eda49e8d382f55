"""What each part of the head is worth: the default head with one thing changed at a time, on Fis-V.

    python -m benchmarks.ablation [FISV] [--kinds random] [--seeds 2] [--variants "no mixup"] [--paper] [--out FILE]

Random, skater-disjoint and event-disjoint folds; figures are means over the fold seeds of pooled held-out predictions.
Differences are default minus variant, paired by routine, with 95% bootstrap intervals that draw routines, or whole
groups where the folds keep groups together: the part helps if SRCC's is above 0 and that of the mean absolute error
(MAE, points) below.

A token is left out by a zero in its place. The coordinates of the other tokens stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from cofinal.models.cofinal import (
    LAGS,
    NUM_QUARTERS,
    NUM_STATISTICS,
    CoFInAl,
    CoFInAlConfig,
    CoFInAlRecipe,
    SummaryTokens,
)
from cofinal.models.cofinal_paper import PaperConfig
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.transformer import TransformerRecipe
from cofinal.pipeline.console import ends_well
from cofinal.pipeline.evaluation import difference, mae, r_l2, srcc
from cofinal.pipeline.results import as_csv
from cofinal.pipeline.trainings import HeadTraining

from .cross_validation import (
    ALL_KINDS,
    DEFAULT,
    FISV,
    Entries,
    FirstSeedOption,
    FisvArgument,
    KeepOption,
    KindsOption,
    RoutinesOption,
    SeedsOption,
    Source,
    Variant,
    as_arrays,
    cross_validate,
    load,
)
from .tables import print_table

FIGURES = {"srcc": srcc, "r_l2": r_l2, "mae": mae}
NUM_TOKENS = NUM_STATISTICS + 1
MEAN, DURATION = 0, NUM_STATISTICS
"""Places among the summary tokens; see `cofinal.models.cofinal.summarise`."""
LONG_CHANGES = range(6, 5 + len(LAGS))
QUARTERS = range(NUM_STATISTICS - NUM_QUARTERS, NUM_STATISTICS)


@dataclass(frozen=True, kw_only=True)
class FewerTokensConfig(CoFInAlConfig):
    """Some summary tokens are left out."""

    left_out: tuple[int, ...]
    """Their places among the summary tokens."""

    def build(self) -> "FewerTokens":
        """Build the untrained network."""
        return FewerTokens(self)


class FewerTokens(CoFInAl):
    """Reads only some of the summary tokens."""

    def __init__(self, config: FewerTokensConfig) -> None:
        super().__init__(config)
        self.tfm = _TokensLeftOut(config.feature_dim, self.tfm.num_span, config.num_actions)
        self.tfm.left_out = list(config.left_out)


class _TokensLeftOut(SummaryTokens):
    left_out: list[int]

    def place(self, summaries: Tensor, durations: Tensor, actions: Tensor | None) -> Tensor:
        tokens = super().place(summaries, durations, actions)
        tokens[:, self.left_out] = 0
        return tokens


@dataclass(frozen=True, kw_only=True)
class EvenAttentionConfig(CoFInAlConfig):
    """Attention is not learnt."""

    def build(self) -> "EvenAttention":
        """Build the untrained network."""
        return EvenAttention(self)


class EvenAttention(CoFInAl):
    """Its prototypes attend to all tokens alike."""

    def __init__(self, config: EvenAttentionConfig) -> None:
        super().__init__(config)
        for queries in (self.queries, self.query_bias):
            queries.requires_grad_(False).zero_()


@dataclass(frozen=True, kw_only=True)
class UncompressedConfig(CoFInAlConfig):
    """Large feature values are not compressed."""

    def build(self) -> "Uncompressed":
        """Build the untrained network."""
        return Uncompressed(self)


class Uncompressed(CoFInAl):
    """Reads clip features as they are, but for their scale."""

    def __init__(self, config: UncompressedConfig) -> None:
        super().__init__(config)
        self.tfm = _UncompressedTokens(config.feature_dim, self.tfm.num_span, config.num_actions)


class _UncompressedTokens(SummaryTokens):
    def compress(self, clips: Tensor) -> Tensor:
        return clips / self.feature_scale


@dataclass(frozen=True, kw_only=True)
class CoarseOnlyConfig(CoFInAlConfig):
    """No fine grades in the score."""

    def build(self) -> "CoarseOnly":
        """Build the untrained network."""
        return CoarseOnly(self)


class CoarseOnly(CoFInAl):
    """Places every routine of a grade at the mean of the grade's training scores."""

    def couple(self, probabilities: Tensor) -> Tensor:
        """Return scores (..., M) in points of the grades' probabilities, whatever those of their sub-grades."""
        # the cells of a grade hold equally many scores
        means = self.values.unflatten(-1, (self.config.num_grades, self.config.num_subgrades)).mean(-1)
        return (probabilities.sum(-1) * means).sum(-1)


@dataclass(frozen=True, kw_only=True)
class OrderedConfig(CoFInAlConfig):
    """Sub-grade prototypes in an order."""

    def build(self) -> "Ordered":
        """Build the untrained network."""
        return Ordered(self)


class Ordered(CoFInAl):
    """Its sub-grade prototypes stand evenly on half a circle, so that neighbours are close, instead of equally far."""

    def __init__(self, config: OrderedConfig) -> None:
        super().__init__(config)
        plane = torch.linalg.qr(self.etf).Q[:, :2]  # the same in every network
        angle = torch.linspace(0, torch.pi, config.num_subgrades)
        self.etf.copy_(plane @ torch.stack([angle.cos(), angle.sin()]))


def _variant(
    name: str, config: type[CoFInAlConfig] = CoFInAlConfig, *, recipe: CoFInAlRecipe | None = None, **settings: Any
) -> Variant:
    return Variant(name, HeadTraining(partial(config, **settings), recipe or CoFInAlRecipe()))


def _without(name: str, left_out: Sequence[int]) -> Variant:
    return _variant(name, FewerTokensConfig, left_out=tuple(left_out))


VARIANTS = (
    DEFAULT,
    _without("TFM: mean alone", [place for place in range(NUM_TOKENS) if place != MEAN]),
    _without("TFM: no change over more than a clip", LONG_CHANGES),
    _without("TFM: no duration", [DURATION]),
    _without("TFM: no quarters", QUARTERS),
    _without("TFM: no quarters, no duration", [*QUARTERS, DURATION]),
    _variant("TFM: no compression", UncompressedConfig),
    _variant("TFM: clip tokens alone", tokens="clips"),
    _variant("TFM: clip tokens too", tokens="both"),
    _variant("GPM: even attention", EvenAttentionConfig),
    _variant("GPM: 1 member", num_members=1),
    _variant("GPM: 24 members of width 32", num_members=24, width=32),
    _variant("GPM: 1 grade of 32 sub-grades", num_grades=1, num_subgrades=32),
    _variant("FGS: coarse grades only", CoarseOnlyConfig, recipe=CoFInAlRecipe(fine_weight=0.0)),
    _variant("FGS: ordered prototypes, no ETF", OrderedConfig),
    _variant("no target mixing", recipe=CoFInAlRecipe(target_mixing=False)),
    _variant("no mixup", recipe=CoFInAlRecipe(mixup=0.0)),
    _variant("loss of the score alone", recipe=CoFInAlRecipe(coarse_weight=0.0, fine_weight=0.0)),
)
PAPER = (
    Variant("cofinal-paper", HeadTraining(PaperConfig, TransformerRecipe())),
    Variant("gdlt", HeadTraining(GDLTConfig, TransformerRecipe())),
)
"""Hours of training each."""


def choose(names: Sequence[str], with_paper: bool) -> list[Variant]:
    """Return the variants of these names, all if there is none, with the default first.

    Raises:
        ValueError: a name is unknown.
    """
    known = {variant.name: variant for variant in (*VARIANTS, *PAPER)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown variant {unknown[0]!r}; known are {'; '.join(known)}")
    chosen = [known[name] for name in names] or [*VARIANTS]
    return list(dict.fromkeys([DEFAULT, *chosen, *(PAPER if with_paper else ())]))


def _main(
    fisv: FisvArgument = FISV,
    kinds: KindsOption = ALL_KINDS,
    seeds: SeedsOption = 5,
    first_seed: FirstSeedOption = 0,
    variants: Annotated[
        list[str] | None, typer.Option("--variants", help="Only these variants, beside the default; repeatable.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The heads cofinal-paper and gdlt too; hours.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Of all trainings; by default each head's own number.")] = None,
    routines: RoutinesOption = None,
    keep: KeepOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the figures to this CSV file, too.")] = None,
) -> None:
    """Cross-validate variants and print tables in Markdown."""
    source, chosen = Source(fisv, routines), choose(variants or [], paper)
    if epochs is not None:
        chosen = [with_epochs(variant, epochs) for variant in chosen]
    entries = cross_validate(chosen, source, kinds, range(first_seed, first_seed + seeds), keep=keep)
    rows = [row for kind in kinds for variant in chosen for row in _figures(source, kind, variant.name, entries)]
    targets = load(source, kinds[0]).labels.targets
    columns = [f"{target} {title}" for target in targets for title in ("SRCC", "default −", "MAE", "default −")]
    for kind in kinds:
        lines = []
        for variant in chosen:
            of_variant = [row for row in rows if (row["folds"], row["head"]) == (kind, variant.name)]
            lines.append([variant.name, *(cell for row in of_variant for cell in _cells(row))])
        print_table([f"{kind} folds", *columns], lines)
    if out is not None:
        out.write_bytes(as_csv(rows))


def with_epochs(variant: Variant, epochs: int) -> Variant:
    """Return a variant that is trained for another number of epochs."""
    return replace(variant, training=replace(variant.training, recipe=replace(variant.training.recipe, epochs=epochs)))


def _figures(source: Source, kind: str, name: str, entries: dict[tuple[str, str], Entries]) -> list[dict[str, Any]]:
    """Return the figures of a variant on one kind of folds, a row a target."""
    dataset = load(source, kind)
    groups = dataset.examples.groups()
    default, variant = (as_arrays(entries[head, kind]) for head in (DEFAULT.name, name))
    rows = []
    for m, target in enumerate(dataset.labels.targets):
        truth = variant["true"][0, :, m]
        of_default, of_variant = (arrays["predicted"][..., m] for arrays in (default, variant))  # (seeds, routines)
        row: dict[str, Any] = {"folds": kind, "target": target, "head": name}
        for figure, (mean, (low, high)) in difference(truth, of_default, of_variant, groups).items():
            of_seeds = [FIGURES[figure](truth, predicted) for predicted in of_variant]
            deviation = float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else 0.0
            row |= {figure: float(np.mean(of_seeds)), f"{figure}_std": deviation}
            row |= {f"{figure}_difference": mean, f"{figure}_low": low, f"{figure}_high": high}
        rows.append(row)
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    cells = []
    for figure, decimals in (("srcc", 3), ("mae", 2)):
        low, high, mean = (f"{row[f'{figure}_{name}']:+.{decimals}f}" for name in ("low", "high", "difference"))
        cells += [f"{row[figure]:.{decimals}f}", "" if row["head"] == DEFAULT.name else f"{mean} ({low} to {high})"]
    return cells


if __name__ == "__main__":
    typer.run(ends_well(_main))
