"""Published video classifiers of pytorchvideo and torchvision, as backbones.

The features are the mean over the last map before pooling. Listed are the classifiers for which that map is well
defined: a convolutional trunk, then pooling and one linear layer. Not listed are SlowFast, which reads two frame rates
at once, X3D, whose head widens the map, and MViT, which has a class token.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .safe_load import only_network, read_tensors


@dataclass(frozen=True)
class Classifier:
    """Where a classifier comes from, and how it is split into trunk and head."""

    library: str
    """"pytorchvideo" or "torchvision"."""
    builder: str
    """Name of its function in `pytorchvideo.models.hub` or `torchvision.models.video`."""
    first_key: str
    """Name of its first weight, which identifies it in a file."""
    last_key: str
    """Name of the last layer's bias, whose length is the number of classes."""
    split: Callable[[Any], tuple[nn.Module, nn.Module]]
    """Classifier -> its trunk, which computes the last map, and its head, which computes class logits from the map."""

    def build(self, num_classes: int = 400) -> nn.Module:
        """The classifier as its library builds it, with its initial weights for training."""
        if self.library == "torchvision":
            from torchvision.models import get_model

            return get_model(self.builder, num_classes=num_classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its models that are not listed here use torch.jit.script
            import pytorchvideo.models.hub

        # by default the head of R(2+1)D ends in a softmax, unlike the others
        return getattr(pytorchvideo.models.hub, self.builder)(model_num_class=num_classes, head_activation=None)


def _split_blocks(classifier: Any) -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(*classifier.blocks[:-1]), classifier.blocks[-1]


def _split_resnet(classifier: Any) -> tuple[nn.Module, nn.Module]:
    stages = (classifier.stem, classifier.layer1, classifier.layer2, classifier.layer3, classifier.layer4)
    return nn.Sequential(*stages), nn.Sequential(classifier.avgpool, nn.Flatten(), classifier.fc)


def _split_s3d(classifier: Any) -> tuple[nn.Module, nn.Module]:
    mean = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    return classifier.features, nn.Sequential(classifier.avgpool, classifier.classifier, mean)


BLOCKS_0 = "blocks.0.conv.weight"

CLASSIFIERS = {
    "i3d-r50": Classifier("pytorchvideo", "i3d_r50", BLOCKS_0, "blocks.6.proj.bias", _split_blocks),
    "slow-r50": Classifier("pytorchvideo", "slow_r50", BLOCKS_0, "blocks.5.proj.bias", _split_blocks),
    "c2d-r50": Classifier("pytorchvideo", "c2d_r50", BLOCKS_0, "blocks.6.proj.bias", _split_blocks),
    "csn-r101": Classifier("pytorchvideo", "csn_r101", BLOCKS_0, "blocks.5.proj.bias", _split_blocks),
    "r2plus1d-r50": Classifier("pytorchvideo", "r2plus1d_r50", BLOCKS_0, "blocks.5.proj.bias", _split_blocks),
    "r3d-18": Classifier("torchvision", "r3d_18", "stem.0.weight", "fc.bias", _split_resnet),
    "mc3-18": Classifier("torchvision", "mc3_18", "stem.0.weight", "fc.bias", _split_resnet),
    "r2plus1d-18": Classifier("torchvision", "r2plus1d_18", "stem.0.weight", "fc.bias", _split_resnet),
    "s3d": Classifier("torchvision", "s3d", "features.0.0.0.weight", "classifier.1.bias", _split_s3d),
}


class PooledClassifier(nn.Module):
    """A classifier that also returns the mean over its last map."""

    def __init__(self, trunk: nn.Module, head: nn.Module, num_classes: int = 400):
        super().__init__()
        self.trunk, self.head, self.num_classes = trunk, head, num_classes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F, H, W) normalised clips -> features (B, C) and class logits (B, num_classes), both float32."""
        last_map = self.trunk(x)  # (B, C, F', H', W'), the network's last frames, height and width
        return last_map.float().mean((2, 3, 4)), self.head(last_map).float()


def from_checkpoint(path: str | Path, name: str) -> PooledClassifier:
    """Build a listed classifier with the weights of a file, its number of classes read from the file.

    Args:
        path: a file of the library that the classifier comes from.
        name: one of `CLASSIFIERS`.

    Raises:
        ValueError: the file cannot be read or holds another network's weights.
    """
    classifier = CLASSIFIERS[name]
    _, state = only_network(read_tensors(path), classifier.first_key, path, name)
    num_classes = len(state.get(classifier.last_key, range(400)))
    network = classifier.build(num_classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        # torch puts each missing or misshapen tensor on its own line; messages here are one line
        raise ValueError(f"{path} is not a complete {name}: {' '.join(str(error).split())}") from error
    return PooledClassifier(*classifier.split(network), num_classes).eval().requires_grad_(False)


def untrained(name: str, seed: int) -> PooledClassifier:
    """A listed classifier with random weights, the same for the same seed."""
    classifier = CLASSIFIERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PooledClassifier(*classifier.split(classifier.build())).eval().requires_grad_(False)
