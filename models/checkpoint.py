"""A head as a file: one safetensors file with its weights, configuration and a record of its making.

The file's header carries one JSON string under the key "cofinal": format version, configuration, how many networks of
it the file holds, sha256 of the tensors, and whatever the caller records (store identity, protocol, results, ...). The
`.pkl` heads of the public code are read here, too. Loading never runs code, and no tensor of a stranger's file costs
more memory than it has bytes, whatever sizes it claims.
"""

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from .cofinal import CoFInAlConfig
from .ensemble import Ensemble
from .grading import GradingConfig, GradingNetwork
from .head_types import CONFIGS, head_type
from .reference import ReferenceCoFInAl, sizes

FORMAT = 5
"""Version of the head file that this code writes and reads."""
MAX_BYTES = 2 << 30
"""A larger file is no head: a network holds some seven million numbers, and 15 thousand for each training routine."""
MAX_MEMBERS = 32
"""Networks in a head."""


@dataclass(frozen=True)
class Head:
    """A head as loaded from its file."""

    network: GradingNetwork | Ensemble | ReferenceCoFInAl
    """The trained network, in eval mode, on the CPU."""
    metadata: dict[str, Any]
    """What the caller of `serialise_head` recorded."""


def check_size(config: GradingConfig, members: int) -> None:
    """See to it, before it is trained, that a head can be read again.

    Args:
        config: of its networks, with the number of routines that they will remember.
        members: how many there will be.

    Raises:
        ValueError: its file would be larger than `load_head` takes.
    """
    with torch.device("meta"):
        size = members * sum(tensor.nbytes for tensor in config.build().state_dict().values())
    if size > MAX_BYTES:
        raise ValueError(
            f"a head of {members} networks that remember {config.num_remembered} training videos would take {size} "
            f"bytes, and no head may have more than {MAX_BYTES}: train fewer networks or on fewer videos"
        )


def serialise_head(network: GradingNetwork | Ensemble, metadata: dict[str, Any]) -> bytes:
    """Return the content of a head file.

    Args:
        network: the trained network, or several.
        metadata: JSON-able record of the head's making, given back by `load_head`.

    Raises:
        ValueError: the metadata holds NaN or infinity.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    record = {
        "format": FORMAT,
        "config": {"head_type": head_type(network.config), **asdict(network.config)},
        "members": len(network.members) if isinstance(network, Ensemble) else 1,
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
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(
            f"{path} has {size} bytes, and no head has more than {MAX_BYTES}: give one that train-head wrote"
        )
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
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError(f"the header of {path} is damaged: train or download the head again") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, this program reads format {FORMAT}: update it or train again")
    if record.keys() != (known := {"format", "config", "members", "sha256", "metadata"}):
        raise ValueError(
            f"the header of {path} holds unknown entries {sorted(record.keys() - known)} and lacks "
            f"{sorted(known - record.keys())}: was it written by a newer program?"
        )
    if {tensor.dtype for tensor in tensors.values()} != {torch.float32} or record["sha256"] != _sha256(tensors):
        raise ValueError(f"the weights in {path} are damaged (wrong sha256): train or download the head again")
    if unfit := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise ValueError(f"the weights {unfit} in {path} hold NaN or infinity: train or download the head again")
    return Head(_networks(record, tensors, path).eval(), record["metadata"])


def load_reference(path: str | Path, *, weight_type: int) -> ReferenceCoFInAl:
    """Read a head that the public CoFInAl code saved: a `.pkl` with a dict of tensors.

    Args:
        path: the file; the sizes are read from it.
        weight_type: the `activate_regular_restrictions` that it was trained with, 0 to 3; the file does not say.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        ValueError: the file is missing, damaged, holds more than tensors, or not those of a public CoFInAl head.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no head file {path}: give the path of a .pkl that the public CoFInAl code saved")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, about pickles that are then refused
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(
            f"{path} is damaged or holds more than tensors, which is never run ({type(error).__name__}): get the file "
            "that the public code saved"
        ) from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and _is_plain(value) for name, value in tensors.items()
    ):
        raise ValueError(f"{path} is not a dict of plain tensors, as the public CoFInAl code saves its heads")
    if unfit := next((name for name, value in tensors.items() if not value.isfinite().all()), None):
        raise ValueError(f"the weights {unfit} in {path} hold NaN or infinity: get the file again")
    try:
        config = sizes(tensors, weight_type)
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            ReferenceCoFInAl(config).load_state_dict(tensors)  # sizes that do not fit cost no memory
        network = ReferenceCoFInAl(config)
        network.load_state_dict(tensors)
    except KeyError as error:
        raise ValueError(f"{path} is not a public CoFInAl head: it has no tensor {error}") from None
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{path} is not a public CoFInAl head of known form ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network.eval()


