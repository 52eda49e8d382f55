"""Every setting of a head and its training is reached without code, and none is taken wrongly or in silence."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

from cofinal import train_head
from cofinal.models.checkpoint import load_head
from cofinal.models.head_types import HEAD_TYPES
from cofinal.pipeline.options import TrainingOptions
from cofinal.pipeline.settings import OF_DATASET, configure

DATASET = {"feature_dim": 7, "targets": ("A",), "ranges": ((0, 5),), "num_actions": 0}


def configured(**options) -> tuple[dict, dict]:
    """The configuration and the recipe of some options."""
    make_config, recipe = configure(TrainingOptions(**options))
    return asdict(make_config(**DATASET)), asdict(recipe)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_without_options_a_head_has_its_own_settings(head_type: str) -> None:
    config, recipe = configured(head_type=head_type)
    assert config == asdict(HEAD_TYPES[head_type].config(**DATASET))
    assert recipe == asdict(HEAD_TYPES[head_type].recipe())


def test_options_of_their_own_and_set_reach_configuration_and_recipe() -> None:
    default_config, default_recipe = configured()
    config, recipe = configured(
        grades=3,
        subgrades=5,
        epochs=2,
        lr=0.25,
        settings=["width=16", "tokens=both", "temperature=0.5", "target_mixing=false", "batch_size=4", "mixup=0"],
    )
    changed = {"num_grades": 3, "num_subgrades": 5, "width": 16, "tokens": "both", "temperature": 0.5}
    assert config == default_config | changed
    assert recipe == default_recipe | {
        "epochs": 2,
        "learning_rate": 0.25,
        "target_mixing": False,
        "batch_size": 4,
        "mixup": 0.0,
    }
    assert type(recipe["mixup"]) is float
    assert configured(settings=["target_mixing=true"]) == (default_config, default_recipe)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
@pytest.mark.parametrize("text", ["colour=red", "width", "feature_dim=9", "num_training=3", "targets=A", "=3", ""])
def test_an_unknown_setting_lists_the_known_ones(head_type: str, text: str) -> None:
    with pytest.raises(ValueError, match="unknown setting") as raised:
        configured(head_type=head_type, settings=[text])
    listed = str(raised.value).rpartition("takes ")[2].split(", ")
    kind = HEAD_TYPES[head_type]
    assert listed == sorted({field.name for x in (kind.config, kind.recipe) for field in fields(x)} - OF_DATASET)
    assert {"num_grades", "num_subgrades", "width", "epochs", "learning_rate", "batch_size"} <= set(listed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=wide", "width is a whole number"),
        ("width=8.5", "width is a whole number"),
        ("width=", "width is a whole number"),
        ("dropout=much", "dropout is a number"),
        ("dropout=nan", "dropout is a number"),
        ("learning_rate=inf", "learning_rate is a number"),
        ("target_mixing=maybe", "target_mixing is true or false"),
        ("tokens=frames", "known are summaries, clips, both"),
        ("num_members=0", "at least 1"),
        ("num_subgrades=1", "at least 2 sub-grades"),
        ("epochs=0", "at least 1"),
        ("batch_size=0", "at least 1"),
        ("softness=0", "more than 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured(settings=[text])


def test_what_is_set_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="epochs is set twice"):
        configured(epochs=3, settings=["epochs=4"])
    with pytest.raises(ValueError, match="num_grades is set twice"):
        configured(grades=3, settings=["num_grades=3"])


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Twelve made-up feature files with scores beside them."""
    (tmp_path / "features").mkdir()
    for i in range(12):
        np.save(tmp_path / f"features/r{i}.npy", np.random.default_rng(i).normal(size=(5, 8)).astype(np.float32))
    (tmp_path / "labels.csv").write_text("video,score\n" + "".join(f"r{i},{5 + i}\n" for i in range(12)))
    return tmp_path / "features"


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_results_record_the_whole_configuration_and_recipe(command, features: Path, head_type: str) -> None:
    head = features.parent / "h.safetensors"
    run = ["train-head", features, "--dataset", "csv", "--out", head, "--head-type", head_type, "--folds", 2, "--json"]
    subgrades = [] if head_type == "gdlt" else ["--subgrades", 2]
    ended = command(
        *run, "--grades", 3, *subgrades, "--epochs", 2, "--lr", 0.001, "--set", "width=8", "--set", "dropout=0"
    )
    assert ended.code == 0, ended.err
    results = json.loads(ended.out)
    training = results["training"]
    assert (training["head_type"], training["epochs"]) == (head_type, 2)
    config, recipe = training["config"], training["recipe"]
    assert (config["num_grades"], config["num_subgrades"]) == (3, 0 if head_type == "gdlt" else 2)
    assert (config["width"], config["dropout"], config["num_training"]) == (8, 0, 12)
    assert (recipe["epochs"], recipe["learning_rate"]) == (2, 0.001)
    assert recipe.keys() == {field.name for field in fields(HEAD_TYPES[head_type].recipe)}
    assert json.loads(json.dumps(asdict(load_head(head).network.config))) == config


def test_verdicts_keep_to_the_edges_of_grades_that_the_user_gives(command, features: Path, tmp_path: Path) -> None:
    head = tmp_path / "h.safetensors"
    run = ["train-head", features, "--dataset", "csv", "--epochs", 1, "--folds", 2, "--set", "width=8", "--out", head]
    ended = command(*run, "--range", "score=0:30", "--grade-edges", "score=10,20.5,25,26")
    assert ended.code == 0
    assert load_head(head).network.config.num_grades == 5
    for file in sorted(features.glob("*.npy"))[:4]:
        coarse = json.loads(command("score-video", file, "--head", head, "--json").out)["targets"]["score"]["coarse"]
        assert coarse["edges"] == [0, 10, 20.5, 25, 26, 30]
        assert coarse["span"] == coarse["edges"][coarse["grade"] - 1 : coarse["grade"] + 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grade-edges", "score=10,20"], "needs the lowest and highest possible score: add --range score=LOW:HIGH"),
        (["--grade-edges", "score=10,30", "--range", "score=0:30"], "must lie between 0 and 30, the range of score"),
        (["--grade-edges", "score=20,10", "--range", "score=0:30"], "is not a list of ascending scores"),
        (["--grade-edges", "TES=10", "--range", "score=0:30"], "unknown target 'TES'; known are score"),
        (["--grade-edges", "score=9,12", "--range", "score=0:30", "--grades", "4"], "--grades say 3 and 4"),
        (["--grade-edges", "score=9", "--head-type", "gdlt"], "the grades of gdlt are those of its paper"),
        (["--grade-edges", "score=9", "--head-type", "cofinal-paper"], "leave --grade-edges out"),
    ],
)
def test_grade_edges_that_do_not_fit_are_refused(command, features: Path, arguments: list, message: str) -> None:
    ended = command("train-head", features, "--dataset", "csv", *arguments)
    assert ended.code == 2
    assert message in ended.err.splitlines()[-1]


def test_a_setting_changes_the_head(features: Path) -> None:
    run = {"out": features.parent / "h.safetensors", "epochs": 1, "folds": 2}
    first, again, other = (
        train_head(features, "csv", settings=settings, **run).predictions
        for settings in (None, None, ["temperature=0.7"])
    )
    assert first == again
    assert [entry["predicted"] for entry in first] != [entry["predicted"] for entry in other]
