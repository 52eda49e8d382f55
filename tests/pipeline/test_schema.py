"""What --json prints fits the JSON Schema that is shipped."""

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from cofinal import score_videos

SCHEMA = json.loads((files("cofinal.pipeline") / "score.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_documents_of_several_videos_fit(command, videos: Path, store: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").touch()
    table = tmp_path / "l.csv"
    table.write_text("video,score\nv0,5\nv1,6\nv2,6.5\n")
    named = [videos / "v0.mp4", tmp_path / "broken.mp4", store / "v1.npy", store / "v2.npy"]
    ended = command("score-video", *named, "--head", trained, "--json", "--dataset", "csv", "--labels", table)
    documents = [json.loads(line) for line in ended.out.splitlines()]
    assert [sorted(document)[0] for document in documents] == ["action"] * 3 + ["error", "evaluation"]
    for document in documents:
        VALIDATOR.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(documents[0] | {"format": 2})
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(documents[0] | {"unknown": 1})


@pytest.mark.parametrize("head_type", ["gdlt", "cofinal-paper"])
def test_documents_of_other_heads_fit(command, store: Path, videos: Path, tmp_path: Path, head_type: str) -> None:
    head = tmp_path / "h.safetensors"
    run = ["train-head", store, "--dataset", "csv", "--labels", videos, "--epochs", 1, "--folds", 2, "--out", head]
    assert command(*run, "--head-type", head_type, "--set", "width=8").code == 0
    for score in score_videos(store / "v2.npy", head).scores.values():
        VALIDATOR.validate(json.loads(json.dumps(score.as_json())))
