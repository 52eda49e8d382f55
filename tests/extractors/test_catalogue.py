"""The catalogue's entry of each backbone against the networks and the libraries themselves."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_weight

from cofinal.extractors.catalogue import ALIASES, CATALOGUE
from cofinal.extractors.classifiers import CLASSIFIERS
from cofinal.extractors.recipes import RECIPES

TORCHVISION = {"vst-t": "Swin3D_T", "vst-s": "Swin3D_S", "vst-b": "Swin3D_B"} | {
    "r3d-18": "R3D_18",
    "mc3-18": "MC3_18",
    "r2plus1d-18": "R2Plus1D_18",
    "s3d": "S3D",
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_features_parameters_and_operations(name: str) -> None:
    entry, recipe = CATALOGUE[name], RECIPES[CATALOGUE[name].recipe]
    with torch.device("meta"):
        network = _on_meta(name)
        clip = torch.empty(1, 3, recipe.clip_frames, *recipe.size)
    with FlopCounterMode(display=False) as counter:
        features, logits = network(clip)
    assert (features.shape, logits.shape) == ((1, entry.feature_dim), (1, 400))
    assert sum(parameter.numel() for parameter in network.parameters()) == entry.parameters
    assert counter.get_total_flops() / 1e9 == pytest.approx(entry.gflop, abs=0.05)


def _on_meta(name: str) -> torch.nn.Module:
    from cofinal.extractors import classifiers, i3d, video_swin

    if name in CLASSIFIERS:
        classifier = CLASSIFIERS[name]
        return classifiers.PooledClassifier(*classifier.split(classifier.build())).eval()
    if name == "i3d":
        return i3d.InceptionI3D()
    sizes = {"vst-t": video_swin.TINY, "vst-s": video_swin.SMALL, "vst-b": video_swin.BASE}
    return video_swin.VideoSwin(sizes[name])


def test_addresses_are_the_libraries_own() -> None:
    from pytorchvideo.models.hub import csn, r2plus1d, resnet

    paths = resnet.checkpoint_paths | csn.checkpoint_paths | r2plus1d.checkpoint_paths
    for name, entry in CATALOGUE.items():
        for weights in entry.weights:
            if name in TORCHVISION:
                assert weights.url == get_weight(weights.name).url
                assert weights.name.startswith(f"{TORCHVISION[name]}_Weights.KINETICS400_")
                assert len(weights.sha256_start) == 8
                assert weights.sha256_start in weights.url
            elif name != "i3d":
                assert weights.url == paths[name.replace("-", "_")]
                assert weights.sha256_start == ""


def test_every_name_and_recipe_exists() -> None:
    assert set(CLASSIFIERS) < set(CATALOGUE)
    assert set(ALIASES.values()) <= set(CATALOGUE)
    for entry in CATALOGUE.values():
        assert {entry.recipe, entry.kinetics_recipe} <= set(RECIPES)
        assert entry.weights
