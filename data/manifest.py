"""The manifest of a feature store: what all its features were made with. Three of its keys are the store's identity."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
IDENTITY_KEYS = ("backbone", "recipe", "weights_sha256")


def describe_identity(identity: Mapping[str, str] | None) -> str:
    """Return an identity as text for messages: `i3d, recipe gdlt-i3d, weights af5c50f0df57`."""
    if identity is None:
        return "features of unknown origin"
    return f"{identity['backbone']}, recipe {identity['recipe']}, weights {identity['weights_sha256'][:12]}"


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the file's content."""
    return (json.dumps({"format": FORMAT, **manifest}, indent=2) + "\n").encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        ValueError: the file is no manifest of this program, or of a later format.
    """
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}); is this a feature store?") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), str) for k in IDENTITY_KEYS):
        raise ValueError(f"{path} is not a feature store's manifest: it lacks {', '.join(IDENTITY_KEYS)}")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path} has format {manifest.get('format')}, this program reads {FORMAT}; update the program")
    return manifest
