"""A backbone: a network with its weights, its recipe, and the device and precision it runs in.

Its input is clips of uint8 frames that a recipe made; they are normalised on the device. In fp16 and bf16 the weights
are converted too: autocast over fp32 weights would convert them again in each pass. On a CPU a network compiled by
OpenVINO is faster than torch.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from . import openvino_engine
from .batches import Batches, Pending
from .catalogue import ALIASES, CATALOGUE, Entry
from .openvino_engine import CompiledNetwork
from .recipes import Recipe, get_recipe
from .weights import fetch_weights, file_sha256, published_sha256

BACKBONES = tuple(CATALOGUE)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ENGINES = ("torch", "openvino")
RANDOM_SEED = 0

_process_with_threads: int | None = None
"""The process in which torch and OpenVINO have started their threads; a forked process has none of them."""


def refuse_lost_threads() -> None:
    """Raise ValueError in a process that was forked after its parent ran a network: it would wait for ever.

    torch and OpenVINO would wait for the parent's threads, which a fork does not copy.
    """
    global _process_with_threads
    if _process_with_threads not in (None, os.getpid()):
        raise ValueError(
            "this process was forked after its parent had run a backbone, whose threads a fork does not copy: start "
            "workers with multiprocessing.get_context('spawn'), or before the first extraction"
        )
    _process_with_threads = os.getpid()


@dataclass(frozen=True)
class Backbone:
    """A frozen network that turns clips into features; made by `load_backbone`."""

    name: str
    recipe: Recipe
    network: nn.Module | CompiledNetwork
    """Normalised clips (B, 3, F, H, W), or uint8 clips (B, F, H, W, 3) with OpenVINO -> features (B, feature_dim) and
    class logits (B, num_classes), both float32."""
    feature_dim: int
    weights_sha256: str
    """Hash of the published checkpoint or of the user's file; "random" for untrained weights."""
    device: str
    precision: str
    """One of `PRECISIONS`."""
    engine: str = "torch"
    """One of `ENGINES`."""
    num_classes: int = 400
    """Number of classes that the weights were trained on; 0 if the file holds no classifier."""

    @property
    def identity(self) -> dict[str, str]:
        """What determines the features: a store or a head of another identity cannot be used with them."""
        return {"backbone": self.name, "recipe": self.recipe.name, "weights_sha256": self.weights_sha256}

    def features(self, clips: Tensor) -> np.ndarray:
        """Features of a batch of clips.

        Args:
            clips: (B, F, H, W, 3) uint8, frames as the recipe makes them.

        Returns:
            (B, feature_dim) float32.
        """
        return self.features_and_classes(clips)[0]

    def features_and_classes(self, clips: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Features and class probabilities of a batch of clips, from one pass through the network.

        Args:
            clips: (B, F, H, W, 3) uint8, frames as the recipe makes them.

        Returns:
            Features (B, feature_dim) and probabilities (B, num_classes), both float32.

        Raises:
            ValueError: as in `submit` and `extractors.batches.Pending.result`.
        """
        return self.submit(list(clips)).result()

    def submit(self, clips: Sequence[Tensor]) -> Pending:
        """Start a batch of clips; a GPU computes it while the caller goes on.

        Args:
            clips: each (F, H, W, 3) uint8, frames as the recipe makes them.

        Returns:
            What gives the features and probabilities, see `features_and_classes`.

        Raises:
            ValueError: this process was forked after its parent had run a network, or the GPU's memory is full.
        """
        refuse_lost_threads()
        return self._batches.submit(clips)

    @property
    def batches_in_flight(self) -> int:
        """Batches to submit before waiting for the first one's result."""
        return 2 if self.device.startswith("cuda") else 1

    @cached_property
    def batch_clips(self) -> int:
        """Number of clips in a batch that suits the device and its free memory."""
        refuse_lost_threads()
        return self._batches.suitable_clips((self.recipe.clip_frames, *self.recipe.size, 3))

    @cached_property
    def _batches(self) -> Batches:
        if isinstance(self.network, CompiledNetwork):
            return Batches(self._compute, torch.device("cpu"))
        # not `self.device`: "cuda" would mean another GPU if the program chose another current one
        return Batches(self._compute, next(self.network.parameters()).device)

    def _compute(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Features and class logits of uint8 clips on the device."""
        if isinstance(self.network, CompiledNetwork):
            return self.network(clips)
        dtype = next(self.network.parameters()).dtype
        x = self.recipe.normalise(clips).to(dtype)
        with without_tf32() if x.is_cuda and dtype == torch.float32 else nullcontext():
            return self.network(x)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Let a GPU compute fp32 in fp32: TF32 has 10 bits. What the program has set otherwise holds again afterwards."""
    # torch's type stubs do not know `conv`
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


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
        name: one of `BACKBONES` or `ALIASES`, or "auto"; see `resolve_backbone`.
        recipe: name of a recipe; None for the backbone's default.
        weights: a file, the name of published weights (downloaded on first use), None for the backbone's default
            published weights, or "random" for untrained weights, which are the same every time.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "bf16" or "fp16".
        engine: "torch", "openvino", or "auto": OpenVINO on a CPU where it is installed, else torch.

    Raises:
        ValueError: a name is unknown, the device or the engine cannot do what is asked, or the weights cannot be
            downloaded or read; or this process was forked after its parent had run a network.
    """
    refuse_lost_threads()
    name, _ = resolve_backbone(name, device)
    entry = CATALOGUE[name]
    chosen_recipe = get_recipe(recipe or entry.recipe)
    torch_device = resolve_device(device)
    precision = _precision(precision, torch_device)
    engine = _engine(engine, torch_device, precision)
    network, sha256 = _load_network(name, entry, weights)
    num_classes = cast(int, network.num_classes)
    prepared: nn.Module | CompiledNetwork
    if engine == "openvino":
        prepared = CompiledNetwork(name, network, num_classes, chosen_recipe, sha256, precision)
    else:
        network.to(torch_device, PRECISIONS[precision])
        prepared = network.to(memory_format=torch.channels_last_3d)  # the faster layout for 3D convolutions
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


def _load_network(name: str, entry: Entry, weights: str | Path | None) -> tuple[nn.Module, str]:
    """The network on the CPU, and the hash of its weights; arguments as in `load_backbone`."""
    if weights == "random":
        return entry.untrained(RANDOM_SEED), "random"
    by_name = {alias: published for published in entry.weights for alias in published.names}
    if weights is None or weights in by_name:
        chosen = entry.weights[0] if weights is None else by_name[str(weights)]
        file = fetch_weights(chosen)
        sha256 = published_sha256(chosen)  # refuses a wrong file before it is read
        return entry.from_checkpoint(file), sha256
    if not Path(weights).exists():
        names = ", ".join(published.name for published in entry.weights)
        raise ValueError(f"the weights {weights} cannot be read: No such file; published for {name} are {names}")
    return entry.from_checkpoint(weights), file_sha256(weights)


def resolve_backbone(name: str, device: str) -> tuple[str, str | None]:
    """Resolve "auto" and aliases: "auto" is the paper's Video Swin on a GPU, and the faster I3D on a CPU.

    Returns:
        One of `BACKBONES`, and with "auto" why it was chosen.

    Raises:
        ValueError: the name or the device is unknown, or the device does not exist here.
    """
    if name == "auto":
        on_gpu = resolve_device(device).type == "cuda"
        return ("vst-b", "auto: there is a GPU") if on_gpu else ("i3d", "auto: there is no GPU")
    name = ALIASES.get(name, name)
    if name not in CATALOGUE:
        raise ValueError(f"unknown backbone {name!r}; known are {', '.join(('auto', *ALIASES, *BACKBONES))}")
    return name, None


def resolve_device(name: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N"; "auto" is the GPU if there is one.

    Raises:
        ValueError: the name is unknown, or the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}; known are auto, cpu, cuda and cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"the device {name!r} does not exist, torch sees {torch.cuda.device_count()} CUDA devices: use --device "
            "cpu, or install a torch build with CUDA and its driver"
        )
    return device


def _precision(name: str, device: torch.device) -> str:
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        # without these instructions bf16 is slower than fp32; not all supported torch versions have a public function
        return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; known are auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("fp16 needs a CUDA device: on a CPU use --precision bf16 or fp32")
    return name


def _engine(name: str, device: torch.device, precision: str) -> str:
    if name == "auto":
        # OpenVINO needs bf16 instructions for bf16, torch does not
        can_compute = precision != "bf16" or torch.cpu._is_avx512_bf16_supported()
        return "openvino" if device.type == "cpu" and can_compute and openvino_engine.is_installed() else "torch"
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known are auto, {', '.join(ENGINES)}")
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"the engine openvino runs on a CPU, not on {device}: use --device cpu or --engine torch")
    if name == "openvino" and not openvino_engine.is_installed():
        raise ValueError(
            "OpenVINO is not installed: pip install 'cofinal[openvino]' (from a checkout: pip install '.[openvino]'), "
            "or use --engine torch"
        )
    return name
