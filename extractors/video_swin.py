"""Video Swin Transformer, all of it in this single file.

Liu et al., "Video Swin Transformer", CVPR 2022 (arXiv 2106.13230): attention within windows of a few frames and
patches, which every second block shifts by half a window. The layers are named as in torchvision's `swin3d_*`, whose
outputs these are; `from_checkpoint` reads torchvision's, the official and mmaction2's files. Attention is torch's
`scaled_dot_product_attention`; there is no dropout, because the network only ever runs frozen.

Shape legend: B batch, F H W frames, height and width (in pixels, then in patches), C channels, N places of a window,
n heads, d channels of a head.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .weights import only_network, read_tensors

Size = tuple[int, int, int]
"""Along frames, height and width."""


@dataclass(frozen=True)
class Sizes:
    """What distinguishes one Video Swin from another."""

    width: int
    """Channels of the first stage; each further stage has twice those of the one before."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    heads: tuple[int, ...]
    """Attention heads of each stage."""
    window: Size = (8, 7, 7)
    patch: Size = (2, 4, 4)
    mlp_ratio: int = 4
    num_classes: int = 400
    """0: without a classifier."""

    @property
    def feature_dim(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (len(self.depths) - 1)


TINY = Sizes(96, (2, 2, 6, 2), (3, 6, 12, 24))
SMALL = Sizes(96, (2, 2, 18, 2), (3, 6, 12, 24))
BASE = Sizes(128, (2, 2, 18, 2), (4, 8, 16, 32))


class PatchEmbedding(nn.Module):
    """Cuts the video into patches and projects each to the first stage's channels (section 3.1)."""

    def __init__(self, width: int, patch: Size):
        super().__init__()
        self.proj = nn.Conv3d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, F, H, W) pixels -> (B, F, H, W, C) patches; what is no whole patch is filled up with zeros."""
        size, patch = x.shape[2:], self.proj.kernel_size
        x = functional.pad(x, [p for n, k in zip(reversed(size), reversed(patch), strict=True) for p in (0, -n % k)])
        return self.norm(self.proj(x).permute(0, 2, 3, 4, 1))


class PatchMerging(nn.Module):
    """Joins each 2 x 2 patches of a frame into one of twice the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W, C) -> (B, F, H / 2, W / 2, 2 C), odd sizes filled up with zeros."""
        x = functional.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        corners = [x[:, :, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each relative position (section 3.2).

    A window larger than the map is cut down to it and then not shifted. Where windows are shifted by s, the map begins
    with the last s places of a window and ends with the first places of another. The published code joins the two in
    one window and masks each from the other; here they are windows of their own, which gives the same for less.
    Windows that are cut alike, 27 kinds at most, go through one call of the attention.
    """

    def __init__(self, channels: int, heads: int, window: Size, shifted: bool):
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(math.prod(2 * n - 1 for n in window), heads))
        self._biases: dict[tuple, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W, C) -> the same shape."""
        size = x.shape[1:4]
        window = [min(pair) for pair in zip(size, self.window, strict=True)]
        shift = [n // 2 if self.shifted and length > n else 0 for length, n in zip(size, window, strict=True)]
        missing = [-length % n for length, n in zip(size, window, strict=True)]
        x = functional.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        x = self._attend(self.qkv(x), window, shift)
        return self.proj(x[:, : size[0], : size[1], : size[2]])

    def _attend(self, qkv: Tensor, window: list[int], shift: list[int]) -> Tensor:
        """(B, F, H, W, 3 C), whole windows -> (B, F, H, W, C)."""
        axes = [_pieces(*axis) for axis in zip(qkv.shape[1:4], window, shift, strict=True)]
        parts = []
        for pieces in product(*axes):
            (f, h, w), inside = zip(*pieces, strict=True)
            some = qkv[:, f, h, w]
            cells = [
                n
                for length, part in zip(some.shape[1:4], map(len, inside), strict=True)
                for n in (length // part, part)
            ]
            some = some.reshape(len(qkv), *cells, 3, self.heads, -1).permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9)
            shape = some.shape[1:]  # (B, f, h, w, n, *window, d)
            bias = self._bias(window, inside, qkv.dtype)  # (n, N, N)
            q, k, v = some.reshape(3, -1, self.heads, bias.shape[-1], shape[-1])  # each (B f h w, n, N, d)
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
            attended = attended.view(shape).permute(0, 1, 5, 2, 6, 3, 7, 4, 8)  # (B, f, F', h, H', w, W', n, d)
            parts.append(attended.flatten(7).flatten(5, 6).flatten(3, 4).flatten(1, 2))  # (B, F, H, W, C)
        for axis in (3, 2, 1):
            count = len(axes[axis - 1])
            parts = [torch.cat(parts[i : i + count], axis) for i in range(0, len(parts), count)]
        return parts[0]

    def _bias(self, window: list[int], inside: tuple[range, ...], dtype: torch.dtype) -> Tensor:
        """The bias of each head for each pair of some places of a window, (n, N, N), made once.

        A window that was cut down takes the first places of the whole window, as in the published code.
        """
        table = self.relative_position_bias_table
        key = *window, inside, dtype, table.device, table._version
        if key not in self._biases:
            places = torch.arange(math.prod(window), device="cpu").view(window)
            (f, h, w) = (slice(part.start, part.stop) for part in inside)
            chosen = places[f, h, w].flatten()  # (N,)
            index = _relative_positions(self.window)[chosen][:, chosen].to(table.device)
            self._biases[key] = table.detach()[index].permute(2, 0, 1).to(dtype).contiguous()
        return self._biases[key]


def _pieces(length: int, window: int, shift: int) -> list[tuple[slice, range]]:
    """The parts of an axis whose windows are cut alike: where they lie, and which places of a window they hold."""
    if shift == 0:
        return [(slice(0, length), range(window))]
    end = length - window + shift
    return [
        (slice(0, shift), range(window - shift, window)),
        (slice(shift, end), range(window)),
        (slice(end, length), range(window - shift)),
    ]


@lru_cache
def _relative_positions(window: Size) -> Tensor:
    """The row of the bias table for each pair of places, (N, N): the offset, counted along width, height, frames."""
    place = torch.cartesian_prod(*(torch.arange(n, device="cpu") for n in window))  # (N, 3)
    offset = place[:, None] - place + torch.tensor(window, device="cpu") - 1  # (N, N, 3), from 0 on
    return (offset[..., 0] * (2 * window[1] - 1) + offset[..., 1]) * (2 * window[2] - 1) + offset[..., 2]


class Block(nn.Module):
    """Window attention and a two-layer perceptron, each normalised before and added to its input (Fig. 2 there)."""

    def __init__(self, channels: int, heads: int, window: Size, shifted: bool, mlp_ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shifted)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels),
            nn.GELU(),
            nn.Identity(),  # where torchvision has dropout: the next layer is number 3 in every file
            nn.Linear(mlp_ratio * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W, C) -> the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VideoSwin(nn.Module):
    """The network, its layers named as torchvision names them."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, self.num_classes = sizes, sizes.num_classes
        self.patch_embed = PatchEmbedding(sizes.width, sizes.patch)
        layers: list[nn.Module] = []
        for stage, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True)):
            channels = sizes.width * 2**stage
            if stage > 0:
                layers.append(PatchMerging(channels // 2))
            blocks = (Block(channels, heads, sizes.window, i % 2 == 1, sizes.mlp_ratio) for i in range(depth))
            layers.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(sizes.feature_dim)
        self.head = nn.Linear(sizes.feature_dim, sizes.num_classes) if sizes.num_classes else None

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, F, H, W) normalised clips -> (B, F / 2, H / 32, W / 32, C), the last stage's normalised output."""
        return self.norm(self.features(self.patch_embed(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and class logits of a batch of clips.

        Args:
            x: (B, 3, F, H, W), normalised as in ImageNet.

        Returns:
            Features (B, C), the mean over the last map, and logits (B, num_classes), both float32.
        """
        features = self.last_map(x).float().mean((1, 2, 3))
        if self.head is None:
            return features, features.new_zeros(len(x), 0)
        return features, self.head(features.to(self.head.weight.dtype)).float()


RENAMES = (
    (re.compile(r"^layers\.(\d+)\.blocks\."), lambda found: f"features.{2 * int(found[1])}."),
    (re.compile(r"^layers\.(\d+)\.downsample\."), lambda found: f"features.{2 * int(found[1]) + 1}."),
    (re.compile(r"\.mlp\.fc1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.fc2\."), ".mlp.3."),
    (re.compile(r"^norm3\."), "norm."),
)
"""From the official names and mmaction2's (`norm3`) to torchvision's; what is torchvision's already stays."""

COMPUTED = ("relative_position_index", "attn_mask")
"""Buffers that some files hold and that follow from the sizes."""

OF_A_HEAD = re.compile(r"\w*(head|fc|cls|class|logit)\w*\.")
CLASSIFIER = re.compile(r"(^|.*[./])(head|cls_head\.fc_cls)\.weight")


def from_checkpoint(path: str | Path) -> VideoSwin:
    """Build the network with the weights of a file, all its sizes read from the file.

    Args:
        path: A file of torchvision's, of the official code's or of mmaction2's 1.x, recognised by its keys, with any
            prefix. A classifier of one layer is taken along, any other head is left out.

    Raises:
        ValueError: The file cannot be read, or is not a whole Video Swin: missing and unexpected keys are listed.
    """
    tensors = read_tensors(path)
    prefix, inside = only_network(tensors, "patch_embed.proj.weight", path, "Video Swin")
    state, names = {}, {}
    for name, tensor in inside.items():
        own = name
        for pattern, replacement in RENAMES:
            own = pattern.sub(replacement, own)
        if not own.endswith(COMPUTED) and not OF_A_HEAD.match(own):
            state[own], names[own] = tensor, prefix + name

    sizes = _read_sizes(state, path)
    for name in filter(CLASSIFIER.fullmatch, tensors):
        weight, bias = tensors[name], tensors.get(name.removesuffix("weight") + "bias")
        if bias is not None and weight.ndim == 2 and weight.shape[1] == sizes.feature_dim:
            sizes = replace(sizes, num_classes=len(weight))
            state |= {"head.weight": weight, "head.bias": bias}

    with torch.device("meta"):  # no time spent on numbers that are about to be replaced
        network = VideoSwin(sizes)
    expected = network.state_dict()
    problems = []
    if missing := sorted(set(expected) - set(state)):
        problems.append(f"it lacks {', '.join(missing)}")
    if unexpected := sorted(names[own] for own in set(state) - set(expected)):
        problems.append(f"it has unexpected {', '.join(unexpected)}")
    problems += [
        f"{names.get(own, own)} has shape {tuple(state[own].shape)} and not {tuple(tensor.shape)}"
        for own, tensor in expected.items()
        if own in state and state[own].shape != tensor.shape
    ]
    if problems:
        raise ValueError(f"{path} is not a whole Video Swin: {'; '.join(problems)}.")
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval().requires_grad_(False)


def _read_sizes(state: Mapping[str, Tensor], path: str | Path) -> Sizes:
    """The sizes of the network that these tensors belong to; without a classifier."""
    patches = state["patch_embed.proj.weight"]  # (C, 3, *patch)
    depths: dict[int, int] = {}
    tables: dict[int, Tensor] = {}
    ratio = Sizes.mlp_ratio
    for own, tensor in state.items():
        if block := re.match(r"features\.(\d*[02468])\.(\d+)\.", own):
            stage = int(block[1]) // 2
            depths[stage] = max(depths.get(stage, 0), int(block[2]) + 1)
            if own.endswith(".relative_position_bias_table"):
                tables[stage] = tensor
            elif own.endswith(".mlp.0.weight"):
                ratio = len(tensor) // tensor.shape[1]
    if patches.ndim != 5 or not depths or set(depths) != set(tables) or set(depths) != set(range(len(depths))):
        raise ValueError(
            f"{path} is not a whole Video Swin: the sizes are read from patch_embed.proj.weight (C, 3, frames, height, "
            "width) and from a relative_position_bias_table in each stage, and these are not all there."
        )
    rows = len(tables[0])  # (2 f - 1) (2 h - 1)^2 for a window of f x h x h places
    side = max(n for n in range(1, rows + 2, 2) if rows % n**2 == 0 and rows // n**2 % 2 == 1)
    return Sizes(
        width=len(patches),
        depths=tuple(depths[stage] for stage in range(len(depths))),
        heads=tuple(tables[stage].shape[1] for stage in range(len(depths))),
        window=((rows // side**2 + 1) // 2, (side + 1) // 2, (side + 1) // 2),
        patch=(patches.shape[2], patches.shape[3], patches.shape[4]),
        mlp_ratio=ratio,
        num_classes=0,
    )


def untrained(sizes: Sizes, seed: int) -> VideoSwin:
    """The network with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VideoSwin(sizes)
        for name, parameter in network.named_parameters():
            if name.endswith("relative_position_bias_table"):
                nn.init.trunc_normal_(parameter, std=0.02)
    return network.eval().requires_grad_(False)
