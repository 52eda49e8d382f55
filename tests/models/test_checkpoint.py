"""A head comes back as it was saved; a file that is damaged, foreign or of another version is refused by name."""

import json
import os
import resource
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cofinal.models.checkpoint import FORMAT, _sha256, load_head, serialise_head
from cofinal.models.cofinal import CoFInAl, CoFInAlConfig
from cofinal.models.ensemble import Ensemble
from cofinal.models.gdlt import GDLT, GDLTConfig

CONFIG = CoFInAlConfig(feature_dim=6, targets=("Total",), ranges=((0, 25),), num_actions=2, width=8, num_components=6)
METADATA = {"dataset": "rg", "actions": ["Ball", "Hoop"], "generated": True, "results": {"srcc": 0.5}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "a head.safetensors"
    path.write_bytes(serialise_head(CoFInAl(CONFIG), METADATA))
    return path


def test_round_trip(tmp_path: Path) -> None:
    network = CoFInAl(CONFIG).eval()
    network.edges.copy_(torch.tensor([[0.0, 3.0, 5.0, 9.0, 25.0]]))
    path = tmp_path / "head.safetensors"
    path.write_bytes(serialise_head(network, METADATA))
    head = load_head(path)
    assert head.metadata == METADATA
    assert head.network.config == CONFIG
    assert not head.network.training
    features, mask, actions = torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool), torch.tensor([1])
    loaded = head.network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(head.network(features, mask, actions).score, network(features, mask, actions).score)


def test_the_file_says_which_head_it_holds(tmp_path: Path, saved: Path) -> None:
    network = GDLT(GDLTConfig(feature_dim=6, targets=("A", "B"), ranges=((0, 25), (5, 9)), width=8)).eval()
    path = tmp_path / "gdlt.safetensors"
    path.write_bytes(serialise_head(network, METADATA))
    loaded = load_head(path).network
    assert isinstance(loaded, GDLT)
    assert loaded.config == network.config
    features, mask = torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool)
    torch.testing.assert_close(loaded(features, mask).score, network(features, mask).score)

    assert isinstance(load_head(saved).network, CoFInAl)
    for name in ("magic", ["gdlt"]):
        rewrite(saved, config={"head_type": name} | asdict(CONFIG))
        with pytest.raises(ValueError, match=r"unknown type .*; this program knows cofinal, gdlt"):
            load_head(saved)
    for claimed in ({"num_grades": 10**12}, {"width": 4_000_000}, {"num_grades": 1}):
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
        ("fusion.feature_mean", torch.nan, "hold NaN"),
        ("edges", torch.inf, "hold NaN"),
        ("fusion.least_variance", 0, "least_variance of 0"),
        ("fusion.feature_scale", -1, "feature_scale of -1"),
        ("fusion.likeness.distance", 0, "distance of 0"),
    ],
)
def test_numbers_that_no_routine_can_be_judged_by_are_refused(
    saved: Path, name: str, value: float, message: str
) -> None:
    network = CoFInAl(CONFIG)
    network.get_buffer(name).fill_(value)
    saved.write_bytes(serialise_head(network, METADATA))
    with pytest.raises(ValueError, match=message):
        load_head(saved)


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


def test_a_number_of_networks_that_the_file_does_not_hold_is_refused(saved: Path) -> None:
    for members, what in (
        (0, "claims to hold 0"),
        (True, "claims"),
        ("1", "claims"),
        (33, "has 1 to 32"),
        (2, "more than its 2"),
    ):
        rewrite(saved, members=members)
        with pytest.raises(ValueError, match=what):
            load_head(saved)
    saved.write_bytes(serialise_head(Ensemble([CoFInAl(CONFIG), CoFInAl(CONFIG)]), METADATA))
    rewrite(saved, members=3)
    with pytest.raises(ValueError, match="do not fit its configuration"):
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
        {"fused_width": 10**9, "feature_dim": 10**9},
        {"num_subgrades": 10**6},
        {"num_subgrades": 10**12},
        {"num_grades": 10**12},
        {"num_actions": 10**12},
        {"num_judges": 6 * 10**9},
        {"num_remembered": 10**12},
        {"num_remembered": -1},
        {"num_components": -1},
        {"num_judges": 0},
        {"fused_width": -1},
        {"width": 10**30},
        {"width": "8"},
        {"width": 8.0},
        {"width": True},
        {"dropout": "much"},
        {"dropout": 7},
        {"dropout": None},
        {"targets": 3},
        {"targets": []},
        {"ranges": [["low", "high"]]},
        {"ranges": [[0, 10**400]]},
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
    """A tensor of shape (10**12, 0) takes no byte in a file."""
    tensors = safetensors.torch.load_file(saved) | {"fusion.read.0.weight": torch.zeros(10**12, 0)}
    record = {
        "format": FORMAT,
        "members": 1,
        "config": {"head_type": "cofinal"} | asdict(CONFIG) | {"feature_dim": 10**12, "fused_width": 0},
        "metadata": {},
    }
    record["sha256"] = _sha256(tensors)
    safetensors.torch.save_file(tensors, saved, {"cofinal": json.dumps(record)})
    with pytest.raises(ValueError, match="do not fit its configuration"):
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
