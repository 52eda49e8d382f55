"""Made-up routines and heads that look trained, for the tests of all heads."""

import torch
from torch import Tensor, nn


def as_if_trained(network: nn.Module) -> None:
    """Move all parameters, and remember something: what is zero at first would hide what it does."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for name, buffer in network.named_buffers():
            if "likeness" in name and buffer.ndim:
                buffer.copy_(torch.randn_like(buffer))


def batch(*routines: Tensor) -> tuple[Tensor, Tensor]:
    """Padded with huge values, so that a leak of padding shows."""
    lengths = torch.tensor([len(x) for x in routines])
    features = torch.nn.utils.rnn.pad_sequence(list(routines), batch_first=True, padding_value=1e4)
    return features, torch.arange(features.shape[1]) < lengths[:, None]


def routine(num_clips: int, seed: int) -> Tensor:
    return torch.randn(num_clips, 12, generator=torch.Generator().manual_seed(seed))
