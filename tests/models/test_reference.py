"""Public heads give the public code's outputs, and a file that is anything else is refused without being run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cofinal.models.checkpoint import load_reference
from cofinal.models.reference import ReferenceCoFInAl, ReferenceConfig, grade_values

SMALL = ReferenceConfig(
    feature_dim=6, hidden=3, width=8, feedforward=5, num_encoder_layers=2, num_decoder_layers=3, num_grades=5,
    fine_hidden=7, fine_dim=12, num_subgrades=10, weight_type=1,
)  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A small head's file and what is in it."""
    torch.manual_seed(0)
    path = tmp_path / "small.pkl"
    tensors = dict(ReferenceCoFInAl(SMALL).state_dict())
    tensors["etf_vec1"] = torch.randn(12, 10)
    torch.save(tensors, path)
    return path, tensors


@pytest.mark.shared
@pytest.mark.parametrize(("seed", "clips"), [(10, 71), (11, 68), (12, 130)])
def test_outputs_are_those_of_the_public_code(shared: Path, seed: int, clips: int) -> None:
    expected = np.load(shared / "golden/cofinal_reference_vst.npz")
    path = shared / "golden/cofinal_reference_vst.pkl"
    network = load_reference(path, weight_type=int(expected["weight_type"]))
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_715_692
    features = np.random.default_rng(seed).standard_normal((1, clips, 1024), np.float32)
    with torch.inference_mode():
        output = network(torch.from_numpy(features))
    for name in ("score", "coarse", "coarse_reverse", "fine", "grades"):
        np.testing.assert_allclose(getattr(output, name), expected[f"{name}_{clips}"], rtol=0, atol=1e-5)
    assert output.subgrade.item() == (expected[f"fine_{clips}"] @ network.etf_vec1.numpy()).argmax()


def test_sizes_are_read_from_the_file(small: tuple[Path, dict[str, Tensor]]) -> None:
    path, tensors = small
    network = load_reference(path, weight_type=1)
    assert network.config == SMALL
    assert not network.training
    loaded = network.state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("clips", [1, 2, 2000])
def test_a_batch_scores_each_routine_as_if_alone(small: tuple[Path, dict[str, Tensor]], clips: int) -> None:
    network = load_reference(small[0], weight_type=0)
    features = torch.randn(3, clips, 6)
    with torch.inference_mode():
        together, alone = network(features), [network(x[None]) for x in features]
    assert torch.isfinite(together.score).all()
    for name in ("score", "fine", "weights", "grades"):
        torch.testing.assert_close(getattr(together, name), torch.cat([getattr(one, name) for one in alone]))


@pytest.mark.parametrize("weight_type", [0, 1, 2, 3])
def test_both_responses_to_a_grade_speak_for_the_same_grade(weight_type: int) -> None:
    """Value of grade k forwards grows with k, backwards it falls: both move the score in one direction."""
    values, reverse = grade_values(weight_type, 4)
    assert (values.diff() > 0).all()
    assert (reverse.diff() <= 0).all()


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    for path, save in ((tmp_path / "torch.pkl", torch.save), (tmp_path / "plain.pkl", None)):
        if save is None:
            path.write_bytes(pickle.dumps(Evil()))
        else:
            save({"in_proj.0.weight": Evil()}, path)
        with pytest.raises(ValueError, match=rf"{path.name} is damaged or holds more than tensors, which is never run"):
            load_reference(path, weight_type=3)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_files_are_refused(small: tuple[Path, dict[str, Tensor]], size: int) -> None:
    path, _ = small
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"small\.pkl is damaged"):
        load_reference(path, weight_type=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"etf_vec1": None}, "not a public CoFInAl head: it has no tensor 'etf_vec1'"),
        ({"regressor.bias": None}, "known form .*Missing key.*regressor.bias"),
        ({"extra": torch.zeros(1)}, "known form .*Unexpected key.*extra"),
        ({"regressor.weight": torch.zeros(5, 9)}, "known form .*size mismatch for regressor.weight"),
        ({"prototype.weight": torch.zeros(5)}, "known form .*out of range"),
        ({"regressor.bias": torch.full((5,), torch.nan)}, "weights regressor.bias in .* hold NaN"),
        ({"epoch": 7}, "not a dict of plain tensors"),
        ({"regressor.bias": torch.zeros(5, device="meta")}, "not a dict of plain tensors"),
        ({"regressor.bias": torch.zeros(5).to_sparse()}, "not a dict of plain tensors"),
        ({"prototype.weight": torch.zeros(1).expand(5, 10**12)}, "not a dict of plain tensors"),
        ({"etf_vec1": torch.zeros(0, 10**9)}, "not a dict of plain tensors"),
        (  # would build layers of 4 TB
            {"in_proj.0.weight": torch.zeros(10**6, 1, 1), "prototype.weight": torch.zeros(1, 10**6)},
            "known form .*size mismatch",
        ),
    ],
)
def test_other_contents_are_refused(
    small: tuple[Path, dict[str, Tensor]], changes: dict[str, object], message: str
) -> None:
    path, tensors = small
    torch.save({name: value for name, value in (tensors | changes).items() if value is not None}, path)
    with pytest.raises(ValueError, match=message):
        load_reference(path, weight_type=1)


def test_missing_files_and_impossible_weight_types_are_refused(small: tuple[Path, dict[str, Tensor]]) -> None:
    with pytest.raises(ValueError, match=r"no head file .*gone\.pkl"):
        load_reference("gone.pkl", weight_type=1)
    with pytest.raises(ValueError, match="unknown weight type 4"):
        load_reference(small[0], weight_type=4)
    with pytest.raises(ValueError, match="weight type 3 is for 4 grades, this head has 5"):
        load_reference(small[0], weight_type=3)
