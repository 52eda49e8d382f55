"""OpenVINO as an engine: torch's features, independent of the batch, from a network that is converted once."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cofinal.extractors import video_swin
from cofinal.extractors.backbone import load_backbone
from cofinal.extractors.decoders import read_frames
from cofinal.extractors.openvino_engine import CompiledNetwork, is_installed
from cofinal.extractors.recipes import RECIPES

pytestmark = pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed")

SMALL = replace(RECIPES["gdlt-vst"], clip_frames=20, size=(72, 64))
"""18 x 16 patches in 10 frames: no multiple of the window, 8 x 7 x 7."""

ONE_BLOCK = video_swin.Sizes(32, (1,), (2,), num_classes=0)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COFINAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.shared
def test_the_features_of_the_published_i3d(shared: Path, i3d_weights: Path) -> None:
    frames = read_frames(shared / "videos" / "action" / "cleaning_pool.mp4", wanted=np.arange(60, 124))
    clips = torch.stack([RECIPES["gdlt-i3d"].apply(frame) for _, frame in frames]).unflatten(0, (2, 32))
    expected, classes = load_backbone(device="cpu", precision="fp32", engine="torch").features_and_classes(clips)
    exact = load_backbone(device="cpu", precision="fp32", engine="openvino")
    quick = load_backbone(device="cpu")
    assert (exact.engine, exact.precision, quick.engine) == ("openvino", "fp32", "openvino")
    for backbone, lowest in ((exact, 0.99999), (quick, 0.999)):
        features, probabilities = backbone.features_and_classes(clips)
        assert (features.dtype, probabilities.dtype) == (np.float32, np.float32)
        assert cosines(features, expected).min() >= lowest
        np.testing.assert_allclose(probabilities, classes, atol=0.02)
        for clip, alone in zip(clips.flip(0), features[::-1], strict=True):
            assert np.array_equal(backbone.features(clip[None])[0], alone)


def test_a_network_is_converted_once_with_a_message_and_a_damaged_file_names_what_to_delete(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stale, recent = (cache / "openvino" / "tiny-random-gdlt-vst" / name for name in ("converting-abc", "of another"))
    for folder in (stale, recent):
        folder.mkdir(parents=True)
        (folder / "network.xml").touch()
    os.utime(stale, (0, 0))
    network = video_swin.untrained(video_swin.Sizes(32, (2, 1), (2, 4), num_classes=5), 0)
    clips = torch.randint(0, 256, (2, 20, 72, 64, 3), dtype=torch.uint8)
    compiled = CompiledNetwork("tiny", network, 5, SMALL, "random", "fp32")
    with torch.inference_mode():
        expected = network(SMALL.normalise(clips))
    for ours, theirs in zip(compiled(clips), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-4)
    assert [record.message[:8] for record in caplog.records] == ["preparin", "prepared"]
    assert not stale.exists()
    assert recent.exists()

    caplog.clear()
    CompiledNetwork("tiny", network, 5, SMALL, "random", "fp32")
    assert caplog.records == []

    (file,) = (file for file in cache.rglob("*.xml") if file.parent != recent)
    file.write_text("<net")
    with pytest.raises(ValueError, match=r"cannot read .*\.xml: delete .*tiny-random-gdlt-vst.* to have it made again"):
        CompiledNetwork("tiny", network, 5, SMALL, "random", "fp32")


def test_weights_without_a_classifier(cache: Path) -> None:
    network = video_swin.untrained(ONE_BLOCK, 0)
    features, logits = CompiledNetwork("tiny", network, 0, SMALL, "random", "fp32")(
        torch.zeros(2, 20, 72, 64, 3).byte()
    )
    assert (features.shape, logits.shape) == ((2, 32), (2, 0))


def test_a_cache_that_cannot_be_written(cache: Path) -> None:
    network = video_swin.untrained(ONE_BLOCK, 0)
    cache.write_text("a file")
    with pytest.raises(ValueError, match=r"cannot be kept in .*: set COFINAL_CACHE to another folder, or use --engine"):
        CompiledNetwork("tiny", network, 0, SMALL, "random", "fp32")


def test_without_openvino_auto_is_torch_and_asking_for_it_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofinal.extractors.openvino_engine.is_installed", lambda: False)
    assert load_backbone(weights="random", device="cpu").engine == "torch"
    with pytest.raises(ValueError, match=r"not installed: pip install 'cofinal\[openvino\]'.*or use --engine torch"):
        load_backbone(weights="random", device="cpu", engine="openvino")


def test_without_bf16_instructions_auto_leaves_bf16_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    loaded = load_backbone(weights="random", device="cpu", precision="bf16")
    assert (loaded.engine, loaded.precision) == ("torch", "bf16")
