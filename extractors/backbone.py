"""A backbone: a network with its weights, its recipe, and the device and precision it runs in.

Clips go in as the uint8 frames that a recipe makes, and are normalised on the device. Below fp32 a GPU runs under
autocast; a CPU gets bfloat16 weights, which are fastest on one that has instructions for them, or has the network
compiled by OpenVINO, which is faster still.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from . import openvino_engine
from .catalogue import ALIASES, CATALOGUE
from .openvino_engine import CompiledNetwork
from .recipes import Recipe, get_recipe
from .weights import file_sha256, published, published_sha256

BACKBONES = tuple(CATALOGUE)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ENGINES = ("torch", "openvino")
RANDOM_SEED = 0


@dataclass(frozen=True)
class Backbone:
    """A frozen network that turns clips into features; `load_backbone` builds it."""

    name: str
    recipe: Recipe
    network: nn.Module | CompiledNetwork
    """(B, 3, F, H, W) normalised clips, or (B, F, H, W, 3) uint8 ones with OpenVINO -> features (B, feature_dim) and
    class logits (B, classes), float32; there are 0 classes if the weights came without a classifier."""
    feature_dim: int
    weights_sha256: str
    """Of the published checkpoint or of the user's file; "random" for untrained weights."""
    device: str
    precision: str
    """One of `PRECISIONS`."""
    engine: str = "torch"
    """One of `ENGINES`."""
    num_classes: int = 400
    """Classes that the weights tell apart; 0 without a classifier."""

    @property
    def identity(self) -> dict[str, str]:
        """What its features are bound to: a store or a head of another identity cannot be used with them."""
        return {"backbone": self.name, "recipe": self.recipe.name, "weights_sha256": self.weights_sha256}

    def features(self, clips: Tensor) -> np.ndarray:
        """Features of a batch of clips.

        Args:
            clips: (B, F, H, W, 3) uint8, frames as the recipe makes them.

        Returns:
            (B, feature_dim) float32.
        """
        return self.features_and_classes(clips)[0]

    def classify(self, clips: Tensor) -> np.ndarray:
        """Probabilities (B, classes) float32 of the classes that the weights were trained on."""
        return self.features_and_classes(clips)[1]

    @torch.inference_mode()
    def features_and_classes(self, clips: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """What `features` and `classify` return, from one pass through the network."""
        if isinstance(self.network, CompiledNetwork):
            features, logits = self.network(clips)
            return features.numpy(), logits.softmax(dim=1).numpy()
        device = torch.device(self.device)
        if device.type == "cuda":
            clips = clips.pin_memory()
        x = self.recipe.normalise(clips.to(device, non_blocking=True))
        computed, stored = PRECISIONS[self.precision], next(self.network.parameters()).dtype
        with torch.autocast(device.type, computed, enabled=computed != stored):
            features, logits = self.network(x.to(stored))
        return features.cpu().numpy(), logits.softmax(dim=1).cpu().numpy()


def load_backbone(
    name: str = "auto",
    *,
    recipe: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
) -> Backbone:
    """Build a backbone.

    Args:
        name: One of `BACKBONES` or `ALIASES`, or "auto"; see `resolve_backbone`.
        recipe: Name of a recipe; the backbone's default if None.
        weights: A file; the name of published weights, which are downloaded on first use; the first published ones of
            this backbone if None; "random" for untrained ones, the same ones every time.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "bf16" or "fp16".
        engine: "torch", "openvino", or "auto": OpenVINO on a CPU where it is installed, else torch.

    Raises:
        ValueError: A name is unknown, the device or the engine cannot do what is asked, or the weights cannot be had or
            read.
    """
    name, _ = resolve_backbone(name, device)
    entry = CATALOGUE[name]
    chosen_recipe = get_recipe(recipe or entry.recipe)
    torch_device = resolve_device(device)
    precision = _precision(precision, torch_device)
    engine = _engine(engine, torch_device, precision)
    by_name = {called: known for known in entry.weights for called in known.names}
    if weights == "random":
        network, sha256 = entry.untrained(RANDOM_SEED), "random"
    elif weights is None or weights in by_name:
        chosen = entry.weights[0] if weights is None else by_name[str(weights)]
        file = published(chosen)
        sha256 = published_sha256(chosen)
        network = entry.from_checkpoint(file)
    elif not Path(weights).exists():
        known = ", ".join(known.name for known in entry.weights)
        raise ValueError(
            f"Cannot read the weights {weights}: No such file; {name}'s published ones are called {known}."
        )
    else:
        network, sha256 = entry.from_checkpoint(weights), file_sha256(weights)
    num_classes = cast(int, network.num_classes)
    prepared: nn.Module | CompiledNetwork
    if engine == "openvino":
        prepared = CompiledNetwork(name, network, num_classes, chosen_recipe, sha256, precision)
    else:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is fp32 on a GPU, too
        network.to(torch_device, PRECISIONS[precision] if torch_device.type == "cpu" else torch.float32)
        prepared = network.to(memory_format=torch.channels_last_3d)
    return Backbone(
        name=name,
        recipe=chosen_recipe,
        network=prepared,
        feature_dim=entry.feature_dim,
        weights_sha256=sha256,
        device=str(torch_device),
        precision=precision,
        engine=engine,
        num_classes=num_classes,
    )


def resolve_backbone(name: str, device: str) -> tuple[str, str | None]:
    """The backbone that a name means here: Video Swin, the paper's first, where a GPU makes it quick, else I3D.

    Returns:
        One of `BACKBONES`, and with "auto" why it was chosen.

    Raises:
        ValueError: The name or the device is unknown, or there is no such device.
    """
    if name == "auto":
        on_gpu = resolve_device(device).type == "cuda"
        return ("vst-b", "auto: there is a GPU") if on_gpu else ("i3d", "auto: there is no GPU")
    name = ALIASES.get(name, name)
    if name not in CATALOGUE:
        known = ", ".join(("auto", *ALIASES, *BACKBONES))
        raise ValueError(f'There is no backbone "{name}"; known are {known}.')
    return name, None


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means here.

    Raises:
        ValueError: The name is unknown, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f'There is no device "{name}"; known are auto, cpu, cuda and cuda:N.')
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'The device "{name}" is not there, torch sees {torch.cuda.device_count()} CUDA devices: use --device cpu, '
            "or install a torch build with CUDA and its driver."
        )
    return device


def _precision(name: str, device: torch.device) -> str:
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        # torch has no public question for this in every version supported; without the instructions bf16 is slower
        return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    if name not in PRECISIONS:
        raise ValueError(f'There is no precision "{name}"; known are auto, {", ".join(PRECISIONS)}.')
    if name == "fp16" and device.type == "cpu":
        raise ValueError("fp16 needs a CUDA device: on a CPU use --precision bf16 or fp32.")
    return name


def _engine(name: str, device: torch.device, precision: str) -> str:
    if name == "auto":
        can_compute = precision != "bf16" or torch.cpu._is_avx512_bf16_supported()  # torch can always
        return "openvino" if device.type == "cpu" and can_compute and openvino_engine.is_installed() else "torch"
    if name not in ENGINES:
        raise ValueError(f'There is no engine "{name}"; known are auto, {", ".join(ENGINES)}.')
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"The engine openvino runs on a CPU, not on {device}: use --device cpu or --engine torch.")
    if name == "openvino" and not openvino_engine.is_installed():
        raise ValueError(
            "OpenVINO is not installed: pip install 'cofinal[openvino]' (from a checkout: pip install '.[openvino]'), "
            "or use --engine torch."
        )
    return name
