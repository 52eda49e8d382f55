"""What the heads share: clip features of a routine -> an embedding and a response of each grade of each target.

Fuse (TFM), parse grades (GPM). `models.cofinal` and `models.gdlt` make scores of it, each in its own way.
One network serves all targets (say TES and PCS) and all actions (say the four apparatus) of a dataset. A panel of
judges grades each routine: every judge and target has grade prototypes and responses of its own, everything else is
shared, and the panel's grades are the mean of its judges' probabilities.

Shape legend: B batch, T clips, C feature, P principal component, S statistics, A actions, J judges, M targets,
G grades, K sub-grades, D model width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from .grade_parsing import SHARES, GradeParsing
from .temporal_fusion import Evidence, Summary, TemporalFusion


@dataclass(frozen=True)
class GradingConfig:
    """What is needed to build a network; JSON-able with `dataclasses.asdict`."""

    feature_dim: int
    """Width C of the clip features."""
    targets: tuple[str, ...]
    """Names of the scores to predict."""
    ranges: tuple[tuple[float, float], ...]
    """Lowest and highest possible score of each target in points."""
    num_actions: int = 0
    """Number of actions (apparatus) the network is told apart by; 0: the dataset has no such notion."""
    num_components: int = 256
    """Principal components P of the clip features in the second reading of a routine, at most `feature_dim`; the third
    reading takes the covariances of the first of them."""
    fused_width: int = 256
    """Width H of each reading of a routine."""
    width: int = 64
    """Model width D of grade prototypes and embeddings."""
    num_judges: int = 6
    """Judges J in the panel, half of them for what was said of routines like the one judged."""
    num_remembered: int = 0
    """Training routines that the head remembers; training sets it."""
    num_grades: int = 4
    """Coarse grades G of each target."""
    dropout: float = 0.3
    """On fused routines and fine features."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "ranges", tuple((float(low), float(high)) for low, high in self.ranges))
        if not self.targets or len(self.targets) != len(self.ranges) or len(set(self.targets)) != len(self.targets):
            raise ValueError(f"a head needs distinct targets with one range each, not {self.targets}, {self.ranges}")
        for target, (low, high) in zip(self.targets, self.ranges, strict=True):
            if not low < high:
                raise ValueError(f"the score range of {target!r} must grow, not run from {low} to {high}")
        if self.num_grades < 1:
            raise ValueError("a head needs at least 1 grade")
        if self.num_judges < sum(SHARES) or self.num_judges % sum(SHARES):
            raise ValueError(f"a panel needs {sum(SHARES)} judges or a multiple of that, not {self.num_judges}")

    def build(self) -> "GradingNetwork":
        """Build the untrained network."""
        raise NotImplementedError


class Output(NamedTuple):
    """What a network says of a batch of routines; targets in the order of the configuration.

    Of the whole panel; `GradingNetwork.judge` has the judges one by one, in a second axis (B, J, M, ...).
    """

    score: Tensor
    """Scores (B, M) in points."""
    grade_logits: Tensor
    """(B, M, G), lowest grade first; their softmax is what the grades weigh in the score."""
    subgrade_logits: Tensor | None
    """(B, M, G, K), lowest sub-grade of each grade first; None where a head has no fine grades."""
    embeddings: Tensor
    """Grade embeddings (B, J, M, G, D)."""


class GradingNetwork(nn.Module):
    """Fuse (TFM) and parse grades (GPM); what becomes of the grades is a subclass's `conclude`.

    Buffers hold all that is fitted but not learnt, so the state dict is the whole head: the principal components of the
    features, the standardisation of what sums them up, the training routines that are remembered, and the grade edges
    (M, G+1) and score scales (M,) in points.
    """

    edges: Tensor
    scale: Tensor
    fusion_type: type[TemporalFusion] = TemporalFusion

    def __init__(self, config: GradingConfig) -> None:
        super().__init__()
        self.config = config
        low, high = torch.tensor(config.ranges).unbind(1)
        share = torch.linspace(0, 1, config.num_grades + 1)
        self.register_buffer("edges", low[:, None] + (high - low)[:, None] * share)
        self.register_buffer("scale", (high - low) / 4)
        self.fusion = self.fusion_type(
            config.feature_dim,
            min(config.num_components, config.feature_dim),
            config.fused_width,
            num_actions=config.num_actions,
            num_targets=len(config.targets),
            num_remembered=config.num_remembered,
            dropout=config.dropout,
        )
        self.parsing = GradeParsing(
            config.fused_width,
            config.width,
            num_judges=config.num_judges,
            num_targets=len(config.targets),
            num_grades=config.num_grades,
        )

    def forward(self, features: Tensor, mask: Tensor, actions: Tensor | None = None) -> Output:
        """Grade and score routines.

        Args:
            features: clip features (B, T, C), padded at the end; any number of clips from 1.
            mask: (B, T) bool, True where a clip is real.
            actions: (B,) indices of the routines' actions; needed exactly when the network knows actions.

        Returns:
            `Output`; a routine's share of it depends on nothing else in the batch.
        """
        return panel(self.judge_clips(features, mask, actions))

    def judge_clips(self, features: Tensor, mask: Tensor, actions: Tensor | None = None) -> Output:
        """What each judge says of routines; arguments as `forward`, returns as `judge`."""
        routines = [clips[real] for clips, real in zip(features, mask, strict=True)]
        if self.config.num_actions:
            if actions is None:
                raise ValueError("this head was trained on several actions: say which one each routine shows")
            actions = one_hot(actions, self.config.num_actions).float()
        summaries = Summary.of(map(self.fusion.summarise, routines))
        return self.judge(self.fusion.evidence(summaries, actions), actions)

    def judge(self, evidence: Evidence, actions: Tensor | None = None) -> Output:
        """What each judge says of routines (training prepares the evidence once).

        Args:
            evidence: of B routines.
            actions: share of each action in each routine (B, A), where the network knows actions.

        Returns:
            `Output` with an axis for the judges after the first.
        """
        return self.conclude(*self.parsing(self.fusion(evidence, actions)))

    def conclude(self, embeddings: Tensor, responses: Tensor) -> Output:
        """Make scores of grade embeddings (B, J, M, G, D) and grade responses (B, J, M, G)."""
        raise NotImplementedError

    def cut_grades(self, target: int, scores: np.ndarray) -> None:
        """Fit the edges of a target's grades to its known training scores (N,) in points."""
        raise NotImplementedError


def panel(judged: Output) -> Output:
    """The mean over the judges of the probabilities of grades and of sub-grades with them, and so of the scores."""
    grades = judged.grade_logits.log_softmax(-1)  # (B, J, M, G)
    grade_logits = grades.logsumexp(1)  # (B, M, G)
    subgrade_logits = judged.subgrade_logits
    if subgrade_logits is not None:
        joint = grades[..., None] + subgrade_logits.log_softmax(-1)  # (B, J, M, G, K)
        subgrade_logits = joint.logsumexp(1) - grade_logits[..., None]
    return Output(judged.score.mean(1), grade_logits, subgrade_logits, judged.embeddings)
