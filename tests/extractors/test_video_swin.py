"""Video Swin against torchvision's and the official code's outputs, and its reading of every file layout."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.video import swin3d_t
from torchvision.models.video.swin_transformer import SwinTransformer3d

from cofinal.extractors.video_swin import BASE, TINY, Sizes, VideoSwin, WindowAttention, from_checkpoint, untrained

SMALL_SIZES = Sizes(24, (2, 2, 4, 2), (1, 2, 4, 8), num_classes=7)


def torchvision_small() -> SwinTransformer3d:
    """A narrow Video Swin of torchvision's with random weights, position biases large enough to show."""
    torch.manual_seed(0)
    network = SwinTransformer3d([2, 4, 4], 24, [2, 2, 4, 2], [1, 2, 4, 8], [8, 7, 7], num_classes=7)
    return with_biases(network).eval()


def with_biases(network: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in network.named_parameters():
        if name.endswith(("table", "bias")):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture(scope="module")
def theirs() -> SwinTransformer3d:
    return torchvision_small()


@pytest.fixture
def state(theirs: SwinTransformer3d) -> dict[str, torch.Tensor]:
    return dict(theirs.state_dict())


def saved(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def assert_equal_outputs(ours: VideoSwin, theirs: SwinTransformer3d, size: tuple[int, int, int]) -> None:
    clips = torch.randn(2 if size[1] < 200 else 1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected_map = theirs.norm(theirs.features(theirs.patch_embed(clips)))
        torch.testing.assert_close(ours.last_map(clips), expected_map, rtol=0, atol=1e-5)
        features, logits = ours(clips)
        torch.testing.assert_close(features, expected_map.mean((1, 2, 3)), rtol=0, atol=1e-5)
        torch.testing.assert_close(logits, theirs.head(features), rtol=0, atol=1e-5)


SIZES = {
    "no padding": (32, 112, 112),
    "padding everywhere": (35, 97, 65),
    "shifted in time only": (40, 28, 28),
    "not shifted in time": (16, 120, 64),
    "windows larger than the map": (4, 20, 12),
    "windows larger in height": (20, 16, 72),
    "one patch": (1, 3, 2),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_outputs_are_torchvisions(size: tuple[int, int, int], theirs: SwinTransformer3d, state, tmp_path: Path) -> None:
    ours = from_checkpoint(saved(tmp_path, state))
    assert ours.sizes == SMALL_SIZES
    for _ in range(2):  # the second time with cached biases
        assert_equal_outputs(ours, theirs, size)


MAPS = {
    "shifted along all axes": (16, 14, 21),
    "padded along all axes": (9, 15, 8),
    "shifted in time only": (20, 7, 7),
    "shifted in width only": (8, 7, 16),
    "cut to a small map": (3, 5, 2),
    "cut in time, shifted in space": (5, 13, 9),
}


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rolled_windows_are_those_in_pieces(
    size: tuple[int, int, int], shifted: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU rolls, a CPU cuts; here both on a CPU."""
    torch.manual_seed(0)
    attention = WindowAttention(48, 3, (8, 7, 7), shifted)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    attention.to(dtype)
    x = torch.randn(2, *size, 48, dtype=dtype)
    with torch.inference_mode():
        expected = attention(x)
        monkeypatch.setattr(WindowAttention, "_in_pieces", WindowAttention._rolled)
        rolled = attention(x)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02  # bfloat16 has steps of 0.004 below 1
    torch.testing.assert_close(rolled, expected, rtol=0, atol=tolerance)


class CountOperations(TorchDispatchMode):
    """Counts operations that are no view: each is a launch or more on a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **kwargs or {})


def test_rolled_windows_take_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        with torch.device("meta"):
            network, clips = VideoSwin(BASE), torch.empty(1, 3, 32, 224, 224)
            with torch.inference_mode():
                network(clips)  # fills the caches of biases and sides
                with CountOperations() as operations:
                    network(clips)
        return operations.count

    pieces = count()
    monkeypatch.setattr(WindowAttention, "_in_pieces", WindowAttention._rolled)
    rolled = count()
    assert rolled < 15 * sum(BASE.depths) < pieces / 2


@pytest.mark.slow
def test_outputs_are_torchvisions_at_the_real_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = with_biases(swin3d_t()).eval()
    ours = from_checkpoint(saved(tmp_path, theirs.state_dict()))
    assert ours.sizes == TINY
    assert_equal_outputs(ours, theirs, (32, 224, 224))


def test_names_and_shapes_are_torchvisions() -> None:
    with torch.device("meta"):
        ours, theirs = VideoSwin(TINY), swin3d_t()
    expected = {name: t.shape for name, t in theirs.state_dict().items() if not name.endswith("_index")}
    assert {name: t.shape for name, t in ours.state_dict().items()} == expected


@pytest.mark.shared
def test_golden_outputs_of_the_official_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "video_swin_official_small.npz")
    network = from_checkpoint(shared / "golden" / "video_swin_official_small.pth")
    large = np.random.default_rng(0).standard_normal((1, 3, 32, 96, 96), np.float32)
    small = np.random.default_rng(1).standard_normal((1, 3, 20, 64, 80), np.float32)
    with torch.inference_mode():
        last_map = network.last_map(torch.from_numpy(large))[0].permute(3, 0, 1, 2)  # (C, F, H, W)
        np.testing.assert_allclose(last_map, golden["map_32x96x96"], rtol=0, atol=1e-4)
        for clip, name in ((large, "pooled_32x96x96"), (small, "pooled_20x64x80")):
            features, logits = network(torch.from_numpy(clip))
            np.testing.assert_allclose(features[0], golden[name], rtol=0, atol=1e-4)
            assert logits.shape == (1, 600)


def official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of the official code for torchvision's, without the classifier."""
    renamed = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"features\.(\d+)\.(.*)", name):
            stage, merging = divmod(int(match[1]), 2)
            name = f"layers.{stage}.{'downsample' if merging else 'blocks'}.{match[2]}"
        name = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        if not name.startswith("head."):
            renamed[name] = tensor
    return renamed


def mmaction2(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {re.sub(r"^norm\.", "norm3.", name): tensor for name, tensor in official(state).items()}


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def classifier(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"cls_head.fc_cls.{what}": state[f"head.{what}"] for what in ("weight", "bias")}


LAYOUTS = {
    "torchvision": lambda state: state,
    "torchvision, parallel": lambda state: {"model": prefixed("module.", state)},
    "official": lambda state: {
        "meta": {"epoch": 30},
        "state_dict": prefixed("backbone.", official(state)) | classifier(state),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    },
    "mmaction2": lambda state: {
        "meta": {},
        "state_dict": {"data_preprocessor.mean": torch.zeros(3)}
        | prefixed("backbone.", mmaction2(state))
        | classifier(state),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_network(layout: str, state, tmp_path: Path) -> None:
    assert any(name.endswith("relative_position_index") for name in state)
    network = from_checkpoint(saved(tmp_path, LAYOUTS[layout](state)))
    assert network.sizes == SMALL_SIZES
    own = network.state_dict()
    assert set(own) == {name for name in state if not name.endswith("relative_position_index")}
    for name, tensor in own.items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"cls_head.layers.0.weight": torch.ones(5, 192), "cls_head.layers.0.bias": torch.ones(5)},
        {"fc.weight": torch.ones(1, 192)},
        {"head.weight": torch.ones(1, 64), "head.bias": torch.ones(1)},
    ],
)
def test_any_other_head_is_ignored(head: dict, state, tmp_path: Path) -> None:
    for content in (prefixed("backbone.", official(state)) | head, official(state) | head):
        network = from_checkpoint(saved(tmp_path, content))
        features, logits = network(torch.zeros(1, 3, 4, 32, 32))
        assert features.shape == (1, 192)
        assert logits.shape == (1, 0)
        assert network.num_classes == 0


def test_sizes_are_read_from_the_file(tmp_path: Path) -> None:
    for sizes in (
        Sizes(16, (1, 3), (2, 1), (16, 7, 7), (2, 4, 4), 2, 5),
        Sizes(8, (2, 2, 1), (1, 2, 4), (2, 3, 3), (1, 2, 2), 4, 3),
        Sizes(8, (2,), (2,), (4, 4, 4), (4, 4, 4), 4, 3),
    ):
        assert from_checkpoint(saved(tmp_path, untrained(sizes, 0).state_dict())).sizes == sizes


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        from_checkpoint(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing_and_unexpected_keys_are_listed(state, tmp_path: Path) -> None:
    content = prefixed("backbone.", official(state))
    del content["backbone.layers.2.blocks.1.mlp.fc1.bias"], content["backbone.norm.weight"]
    content["backbone.layers.1.blocks.0.attn.extra"] = torch.ones(1)
    content["backbone.position"] = torch.ones(1)
    message = refused(saved(tmp_path, {"state_dict": content}))
    assert "lacks features.4.1.mlp.0.bias, norm.weight;" in message
    assert "state_dict/backbone.layers.1.blocks.0.attn.extra, state_dict/backbone.position" in message


def test_tensors_of_other_shapes_are_named(state, tmp_path: Path) -> None:
    state["features.2.0.attn.proj.weight"] = torch.ones(3, 3)
    assert "features.2.0.attn.proj.weight has shape (3, 3) and not (48, 48)" in refused(saved(tmp_path, state))


def test_files_without_or_with_two_networks_are_refused(state, tmp_path: Path) -> None:
    assert "found conv1.weight" in refused(saved(tmp_path, {"conv1.weight": torch.ones(3)}))
    assert "found none" in refused(saved(tmp_path, {"epoch": 3}))
    assert "under ema/ and model/" in refused(saved(tmp_path, {"ema": dict(state), "model": dict(state)}))
    only_first = {name: t for name, t in state.items() if name.startswith("patch_embed")}
    assert "relative_position_bias_table in each stage" in refused(saved(tmp_path, only_first))
    image = state | {"patch_embed.proj.weight": torch.ones(24, 3, 4, 4)}
    assert "(C, 3, frames, height, width)" in refused(saved(tmp_path, image))


def test_weights_loaded_after_a_run_are_used(theirs: SwinTransformer3d, state) -> None:
    network = untrained(SMALL_SIZES, 0)
    network(torch.zeros(1, 3, 16, 64, 64))
    network.load_state_dict(state, strict=False)
    assert_equal_outputs(network, theirs, (16, 64, 64))


def test_bf16_weights_agree_with_fp32(state, tmp_path: Path) -> None:
    network = from_checkpoint(saved(tmp_path, state))
    clips = torch.randn(1, 3, 16, 64, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, _ = network(clips)
        half, _ = network.to(torch.bfloat16)(clips.bfloat16())
    assert half.dtype == torch.float32
    assert not torch.equal(half, expected)
    assert torch.cosine_similarity(half, expected).item() >= 0.999


def test_untrained_weights_are_the_same_for_the_same_seed() -> None:
    first, again, other = (untrained(SMALL_SIZES, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    name = "features.4.1.attn.relative_position_bias_table"
    assert not torch.equal(first[name], other[name])


def test_base_makes_1024_features() -> None:
    with torch.device("meta"):
        features, logits = VideoSwin(BASE)(torch.empty(1, 3, 32, 224, 224))
    assert (features.shape, logits.shape) == ((1, 1024), (1, 400))


def test_a_run_on_the_meta_device_leaves_nothing_behind() -> None:
    with torch.device("meta"):
        VideoSwin(Sizes(8, (2,), (2,), (3, 5, 5)))(torch.empty(1, 3, 16, 40, 40))
    features, _ = untrained(Sizes(8, (2,), (2,), (3, 5, 5)), 0)(torch.zeros(1, 3, 16, 40, 40))
    assert features.isfinite().all()