def _is_plain(value: Any) -> bool:
    """Whether this is a tensor with as many numbers in the file as it claims, and at least one."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized)
        and 0 < value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _config(values: Any, path: Path) -> GradingConfig:
    values = dict(values) if isinstance(values, dict) else {}
    type_name = values.pop("head_type", None)
    if not isinstance(type_name, str) or type_name not in CONFIGS:
        raise ValueError(f"{path} holds a head of unknown type {type_name!r}; this program knows {', '.join(CONFIGS)}")
    known = {field.name: field.type for field in fields(CONFIGS[type_name])}
    if values.keys() != known.keys():
        raise ValueError(
            f"the configuration in {path} does not fit this program: unknown {sorted(values.keys() - known.keys())}, "
            f"missing {sorted(known.keys() - values.keys())}"
        )
    try:
        for name, kind in known.items():
            if (kind is int and type(values[name]) is not int) or (kind is float and type(values[name]) is str):
                raise TypeError(f"{name} is {values[name]!r}")
        return CONFIGS[type_name](**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"the configuration in {path} is none of a head ({error}): download the head again") from None


def _networks(record: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> GradingNetwork | Ensemble:
    config, members = _config(record["config"], path), record["members"]
    if type(members) is not int or not 1 <= members <= MAX_MEMBERS:
        raise ValueError(f"{path} claims to hold {members!r} networks, and a head has 1 to {MAX_MEMBERS}")
    if members == 1:
        return _network(config, tensors, path)
    prefixes = [f"members.{member}." for member in range(members)]
    each = [{name.removeprefix(x): t for name, t in tensors.items() if name.startswith(x)} for x in prefixes]
    if sum(map(len, each)) != len(tensors):
        raise ValueError(f"{path} holds more than its {members} networks: train or download the head again")
    return Ensemble([_network(config, part, path) for part in each])


def _network(config: GradingConfig, tensors: dict[str, torch.Tensor], path: Path) -> GradingNetwork:
    """Build the network around the file's tensors.

    It is built on the meta device, which allocates nothing, so that the sizes a file claims are compared with the
    tensors it holds before they cost anything. The frame does cost when built; it is compared first.
    """
    try:
        if isinstance(config, CoFInAlConfig):
            frame = (max(config.width, config.num_subgrades), config.num_subgrades)
            if (found := tuple(tensors["scoring.etf"].shape)) != frame:
                raise ValueError(f"size mismatch for scoring.etf: {found}, not {frame}")
        with torch.device("meta"):
            network = config.build()
        network.load_state_dict(tensors, assign=True)
        for name in ("least_variance", "feature_scale", "likeness.distance"):
            if not (value := network.fusion.get_buffer(name)) > 0:
                raise ValueError(f"a {name} of {value:g}")
    except (RuntimeError, ValueError, TypeError, ArithmeticError, KeyError) as error:
        raise ValueError(
            f"the weights in {path} do not fit its configuration ({str(error).splitlines()[-1].strip()}): "
            "train or download the head again"
        ) from None
    return network


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
