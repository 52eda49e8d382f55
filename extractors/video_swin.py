"""Video Swin Transformer, all of it in this single file.

Liu et al., "Video Swin Transformer", CVPR 2022 (arXiv 2106.13230): attention within windows of a few frames and
patches; every second block shifts the windows by half a window. The layers have the names and the outputs of
torchvision's `swin3d_*`. `from_checkpoint` reads files of torchvision, of the official code and of mmaction2. Attention
is torch's `scaled_dot_product_attention`. There is no dropout, because the network is never trained here.

Shape legend: B batch, F H W frames, height and width (in pixels, then in patches), C channels, N positions of a window,
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

from .safe_load import only_network, read_tensors

Size = tuple[int, int, int]
"""Along frames, height and width."""


@dataclass(frozen=True)
class Sizes:
    """The sizes in which one Video Swin differs from another."""

    width: int
    """Channels of the first stage; each further stage has twice as many as the one before."""
    depths: tuple[int, ...]
    """Number of blocks in each stage."""
    heads: tuple[int, ...]
    """Number of attention heads in each stage."""
    window: Size = (8, 7, 7)
    patch: Size = (2, 4, 4)
    mlp_ratio: int = 4
    num_classes: int = 400
    """0 for a network without a classifier."""

    @property
    def feature_dim(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (len(self.depths) - 1)


TINY = Sizes(96, (2, 2, 6, 2), (3, 6, 12, 24))
SMALL = Sizes(96, (2, 2, 18, 2), (3, 6, 12, 24))
BASE = Sizes(128, (2, 2, 18, 2), (4, 8, 16, 32))


class PatchEmbedding(nn.Module):
    """Cuts the video into patches and projects each patch to the first stage's channels (section 3.1)."""

    def __init__(self, width: int, patch: Size):
        super().__init__()
        self.proj = nn.Conv3d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, F, H, W) pixels -> (B, F, H, W, C) patches; incomplete patches are padded with zeros."""
        size, patch = x.shape[2:], self.proj.kernel_size
        x = functional.pad(x, [p for n, k in zip(reversed(size), reversed(patch), strict=True) for p in (0, -n % k)])
        return self.norm(self.proj(x).permute(0, 2, 3, 4, 1))


class PatchMerging(nn.Module):
    """Joins each 2 x 2 patches of a frame into one with twice the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W, C) -> (B, F, H / 2, W / 2, 2 C); odd sizes are padded with zeros."""
        x = functional.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        corners = [x[:, :, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each relative position (section 3.2).

    A window larger than the map is cut to the map's size and is not shifted. Windows shifted by s cut the map's edges:
    the map begins with the last s positions of one window and ends with the first positions of another. The published
    code rolls the map, so that these two parts share a window, and masks each from the other; `_rolled` does so in one
    call of the attention, because calls are what costs on a GPU. On a CPU work costs: `_in_pieces` makes two smaller
    windows of the two parts. All windows of one shape, at most 27 shapes, share one call. The results are the same.
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
        padding = [-length % n for length, n in zip(size, window, strict=True)]
        x = functional.pad(x, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        attend = self._rolled if x.is_cuda else self._in_pieces
        x = attend(self.qkv(x), window, shift)
        return self.proj(x[:, : size[0], : size[1], : size[2]])

    def _rolled(self, qkv: Tensor, window: list[int], shift: list[int]) -> Tensor:
        """(B, F, H, W, 3 C), each size a multiple of the window's -> (B, F, H, W, C)."""
        batch, *size = qkv.shape[:4]
        if any(shift):
            qkv = qkv.roll([-n for n in shift], (1, 2, 3))
        counts = [n for length, side in zip(size, window, strict=True) for n in (length // side, side)]
        # (B, f, F', h, H', w, W', 3, n, d) -> (3, B, f, h, w, n, F', H', W', d)
        windows = qkv.view(batch, *counts, 3, self.heads, -1).permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9)
        shape = windows.shape[1:]
        q, k, v = windows.reshape(3, batch, -1, self.heads, math.prod(window), shape[-1])  # each (B, f h w, n, N, d)
        if any(shift):
            sides = _sides(tuple(size), tuple(window), tuple(shift), qkv.dtype, qkv.device)  # each (f h w, 1, N, 8)
            q, k = (torch.cat([x, side.expand(*x.shape[:-1], -1)], -1) for x, side in zip((q, k), sides, strict=True))
        bias = self._bias(window, tuple(map(range, window)), qkv.dtype)  # (n, N, N)
        attended = functional.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=bias[None], scale=shape[-1] ** -0.5
        )
        attended = attended.view(shape).permute(0, 1, 5, 2, 6, 3, 7, 4, 8)  # (B, f, F', h, H', w, W', n, d)
        attended = attended.reshape(batch, *size, -1)  # (B, F, H, W, C)
        return attended.roll(shift, (1, 2, 3)) if any(shift) else attended

    def _in_pieces(self, qkv: Tensor, window: list[int], shift: list[int]) -> Tensor:
        """(B, F, H, W, 3 C), each size a multiple of the window's -> (B, F, H, W, C)."""
        axes = [_segments(*axis) for axis in zip(qkv.shape[1:4], window, shift, strict=True)]
        outputs = []
        for segments in product(*axes):
            (f, h, w), positions = zip(*segments, strict=True)
            part = qkv[:, f, h, w]
            # (length,) -> (windows, length of a window) along each axis: f F' h H' w W'
            counts = [
                n
                for length, size in zip(part.shape[1:4], map(len, positions), strict=True)
                for n in (length // size, size)
            ]
            # (B, f, F', h, H', w, W', 3, n, d) -> (3, B, f, h, w, n, F', H', W', d)
            part = part.reshape(len(qkv), *counts, 3, self.heads, -1).permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9)
            shape = part.shape[1:]
            bias = self._bias(window, positions, qkv.dtype)  # (n, N, N)
            q, k, v = part.reshape(3, -1, self.heads, bias.shape[-1], shape[-1])  # each (B f h w, n, N, d)
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
            attended = attended.view(shape).permute(0, 1, 5, 2, 6, 3, 7, 4, 8)  # (B, f, F', h, H', w, W', n, d)
            outputs.append(attended.flatten(7).flatten(5, 6).flatten(3, 4).flatten(1, 2))  # (B, F, H, W, C)
        # `product` varies the last axis fastest, so join along width, then height, then frames
        for axis in (3, 2, 1):
            count = len(axes[axis - 1])
            outputs = [torch.cat(outputs[i : i + count], axis) for i in range(0, len(outputs), count)]
        return outputs[0]

    def _bias(self, window: list[int], positions: tuple[range, ...], dtype: torch.dtype) -> Tensor:
        """The bias of each head for each pair of the given positions of a window, (n, N, N); computed once.

        A window cut to the map's size has the first positions of the full window, as in the published code.
        """
        table = self.relative_position_bias_table
        # `_version` grows with every change in place, so newly loaded weights get a new bias
        key = *window, positions, dtype, table.device, table._version
        if key not in self._biases:
            indices = torch.arange(math.prod(window), device="cpu").view(window)
            (f, h, w) = (slice(axis.start, axis.stop) for axis in positions)
            chosen = indices[f, h, w].flatten()  # (N,)
            rows = _relative_positions(self.window)[chosen][:, chosen].to(table.device)  # (N, N)
            self._biases[key] = table.detach()[rows].permute(2, 0, 1).to(dtype).contiguous()
        return self._biases[key]


