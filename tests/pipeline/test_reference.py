"""Public heads score and are judged, and no number comes out whose meaning nobody has stated."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from cofinal import score_video
from cofinal.data.text_labels import RG_HEADER
from cofinal.models.checkpoint import load_reference
from cofinal.models.reference import ReferenceCoFInAl, ReferenceConfig
from cofinal.pipeline.evaluation import srcc

CONFIG = ReferenceConfig(
    feature_dim=1024, hidden=16, width=16, feedforward=24, num_encoder_layers=1, num_decoder_layers=2, num_grades=4,
    fine_hidden=16, fine_dim=100, num_subgrades=100, weight_type=2,
)  # fmt: skip
SAID = ["--target", "Total", "--weight-type", 2]


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A small public head of random weights."""
    torch.manual_seed(0)
    tensors = ReferenceCoFInAl(CONFIG).state_dict()
    tensors["etf_vec1"] = torch.randn(100, 100)
    path = tmp_path / "Ball_best.pkl"
    torch.save(tensors, path)
    return path


@pytest.fixture
def rg(store: Path, tmp_path: Path) -> Path:
    """Features of unknown origin with RG labels beside them: five balls to train on, three to test."""
    for i in range(8):
        (tmp_path / "features").mkdir(exist_ok=True)
        shutil.copy(store / f"v{i}.npy", tmp_path / f"features/Ball_{i:03}.npy")
    for split, rows in (("train", range(5)), ("test", range(5, 8))):
        lines = [f"Ball_{i:03}\t{5 + i}\t{4 + i / 2}\t{9 + i * 1.5}\t0\t90" for i in rows]
        (tmp_path / f"{split}.txt").write_text("\n".join(["\t".join(RG_HEADER), *lines]) + "\n")
    return tmp_path / "features"


def sentence(ended) -> str:
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    return ended.err.strip().splitlines()[-1]


@pytest.mark.shared
def test_the_points_are_those_of_the_public_code(shared: Path, tmp_path: Path) -> None:
    expected = np.load(shared / "golden/cofinal_reference_vst.npz")
    np.save(tmp_path / "x.npy", np.random.default_rng(10).standard_normal((71, 1024), np.float32))
    said = score_video(
        tmp_path / "x.npy", shared / "golden/cofinal_reference_vst.pkl", target="Total", weight_type=3, action="Clubs"
    )
    assert said.targets["Total"].score == pytest.approx(25 * expected["score_71"].item(), abs=1e-4)


def test_features_are_scored_and_what_the_file_lacks_is_absent(
    command, store: Path, head: Path, tmp_path: Path
) -> None:
    run = ["score-video", store / "v0.npy", "--head", head, *SAID, "--action", "Ball"]
    ended = command(*run, "--json")
    said = json.loads(ended.out)
    jsonschema.validate(said, json.loads((files("cofinal.pipeline") / "score.schema.json").read_text()))
    assert said["action"] == "Ball"
    total = said["targets"]["Total"]
    assert set(total) == {"coarse", "fine", "score"}
    assert set(total["coarse"]) == {"grade", "of", "probabilities"}
    assert set(total["fine"]) == {"subgrade", "of"}
    assert total["coarse"]["probabilities"][total["coarse"]["grade"] - 1] == max(total["coarse"]["probabilities"])
    features = torch.from_numpy(np.load(store / "v0.npy"))[None]
    with torch.inference_mode():
        output = load_reference(head, weight_type=2)(features)
    assert total["score"] == pytest.approx(25 * output.score.item(), abs=1e-4)
    assert total["fine"]["subgrade"] == output.subgrade.item() + 1
    assert any("Total of Ball" in warning and "times 25" in warning for warning in said["warnings"])
    assert any("gdlt-i3d" in warning and "only the width was checked" in warning for warning in said["warnings"])

    ended = command(*run, "--report", tmp_path / "r.html")
    assert f"{total['score']:.2f}  {total['coarse']['grade']} of 4  " in ended.out
    page = (tmp_path / "r.html").read_text()
    assert f"{total['score']:.2f}" in page
    assert "no bounds in points" in page


