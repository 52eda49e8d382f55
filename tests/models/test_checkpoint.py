"""A head comes back as it was saved; a file that is damaged, foreign or of another version is refused by name."""

import json
import os
import resource
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from made_up import routines

from cofinal.models.checkpoint import FORMAT, _sha256, load_head, serialise_head
from cofinal.models.cofinal import CoFInAl, CoFInAlConfig, CoFInAlRecipe
from cofinal.models.cofinal_paper import PaperConfig
from cofinal.models.gdlt import GDLT, GDLTConfig
from cofinal.models.head import HeadConfig, Recipe
from cofinal.models.neighbourhood import Neighbourhood
from cofinal.models.predict import predict
from cofinal.models.transformer import TransformerRecipe
from cofinal.pipeline.training import fit

CONFIG = CoFInAlConfig(
    feature_dim=6, targets=("Total",), ranges=((0, 25),), num_actions=2, num_training=9, width=8, num_members=2
)
SIZES = {"feature_dim": 12, "targets": ("TES", "PCS"), "ranges": ((20, 40), (15, 40)), "num_actions": 2, "width": 8}
HEADS = {
    "cofinal": (CoFInAlConfig(**SIZES, num_members=2), CoFInAlRecipe(epochs=1)),
    "cofinal-clips": (CoFInAlConfig(**SIZES, num_members=2, tokens="clips"), CoFInAlRecipe(epochs=1)),
    "cofinal-paper": (PaperConfig(**SIZES), TransformerRecipe(epochs=1)),
    "gdlt": (GDLTConfig(**SIZES, num_grades=3), TransformerRecipe(epochs=1)),
}
METADATA = {"dataset": "rg", "actions": ["Ball", "Hoop"], "generated": True, "results": {"srcc": 0.5}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "a head.safetensors"
    path.write_bytes(serialise_head(CoFInAl(CONFIG), METADATA))
    return path


@pytest.mark.parametrize("name", HEADS)
def test_a_head_comes_back_as_it_was_saved(tmp_path: Path, name: str) -> None:
    config, recipe = HEADS[name]
    features, scores = routines(14)
    actions = np.arange(14) % 2
    network = fit(features, scores, actions, config=config, recipe=recipe)
    path = tmp_path / "head.safetensors"
    path.write_bytes(serialise_head(network, METADATA))
    head = load_head(path)
    assert head.metadata == METADATA
    assert type(head.network) is type(network)
    assert head.network.config == replace(config, num_training=14) == network.config
    assert not head.network.training
    loaded = head.network.state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())
    before, after = (predict(x, features, actions) for x in (network, head.network))
    for target in config.targets:
        assert (before[target].score == after[target].score).all()
        assert (before[target].probabilities == after[target].probabilities).all()
        assert (before[target].cells == after[target].cells).all()


@pytest.mark.parametrize(
    ("config", "recipe"),
    [
        (CoFInAlConfig, CoFInAlRecipe(epochs=1, batch_size=400)),
        (PaperConfig, TransformerRecipe(epochs=1, batch_size=400)),
        (GDLTConfig, TransformerRecipe(epochs=1, batch_size=400)),
    ],
    ids=["cofinal", "cofinal-paper", "gdlt"],
)
def test_a_head_of_400_routines_takes_less_than_10_mb(config: type[HeadConfig], recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(3, 1024)).astype(np.float32) for _ in range(400)]
    sizes = {"feature_dim": 1024, "targets": ("TES", "PCS"), "ranges": ((0, 45), (0, 40))}
    network = fit(features, rng.uniform(15, 40, (400, 2)), config=config(**sizes), recipe=recipe)
    assert len(serialise_head(network, METADATA, Neighbourhood.fit(features, None))) < 10e6


