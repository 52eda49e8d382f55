"""Building backbones and running them in each precision."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cofinal.extractors import video_swin
from cofinal.extractors.backbone import Backbone, load_backbone, resolve_backbone, without_tf32
from cofinal.extractors.catalogue import CATALOGUE
from cofinal.extractors.decoders import read_frames
from cofinal.extractors.recipes import RECIPES
from cofinal.extractors.weights import I3D_KINETICS400, UrlWeights, file_sha256


@pytest.fixture(scope="module")
def clip(shared: Path) -> torch.Tensor:
    """(1, 16, 224, 224, 3), a real clip."""
    frames = read_frames(shared / "videos" / "action" / "cleaning_pool.mp4", wanted=np.arange(60, 76))
    return torch.stack([RECIPES["gdlt-i3d"].apply(frame) for _, frame in frames])[None]


@pytest.fixture(scope="module")
def exact(i3d_weights: Path) -> Backbone:
    return load_backbone(device="cpu", precision="fp32", engine="torch")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_published_backbone(exact: Backbone) -> None:
    assert exact.identity == {"backbone": "i3d", "recipe": "gdlt-i3d", "weights_sha256": I3D_KINETICS400.sha256}
    assert (exact.feature_dim, exact.device, exact.precision, exact.engine) == (1024, "cpu", "fp32", "torch")
    assert not exact.network.training


@pytest.mark.shared
def test_features_and_classes(exact: Backbone, clip: torch.Tensor) -> None:
    features, probabilities = exact.features_and_classes(clip)
    assert (features.shape, features.dtype) == ((1, 1024), np.float32)
    assert (probabilities.shape, probabilities.dtype) == ((1, 400), np.float32)
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)
    assert np.array_equal(features, exact.features(clip))
    both = exact.features(torch.cat([clip, clip.flip(1)]))
    np.testing.assert_allclose(both[:1], features, rtol=1e-4, atol=1e-5)
    assert not np.allclose(both[1], features[0], rtol=1e-2)


@pytest.mark.shared
def test_bf16_weights_agree_with_fp32(exact: Backbone, clip: torch.Tensor) -> None:
    expected = exact.features(clip)
    half = load_backbone(device="cpu", precision="bf16", engine="torch")
    assert next(half.network.parameters()).dtype == torch.bfloat16
    features = half.features(clip)
    assert features.dtype == np.float32
    assert not np.array_equal(features, expected)
    assert cosine(features, expected) >= 0.999


def test_untrained_weights_are_marked_and_always_the_same() -> None:
    clip = torch.randint(0, 256, (1, 9, 64, 64, 3), dtype=torch.uint8)
    clip = clip.repeat_interleave(4, 2)[:, :, :224].repeat_interleave(4, 3)[:, :, :, :224]
    first, again = (load_backbone(weights="random", device="cpu", precision="fp32", engine="torch") for _ in range(2))
    assert first.weights_sha256 == first.identity["weights_sha256"] == "random"
    assert np.array_equal(first.features(clip), again.features(clip))


def test_a_users_file_is_identified_by_its_hash(i3d_weights: Path) -> None:
    backbone = load_backbone(weights=i3d_weights, device="cpu", recipe="kinetics-i3d", engine="torch")
    assert backbone.identity["weights_sha256"] == file_sha256(i3d_weights)
    assert backbone.recipe is RECIPES["kinetics-i3d"]


def tiny_video_swin(path: Path) -> Path:
    """A file of the sizes of vst-t, as the official code saves it, with random weights and no classifier."""
    state = video_swin.untrained(video_swin.TINY, 0).state_dict()
    torch.save({f"backbone.{name}": t for name, t in state.items() if not name.startswith("head.")}, path)
    return path


def test_video_swin_from_a_file(tmp_path: Path) -> None:
    path = tiny_video_swin(tmp_path / "swin_tiny.pth")
    backbone = load_backbone("vst-t", weights=path, device="cpu", precision="fp32", engine="torch")
    assert backbone.identity == {"backbone": "vst-t", "recipe": "gdlt-vst", "weights_sha256": file_sha256(path)}
    assert (backbone.feature_dim, backbone.num_classes) == (768, 0)
    features, probabilities = backbone.features_and_classes(torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8))
    assert (features.shape, probabilities.shape) == ((2, 768), (2, 0))
    half = load_backbone("vst-t", weights=path, device="cpu", precision="bf16", engine="torch")
    assert cosine(half.features(torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8)), features) >= 0.999


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tiny_video_swin(tmp_path / "swin.pth")
    with pytest.raises(ValueError, match=r"96 channels and \(2, 2, 6, 2\) blocks.*use --backbone vst-t"):
        load_backbone("vst", weights=path, device="cpu")


def test_published_weights_by_name_and_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path / "cache"))
    path = tiny_video_swin(tmp_path / "swin.pth")
    sha256 = file_sha256(path)
    weights = UrlWeights("Own_Weights.OWN_V1", path.as_uri(), sha256[:8])
    monkeypatch.setitem(CATALOGUE, "vst-t", replace(CATALOGUE["vst-t"], weights=(weights,)))
    for name in (None, "OWN_V1", "Own_Weights.OWN_V1"):
        assert load_backbone("vst-t", weights=name, device="cpu", engine="torch").weights_sha256 == sha256
    assert weights.cached.exists()
    with pytest.raises(
        ValueError, match=r"OTHER_V1 cannot be read: No such file; published for vst-t are Own_Weights\.OWN_V1"
    ):
        load_backbone("vst-t", weights="OTHER_V1", device="cpu")


def test_auto_is_i3d_on_a_cpu_and_names_stay_what_they_are() -> None:
    assert resolve_backbone("auto", "cpu") == ("i3d", "auto: there is no GPU")
    assert resolve_backbone("vst", "cpu") == ("vst-b", None)
    assert resolve_backbone("i3d", "cpu") == ("i3d", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "c3d"}, "unknown backbone 'c3d'; known are auto, vst, vst-b, .*i3d"),
        ({"recipe": "mine"}, "unknown recipe 'mine'; known are actionnet-i3d, gdlt-i3d"),
        ({"device": "tpu"}, "unknown device 'tpu'; known are auto, cpu, cuda and cuda:N"),
        ({"device": "cuda:99"}, r"'cuda:99' does not exist, torch sees \d+ CUDA devices"),
        ({"precision": "int8"}, "unknown precision 'int8'; known are auto, fp32, bf16, fp16"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a CUDA device"),
        ({"engine": "onnx"}, "unknown engine 'onnx'; known are auto, torch, openvino"),
        ({"weights": "/none/i3d.ckpt"}, "/none/i3d.ckpt cannot be read: No such file"),
    ],
)
def test_errors_of_what_cannot_be_built_are_one_sentence(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        load_backbone(**options)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu() -> None:
    with pytest.raises(ValueError, match="torch sees 0 CUDA devices: use --device cpu"):
        load_backbone(device="cuda")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("loads_its_own", [False, True])
def test_a_forked_process_says_what_to_do(loads_its_own: bool) -> None:
    """It would wait for ever for threads of its parent, which a fork does not copy."""
    script = f"""
        import os, torch
        from cofinal.extractors.backbone import load_backbone
        def run(backbone):
            backbone = backbone or load_backbone("r3d-18", weights="random", device="cpu", engine="torch")
            return backbone.features(torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8))
        backbone = load_backbone("r3d-18", weights="random", device="cpu", engine="torch")
        run(backbone)
        if os.fork():
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        try:
            run(None if {loads_its_own} else backbone)
        except ValueError as error:
            os._exit(7 if "multiprocessing.get_context('spawn')" in str(error) else 8)
        os._exit(9)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=300)
    assert ran.returncode == 7


def test_tf32_is_off_in_fp32_passes_only() -> None:
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    assert before[0] != "ieee"
    with without_tf32():
        assert [setting.fp32_precision for setting in settings] == ["ieee", "ieee"]
    assert [setting.fp32_precision for setting in settings] == before
