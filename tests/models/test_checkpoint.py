"""A head comes back as it was saved; a file that is damaged, foreign or of another version is refused by name."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.checkpoint import load_head, serialise_head
from models.cofinal import CoFInAl, CoFInAlConfig

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
    assert torch.equal(head.network(features, mask, actions).score, network(features, mask, actions).score)


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
    config = {"feature_dim": 6, "targets": ["Total"], "ranges": [[0, 25]], "colour": "red"}
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
    config = asdict(CONFIG) | {"num_grades": 3}
    rewrite(saved, config=config)
    with pytest.raises(ValueError, match=r"a head\.safetensors do not fit its configuration .*size mismatch"):
        load_head(saved)
