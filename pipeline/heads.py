"""Find and open head files, and rebuild the extractor whose features a head was trained on."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from ..data.files import write_atomic
from ..data.manifest import IDENTITY_KEYS, describe_identity
from ..extractors.backbone import Backbone
from ..models.checkpoint import Head, load_head, load_reference
from ..models.reference import FULL_SCORE, ReferenceCoFInAl
from .manifest import weights_origin
from .options import ExtractorOptions, HeadOptions
from .training_set import is_training_set


def default_head_path() -> Path:
    """Return the default head's path: `COFINAL_DEFAULT_HEAD`, else a file in the user's data folder."""
    if path := os.environ.get("COFINAL_DEFAULT_HEAD"):
        return Path(path)
    return Path(platformdirs.user_data_dir("cofinal")) / "default-head.safetensors"


def make_default(head: Path) -> None:
    """Copy this head to where score-video finds its default head."""
    write_atomic(default_head_path(), head.read_bytes())


def open_head(head: str | Path | None, *, action: str | None, options: HeadOptions) -> tuple[Head, Path]:
    """Load a head file, by default the default head.

    Args:
        head: a file that train-head wrote, or a `.pkl` that the public CoFInAl code saved.
        action: the apparatus or event that a public head was trained for.
        options: `target` and `weight_type` are needed for a public head, and refused for others.

    Raises:
        ValueError: there is no such file, it cannot be read, or the other arguments do not fit it.
    """
    path = default_head_path() if head is None else Path(head)
    if not path.exists():
        if head is None:
            raise ValueError(
                "there is no default head yet: train one with `train-head STORE --dataset NAME --set-default`, "
                "or name a head file with `--head FILE`"
            )
        raise ValueError(f"the head {path} does not exist; train one with train-head or name another")
    if path.suffix == ".pkl":
        opened = _open_reference(path, options.target, options.weight_type, action)
    elif options.target is not None or options.weight_type is not None:
        raise ValueError(f"{path} records what it scores; leave --target and --weight-type out")
    else:
        opened = load_head(path)
        _check_metadata(opened, path)
    if options.extractor is None:
        return opened, path
    if (recorded := opened.metadata["identity"]) is not None:
        raise ValueError(f"{path} records that it was trained on {describe_identity(recorded)}; leave --extractor out")
    identity, weights = parse_extractor(options.extractor, opened.network.config.feature_dim)
    return replace(opened, metadata={**opened.metadata, "identity": identity, "weights": weights}), path


def _open_reference(path: Path, target: str | None, weight_type: int | None, action: str | None) -> Head:
    """Load a public head; its metadata are the user's arguments, and a warning that nothing confirms them."""
    if target is None or weight_type is None:
        raise ValueError(
            f"{path} does not say what it scores: add --target NAME (say Total) and --weight-type N, the "
            "activate_regular_restrictions of its training (released Ball and Hoop heads: 2, Clubs and Ribbon: 3)"
        )
    network = load_reference(path, weight_type=weight_type)
    scored = f"{target} of {action}" if action else target
    metadata = {
        "targets": [target],
        "actions": [action] if action else [],
        "identity": None,
        "weights": None,
        "generated": False,
        "reference": f"{path.name} does not record what it scores; {scored} with weight type {weight_type} comes from "
        f"the arguments. Points are its output times {FULL_SCORE:g}, the scale of the public code",
    }
    return Head(network, metadata)


