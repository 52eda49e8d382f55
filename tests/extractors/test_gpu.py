"""The backbones on a CUDA device: the CPU's features in each precision, and no setting of the program changed.

No test here needs the network or the shared folder: I3D has its published weights if they are in the cache.
"""

import logging

import numpy as np
import pytest
import torch

from cofinal.extractors.backbone import Backbone, load_backbone, resolve_backbone
from cofinal.extractors.video_swin import WindowAttention
from cofinal.extractors.weights import I3D_KINETICS400

pytestmark = pytest.mark.gpu

BACKBONES = ("i3d", "vst-t", "r3d-18")


def load(name: str, **options: str) -> Backbone:
    has_weights = name == "i3d" and I3D_KINETICS400.cached.exists()
    return load_backbone(name, weights=None if has_weights else "random", **options)


def clips(backbone: Backbone, number: int) -> torch.Tensor:
    """(number, F, H, W, 3) uint8: smooth random colours that move."""
    recipe, generator = backbone.recipe, torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 4, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (recipe.clip_frames, *recipe.size), mode="trilinear")
    return (255 * smooth).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def of_the_cpu() -> dict[str, np.ndarray]:
    """Two clips' features in fp32."""
    exact = (load(name, device="cpu", precision="fp32", engine="torch") for name in BACKBONES)
    return {backbone.name: backbone.features(clips(backbone, 2)) for backbone in exact}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_features_are_the_cpus(name: str, precision: str, of_the_cpu: dict[str, np.ndarray]) -> None:
    backbone = load(name, device="cuda", precision=precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {parameter.dtype for parameter in backbone.network.parameters()} == {dtype}
    features = backbone.features(clips(backbone, 2))
    assert cosines(features, of_the_cpu[name]).min() >= (0.999 if precision != "fp32" else 0.999999)


def test_windows_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load("vst-t", device="cuda", precision="fp32")
    rolled = backbone.features(clips(backbone, 2))
    monkeypatch.setattr(WindowAttention, "_rolled", WindowAttention._in_pieces)
    np.testing.assert_allclose(backbone.features(clips(backbone, 2)), rolled, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_batches_under_way_together_keep_their_results(name: str) -> None:
    backbone = load(name, device="cuda")
    batches = [batch.flip(0) for batch in clips(backbone, 12).split(3)]
    alone = [backbone.features(batch) for batch in batches]
    for _ in range(3):
        pending = [backbone.submit(list(batch)) for batch in batches]
        for expected, batch in zip(alone, pending, strict=True):
            assert cosines(batch.result()[0], expected).min() >= 0.9999


def test_memory_that_runs_out_makes_batches_smaller(caplog: pytest.LogCaptureFixture) -> None:
    backbone = load("vst-t", device="cuda", precision="bf16")
    batch = clips(backbone, 16)
    expected = np.concatenate([backbone.features(clip[None]) for clip in batch])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    backbone.features(batch[:4])
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(1.3 * torch.cuda.max_memory_allocated() / total)
        with caplog.at_level(logging.WARNING):
            features = backbone.features(batch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "short of memory" in caplog.text
    assert cosines(features, expected).min() >= 0.9999


def test_the_batch_is_chosen_by_free_memory() -> None:
    backbone = load("i3d", device="cuda")
    assert backbone.batch_clips in {2**power for power in range(6)}
    backbone.features(clips(backbone, backbone.batch_clips))


def test_settings_of_the_program_stay_as_they_are() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.cuda.current_device()
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        backbone = load("i3d", device=f"cuda:{torch.cuda.device_count() - 1}", precision="fp32")
        backbone.features(clips(backbone, 1))
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.cuda.current_device() == before[2]
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[:2]


def test_auto_is_video_swin_on_a_gpu_and_openvino_is_refused() -> None:
    assert resolve_backbone("auto", "auto") == ("vst-b", "auto: there is a GPU")
    with pytest.raises(ValueError, match="openvino runs on a CPU, not on cuda: use --device cpu or --engine torch"):
        load_backbone("i3d", weights="random", device="cuda", engine="openvino")
