"""Published video classifiers of pytorchvideo and torchvision, as backbones.

Listed are those whose last map before pooling is well defined: a convolutional trunk, then pooling and one linear
layer. (Not so SlowFast, which takes two rates at once, X3D, which widens its map inside the head, and MViT, which has a
class token.) The features are the mean over that map.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .weights import only_network, read_tensors


@dataclass(frozen=True)
class Classifier:
    """Where a classifier comes from, and how it is cut in two."""

    library: str
    """"pytorchvideo" or "torchvision"."""
    builder: str
    """Its function in `pytorchvideo.models.hub` or in `torchvision.models.video`."""
    first: str
    """The name of its first weight, by which it is found in a file."""
    last: str
    """The name of its classifying layer's bias, whose length is the number of classes."""
    cut: Callable[[Any], tuple[nn.Module, nn.Module]]
    """What makes the last map, and what makes class logits of it."""

    def build(self, num_classes: int = 400) -> nn.Module:
        """The classifier as its library builds it, with the weights that it starts training from."""
        if self.library == "torchvision":
            from torchvision.models import get_model

            return get_model(self.builder, num_classes=num_classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it uses torch.jit.script, in models not listed here
            import pytorchvideo.models.hub

        # R(2+1)D's head ends in a softmax unless told otherwise; the others' do not
        return getattr(pytorchvideo.models.hub, self.builder)(model_num_class=num_classes, head_activation=None)


def _blocks(classifier: Any) -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(*classifier.blocks[:-1]), classifier.blocks[-1]


def _resnet(classifier: Any) -> tuple[nn.Module, nn.Module]:
    stages = (classifier.stem, classifier.layer1, classifier.layer2, classifier.layer3, classifier.layer4)
    return nn.Sequential(*stages), nn.Sequential(classifier.avgpool, nn.Flatten(), classifier.fc)


def _s3d(classifier: Any) -> tuple[nn.Module, nn.Module]:
    mean = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    return classifier.features, nn.Sequential(classifier.avgpool, classifier.classifier, mean)


BLOCKS_0 = "blocks.0.conv.weight"

CLASSIFIERS = {
    "i3d-r50": Classifier("pytorchvideo", "i3d_r50", BLOCKS_0, "blocks.6.proj.bias", _blocks),
    "slow-r50": Classifier("pytorchvideo", "slow_r50", BLOCKS_0, "blocks.5.proj.bias", _blocks),
    "c2d-r50": Classifier("pytorchvideo", "c2d_r50", BLOCKS_0, "blocks.6.proj.bias", _blocks),
    "csn-r101": Classifier("pytorchvideo", "csn_r101", BLOCKS_0, "blocks.5.proj.bias", _blocks),
    "r2plus1d-r50": Classifier("pytorchvideo", "r2plus1d_r50", BLOCKS_0, "blocks.5.proj.bias", _blocks),
    "r3d-18": Classifier("torchvision", "r3d_18", "stem.0.weight", "fc.bias", _resnet),
    "mc3-18": Classifier("torchvision", "mc3_18", "stem.0.weight", "fc.bias", _resnet),
    "r2plus1d-18": Classifier("torchvision", "r2plus1d_18", "stem.0.weight", "fc.bias", _resnet),
    "s3d": Classifier("torchvision", "s3d", "features.0.0.0.weight", "classifier.1.bias", _s3d),
}


class PooledClassifier(nn.Module):
    """A classifier that also returns the mean over its last map."""

    def __init__(self, trunk: nn.Module, head: nn.Module, num_classes: int = 400):
        super().__init__()
        self.trunk, self.head, self.num_classes = trunk, head, num_classes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F, H, W) normalised clips -> features (B, C) and class logits (B, num_classes), both float32."""
        last_map = self.trunk(x)  # (B, C, F', H', W')
        return last_map.float().mean((2, 3, 4)), self.head(last_map).float()


def from_checkpoint(path: str | Path, name: str) -> PooledClassifier:
    """Build a listed classifier with the weights of a file, its number of classes read from the file.

    Args:
        path: A file of the library that the classifier is from.
        name: One of `CLASSIFIERS`.

    Raises:
        ValueError: The file cannot be read or holds another network's weights.
    """
    listed = CLASSIFIERS[name]
    _, state = only_network(read_tensors(path), listed.first, path, name)
    num_classes = len(state.get(listed.last, range(400)))
    network = listed.build(num_classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # torch lists every tensor that is missing, or of another shape, on its own line
        raise ValueError(f"{path} is not a whole {name}: {' '.join(str(error).split())}.") from error
    return PooledClassifier(*listed.cut(network), num_classes).eval().requires_grad_(False)


def untrained(name: str, seed: int) -> PooledClassifier:
    """A listed classifier with random weights, the same for the same seed."""
    listed = CLASSIFIERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PooledClassifier(*listed.cut(listed.build())).eval().requires_grad_(False)
