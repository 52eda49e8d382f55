"""OpenVINO as the engine of a backbone on a CPU: the same network, compiled for the processor it runs on.

torch exports the network with its normalisation, and OpenVINO converts it to its own format. This takes up to a minute,
so the result is cached beside the weights, together with OpenVINO's own cache of the compiled network. Each version of
the program and its libraries has its own folder; a new version deletes the folders that were not used for a month.
"""

import hashlib
import importlib.util
import inspect
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .recipes import Recipe
from .weights import cache_dir

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""Our names -> OpenVINO's."""
UNUSED_S = 30 * 24 * 3600
"""Age at which an unused folder of another version, or of a conversion that was killed, is deleted."""


def is_installed() -> bool:
    """Whether this Python has OpenVINO."""
    return importlib.util.find_spec("openvino") is not None


class CompiledNetwork:
    """A backbone's network, compiled by OpenVINO.

    Args:
        name: the backbone's name.
        network: the torch network, float32 on the CPU: (B, 3, F, H, W) -> features and class logits.
        num_classes: number of class logits.
        recipe: gives the clips' size and normalisation.
        weights_sha256: hash of the network's weights.
        precision: "fp32" or "bf16".

    Raises:
        ValueError: the processor has no bf16, or the cache cannot be written or read.
    """

    def __init__(
        self, name: str, network: nn.Module, num_classes: int, recipe: Recipe, weights_sha256: str, precision: str
    ):
        openvino = _import_openvino()
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ValueError("OpenVINO has no bf16 on this processor: use --precision fp32 or --engine torch")
        self.num_classes = num_classes
        folder_of_versions = cache_dir() / "openvino" / f"{name}-{weights_sha256[:8]}-{recipe.name}"
        folder = folder_of_versions / _version_hash(network, weights_sha256)
        file = folder / "network.xml"
        if not file.exists():
            logger.info("preparing the backbone for OpenVINO (once; it takes up to a minute or two)")
            started = time.perf_counter()
            try:
                _delete_unused(folder_of_versions)
                _convert(openvino, network, recipe, num_classes > 0, file)
            except (OSError, RuntimeError) as error:  # OpenVINO raises RuntimeError where it cannot write
                raise ValueError(
                    f"OpenVINO's model cannot be kept in {folder} ({error}): set COFINAL_CACHE to another "
                    "folder, or use --engine torch"
                ) from error
            logger.info("prepared in %.0f s", time.perf_counter() - started)
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": str(folder),
        }
        with suppress(OSError):
            os.utime(folder)  # marks it as used, see `_delete_unused`
        try:
            self._request = core.compile_model(str(file), "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot read {file}: delete {folder} to have it made again") from error

    def __call__(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Features and class logits of clips. Each clip is computed alone, so its batch does not change its features.

        Args:
            clips: (B, F, H, W, 3) uint8, as the recipe makes them.

        Returns:
            Features (B, C) and logits (B, num_classes), both float32.
        """
        outputs = [self._request.infer({0: clip.numpy()}).to_tuple() for clip in clips.split(1)]
        features, *logits = (torch.from_numpy(np.concatenate(output)) for output in zip(*outputs, strict=True))
        return features, logits[0] if logits else features.new_zeros(len(clips), 0)


class _FromPixels(nn.Module):
    """A network with the recipe's normalisation before it. It returns no logits if there are no classes."""

    def __init__(self, network: nn.Module, recipe: Recipe, has_classes: bool):
        super().__init__()
        self.network, self.recipe, self.has_classes = network, recipe, has_classes

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.network(self.recipe.normalise(clips))
        return (features, logits) if self.has_classes else (features,)


def _import_openvino() -> Any:
    # without this module OpenVINO does not report each conversion to its makers
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _delete_unused(folder_of_versions: Path) -> None:
    """Delete the folders of versions that were not used for `UNUSED_S`."""
    for folder in folder_of_versions.glob("*"):
        if folder.stat().st_mtime < time.time() - UNUSED_S:
            shutil.rmtree(folder, ignore_errors=True)


def _version_hash(network: nn.Module, weights_sha256: str) -> str:
    """A hash of everything that determines a converted network: weights, code and library versions."""
    hashed = hashlib.sha256(weights_sha256.encode())
    for code in (type(network), Recipe, CompiledNetwork):
        hashed.update(Path(inspect.getfile(code)).read_bytes())
    for library in ("torch", "torchvision", "pytorchvideo", "openvino"):
        hashed.update(version(library).encode())
    return hashed.hexdigest()[:16]


@torch.no_grad()
def _convert(openvino: Any, network: nn.Module, recipe: Recipe, has_classes: bool, file: Path) -> None:
    """Write the network in OpenVINO's format, an `.xml` and a `.bin` file."""
    clips = torch.zeros(1, recipe.clip_frames, *recipe.size, 3, dtype=torch.uint8)
    whole = _FromPixels(network, recipe, has_classes).eval()
    whole(clips)  # fills the network's caches (attention biases), which must not be computed in the exported graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of these caches
        model = openvino.convert_model(torch.export.export(whole, (clips,)))
    model.reshape(list(clips.shape))
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="converting-", dir=file.parent.parent) as name:
        converted = Path(name) / file.name
        openvino.save_model(model, str(converted), compress_to_fp16=False)
        converted.with_suffix(".bin").replace(file.with_suffix(".bin"))
        converted.replace(file)  # the .xml last, because its presence means that both files are complete
