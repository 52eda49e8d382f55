"""What a feature store's manifest says of what made its features."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..extractors.backbone import Backbone
from ..extractors.catalogue import CATALOGUE


def manifest_of(network: Backbone, weights: str | None, place: str) -> dict[str, Any]:
    """Return the manifest of a store of the videos of a place: the identity, and all else that made the features."""
    return {
        **network.identity,
        "feature_dim": network.feature_dim,
        "weights": weights_origin(weights),
        "precision": network.precision,
        "engine": network.engine,
        "device": network.device,
        "versions": versions("cofinal", "torch", "torchvision", "openvino", "av", "decord", "numpy"),
        "videos": place,
    }


def weights_origin(weights: str | None) -> str:
    """Return the origin of weights as manifests record it: "published", a name, "random" or an absolute path."""
    if weights is None:
        return "published"
    names = [name for entry in CATALOGUE.values() for published in entry.weights for name in published.names]
    return weights if weights in ("random", *names) else str(Path(weights).absolute())


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, and Python's."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "absent"
    return installed