def _check_metadata(head: Head, path: Path) -> None:
    """Refuse a head file whose metadata lack what scoring needs; strangers' files may hold anything."""
    assert not isinstance(head.network, ReferenceCoFInAl), "the metadata of public heads are made here"
    metadata = head.metadata if isinstance(head.metadata, dict) else {}
    identity, actions = metadata.get("identity"), metadata.get("actions")
    identity_ok = identity is None or (
        isinstance(identity, dict)
        and identity.keys() == set(IDENTITY_KEYS)
        and all(isinstance(value, str) for value in (*identity.values(), metadata.get("weights")))
    )
    actions_ok = (
        isinstance(actions, list)
        and _are_texts(actions)
        and head.network.config.num_actions == (len(actions) if len(actions) > 1 else 0)
    )
    flags_ok = isinstance(metadata.get("generated"), bool) and "reference" not in metadata
    training_ok = "training_set" not in metadata or is_training_set(
        metadata["training_set"], head.network.config.targets, head.network.config.num_training
    )
    flags_ok &= all(_are_texts(metadata.get(name)) for name in ("warnings", "sums", "bounded"))
    flags_ok &= type(metadata.get("routines")) is int
    if not (identity_ok and actions_ok and flags_ok and training_ok and _are_numbers(metadata.get("intervals"))):
        raise ValueError(f"{path} does not record what it was trained on; train or download the head again")


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_numbers(intervals: Any) -> bool:
    """Whether a head's `intervals` are a level and radii."""
    if not isinstance(intervals, dict) or not isinstance(intervals.get("radii"), dict):
        return False
    numbers = [intervals.get("level"), *intervals["radii"].values()]
    return all(type(x) in (int, float) and math.isfinite(x) and x >= 0 for x in numbers)


def extractor_of(
    head: Head,
    path: Path,
    options: ExtractorOptions,
    *,
    weights: str | None = None,
) -> Backbone:
    """Rebuild the extractor whose features a head was trained on.

    Args:
        head: the head.
        path: its file, for error messages.
        options: the device, precision and engine to run in.
        weights: the backbone's weights file, if it has moved since the training.

    Raises:
        ValueError: the head does not record what made its features, or the weights here are others.
    """
    identity = head.metadata["identity"]
    if identity is None:
        raise ValueError(
            f"{path} was trained on features of unknown origin, so it cannot score a video; name what made them with "
            "--extractor BACKBONE:RECIPE:WEIGHTS, or score a .npy of the same kind"
        )
    origin = head.metadata["weights"]
    if weights is None and Path(origin).is_absolute() and not Path(origin).exists():  # a file's path, not a name
        raise ValueError(f"{path} was trained with the weights {origin}, which are gone; name them with --weights FILE")
    backbone = options.load_backbone(
        identity["backbone"],
        recipe=identity["recipe"],
        weights=weights or (None if origin == "published" else origin),
    )
    check_identity(head, path, backbone.identity, "the weights here make")
    return backbone


def check_identity(head: Head, path: Path, identity: Mapping[str, str], what: str) -> None:
    """Refuse features of another identity than the head's; the message names both."""
    trained_on = head.metadata["identity"]
    if {key: identity[key] for key in IDENTITY_KEYS} != trained_on:
        raise ValueError(
            f"{path} was trained on {describe_identity(trained_on)}, but {what} {describe_identity(identity)}; "
            "use features of the head's kind or another head"
        )


def parse_extractor(text: str, feature_dim: int) -> tuple[dict[str, str], str]:
    """Parse `BACKBONE:RECIPE:WEIGHTS`, the user's description of what made features without a manifest.

    Returns:
        The identity, and the weights' origin as manifests record it.

    Raises:
        ValueError: not three parts, an unknown part, or a backbone of another feature width.
    """
    parts = text.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(
            f"--extractor {text!r} is not BACKBONE:RECIPE:WEIGHTS, say i3d:gdlt-i3d:published (or a weights file)"
        )
    name, recipe, weights = parts
    on_cpu = ExtractorOptions(device="cpu", engine="torch")
    backbone = on_cpu.load_backbone(name, recipe=recipe, weights=None if weights == "published" else weights)
    if backbone.feature_dim != feature_dim:
        raise ValueError(
            f"--extractor {text!r}: {name} makes features of width {backbone.feature_dim}, these have {feature_dim}"
        )
    return backbone.identity, weights_origin(None if weights == "published" else weights)


def head_warnings(metadata: Mapping[str, Any]) -> list[str]:
    """Return the warnings that every output of a head carries."""
    warnings = [metadata["reference"]] if "reference" in metadata else []
    if metadata["generated"]:
        warnings.append("this head was trained on generated routines: its scores mean nothing for real ones")
    if metadata["identity"] is not None and metadata["identity"]["weights_sha256"] == "random":
        warnings.append("the backbone's weights are RANDOM: this head's scores mean nothing")
    return [*warnings, *metadata.get("warnings", [])]
