"""Any file name is stored, recorded and printed on one line, and none leads out of the store."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cofinal.data.feature_store import FeatureStore
from cofinal.pipeline.console import printable

ODD = [
    "-dash",
    "--help",
    "  spaces  ",
    "two\nlines",
    "\x1b[2Jescape",
    "\u00e9",
    "e\u0301",
    "Case",
    "case",
    "日本語",
    "latin-\udce9",
    "100%s{x}[bold]",
    "~",
    "a\\b",
    "x" * 251,
]


def test_odd_names(command, videos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ODD:
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        os.link(videos / "v0.mp4", folder / f"sub/{name}.mp4")
    os.link(videos / "v0.mp4", folder / f"{'y' * 252}.ts")  # 255 bytes; with .npy it has 256
    os.symlink(folder, folder / "sub/loop")
    os.symlink("itself.mp4", folder / "itself.mp4")
    os.symlink("gone.mp4", folder / "dangling.mp4")
    os.symlink("/dev/zero", folder / "endless.mp4")
    os.mkfifo(folder / "pipe.mp4")
    ended = command("extract-features", folder, out, "--backbone", "i3d", "--weights", "random", "--json")
    assert ended.code == 1
    summary = json.loads(ended.out)
    assert summary["extracted"] == len(ODD)
    reasons = {Path(failure["video"]).name[:8]: failure["error"] for failure in summary["failed"]}
    assert set(reasons) == {"yyyyyyyy", "itself.m", "dangling", "endless.", "pipe.mp4"}
    assert reasons["yyyyyyyy"].endswith("cannot be a file's name (File name too long); rename the video")
    assert "symbolic links" in reasons["itself.m"]
    assert "No such file" in reasons["dangling"]
    assert "is not a file" in reasons["endless."]
    assert "is not a file" in reasons["pipe.mp4"]
    assert all(printable(line) == line for line in ended.err.splitlines())
    assert sum("[20/20]" in line for line in ended.err.splitlines()) == 1
    lines = [line for line in ended.err.splitlines() if not line.startswith(("extracting ", "loading "))]  # progress
    assert len(lines) == 20 + 5 + 1  # one per video, one per failure, and the warning of random weights
    store = FeatureStore(out)
    assert store.names() == sorted(f"sub/{name}" for name in ODD)
    assert {name for name in store.records if "error" not in store.records[name]} == set(store.names())
    again = command("extract-features", folder, out, "--weights", "random", "--json")
    assert json.loads(again.out)["already_done"] == len(ODD)
    assert command("extract-features", "--verify", folder, out).code == 1  # because of the five
    assert command("extract-features", "--verify", out).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_file_where_a_folder_should_be_costs_its_videos_only(command, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    shutil.copy(videos / "v0.mp4", tmp_path / "in/a/x.mp4")
    shutil.copy(videos / "v1.mp4", tmp_path / "in/y.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("in the way")
    ended = command("extract-features", tmp_path / "in", tmp_path / "out", "--weights", "random")
    assert ended.code == 1
    assert "out/a/x.npy cannot be a file's name (Not a directory)" in ended.err
    assert FeatureStore(tmp_path / "out").names() == ["y"]


@pytest.mark.parametrize("names", [("Case", "case"), ("\u00e9", "e\u0301"), ("SUB/x", "sub/x")])
def test_names_that_the_file_system_would_merge_are_refused(
    command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    for name in names:
        (tmp_path / f"in/{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "v0.mp4", tmp_path / f"in/{name}.mp4")
    monkeypatch.setattr(FeatureStore, "_merges_names", lambda self: True)  # no such file system is at hand
    ended = command("extract-features", tmp_path / "in", tmp_path / "out", "--weights", "random")
    assert ended.code == 2
    assert "would share one file" in ended.err
    assert not list((tmp_path / "out").glob("[!.]*"))
    shutil.rmtree(tmp_path / "in")
    (tmp_path / f"in/{names[0]}.mp4").parent.mkdir(parents=True)
    shutil.copy(videos / "v0.mp4", tmp_path / f"in/{names[0]}.mp4")
    assert command("extract-features", tmp_path / "in", tmp_path / "out", "--weights", "random").code == 0
    (tmp_path / f"in/{names[0]}.mp4").rename(tmp_path / "x.mp4")
    (tmp_path / f"in/{names[1]}.mp4").parent.mkdir(exist_ok=True)
    (tmp_path / "x.mp4").rename(tmp_path / f"in/{names[1]}.mp4")
    assert command("extract-features", tmp_path / "in", tmp_path / "out", "--weights", "random").code == 2


def test_this_file_system_tells_names_apart_as_the_store_finds(tmp_path: Path) -> None:
    (tmp_path / "Case").touch()
    (tmp_path / "\u00e9").touch()
    merges = (tmp_path / "case").exists() or (tmp_path / "e\u0301").exists()
    assert FeatureStore(tmp_path)._merges_names() == merges
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Case", "\u00e9"]


def test_a_linked_array_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    manifest = {"backbone": "i3d", "recipe": "gdlt-i3d", "weights_sha256": "0"}
    np.save(tmp_path / "theirs.npy", np.zeros((1, 2), np.float32))
    before = (tmp_path / "theirs.npy").read_bytes()
    with FeatureStore(tmp_path / "out") as store:
        store.open(manifest)
        (tmp_path / "out/x.npy").symlink_to(tmp_path / "theirs.npy")
        store.write("x", np.ones((1, 2), np.float32), {"size": 0, "mtime_ns": 0, "sha256": "0"})
        assert store.load("x").sum() == 2
    assert (tmp_path / "theirs.npy").read_bytes() == before
    assert not (tmp_path / "out/x.npy").is_symlink()
