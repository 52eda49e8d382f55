"""Networks of one configuration, trained from several seeds on the same routines, as one large panel of judges."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .grading import GradingNetwork, Output, panel


class Ensemble(nn.Module):
    """The judges of all members grade a routine together, each with the same say.

    The members' grade edges are the same, being cut by the same scores.
    """

    def __init__(self, members: Sequence[GradingNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.config = members[0].config

    @property
    def edges(self) -> Tensor:
        """Grade edges (M, G+1) in points."""
        return cast(GradingNetwork, self.members[0]).edges

    def forward(self, features: Tensor, mask: Tensor, actions: Tensor | None = None) -> Output:
        """Grade and score routines; arguments as `GradingNetwork.forward`."""
        judged = [cast(GradingNetwork, member).judge_clips(features, mask, actions) for member in self.members]
        parts: list[Any] = [None if of[0] is None else torch.cat(of, dim=1) for of in zip(*judged, strict=True)]
        return panel(Output(*parts))
