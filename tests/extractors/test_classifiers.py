"""The listed classifiers against their libraries' own outputs."""

from pathlib import Path

import pytest
import torch

from cofinal.extractors.classifiers import CLASSIFIERS, from_checkpoint, untrained

CLIPS = {  # the smallest that the network's head takes
    "i3d-r50": (8, 224, 224),
    "slow-r50": (8, 224, 224),
    "c2d-r50": (8, 224, 224),
    "csn-r101": (32, 224, 224),
    "r2plus1d-r50": (16, 224, 224),
    "r3d-18": (8, 32, 32),
    "mc3-18": (8, 32, 32),
    "r2plus1d-18": (8, 32, 32),
    "s3d": (16, 224, 224),
}
HEAVY = ("slow-r50", "c2d-r50", "csn-r101")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in HEAVY else ()) for n in CLASSIFIERS])
def test_logits_are_the_librarys_and_features_the_mean_of_its_heads_input(name: str, tmp_path: Path) -> None:
    classifier = CLASSIFIERS[name]
    torch.manual_seed(0)
    theirs = classifier.build(num_classes=7).eval()
    key = "model_state" if classifier.library == "pytorchvideo" else "model"
    torch.save({key: theirs.state_dict()}, tmp_path / "weights.pth")
    ours = from_checkpoint(tmp_path / "weights.pth", name)
    assert ours.num_classes == 7

    head_inputs = []
    head = theirs.blocks[-1] if classifier.library == "pytorchvideo" else theirs.avgpool
    head.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    clip = torch.randn(1, 3, *CLIPS[name])
    with torch.inference_mode():
        expected = theirs(clip)
        features, logits = ours(clip)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features, head_inputs[0].mean((2, 3, 4)), rtol=1e-4, atol=1e-5)
    assert (features > 0).any()


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"model": CLASSIFIERS["r3d-18"].build().state_dict()}, tmp_path / "r3d.pth")
    with pytest.raises(ValueError, match=r"holds no i3d-r50 weights.*expected one key blocks\.0\.conv\.weight"):
        from_checkpoint(tmp_path / "r3d.pth", "i3d-r50")
    with pytest.raises(ValueError, match=r"is not a complete r2plus1d-18: .*layer1\.0\.conv1\.0\.0\.weight") as raised:
        from_checkpoint(tmp_path / "r3d.pth", "r2plus1d-18")
    assert "\n" not in str(raised.value)


def test_untrained_weights_are_the_same_for_the_same_seed() -> None:
    first, again, other = (untrained("mc3-18", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["trunk.0.0.weight"], other["trunk.0.0.weight"])