def test_the_file_says_which_head_it_holds(tmp_path: Path, saved: Path) -> None:
    network = GDLT(GDLTConfig(feature_dim=6, targets=("A", "B"), ranges=((0, 25), (5, 9)), width=8))
    path = tmp_path / "gdlt.safetensors"
    path.write_bytes(serialise_head(network, METADATA))
    assert isinstance(load_head(path).network, GDLT)
    assert isinstance(load_head(saved).network, CoFInAl)
    for name in ("magic", ["gdlt"], None):
        rewrite(saved, config={"head_type": name} | asdict(CONFIG))
        with pytest.raises(ValueError, match=r"unknown type .*; this program has cofinal, cofinal-paper, gdlt"):
            load_head(saved)
    for claimed in (
        {"num_grades": 10**12},
        {"width": 4_000_000},
        {"num_grades": 1},
        {"decoder_layers": 10**9},
        {"decoder_layers": 0},
        {"width": 10},
    ):
        rewrite(path, config={"head_type": "gdlt"} | asdict(network.config) | claimed)
        with pytest.raises(ValueError, match=r"gdlt\.safetensors"):
            load_head(path)


def test_metadata_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        serialise_head(CoFInAl(CONFIG), {"srcc": float("nan")})


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_files_are_refused(saved: Path, size: int) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a head\.safetensors is damaged"):
        load_head(saved)


def test_a_flipped_bit_in_the_weights_is_found(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-10] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="sha256"):
        load_head(saved)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tfm.mean", torch.nan, "hold NaN"),
        ("cells", torch.inf, "hold NaN"),
        ("cells", 3.0, "its cells do not ascend"),
    ],
)
def test_numbers_that_no_routine_can_be_scored_by_are_refused(
    saved: Path, name: str, value: float, message: str
) -> None:
    network = CoFInAl(CONFIG)
    network.get_buffer(name).fill_(value)
    saved.write_bytes(serialise_head(network, METADATA))
    with pytest.raises(ValueError, match=message):
        load_head(saved)


def test_cells_that_descend_anywhere_are_refused(saved: Path) -> None:
    network = CoFInAl(CONFIG)
    network.cells[0, 7] = network.cells[0, 9]
    saved.write_bytes(serialise_head(network, METADATA))
    with pytest.raises(ValueError, match="its cells do not ascend"):
        load_head(saved)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tfm.basis_bytes", lambda x: x.float(), "tfm.basis_bytes is torch.float32, not torch.int8"),
        ("cells", lambda x: x.double(), "cells is torch.float64, not torch.float32"),
        ("queries", lambda x: x.bool(), "queries is torch.bool"),
        ("queries", lambda x: x.bfloat16(), "queries is torch.bfloat16"),
        ("tfm.basis_bytes", lambda x: x.half(), "tfm.basis_bytes is torch.float32, not torch.int8"),
        ("cells", lambda x: x[:, :-1], "size mismatch for cells"),
        ("etf", lambda x: x[:, 1:], "size mismatch for etf"),
        ("queries", lambda x: x[:, :, :0], "size mismatch for queries"),
        ("etf", None, "Missing key.*etf"),
        ("another", lambda x: torch.zeros(2), "Unexpected key.*another"),
    ],
)
def test_tensors_of_another_kind_or_size_are_refused(saved: Path, name: str, change, message: str) -> None:
    tensors = safetensors.torch.load_file(saved)
    changed = None if change is None else change(tensors.get(name)).contiguous()
    tensors = {k: v for k, v in tensors.items() if k != name} | ({} if changed is None else {name: changed})
    record = {
        "format": FORMAT,
        "config": {"head_type": "cofinal"} | asdict(CONFIG),
        "sha256": _sha256(tensors),
        "metadata": {},
    }
    safetensors.torch.save_file(tensors, saved, {"cofinal": json.dumps(record)})
    with pytest.raises(ValueError, match=message) as raised:
        load_head(saved)
    assert "do not fit its configuration" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no head file .*nothing\.safetensors"):
        load_head(tmp_path / "nothing.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_text("this is no head")
    with pytest.raises(ValueError, match=r"foreign\.safetensors is damaged or not"):
        load_head(foreign)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(ValueError, match=r"foreign\.safetensors is a safetensors file but not a head"):
        load_head(foreign)


def rewrite(path: Path, **changes: object) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["cofinal"]) | changes
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {"cofinal": json.dumps(record)})


