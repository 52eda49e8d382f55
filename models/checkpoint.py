"""A head as a file: one safetensors file with its weights, configuration and a record of its making.

The file's header carries one JSON string under the key "cofinal": format version, configuration, sha256 of the
tensors, and whatever the caller records (store identity, protocol, results, ...). Loading never runs code.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from models.cofinal import CoFInAl, CoFInAlConfig

FORMAT = 1
"""Version of the head file that this code writes and reads."""


@dataclass(frozen=True)
class Head:
    """A head as loaded from its file."""

    network: CoFInAl
    """The trained network, in eval mode, on the CPU."""
    metadata: dict[str, Any]
    """What the caller of `serialise_head` recorded."""


def serialise_head(network: CoFInAl, metadata: dict[str, Any]) -> bytes:
    """Return the content of a head file.

    Args:
        network: the trained network.
        metadata: JSON-able record of the head's making, given back by `load_head`.

    Raises:
        ValueError: the metadata holds NaN or infinity.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    record = {
        "format": FORMAT,
        "config": asdict(network.config),
        "sha256": _sha256(tensors),
        "metadata": metadata,
    }
    return safetensors.torch.save(tensors, {"cofinal": json.dumps(record, allow_nan=False)})


def load_head(path: str | Path) -> Head:
    """Read a head that `serialise_head` made.

    Raises:
        ValueError: the file is missing, damaged, of another program or of another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no head file {path}: train one with train-head, or give the path of one")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("cofinal")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or not a safetensors file ({error}): train or download the head again"
        ) from None
    if header is None:
        raise ValueError(f"{path} is a safetensors file but not a head of this program: give one that train-head wrote")
    try:
        record = json.loads(header)
        version = record["format"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"the header of {path} is damaged: train or download the head again") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, this program reads format {FORMAT}: update it or train again")
    if unknown := record.keys() - {"format", "config", "sha256", "metadata"}:
        raise ValueError(
            f"the header of {path} holds unknown entries {sorted(unknown)}: was it written by a newer program?"
        )
    if record["sha256"] != _sha256(tensors):
        raise ValueError(f"the weights in {path} are damaged (wrong sha256): train or download the head again")
    network = CoFInAl(_config(record["config"], path))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit its configuration ({str(error).splitlines()[-1].strip()}): "
            "train or download the head again"
        ) from None
    return Head(network.eval(), record["metadata"])


def _config(values: dict[str, Any], path: Path) -> CoFInAlConfig:
    known = {field.name for field in fields(CoFInAlConfig)}
    if values.keys() != known:
        raise ValueError(
            f"the configuration in {path} does not fit this program: unknown {sorted(values.keys() - known)}, "
            f"missing {sorted(known - values.keys())}"
        )
    return CoFInAlConfig(**values)


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
