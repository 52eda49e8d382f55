"""CoFInAl, the coarse-to-fine head: clip features of a routine -> coarse grade, fine grade and score of each target.

Based on "CoFInAl: Enhancing Action Quality Assessment with Coarse-to-Fine Instruction Alignment" (IJCAI 2024,
arXiv 2404.13999). The score is coupled from the coarse and fine outputs; nothing beside them predicts it.

Shape legend: B batch, J judges, D model width, M targets, G grades, K sub-grades.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .coupling import couple, grade_edges
from .fine_scoring import FineScoring
from .grading import GradingConfig, GradingNetwork, Output


@dataclass(frozen=True)
class CoFInAlConfig(GradingConfig):
    """What is needed to build the network; JSON-able with `dataclasses.asdict`."""

    num_subgrades: int = 8
    """Fine grades K within each coarse grade."""
    temperature: float = 0.2
    """Of the softmax over the cosines between fine feature and sub-grade prototypes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_subgrades < 2:
            raise ValueError("a CoFInAl head needs at least 2 sub-grades")

    def build(self) -> "CoFInAl":
        """Build the untrained network."""
        return CoFInAl(self)


class CoFInAl(GradingNetwork):
    """The head: fuse (TFM), parse grades (GPM), score within them (FGS), couple.

    The ETF is a buffer, too.
    """

    config: CoFInAlConfig

    def __init__(self, config: CoFInAlConfig) -> None:
        super().__init__(config)
        self.scoring = FineScoring(
            config.width, config.num_subgrades, temperature=config.temperature, dropout=config.dropout
        )

    def conclude(self, embeddings: Tensor, responses: Tensor) -> Output:
        """Score within each grade (FGS) and couple; see `GradingNetwork.conclude`."""
        subgrade_logits = self.scoring(embeddings)  # (B, J, M, G, K)
        score = couple(responses.softmax(-1), subgrade_logits.softmax(-1), self.edges)
        return Output(score, responses, subgrade_logits, embeddings)

    def cut_grades(self, target: int, scores: np.ndarray) -> None:
        """Cut where the quantiles of the training scores lie: each grade holds about as many."""
        self.edges[target] = torch.from_numpy(grade_edges(scores, self.config.ranges[target], self.config.num_grades))