def test_other_versions_and_unknown_entries_are_refused(saved: Path) -> None:
    config = {"head_type": "cofinal", "feature_dim": 6, "targets": ["Total"], "ranges": [[0, 25]], "colour": "red"}
    rewrite(saved, config=config)
    with pytest.raises(ValueError, match="unknown \\['colour'\\], missing"):
        load_head(saved)
    rewrite(saved, spell="abracadabra")
    with pytest.raises(ValueError, match="spell"):
        load_head(saved)
    rewrite(saved, format=99)
    with pytest.raises(ValueError, match="format 99"):
        load_head(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    config = {"head_type": "cofinal"} | asdict(CONFIG) | {"num_grades": 3}
    rewrite(saved, config=config)
    with pytest.raises(ValueError, match=r"a head\.safetensors do not fit its configuration .*size mismatch"):
        load_head(saved)


@pytest.mark.parametrize(
    "claimed",
    [
        {"width": 10**9 * 4},
        {"width": 4_000_000},
        {"feature_dim": 10**12},
        {"num_subgrades": 10**6},
        {"num_subgrades": 10**12},
        {"num_grades": 10**12},
        {"num_actions": 10**12},
        {"num_actions": -1},
        {"num_members": 10**12},
        {"num_members": 0},
        {"num_members": -1},
        {"num_training": 10**12},
        {"num_training": -1},
        {"num_coordinates": 0},
        {"feature_dim": 0},
        {"width": 10**30},
        {"width": 0},
        {"width": "8"},
        {"width": 8.0},
        {"width": True},
        {"tokens": "clips"},
        {"tokens": "frames"},
        {"tokens": ["summaries"]},
        {"temperature": 0},
        {"temperature": None},
        {"temperature": float("nan")},
        {"dropout": "much"},
        {"dropout": 7},
        {"dropout": None},
        {"targets": 3},
        {"targets": []},
        {"targets": [3]},
        {"ranges": [["low", "high"]]},
        {"ranges": [[0, 10**400]]},
        {"ranges": [[0, float("inf")]]},
        {"ranges": [[25, 0]]},
    ],
)
def test_a_configuration_that_claims_too_much_or_nonsense_is_refused_before_anything_is_built(
    saved: Path, claimed: dict
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(saved, config={"head_type": "cofinal"} | asdict(CONFIG) | claimed)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"a head\.safetensors") as raised:
        load_head(saved)
    assert "\n" not in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert time.monotonic() - started < 5


def test_tensors_without_elements_claim_no_sizes_either(saved: Path) -> None:
    """A tensor of shape (0, 10**12) takes no byte in a file."""
    config = asdict(CONFIG) | {"num_members": 0, "width": 10**12}
    tensors = safetensors.torch.load_file(saved) | {"prototypes": torch.zeros(0, 1, 4, 10**12)}
    record = {
        "format": FORMAT,
        "config": {"head_type": "cofinal"} | config,
        "sha256": _sha256(tensors),
        "metadata": {},
    }
    safetensors.torch.save_file(tensors, saved, {"cofinal": json.dumps(record)})
    with pytest.raises(ValueError, match="num_members must be at least 1"):
        load_head(saved)


@pytest.mark.parametrize(
    "content",
    [
        (1 << 62).to_bytes(8, "little") + b"{}",
        (200 << 20).to_bytes(8, "little") + b"{" + b" " * 1000,
        (99).to_bytes(8, "little")
        + b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'.ljust(99),
        (99).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,0]}}'.ljust(99),
        (99).to_bytes(8, "little") + b"[" * 99,
    ],
)
def test_absurd_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a head.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a head\.safetensors is damaged or not"):
        load_head(path)


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a head.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room on the disk
    with pytest.raises(ValueError, match="1099511627776 bytes, and no head has more"):
        load_head(path)


@pytest.mark.parametrize(
    "header", ["[" * 100_000, "{}", "[]", "null", f'{{"format": {FORMAT}}}', "not json", "9" * 5000]
)
def test_headers_that_are_no_record_are_refused(saved: Path, header: str) -> None:
    safetensors.torch.save_file(safetensors.torch.load_file(saved), saved, {"cofinal": header})
    with pytest.raises(ValueError, match=r"header of .*a head\.safetensors"):
        load_head(saved)


def test_a_pickle_for_a_head_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "witness"),)

    path = tmp_path / "head.safetensors"
    torch.save(Malicious(), path)
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_head(path)
    assert not (tmp_path / "witness").exists()
