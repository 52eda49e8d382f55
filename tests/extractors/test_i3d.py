"""Inception-I3D against the recorded outputs of DeepMind's own, and its padding against TensorFlow's definition."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional

from cofinal.extractors.i3d import ConvUnit, MaxPool, class_names, from_checkpoint, same_padding, untrained


def golden_input(name: str) -> torch.Tensor:
    """(1, 3, F, 224, 224), values in [-1, 1]."""
    if name == "noise16":
        frames = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
        return torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    noise = torch.from_numpy(np.random.default_rng(1).random((1, 3, 4, 8, 8), np.float32))
    return functional.interpolate(noise, (32, 224, 224), mode="trilinear", align_corners=False) * 2 - 1


@pytest.mark.shared
@pytest.mark.parametrize("name", ["noise16", "smooth32"])
def test_golden_outputs(name: str, i3d_weights: Path, shared: Path) -> None:
    golden = np.load(shared / "golden" / "i3d_kinetics400.npz")
    network = from_checkpoint(i3d_weights)
    for dtype in (torch.float32, torch.bfloat16):
        network = network.to(dtype).to(memory_format=torch.channels_last_3d)
        with torch.inference_mode():
            features, logits = network(golden_input(name).to(dtype))
        for ours, what in ((features, "features"), (logits, "logits")):
            assert ours.dtype == torch.float32
            actual, expected = ours[0].numpy(), golden[f"{name}_{what}"]
            if dtype == torch.float32:
                assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
            cosine = actual @ expected / np.linalg.norm(actual) / np.linalg.norm(expected)
            assert cosine >= 0.999, (dtype, what)


@pytest.mark.shared
def test_class_names_are_in_the_order_of_the_logits(shared: Path) -> None:
    golden = np.load(shared / "golden" / "i3d_kinetics400.npz")
    names = class_names()
    assert len(names) == 400
    assert [names[index] for index in golden["video_class"]] == golden["video_label"].tolist()


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_gives_tensorflows_number_of_outputs(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    if kernel >= stride:  # else TensorFlow pads nothing and skips the rest
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1


@given(
    st.tuples(*[st.integers(3, 12)] * 3),
    st.sampled_from([((3, 3, 3), (2, 2, 2)), ((1, 3, 3), (1, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]),
)
def test_max_pool_is_tensorflows(size, pool) -> None:
    kernel, stride = pool
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0)) - 3  # below zero, so that zeros would show
    pads = [same_padding(*axis) for axis in zip(size, kernel, stride, strict=True)]
    padded = functional.pad(x, [p for pair in reversed(pads) for p in pair], value=-torch.inf)
    assert torch.equal(MaxPool(kernel, stride)(x), functional.max_pool3d(padded, kernel, stride))


@pytest.mark.parametrize("size", [(16, 14, 14), (9, 7, 11)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_convolution_is_tensorflows(size, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    unit = ConvUnit(3, 4, kernel, stride)
    x = torch.randn(1, 3, *size)
    pads = [same_padding(n, kernel, stride) for n in size]
    padded = functional.pad(x, [p for pair in reversed(pads) for p in pair])
    expected = functional.conv3d(padded, unit.weight, unit.bias, stride).relu()
    torch.testing.assert_close(unit(x), expected)
    assert expected.shape[2:] == tuple(-(-n // stride) for n in size)


def test_the_original_pickle_and_its_copy_give_one_network(i3d_weights: Path, tmp_path: Path) -> None:
    tree: dict = {}
    for name, tensor in load_file(i3d_weights).items():
        top, *layers, last = name.split("/")
        branch = tree.setdefault(top, {})
        for layer in layers:
            branch = branch.setdefault(layer, {})
        branch[last] = tensor.numpy()
    (tmp_path / "i3d.ckpt").write_bytes(pickle.dumps(tree))
    copy, original = from_checkpoint(i3d_weights), from_checkpoint(tmp_path / "i3d.ckpt")
    for (name, ours), theirs in zip(copy.named_parameters(), original.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


BRANCHES = {  # DeepMind's name: piergiaj's, hassony2's
    "Branch_0/Conv3d_0a_1x1": ("b0", "branch_0"),
    "Branch_1/Conv3d_0a_1x1": ("b1a", "branch_1.0"),
    "Branch_1/Conv3d_0b_3x3": ("b1b", "branch_1.1"),
    "Branch_2/Conv3d_0a_1x1": ("b2a", "branch_2.0"),
    "Branch_2/Conv3d_0b_3x3": ("b2b", "branch_2.1"),
    "Branch_3/Conv3d_0b_1x1": ("b3b", "branch_3.1"),
}


def ported(weights: Path, layout: str) -> dict[str, torch.Tensor]:
    """The published weights as the ports save them: `Mixed_3b.b1a.bn.bias`, `mixed_3b.branch_1.0.batch3d.bias`."""
    tensors = load_file(weights)
    state = {}
    for name, kernel in tensors.items():
        if not name.endswith("/Conv_0/kernel"):
            continue
        theirs = name.removeprefix("params/").removesuffix("/Conv_0/kernel")
        top, _, branch = theirs.partition("/")
        port = BRANCHES[branch][layout == "hassony2"] if branch in BRANCHES else ""
        own = (top.lower() if layout == "hassony2" else top) + (f".{port}" if port else "")
        if top == "Logits":
            own = "conv3d_0c_1x1" if layout == "hassony2" else "logits"
            state[f"{own}.conv3d.bias"] = tensors[f"params/{theirs}/Conv_0/bias"]
        else:
            norm = f"{own}.batch3d" if layout == "hassony2" else f"{own}.bn"
            state[f"{norm}.running_mean"] = tensors[f"batch_stats/{theirs}/BatchNorm_0/mean"].flatten()
            state[f"{norm}.running_var"] = tensors[f"batch_stats/{theirs}/BatchNorm_0/var"].flatten()
            state[f"{norm}.bias"] = tensors[f"params/{theirs}/BatchNorm_0/bias"]
            state[f"{norm}.weight"] = torch.ones_like(state[f"{norm}.bias"])
            state[f"{norm}.num_batches_tracked"] = torch.tensor(0)
        state[f"{own}.conv3d.weight"] = kernel.permute(4, 3, 0, 1, 2).contiguous()
    return state


@pytest.mark.parametrize("layout", ["hassony2", "piergiaj"])
def test_the_files_of_the_ports_convert_exactly(layout: str, i3d_weights: Path, tmp_path: Path) -> None:
    expected = from_checkpoint(i3d_weights).state_dict()
    state = ported(i3d_weights, layout)
    torch.save(state, tmp_path / "now.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)  # as when these files were made
    torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "trained.pth")
    for file in ("now.pth", "old.pt", "trained.pth"):
        converted = from_checkpoint(tmp_path / file).state_dict()
        assert set(converted) == set(expected)
        for name, tensor in expected.items():
            assert torch.equal(converted[name], tensor), (file, name)


@pytest.mark.parametrize("layout", ["hassony2", "piergiaj"])
def test_the_scale_of_a_ports_normalisation_counts(layout: str, i3d_weights: Path, tmp_path: Path) -> None:
    state = ported(i3d_weights, layout)
    (name,) = (name for name in state if name.lower().startswith("conv3d_2c") and name.endswith(("3d.bias", "bn.bias")))
    state[name.replace("bias", "weight")] *= 2
    torch.save(state, tmp_path / "scaled.pth")
    scaled, expected = from_checkpoint(tmp_path / "scaled.pth"), from_checkpoint(i3d_weights)
    torch.testing.assert_close(scaled.trunk.Conv3d_2c_3x3.weight, 2 * expected.trunk.Conv3d_2c_3x3.weight)


def test_a_key_missing_from_a_ports_file_is_named(i3d_weights: Path, tmp_path: Path) -> None:
    state = ported(i3d_weights, "hassony2")
    del state["mixed_4c.branch_3.1.batch3d.running_var"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match=r"mixed_4c\.branch_3\.1\.batch3d\.running_var is missing"):
        from_checkpoint(tmp_path / "torn.pth")


def test_the_number_of_classes_is_read_from_the_file(i3d_weights: Path, tmp_path: Path) -> None:
    tensors = load_file(i3d_weights)
    for what in ("kernel", "bias"):
        name = f"params/Logits/Conv3d_0c_1x1/Conv_0/{what}"
        tensors[name] = tensors[name][..., :7].contiguous()
    save_file(tensors, tmp_path / "seven.safetensors")
    network = from_checkpoint(tmp_path / "seven.safetensors")
    assert network.num_classes == network.logits.out_channels == 7


def test_files_of_other_networks_are_refused(i3d_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensors = load_file(i3d_weights)
    first = "params/Conv3d_1a_7x7/Conv_0/kernel"

    save_file({"conv1.weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"no I3D weights of a known kind.*found conv1\.weight"):
        from_checkpoint(path)

    save_file({first: tensors[first]}, path)
    with pytest.raises(ValueError, match="batch_stats/Conv3d_1a_7x7/BatchNorm_0/mean is missing"):
        from_checkpoint(path)

    save_file(tensors | {first: torch.ones(7, 7, 7, 1, 64)}, path)
    with pytest.raises(ValueError, match=r"not a complete Inception-I3D.*size mismatch.*Conv3d_1a_7x7") as raised:
        from_checkpoint(path)
    assert "\n" not in str(raised.value)


def test_untrained_weights_are_the_same_for_the_same_seed() -> None:
    first, again, other = untrained(0).state_dict(), untrained(0).state_dict(), untrained(1).state_dict()
    name = "trunk.Mixed_4c.Branch_1.Conv3d_0b_3x3.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])
