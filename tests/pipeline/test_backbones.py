"""list-backbones, and the backbones of extract-features that need no download."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cofinal.data.feature_store import FeatureStore
from cofinal.extractors import video_swin
from cofinal.extractors.catalogue import CATALOGUE
from cofinal.models.checkpoint import Head
from cofinal.models.cofinal import CoFInAl, CoFInAlConfig
from cofinal.pipeline.backbones import list_backbones
from cofinal.pipeline.heads import extractor_of
from cofinal.pipeline.options import ExtractorOptions


def test_the_table_has_a_line_for_each_of_the_weights(command) -> None:
    ended = command("list-backbones")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert len(lines) == 1 + sum(len(entry.weights) for entry in CATALOGUE.values())
    (base,) = (line for line in lines if "vst-b, vst" in line)
    for fact in (
        "1024",
        "88.0 M",
        "544",
        "gdlt-vst",
        "torchvision: Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1",
        "BSD-3-Clause",
    ):
        assert fact in base


def test_json_says_whether_weights_are_cached(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path))
    (tmp_path / "swin3d_t-7615ae03.pth").touch()
    printed = json.loads(command("list-backbones", "--json").out)
    assert printed == {"format": 1, "backbones": list_backbones()}
    cached = {found["name"]: [weights["cached"] for weights in found["weights"]] for found in printed["backbones"]}
    assert set(cached) == set(CATALOGUE)
    assert cached["vst-t"] == [str(tmp_path / "swin3d_t-7615ae03.pth")]
    assert cached["vst-b"] == [None, None]
    assert cached["i3d"] == [None]


def test_commands_run_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "cofinal", "list-backbones", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert "list-backbones" in run.stdout
    run = subprocess.run([sys.executable, "-m", "cofinal", "list"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "unknown command 'list'; known are extract-features" in run.stderr


def test_auto_is_printed_and_recorded(command, videos: Path, tmp_path: Path) -> None:
    ended = command("extract-features", videos / "v0.mp4", tmp_path / "out", "--device", "cpu")
    assert ended.code == 0
    assert "backbone i3d, auto: there is no GPU" in ended.err
    manifest = FeatureStore(tmp_path / "out").manifest
    assert manifest is not None
    assert (manifest["backbone"], manifest["backbone_choice"]) == ("i3d", "auto: there is no GPU")


def test_another_backbone_makes_its_own_features(command, write_video, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", seconds=2.2)
    ended = command("extract-features", video, tmp_path / "out", "--backbone", "mc3-18", "--weights", "random")
    assert ended.code == 0
    assert "auto" not in ended.err
    store = FeatureStore(tmp_path / "out")
    assert store.load("v").shape == (2, 512)
    assert store.manifest is not None
    assert (store.manifest["recipe"], store.manifest["backbone_choice"]) == ("torchvision-resnet18", None)


def test_classes_need_a_classifier_of_kinetics_400(command, videos: Path, tmp_path: Path) -> None:
    sizes = replace(video_swin.TINY, num_classes=600)
    torch.save(video_swin.untrained(sizes, 0).state_dict(), tmp_path / "swin.pth")
    run = ("extract-features", videos / "v0.mp4", tmp_path / "out", "--backbone", "vst-t")
    ended = command(*run, "--weights", tmp_path / "swin.pth", "--classes")
    assert ended.code == 2
    assert "these weights have 600 classes" in ended.err
    assert not (tmp_path / "out").exists()


def test_weights_out_of_reach(command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    ended = command("extract-features", videos / "v0.mp4", tmp_path / "out", "--backbone", "vst")
    assert ended.code == 2
    for needed in ("swin3d_b_22k-7c6ae6fa.pth", "https://", str(tmp_path / "cache"), "--backbone i3d"):
        assert needed in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_a_heads_weights_are_looked_for_where_they_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    network = CoFInAl(CoFInAlConfig(feature_dim=768, targets=("Total",), ranges=((0, 25),)))
    identity = {"backbone": "vst-t", "recipe": "gdlt-vst", "weights_sha256": "0" * 64}
    path = tmp_path / "h.safetensors"
    by_name = Head(network, {"identity": identity, "weights": "Swin3D_T_Weights.KINETICS400_V1"})
    with pytest.raises(ValueError, match=r"swin3d_t-7615ae03\.pth cannot be fetched"):
        extractor_of(by_name, path, ExtractorOptions())
    by_file = Head(network, {"identity": identity, "weights": str(tmp_path / "mine.pth")})
    with pytest.raises(ValueError, match=r"mine\.pth, which are gone; name them with --weights"):
        extractor_of(by_file, path, ExtractorOptions())
