"""What each part of the head is worth: the default head with one thing changed at a time, on Fis-V.

    python -m benchmarks.ablation [FISV] [--out ablation.csv]

Random, skater-disjoint and event-disjoint folds, fold seeds 0 to 4; figures are means over the seeds of pooled
out-of-fold predictions. Differences are default minus variant, paired by routine, with 95% bootstrap intervals that
draw routines, or whole groups where the folds keep groups together: the part helps if SRCC's is above 0 and that of the
mean absolute error (MAE, points) below.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from cofinal.models.cofinal import CoFInAl, CoFInAlConfig
from cofinal.models.coupling import couple, decouple
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.grade_parsing import SHARES
from cofinal.models.grading import Output
from cofinal.models.likeness import Likeness
from cofinal.models.temporal_fusion import LAGS, NUM_QUARTERS, NUM_STATISTICS, Evidence, Summary, TemporalFusion
from cofinal.pipeline.console import ends_well
from cofinal.pipeline.curds_and_whey import borrow
from cofinal.pipeline.evaluation import difference, mae, r_l2, srcc
from cofinal.pipeline.results import as_csv
from cofinal.pipeline.training import TrainingRecipe

from .cross_validation import FISV, KINDS, Variant, held_out_predictions, load
from .tables import print_table

WITHOUT_LAGS = tuple(row for row in range(NUM_STATISTICS) if row not in range(6, 5 + len(LAGS)))
DEFAULT = Variant()


@dataclass(frozen=True)
class LessEvidenceConfig(CoFInAlConfig):
    """Of what is known of a routine, only a part."""

    kept: tuple[int, ...] = tuple(range(NUM_STATISTICS))
    """Which statistics over time."""
    readings: tuple[bool, ...] = (True, True, True, True)
    """Which readings have judges: of statistics, components, covariances, likeness."""
    has_duration: bool = True

    def build(self) -> "LessEvidence":
        """Build the untrained network."""
        return LessEvidence(self)


class PartialFusion(TemporalFusion):
    """Takes all routines for alike in what is left out."""

    kept: tuple[int, ...]
    has_duration: bool

    def summarise(self, clips: Tensor) -> Summary:
        """As `TemporalFusion.summarise`."""
        statistics, covariances, duration = super().summarise(clips)
        is_kept = torch.tensor([[row in self.kept] for row in range(NUM_STATISTICS)])
        return Summary(statistics * is_kept, covariances, duration * self.has_duration)


class LessEvidence(CoFInAl):
    """Has only some of the judges, who know only some of what there is to know."""

    config: LessEvidenceConfig
    fusion: PartialFusion
    fusion_type = PartialFusion

    def __init__(self, config: LessEvidenceConfig) -> None:
        super().__init__(config)
        self.fusion.kept, self.fusion.has_duration = config.kept, config.has_duration

    def conclude(self, embeddings: Tensor, responses: Tensor) -> Output:
        """Without the judges of the readings that are left out."""
        panel = zip(self.config.readings, SHARES, strict=True)
        share = self.config.num_judges // sum(SHARES)
        sits = torch.tensor([is_read for is_read, judges in panel for _ in range(share * judges)])
        return super().conclude(embeddings[:, sits], responses[:, sits])


@dataclass(frozen=True)
class CoarseOnlyConfig(CoFInAlConfig):
    """No fine grade."""

    def build(self) -> "CoarseOnly":
        """Build the untrained network."""
        return CoarseOnly(self)


class CoarseOnly(CoFInAl):
    """Takes every routine for the mean of its grade's training scores: the best that a grade alone can say.

    Of the network's 6 million parameters only the 8 thousand that read fine features have nothing to do.
    """

    positions: Tensor

    def __init__(self, config: CoarseOnlyConfig) -> None:
        super().__init__(config)
        shape = len(config.targets), config.num_grades, config.num_subgrades
        self.register_buffer("positions", torch.full(shape, 1 / config.num_subgrades))

    def conclude(self, embeddings: Tensor, responses: Tensor) -> Output:
        """Couple the coarse grades with the same fine ones for all routines."""
        fine = self.positions.expand(*responses.shape, -1)
        score = couple(responses.softmax(-1), fine, self.edges)
        return Output(score, responses, fine.clamp(min=1e-9).log(), embeddings)

    def cut_grades(self, target: int, scores: np.ndarray) -> None:
        """Cut as ever, and place each grade's mean within it."""
        super().cut_grades(target, scores)
        edges = self.edges[target]
        grade = np.searchsorted(edges[1:-1].numpy(), scores, side="right")
        means = [
            scores[grade == g].mean() if (grade == g).any() else edges[g : g + 2].mean() for g in range(len(edges) - 1)
        ]
        of_each = decouple(torch.tensor(means, dtype=torch.float32), edges, self.config.num_subgrades)[1]  # (G, G, K)
        self.positions[target] = of_each.diagonal().T


@dataclass(frozen=True)
class UngradedConfig(CoFInAlConfig):
    """No grades in the score."""

    def build(self) -> "Ungraded":
        """Build the untrained network."""
        return Ungraded(self)


class BorrowingLikeness(Likeness):
    """Is taught what the head is taught."""

    def remember(self, statistics: Tensor, duration: Tensor, actions: Tensor | None, scores: Tensor) -> Tensor:
        """As `Likeness.remember`, which it does twice."""
        said = super().remember(statistics, duration, actions, scores)
        anywhere = [(-np.inf, np.inf)] * scores.shape[1]
        taught = torch.from_numpy(borrow(said.numpy(), scores.numpy(), anywhere))
        super().remember(statistics, duration, actions, taught)
        return said


