"""Read the tensors of a weights file from anywhere without ever running code from it.

Three kinds of files are read. Safetensors files cannot hold code. Files of `torch.save` go through torch's own
restricted unpickler. Pickles of numpy arrays go through a stricter unpickler that is defined here. A malicious file can
also claim sizes that fill the memory, so each claim is checked against the size of the file.
"""

import io
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

TORCH_ZIP = b"PK\x03\x04"
"""First bytes of a file of `torch.save`."""
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of a file of `torch.save` before torch 1.6: its magic number, pickled."""

BYTEARRAY = "builtins.bytearray"
LOG_PREFIXES = ("numpy.", "mmengine.", "builtins.getattr")
"""Names that training frameworks save beside the tensors, for figures and logs. They are read as `_Ignored` objects."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file; the names of nested dicts are joined by `/`.

    Args:
        path: a `.safetensors` file; a file of `torch.save`, where everything but tensors in dicts is ignored; or a
            pickle of nested dicts of numpy arrays. The last two are told apart by their first bytes.

    Raises:
        ValueError: the file is missing or damaged, or holds something that could run code.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            start = file.read(len(TORCH_LEGACY))
            if start.startswith(TORCH_ZIP) or start == TORCH_LEGACY:
                return dict(_named_tensors(_load_torch(path), seen=set()))
            file.seek(0)
            arrays = _named_arrays(_ArrayUnpickler(file).load(), seen=set())
            return {name: torch.from_numpy(array) for name, array in arrays}
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"the weights {path} cannot be read: {reason}") from error


def only_network(
    tensors: Mapping[str, Tensor], key: str, path: str | Path, network: str
) -> tuple[str, dict[str, Tensor]]:
    """Pick the tensors of the one network in a file, whatever prefix it has and whatever else the file holds.

    Args:
        tensors: all tensors of the file.
        key: the end of a name that occurs once in such a network.
        path: the file, for messages.
        network: the network's name, for messages.

    Returns:
        The prefix of the network's names in the file, and its tensors by their names without the prefix.

    Raises:
        ValueError: the file holds no such network, or more than one.
    """
    prefixes = [name.removesuffix(key) for name in tensors if re.fullmatch(rf"(.*[./])?{re.escape(key)}", name)]
    if len(prefixes) != 1:
        present = f"{len(prefixes)} of them, under {' and '.join(prefixes)}" if prefixes else first_names(tensors)
        raise ValueError(f"{path} holds no {network} weights of a known kind: expected one key {key}, found {present}")
    prefix = prefixes[0]
    return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def first_names(tensors: Mapping[str, Tensor]) -> str:
    """The first three names of a file's tensors, for messages."""
    return ", ".join(sorted(tensors)[:3]) or "none"