def _segments(length: int, window: int, shift: int) -> list[tuple[slice, range]]:
    """The segments of an axis with windows of one shape: where each lies, and the window positions that it holds."""
    if shift == 0:
        return [(slice(0, length), range(window))]
    end = length - window + shift
    return [
        (slice(0, shift), range(window - shift, window)),
        (slice(shift, end), range(window)),
        (slice(end, length), range(window - shift)),
    ]


@lru_cache
def _sides(
    size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """More channels for query and key that hide the two parts of a rolled window from each other.

    A mask would be another one for each window of the map, and take more memory than the map. These channels let all
    windows share one bias: along each axis their product is 0 for positions of the same part and -1024 for others,
    which even divided by sqrt(d) leaves nothing of the attention.

    Returns:
        Two tensors (windows, 1, N, 8): 6 channels, and 2 of zeros because GPUs want multiples of 8.
    """
    places = (torch.arange(n, device="cpu") >= n - cut for n, cut in zip(size, shift, strict=True))
    is_second = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).float()  # (F, H, W, 3)
    counts = [n for length, side in zip(size, window, strict=True) for n in (length // side, side)]
    is_second = is_second.view(*counts, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, 1, math.prod(window), 3)
    unused = is_second.new_zeros(*is_second.shape[:-1], 2)
    query = torch.cat([1 - is_second, is_second, unused], -1) * 32
    key = torch.cat([-is_second, is_second - 1, unused], -1) * 32
    return query.to(device, dtype), key.to(device, dtype)


@lru_cache
def _relative_positions(window: Size) -> Tensor:
    """The row of the bias table for each pair of positions, (N, N): their offset as one number, width fastest."""
    position = torch.cartesian_prod(*(torch.arange(n, device="cpu") for n in window))  # (N, 3)
    offset = position[:, None] - position + torch.tensor(window, device="cpu") - 1  # (N, N, 3), at least 0
    return (offset[..., 0] * (2 * window[1] - 1) + offset[..., 1]) * (2 * window[2] - 1) + offset[..., 2]


class Block(nn.Module):
    """Window attention, then a two-layer perceptron, both pre-normalised and residual (paper, Fig. 2)."""

    def __init__(self, channels: int, heads: int, window: Size, shifted: bool, mlp_ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shifted)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels),
            nn.GELU(),
            nn.Identity(),  # in place of torchvision's dropout, because files name the next layer mlp.3
            nn.Linear(mlp_ratio * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W, C) -> the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VideoSwin(nn.Module):
    """The whole network. The names of its layers are torchvision's."""

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
    (re.compile(r"^layers\.(\d+)\.blocks\."), lambda match: f"features.{2 * int(match[1])}."),
    (re.compile(r"^layers\.(\d+)\.downsample\."), lambda match: f"features.{2 * int(match[1]) + 1}."),
    (re.compile(r"\.mlp\.fc1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.fc2\."), ".mlp.3."),
    (re.compile(r"^norm3\."), "norm."),
)
"""From the names of the official code and of mmaction2 (`norm3`) to torchvision's, which match no pattern."""