class Ungraded(CoFInAl):
    """Its score is the likeness itself: kernel ridge regression, with nothing learnt by a network."""

    centre: Tensor

    def __init__(self, config: UngradedConfig) -> None:
        super().__init__(config)
        numbers, targets = NUM_STATISTICS * config.feature_dim, len(config.targets)
        self.fusion.likeness = BorrowingLikeness(config.num_remembered, numbers, config.num_actions, targets)
        self.register_buffer("centre", torch.zeros(targets))

    def judge(self, evidence: Evidence, actions: Tensor | None = None) -> Output:
        """Score by the likeness."""
        judged = super().judge(evidence, actions)
        score = self.centre + self.scale * evidence.likeness
        return judged._replace(score=score[:, None].expand_as(judged.score))

    def cut_grades(self, target: int, scores: np.ndarray) -> None:
        """Cut as ever, and keep the mean, which is the likeness's zero."""
        super().cut_grades(target, scores)
        self.centre[target] = scores.mean()


@dataclass(frozen=True)
class OrderedConfig(CoFInAlConfig):
    """Sub-grade prototypes in an order."""

    def build(self) -> "Ordered":
        """Build the untrained network."""
        return Ordered(self)


class Ordered(CoFInAl):
    """Its sub-grade prototypes stand evenly on half a circle, so that neighbours are close, instead of equally far."""

    def __init__(self, config: OrderedConfig) -> None:
        super().__init__(config)
        basis = torch.linalg.qr(self.scoring.etf).Q[:, :2]  # (E, 2), the same in every network
        angle = torch.linspace(0, torch.pi, config.num_subgrades)
        self.scoring.etf.copy_(basis @ torch.stack([angle.cos(), angle.sin()]))


VARIANTS = (
    DEFAULT,
    Variant(
        "TFM: the mean over time alone",
        LessEvidenceConfig,
        {"kept": (0,), "has_duration": False, "readings": (True, True, False, True)},
    ),
    Variant("TFM: no change over more than a clip", LessEvidenceConfig, {"kept": WITHOUT_LAGS}),
    Variant("TFM: no covariances", LessEvidenceConfig, {"readings": (True, True, False, True)}),
    Variant("TFM: no duration", LessEvidenceConfig, {"has_duration": False}),
    Variant("TFM: no likeness", LessEvidenceConfig, {"readings": (True, True, True, False)}),
    Variant("TFM: likeness alone", LessEvidenceConfig, {"readings": (False, False, False, True)}),
    Variant("no grades: likeness as the score", UngradedConfig, recipe=TrainingRecipe(epochs=1)),
    Variant("positions: no quarters", LessEvidenceConfig, {"kept": tuple(range(NUM_STATISTICS - NUM_QUARTERS))}),
    Variant("GPM: one grade of 32 sub-grades", settings={"num_grades": 1, "num_subgrades": 32}),
    Variant("GPM: 24 judges", settings={"num_judges": 24}),
    Variant("FGS: coarse grades only", CoarseOnlyConfig),
    Variant("FGS: ordered prototypes, no ETF", OrderedConfig),
    Variant("with the prototype loss", recipe=replace(TrainingRecipe(), prototype_weight=0.1)),
    Variant("GDLT head", GDLTConfig),
)


def _main(
    fisv: Annotated[Path, typer.Argument(help="Folder with train.txt, skaters.csv and one folder of features.")] = FISV,
    seeds: Annotated[int, typer.Option(help="Fold seeds, from 0 on.")] = 5,
    to: Annotated[Path | None, typer.Option("--out", help="Write the figures to this CSV file, too.")] = None,
) -> None:
    """Cross-validate every variant and print tables in Markdown."""
    said = held_out_predictions(VARIANTS, fisv, KINDS, range(seeds))
    labels = load(fisv, "random").labels
    rows = [
        _figures(fisv, kind, column, variant.name, said)
        for kind in KINDS
        for column in range(len(labels.targets))
        for variant in VARIANTS
    ]
    columns = [f"{target} {of}" for target in labels.targets for of in ("SRCC", "default −", "MAE", "default −")]
    for kind in KINDS:
        lines = []
        for variant in VARIANTS:
            of_variant = [row for row in rows if (row["folds"], row["head"]) == (kind, variant.name)]
            lines.append([variant.name, *(cell for row in of_variant for cell in _cells(row))])
        print_table([f"{kind} folds", *columns], lines)
    if to is not None:
        to.write_bytes(as_csv(rows))


def _figures(fisv: Path, kind: str, column: int, name: str, said: dict[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    labels, examples = load(fisv, kind).labels, load(fisv, kind).examples
    truth, groups = examples.scores[:, column], examples.groups()
    default, variant = (said[head, kind][..., column] for head in (DEFAULT.name, name))
    figures = {"srcc": srcc, "r_l2": r_l2, "mae": mae}
    each = {of: [figure(truth, one) for one in variant] for of, figure in figures.items()}
    row: dict[str, Any] = {"folds": kind, "target": labels.targets[column], "head": name}
    for of, (mean, (low, high)) in difference(truth, default, variant, groups).items():
        row |= {of: float(np.mean(each[of])), f"{of}_std": float(np.std(each[of], ddof=1))}
        row |= {f"{of}_difference": mean, f"{of}_low": low, f"{of}_high": high}
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    cells = []
    for of, places in (("srcc", 3), ("mae", 2)):
        cells.append(f"{row[of]:.{places}f}")
        same = row["head"] == DEFAULT.name
        low, high = (f"{row[f'{of}_{end}']:+.{places}f}" for end in ("low", "high"))
        cells.append("" if same else f"{row[f'{of}_difference']:+.{places}f} ({low} to {high})")
    return cells


if __name__ == "__main__":
    typer.run(ends_well(_main))