class _Ignored:
    """Stands for an object of a framework's log: accepts whatever the file passes to it and does nothing."""

    def __new__(cls, *args: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:
        return 0


def _load_torch(path: Path) -> Any:
    """The content of a file of `torch.save`, read by torch's own restricted unpickler."""
    requested = _requested_globals(path)
    if BYTEARRAY in requested:  # torch's unpickler allows it, and it allocates any size that the file asks for
        raise ValueError(f"it asks for {BYTEARRAY}, and only tensors are read")
    with safe_globals([_Ignored, *((_Ignored, name) for name in requested if name.startswith(LOG_PREFIXES))]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
            if refused is None:
                raise
            raise ValueError(f"it asks for {refused[1]}, and only tensors are read") from None


def _requested_globals(path: Path) -> set[str]:
    """The names of all functions and classes that a file of `torch.save` asks for; nothing is run."""
    pickles: BinaryIO
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                # torch.save does not compress, so larger records mean a compressed file made to fill the memory
                if sum(record.file_size for record in archive.infolist()) > os.fstat(file.fileno()).st_size:
                    raise ValueError("its records claim more bytes than the file has")
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if len(names) != 1:
                    raise ValueError("it is a zip archive, but not one of torch.save")
                pickles, num_pickles = io.BytesIO(archive.read(names[0])), 1
        else:
            file.seek(0)
            # a legacy file is five pickles: magic number, version, system, content, and the names of the storages
            pickles, num_pickles = file, 5
        operations = (operation for _ in range(num_pickles) for operation in pickletools.genops(pickles))
        requested = (str(argument).replace(" ", ".") for opcode, argument, _ in operations if opcode.name == "GLOBAL")
        return {name.replace("__builtin__", "builtins") for name in requested}


def _named_tensors(tree: Any, seen: set[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dicts with their names; a dict that occurs twice counts only the first time."""
    if isinstance(tree, Tensor):
        if tree.layout != torch.strided or tree.is_meta or tree.is_quantized:
            raise ValueError(f"{prefix} is not a plain tensor")
        if tree.numel() * tree.element_size() > tree.untyped_storage().nbytes():
            raise ValueError(f"{prefix} claims more numbers than the file has for it")
        yield prefix, tree
    elif isinstance(tree, Mapping) and id(tree) not in seen:
        seen.add(id(tree))
        for name, branch in tree.items():
            yield from _named_tensors(branch, seen, f"{prefix}/{name}" if prefix else str(name))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays of floats in plain containers; refuses everything else that a pickle asks for.

    Even numpy's own classes are replaced by stand-ins, because numpy and pickle allocate any size that a pickle
    claims. With the stand-ins nothing grows beyond the bytes of the file.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.unclaimed_bytes = os.fstat(file.fileno()).st_size
        for opcode, argument, _ in pickletools.genops(file):
            # pickle allocates a table of as many rows as the highest number that an object is stored under
            if opcode.name.endswith("PUT") and int(argument or 0) > self.unclaimed_bytes:
                raise pickle.UnpicklingError(f"it numbers an object {argument}, more than it can hold")
        file.seek(0)

    def find_class(self, module: str, name: str) -> Any:
        requested = (module.replace("numpy.core.", "numpy._core."), name)  # numpy 2 renamed the module
        if requested == ("numpy", "ndarray"):
            return _PickledArray
        if requested == ("numpy", "dtype"):
            return _PickledDtype
        if requested == ("numpy._core.multiarray", "_reconstruct"):
            return lambda *_: _PickledArray(self)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only numpy arrays are read")


class _PickledDtype:
    """Stands for `numpy.dtype` in a pickle."""

    def __init__(self, code: str, *_: Any):
        if code not in ("f2", "f4", "f8"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, and only floats are read")
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.code = ("<" if state[1] == "|" else str(state[1])[:1]) + self.code


class _PickledArray:
    """Stands for `numpy.ndarray` in a pickle; `array` is made from the bytes that the pickle holds for it."""

    def __init__(self, unpickler: _ArrayUnpickler):
        self.unpickler = unpickler
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        self.unpickler.unclaimed_bytes -= len(content)  # many arrays may share one content, and each copies it
        if self.unpickler.unclaimed_bytes < 0:
            raise pickle.UnpicklingError("its arrays claim more bytes than the file has")
        flat = np.frombuffer(bytearray(content), dtype.code)
        self.array = flat.reshape(shape, order="F" if is_fortran else "C")


def _named_arrays(tree: Any, seen: set[int], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of nested dicts with their names; any other content and a dict that occurs twice are refused."""
    if isinstance(tree, dict):
        if id(tree) in seen:
            raise TypeError(f"{prefix} is a dict that occurs twice")
        seen.add(id(tree))
        for name, branch in tree.items():
            yield from _named_arrays(branch, seen, f"{prefix}/{name}" if prefix else str(name))
    elif isinstance(tree, _PickledArray) and tree.array is not None:
        yield prefix, tree.array
    else:
        raise TypeError(f"{prefix or 'it'} is a {type(tree).__name__}, not a dict or an array of numbers")
