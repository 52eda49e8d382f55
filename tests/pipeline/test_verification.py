"""extract-features --verify names whatever in a store is not as recorded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cofinal.data.feature_store import FeatureStore
from cofinal.data.source_files import file_sha256
from cofinal.pipeline.verification import verify_store


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "out"))


def record_again(store: Path, name: str, **changes: object) -> None:
    record = FeatureStore(store).records[name] | changes
    with (store / "videos.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def rewrite(store: Path, name: str, array: np.ndarray) -> None:
    """Write another array whose hash is recorded."""
    np.save(store / f"{name}.npy", array)
    record_again(store, name, features_sha256=file_sha256(store / f"{name}.npy"))


def test_a_store_as_it_should_be(command, copy: Path, videos: Path) -> None:
    before = {path: path.read_bytes() for path in copy.iterdir()}
    ended = command("extract-features", "--verify", copy)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.strip() == f"8 arrays checked, 0 problems: {copy}"
    ended = command("extract-features", "--verify", videos, copy)
    assert ended.code == 0
    assert ended.out.strip() == f"8 arrays checked, 8 videos compared, 0 problems: {copy}"
    assert {path: path.read_bytes() for path in copy.iterdir()} == before
    ended = command("extract-features", copy, "--verify", "--json")
    assert json.loads(ended.out) == {
        "format": 1, "store": str(copy), "arrays": 8, "videos": 0, "failed_videos": 0, "problems": [],
    }  # fmt: skip


def test_everything_that_is_wrong_is_named(command, copy: Path) -> None:
    (copy / "v0.npy").unlink()
    content = bytearray((copy / "v1.npy").read_bytes())
    content[-1] ^= 1
    (copy / "v1.npy").write_bytes(content)
    rewrite(copy, "v2", np.full((1, 1024), np.nan, np.float32))
    rewrite(copy, "v3", np.ones((1, 512), np.float32))
    rewrite(copy, "v4", np.ones((3, 1024), np.float32))
    (copy / "v5.npy").write_bytes((copy / "v6.npy").read_bytes()[:2000])
    record_again(copy, "v6", features_sha256=None)
    shutil.copy(copy / "v7.npy", copy / "guest.npy")
    with (copy / "videos.jsonl").open("a") as file:
        file.write('{"video": "v7", "si')
    torn = len((copy / "videos.jsonl").read_text().splitlines())
    ended = command("extract-features", "--verify", copy)
    assert ended.code == 1
    *said, last = ended.out.strip().splitlines()
    assert last == f"8 arrays checked, 9 problems: {copy}"
    for line, (what, problem) in zip(
        said,
        [
            (f"videos.jsonl line {torn}", "is torn"),
            ("guest.npy", "has no record"),
            ("v0.npy", "is recorded but missing"),
            ("v1.npy", "does not have the recorded sha256"),
            ("v2.npy", "NaN or infinity in 1 of 1"),
            ("v3.npy", "has shape (1, 512), recorded is (1, 1024)"),
            ("v4.npy", "has shape (3, 1024), recorded is (1, 1024)"),
            ("v5.npy", "cannot be read as a .npy array"),
            ("v6.npy", "does not have the recorded sha256"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{copy}/{what} ")
        assert problem in line


def test_videos_are_compared_by_content_where_they_are_given(copy: Path, videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    path = tmp_path / "videos/v3.mp4"
    content, facts = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    shutil.copystat(videos / "v3.mp4", path)  # size and time are as recorded: a run would not notice
    assert path.stat().st_size == facts.st_size
    path.with_name("new.mp4").write_bytes(b"")
    path.with_name("v4.mp4").unlink()
    path.with_name("v4.mp4").symlink_to("gone.mp4")
    found = verify_store(copy, tmp_path / "videos")
    assert found.videos == 9
    assert [(Path(entry["what"]).name, entry["problem"].split(";")[0]) for entry in found.problems] == [
        ("new.mp4", "has not been extracted"),
        ("v3.mp4", "is not the file that its features were made from"),
        ("v4.mp4", "cannot be read: No such file or directory"),
    ]


def test_failed_videos_are_no_fault_of_the_store(command, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    assert command("extract-features", tmp_path / "bad.mp4", copy).code == 1
    ended = command("extract-features", "--verify", copy)
    assert ended.code == 0
    assert "0 problems (1 videos are recorded as failed)" in ended.out
    (problem,) = verify_store(copy, tmp_path / "bad.mp4").problems
    assert problem["problem"].startswith("failed: ")


def test_an_array_whose_replacement_was_stopped_is_named(copy: Path) -> None:
    with (copy / "videos.jsonl").open("a") as file:
        file.write('{"video": "v2", "replaced": true}\n')
    (problem,) = verify_store(copy).problems
    assert problem["what"] == f"{copy}/v2.npy"
    assert "was being replaced" in problem["problem"]
    assert "v2" not in FeatureStore(copy).names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verify"], "extract-features --verify OUT"),
        (["--verify", "gone"], "no manifest.json"),
        (["--verify", "."], "no manifest.json"),
        (["--verify", "out", "--overwrite"], "--overwrite has no effect with --verify"),
        (["--verify", "out", "--backbone", "i3d"], "--backbone has no effect with --verify"),
        (["--verify", "gone.mp4", "out"], "gone.mp4 does not exist"),
        ([], "extract-features VIDEOS OUT"),
        (["videos"], "extract-features VIDEOS OUT"),
    ],
)
def test_bad_input(command, copy: Path, tmp_path: Path, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("extract-features", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_store_that_cannot_be_written_can_be_verified(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cofinal.data.lock.Lock.acquire", refuse)
    assert verify_store(copy).problems == []
