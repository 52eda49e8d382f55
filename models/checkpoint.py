"""A head as a file: one safetensors file with its weights, configuration and a record of its making.

The file's header carries one JSON string under the key "cofinal": format version, configuration, sha256 of the tensors,
and what the caller records (store identity, protocol, results, ...). The `.pkl` heads of the public code are read here
too. Loading never runs code, and no tensor of a stranger's file costs more memory than twice its bytes, whatever sizes
it claims.

Tensors that half precision holds exactly are written in half precision, to keep files short. `pipeline.training.fit`
rounds the weights so.
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

from .head import HeadConfig, HeadNetwork
from .head_types import HEAD_TYPES, type_name
from .neighbourhood import Neighbourhood
from .reference import ReferenceCoFInAl, sizes

FORMAT = 11
"""Version of the head file that this code writes and reads."""
NEIGHBOURS = "neighbourhood."
"""What the names of the training routines' tensors start with."""
MAX_BYTES = 1 << 28
"""A larger file is not a head: one that this program trained on 400 routines takes less than 10 MB."""


@dataclass(frozen=True)
class Head:
    """A head as loaded from its file."""

    network: HeadNetwork | ReferenceCoFInAl
    """The trained network, in eval mode, on the CPU."""
    metadata: dict[str, Any]
    """What the caller of `serialise_head` recorded."""
    neighbourhood: Neighbourhood | None = None
    """The training routines; None for public heads, and for heads that were not trained."""


def serialise_head(network: HeadNetwork, metadata: dict[str, Any], neighbourhood: Neighbourhood | None = None) -> bytes:
    """Return the content of a head file.

    Args:
        network: the trained network.
        metadata: JSON-able record of the head's making, returned by `load_head`.
        neighbourhood: the training routines; None for a network that was not trained.

    Raises:
        ValueError: the metadata holds NaN or infinity.
    """
    tensors = {name: _shortened(tensor.detach().cpu().contiguous()) for name, tensor in network.state_dict().items()}
    if neighbourhood is not None:
        tensors |= {NEIGHBOURS + name: torch.from_numpy(x) for name, x in neighbourhood.arrays().items()}
    record = {
        "format": FORMAT,
        "config": {"head_type": type_name(network.config), **asdict(network.config)},
        "sha256": _sha256(tensors),
        "metadata": metadata,
    }
    return safetensors.torch.save(tensors, {"cofinal": json.dumps(record, allow_nan=False)})


def _shortened(tensor: torch.Tensor) -> torch.Tensor:
    """Return float32 numbers in half precision if that loses nothing; other tensors as they are."""
    half = tensor.half()
    return half if tensor.dtype == torch.float32 and half.float().equal(tensor) else tensor


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
    record = _record(header, path)
    if record["sha256"] != _sha256(tensors):
        raise ValueError(f"the weights in {path} are damaged (wrong sha256): train or download the head again")
    if unfit := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise ValueError(f"the weights {unfit} in {path} hold NaN or infinity: train or download the head again")
    remembered = {name: tensors.pop(name) for name in list(tensors) if name.startswith(NEIGHBOURS)}
    config = _config(record["config"], path)
    network = _network(config, tensors, path).eval()
    return Head(network, record["metadata"], _neighbourhood(config, remembered, path))


def _record(header: str, path: Path) -> dict[str, Any]:
    """Return the record in a file's header."""
    try:
        record = json.loads(header)
        version = record["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError(f"the header of {path} is damaged: train or download the head again") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, this program reads format {FORMAT}: update it or train again")
    if record.keys() != (expected := {"format", "config", "sha256", "metadata"}):
        raise ValueError(
            f"the header of {path} holds unknown entries {sorted(record.keys() - expected)} and lacks "
            f"{sorted(expected - record.keys())}: was it written by a newer program?"
        )
    return record


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


def _config(values: Any, path: Path) -> HeadConfig:
    values = dict(values) if isinstance(values, dict) else {}
    name = values.pop("head_type", None)
    if not isinstance(name, str) or name not in HEAD_TYPES:
        raise ValueError(f"{path} holds a head of unknown type {name!r}; this program has {', '.join(HEAD_TYPES)}")
    kind = HEAD_TYPES[name].config
    types = {field.name: field.type for field in fields(kind)}
    if values.keys() != types.keys():
        raise ValueError(
            f"the configuration in {path} does not fit this program: unknown {sorted(values.keys() - types.keys())}, "
            f"missing {sorted(types.keys() - values.keys())}"
        )
    try:
        for field, expected in types.items():
            allowed = (int, float) if expected is float else (expected,)
            if expected in (int, float, str, bool) and type(values[field]) not in allowed:
                raise TypeError(f"{field} is {values[field]!r}")
        return kind(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"the configuration in {path} is not one of a head ({error}): download the head again"
        ) from None


def _network(config: HeadConfig, tensors: dict[str, torch.Tensor], path: Path) -> HeadNetwork:
    """Build the network around the file's tensors.

    It is built on the meta device, which allocates nothing. The sizes that a file claims are therefore compared with
    its tensors before they cost memory.
    """
    try:
        with torch.device("meta"):
            network = config.build()
        expected = network.state_dict()
        tensors = {name: x.float() if x.dtype == torch.float16 else x for name, x in tensors.items()}
        if wrong := next((x for x in tensors if x in expected and tensors[x].dtype != expected[x].dtype), None):
            raise ValueError(f"{wrong} is {tensors[wrong].dtype}, not {expected[wrong].dtype}")
        network.load_state_dict(tensors, assign=True)
        assert not any(x.is_meta for x in network.buffers()), "a head has a buffer that is not in its state dict"
        if not (network.cells.diff() > 0).all():
            raise ValueError("its cells do not ascend")
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"the weights in {path} do not fit its configuration ({str(error).splitlines()[-1].strip()}): "
            "train or download the head again"
        ) from None
    return network


def _neighbourhood(config: HeadConfig, tensors: dict[str, torch.Tensor], path: Path) -> Neighbourhood | None:
    """Build what the head remembers of its training routines; None where the file has none."""
    if not tensors:
        return None
    rows, columns = config.num_training, 2 * config.feature_dim
    expected = {
        "places": ((rows, columns), torch.int8),
        "mean": ((columns,), torch.float32),
        "spread": ((columns,), torch.float32),
        "far": ((), torch.float32),
        **({"actions": ((rows,), torch.int64)} if config.num_actions else {}),
    }
    arrays = {name.removeprefix(NEIGHBOURS): x.numpy() for name, x in tensors.items()}
    fits = expected == {name: (tuple(x.shape), tensors[NEIGHBOURS + name].dtype) for name, x in arrays.items()}
    if (
        not fits
        or not (arrays["spread"] > 0).all()
        or not set(arrays.get("actions", ())) <= {*range(config.num_actions)}
    ):
        raise ValueError(
            f"the training routines in {path} do not fit its configuration: train or download the head again"
        )
    actions = arrays.pop("actions", None)
    return Neighbourhood(**arrays, actions=actions)


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
