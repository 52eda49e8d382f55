"""A backbone that costs nothing, for tests of everything around a backbone."""

from dataclasses import replace

import torch
from torch import nn

from cofinal.extractors.backbone import Backbone
from cofinal.extractors.recipes import RECIPES


class Colours(nn.Module):
    """A trivial network: the mean colour of each quarter of a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = nn.functional.adaptive_avg_pool3d(x * self.weight, (4, 1, 1)).flatten(1)  # (B, 3 * 4)
        return features, features


def colours(recipe: str = "gdlt-i3d", **changes: object) -> Backbone:
    return Backbone("colours", replace(RECIPES[recipe], **changes), Colours(), 12, "random", "cpu", "fp32")
