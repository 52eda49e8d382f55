"""Why a score came out: contributions for every head, percentiles, nearest routines, doubts, assumed actions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cofinal import score_video, train_head
from cofinal.models.checkpoint import Head
from cofinal.models.cofinal import CoFInAlConfig, CoFInAlRecipe
from cofinal.models.cofinal_paper import PaperConfig
from cofinal.models.gdlt import GDLTConfig
from cofinal.models.head import HeadConfig, Recipe
from cofinal.models.neighbourhood import Neighbourhood
from cofinal.models.reference import ReferenceCoFInAl, ReferenceConfig
from cofinal.models.transformer import TransformerRecipe
from cofinal.pipeline.evidence import explain
from cofinal.pipeline.filming import UNKNOWN, Filming, filming_of_training
from cofinal.pipeline.training import fit
from cofinal.pipeline.training_set import is_training_set

SIZES = {"feature_dim": 12, "targets": ("A", "B"), "ranges": ((0, 10), (0, 20)), "num_actions": 2, "width": 8}
HEADS: dict[str, tuple[HeadConfig, Recipe]] = {
    "cofinal": (CoFInAlConfig(**SIZES, num_members=2), CoFInAlRecipe()),
    "cofinal-clips": (CoFInAlConfig(**SIZES, num_members=2, tokens="clips"), CoFInAlRecipe()),
    "cofinal-paper": (PaperConfig(**SIZES), TransformerRecipe()),
    "gdlt": (GDLTConfig(**SIZES), TransformerRecipe()),
}
FILMING = Filming(frames_per_s=25.0, aspect=1.5, cuts_s=[], stills_s=[])
ROUTINES = np.random.default_rng(0).normal(size=(24, 8, 12)).astype(np.float32)
SCORES = np.linspace(1, 9, 24)[:, None] * [1, 2]
ROUTINES[:, :, :3] += SCORES[:, None, :1]


def head_of(name: str = "cofinal", *, names: bool = True, filming: Filming = FILMING, epochs: int = 1) -> Head:
    """A head for Ball and Hoop, trained on 24 routines of 8 clips whose first features tell the score."""
    config, recipe = HEADS[name]
    recipe = replace(recipe, epochs=epochs)
    actions = np.arange(24) % 2
    network = fit(list(ROUTINES), SCORES, actions, config=config, recipe=recipe)
    record = {
        "set": "cup.csv",
        "names": [f"v{i}" for i in range(24)] if names else None,
        "scores": {"A": SCORES[:, 0].tolist(), "B": [None, *SCORES[1:, 1].tolist()]},
        "clips": [8, 8],
        "filming": filming_of_training([filming]),
    }
    assert is_training_set(json.loads(json.dumps(record)), config.targets, 24)
    metadata = {"targets": ["A", "B"], "actions": ["Ball", "Hoop"], "training_set": record}
    return Head(network, metadata, Neighbourhood.fit(list(ROUTINES), actions))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_explains_every_clip(name: str) -> None:
    times = [(float(t), t + 1.0) for t in range(8)]
    evidence = explain(head_of(name), ROUTINES[5], times, action="Hoop", filming=FILMING)
    assert evidence.times == times
    for target in evidence.targets.values():
        assert len(target.contributions) == len(target.grade_effects) == 8
        np.testing.assert_allclose(np.sum(target.grade_effects, 1), 0, atol=1e-4)
        if name == "cofinal":
            assert target.attention is None
        else:
            np.testing.assert_allclose(np.sum(target.attention, 1), 1, atol=1e-4)
            assert np.shape(target.attention) == (4, 8)


def test_a_clip_that_is_worse_than_the_others_lowers_the_score() -> None:
    features = ROUTINES[16].copy()
    features[3, :3] -= 12
    evidence = explain(head_of(epochs=40), features, action="Ball")
    assert np.argmin(evidence.targets["A"].contributions) == 3
    assert evidence.targets["A"].contributions[3] < 0
    assert evidence.targets["A"].grade_effects[3][3] < 0


def test_percentile_and_nearest_are_of_the_same_action() -> None:
    evidence = explain(head_of(), ROUTINES[17], action="Hoop")
    assert evidence.training_set == "the 12 Hoop routines of cup.csv that the head was trained on"
    nearest = evidence.targets["A"].nearest
    assert (nearest[0].name, nearest[0].score) == ("v17", pytest.approx(SCORES[17, 0]))
    assert nearest[0].similarity > 0.99 > nearest[1].similarity > nearest[2].similarity
    assert all(int(neighbour.name[1:]) % 2 for neighbour in nearest)
    head = head_of(epochs=40)
    percentiles = [explain(head, x, action="Hoop").targets["A"].percentile for x in ROUTINES[1::2]]
    assert np.corrcoef(percentiles, SCORES[1::2, 0])[0, 1] > 0.5
    assert all(0 <= percentile <= 100 for percentile in percentiles)


def test_a_head_without_names_shows_none() -> None:
    evidence = explain(head_of(names=False), ROUTINES[0], action="Ball")
    assert evidence.targets["A"].nearest == []
    assert evidence.targets["A"].percentile is not None


def test_a_routine_like_those_in_training_raises_no_doubt() -> None:
    assert explain(head_of(), ROUTINES[3], action="Hoop", filming=FILMING).doubts == []
    assert explain(head_of(filming=UNKNOWN), ROUTINES[3], action="Hoop", filming=FILMING).doubts == []
    assert explain(head_of(), ROUTINES[3], action="Hoop", filming=replace(FILMING, aspect=1.52)).doubts == []


@pytest.mark.parametrize(
    ("features", "change", "doubt"),
    [
        (ROUTINES[3] + 30, {}, "unlike the training routines"),
        (ROUTINES[3, :6], {}, "has 6 clips, and the training routines have 8"),
        (ROUTINES[3], {"frames_per_s": 50.0}, "has 50 frames a second, and the training videos have 25"),
        (ROUTINES[3], {"aspect": 16 / 9}, "1.778 times as wide as high, and those of the training videos 1.5"),
        (ROUTINES[3], {"cuts_s": [3.24, 5, 9]}, "cut at 3.2 s (the first of 3 cuts), and no training video has a cut"),
        (ROUTINES[3], {"stills_s": [[1, 4.5]]}, "stands still from 1.0 to 4.5 s, and no training video has a still"),
    ],
)
def test_each_doubt_has_its_sentence(features: np.ndarray, change: dict, doubt: str) -> None:
    (sentence,) = explain(head_of(), features, action="Hoop", filming=replace(FILMING, **change)).doubts
    assert doubt in sentence


def test_training_videos_with_cuts_and_stills_make_them_no_reason_for_doubt() -> None:
    usual = replace(FILMING, cuts_s=[2.0], stills_s=[[1.0, 4.0]])
    assert explain(head_of(filming=usual), ROUTINES[3], action="Hoop", filming=usual).doubts == []


def test_a_public_head_has_contributions_and_nothing_to_compare_with() -> None:
    network = ReferenceCoFInAl(ReferenceConfig(12, 8, 8, 16, 1, 1, 4, 8, 8, 5, weight_type=0)).eval()
    evidence = explain(Head(network, {"targets": ["Total"], "actions": []}), ROUTINES[0])
    assert len(evidence.targets["Total"].contributions) == 8
    assert evidence.targets["Total"].percentile is None
    assert (evidence.training_set, evidence.doubts) == (None, [])


def test_the_command_explains_a_video_and_its_features_alike(videos: Path, store: Path, trained: Path) -> None:
    of_video, of_features = (score_video(path, trained) for path in (videos / "v3.mp4", store / "v3.npy"))
    assert of_video.clip_times == of_features.clip_times == of_video.evidence.times
    assert of_features.evidence == of_video.evidence
    assert of_video.evidence.targets["score"].nearest[0].name == "v3"
    json.dumps(of_video.as_json()["evidence"], allow_nan=False)


def test_an_anonymous_head_file_holds_no_name_of_a_training_video(store: Path, videos: Path, tmp_path: Path) -> None:
    heads = {anonymous: tmp_path / f"{anonymous}.safetensors" for anonymous in (False, True)}
    for anonymous, head in heads.items():
        labels = videos / "labels.csv"
        train_head(store, "csv", labels=labels, out=head, epochs=1, folds=2, anonymous=anonymous)
    assert rb"\"v3\"" in heads[False].read_bytes()
    assert all(rf"\"v{i}\"".encode() not in heads[True].read_bytes() for i in range(8))
    assert score_video(store / "v3.npy", heads[True]).evidence.targets["score"].nearest == []
