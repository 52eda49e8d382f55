"""GDLT, the baseline without fine grades: clip features of a routine -> coarse grade and score of each target.

Based on "Likert Scoring with Grade Decoupling for Long-term Action Assessment" (CVPR 2022), the baseline of CoFInAl's
Figure 5. Its G grades stand for values spread evenly over the score range, and the score is their mean, weighed by the
responses. TFM and GPM are those of CoFInAl here, so that the two differ in what they do with the grades alone.

Shape legend: B batch, J judges, D model width, M targets, G grades.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .grading import GradingConfig, GradingNetwork, Output


@dataclass(frozen=True)
class GDLTConfig(GradingConfig):
    """What is needed to build the network; JSON-able with `dataclasses.asdict`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_grades < 2:
            raise ValueError("a GDLT head needs at least 2 grades")

    def build(self) -> "GDLT":
        """Build the untrained network."""
        return GDLT(self)


class GDLT(GradingNetwork):
    """The head: fuse, parse grades, weigh their values by their responses.

    A grade spans the scores that are nearer to its value than to another's. The loss asks only for the mean, not for
    the grade that a score lies in: trained on Fis-V, the lowest or the highest grade weighs most nearly everywhere.
    """

    config: GDLTConfig
    values: Tensor

    def __init__(self, config: GDLTConfig) -> None:
        super().__init__(config)
        low, high = torch.tensor(config.ranges).unbind(1)
        share = torch.linspace(0, 1, config.num_grades)
        self.register_buffer("values", low[:, None] + (high - low)[:, None] * share)  # (M, G)
        self.edges[:, 1:-1] = (self.values[:, 1:] + self.values[:, :-1]) / 2

    def conclude(self, embeddings: Tensor, responses: Tensor) -> Output:
        """Weigh each grade by the sigmoid of its response, divided by their sum; see `GradingNetwork.conclude`."""
        logits = logsigmoid(responses)  # (B, J, M, G): their softmax is that share
        score = (logits.softmax(-1) * self.values).sum(-1)
        return Output(score, logits, None, embeddings)

    def cut_grades(self, target: int, scores: np.ndarray) -> None:
        """Leave the edges as they are: the values are fixed."""