def test_a_video_is_scored_once_the_extractor_is_said(command, videos: Path, store: Path, head: Path) -> None:
    run = ["score-video", videos / "v0.mp4", "--head", head, *SAID]
    assert "--extractor BACKBONE:RECIPE:WEIGHTS" in sentence(command(*run))
    extractor = ["--extractor", "i3d:gdlt-i3d:published"]
    ended = command(*run, *extractor, "--json")
    said = json.loads(ended.out)
    assert said["extractor"]["recipe"] == "gdlt-i3d"
    cached = score_video(store / "v0.npy", head, target="Total", weight_type=2, extractor=extractor[1])
    assert cached.targets["Total"].score == said["targets"]["Total"]["score"]
    assert len(cached.warnings) == 1
    error = sentence(
        command("score-video", store / "v0.npy", "--head", head, *SAID, "--extractor", "i3d:gdlt-vst:published")
    )
    assert "gdlt-vst" in error
    assert "gdlt-i3d" in error


@pytest.mark.parametrize("said", [[], ["--target", "Total"], ["--weight-type", 2]])
def test_nothing_is_scored_before_its_meaning_is_said(command, store: Path, head: Path, said: list) -> None:
    error = sentence(command("score-video", store / "v0.npy", "--head", head, *said))
    assert "Ball_best.pkl does not say what it scores: add --target NAME" in error


def test_heads_that_say_it_themselves_are_not_told(command, store: Path, trained: Path) -> None:
    run = ["score-video", store / "v0.npy", "--head", trained]
    assert "leave --target and --weight-type out" in sentence(command(*run, "--weight-type", 2))
    assert "leave --extractor out" in sentence(command(*run, "--extractor", "i3d:gdlt-i3d:published"))


def test_bad_public_heads_and_features(command, store: Path, head: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.zeros((3, 7), np.float32))
    assert "width 7" in sentence(command("score-video", tmp_path / "narrow.npy", "--head", head, *SAID))
    head.write_bytes(b"not a head")
    assert "Ball_best.pkl is damaged" in sentence(command("score-video", store / "v0.npy", "--head", head, *SAID))


EVALUATED = ["--dataset", "rg", *SAID, "--action", "Ball", "--json"]


def test_figures_are_of_the_test_split(command, rg: Path, head: Path) -> None:
    lines = [json.loads(line) for line in command("score-video", rg, "--head", head, *EVALUATED).out.splitlines()]
    scores = {Path(line["video"]).stem: line["targets"]["Total"]["score"] for line in lines[:-1]}
    results = lines[-1]["evaluation"]
    assert results["evaluated"] == "test"
    figures = results["targets"]["Ball/Total"]
    assert figures["n"] == 3
    predicted = np.array([scores[f"Ball_{i:03}"] for i in (5, 6, 7)])
    truth = np.array([16.5, 18.0, 19.5])
    assert figures["srcc"] == pytest.approx(srcc(truth, predicted))
    assert figures["mae"] == pytest.approx(np.abs(truth - predicted).mean(), abs=1e-3)
    assert "test split: this flatters" in results["warnings"][-1]


def test_without_a_test_split_all_are_evaluated_and_it_says_so(command, store: Path, videos: Path, head: Path) -> None:
    run = ["score-video", store, "--head", head, "--target", "score", "--weight-type", 2, "--dataset", "csv"]
    ended = command(*run, "--labels", videos, "--json")
    results = json.loads(ended.out.splitlines()[-1])["evaluation"]
    assert (results["evaluated"], results["targets"]["score"]["n"]) == ("all", 8)
    assert "if the head was not trained on them" in results["warnings"][-1]
    ended = command(*run, "--labels", videos)
    assert "gdlt-i3d" in ended.err
    assert "against the judges' scores" in ended.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--target", "Total"], "one of Ball, Clubs, Hoop, Ribbon; name it with --action"),
        (["--target", "Total", "--action", "Clubs"], "no label row is left for Total, Clubs"),
        (["--target", "TES", "--action", "Ball"], "has Difficulty, Execution, Total, but"),
    ],
)
def test_bad_input_to_the_evaluation(command, rg: Path, head: Path, change: list, message: str) -> None:
    run = ["score-video", rg, "--head", head, "--dataset", "rg", "--weight-type", 2]
    assert message in sentence(command(*run, *change))