COMPUTED_BUFFERS = ("relative_position_index", "attn_mask")
"""Buffers in some files that follow from the sizes; they are ignored."""

ANY_HEAD = re.compile(r"\w*(head|fc|cls|class|logit)\w*\.")
"""Names of tensors that belong to a head, of whatever kind."""
CLASSIFIER = re.compile(r"(^|.*[./])(head|cls_head\.fc_cls)\.weight")
"""Names of the weight of a classifier with a single layer."""


def from_checkpoint(path: str | Path) -> VideoSwin:
    """Build the network with the weights of a file; all sizes are read from the file.

    Args:
        path: a file of torchvision, of the official code or of mmaction2 1.x, told apart by their keys, with any
            prefix. A classifier of one layer is read too; any other head is ignored.

    Raises:
        ValueError: the file cannot be read, or is not a complete Video Swin: missing and unexpected keys are listed.
    """
    tensors = read_tensors(path)
    prefix, source = only_network(tensors, "patch_embed.proj.weight", path, "Video Swin")
    state, names = {}, {}  # the tensors by their names in this network, and these names' names in the file
    for name, tensor in source.items():
        own = name
        for pattern, replacement in RENAMES:
            own = pattern.sub(replacement, own)
        if not own.endswith(COMPUTED_BUFFERS) and not ANY_HEAD.match(own):
            state[own], names[own] = tensor, prefix + name

    sizes = _read_sizes(state, path)
    for name in filter(CLASSIFIER.fullmatch, tensors):
        weight, bias = tensors[name], tensors.get(name.removesuffix("weight") + "bias")
        if bias is not None and weight.ndim == 2 and weight.shape[1] == sizes.feature_dim:
            sizes = replace(sizes, num_classes=len(weight))
            state |= {"head.weight": weight, "head.bias": bias}

    with torch.device("meta"):  # without memory and initialisation, because the file's weights replace them
        network = VideoSwin(sizes)
    if problems := _mismatches(state, network.state_dict(), names):
        raise ValueError(f"{path} is not a complete Video Swin: {'; '.join(problems)}")
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval().requires_grad_(False)


def _mismatches(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """What is missing, unexpected or misshapen in `state`; `names` are the tensors' names in the file."""
    problems = []
    if missing := sorted(set(expected) - set(state)):
        problems.append(f"it lacks {', '.join(missing)}")
    if unexpected := sorted(names[own] for own in set(state) - set(expected)):
        problems.append(f"it has unexpected {', '.join(unexpected)}")
    return problems + [
        f"{names.get(own, own)} has shape {tuple(state[own].shape)} and not {tuple(tensor.shape)}"
        for own, tensor in expected.items()
        if own in state and state[own].shape != tensor.shape
    ]


def _read_sizes(state: Mapping[str, Tensor], path: str | Path) -> Sizes:
    """Derive the sizes of the network from its tensors, without a classifier."""
    patches = state["patch_embed.proj.weight"]  # (C, 3, *patch)
    depths: dict[int, int] = {}
    tables: dict[int, Tensor] = {}
    ratio = Sizes.mlp_ratio
    for own, tensor in state.items():
        if block := re.match(r"features\.(\d*[02468])\.(\d+)\.", own):  # even numbers are stages, odd ones mergings
            stage = int(block[1]) // 2
            depths[stage] = max(depths.get(stage, 0), int(block[2]) + 1)
            if own.endswith(".relative_position_bias_table"):
                tables[stage] = tensor
            elif own.endswith(".mlp.0.weight"):
                ratio = len(tensor) // tensor.shape[1]
    if patches.ndim != 5 or not depths or set(depths) != set(tables) or set(depths) != set(range(len(depths))):
        raise ValueError(
            f"{path} is not a complete Video Swin: the sizes are read from patch_embed.proj.weight (C, 3, frames, "
            "height, width) and from a relative_position_bias_table in each stage, and not all of these are there"
        )
    rows = len(tables[0])  # (2 f - 1) (2 h - 1)^2 for a window of f x h x h positions
    # h is not stored: take the largest square factor
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
