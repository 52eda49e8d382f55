"""Several readers: the store is the same to the byte, and so is what a failure or an interruption leaves."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cofinal.data.feature_store import FeatureStore
from cofinal.data.records import is_success
from cofinal.pipeline.verification import verify_store

DYING_RUN = Path(__file__).with_name("dying_run.py")
OPTIONS = ["--backbone", "i3d", "--recipe", "actionnet-i3d", "--weights", "random"]
TIMES = {"seconds", "stage_seconds"}


@pytest.fixture
def mixed(write_video, tmp_path: Path) -> Path:
    """A folder of five videos, of which one is none and one is too short."""
    folder = tmp_path / "videos"
    for seed in range(4):
        write_video(folder / f"v{seed}.mp4", seconds=3.3 if seed else 1.4, seed=seed)
    (folder / "text.mp4").write_text("no video")
    return folder


def content(store: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a store's arrays, and its records without times."""
    opened = FeatureStore(store)
    arrays = {name: opened.path(name).read_bytes() for name in opened.names()}
    records = {n: {k: v for k, v in record.items() if k not in TIMES} for n, record in opened.records.items()}
    return arrays, records


def test_the_store_is_the_same_with_any_number_of_readers(command, mixed: Path, tmp_path: Path) -> None:
    ended = {
        readers: command("extract-features", mixed, tmp_path / readers, *OPTIONS, "--readers", readers)
        for readers in ("1", "3", "auto")
    }
    assert {end.code for end in ended.values()} == {1}
    assert content(tmp_path / "1") == content(tmp_path / "3") == content(tmp_path / "auto")
    assert content(tmp_path / "3")[0].keys() == {"v1", "v2", "v3"}
    counted = re.findall(r"^\[(\d)/5\] (\S+)$", ended["3"].err, re.MULTILINE)
    assert [int(count) for count, _ in counted] == [1, 2, 3, 4, 5]
    assert {name for _, name in counted} == {path.name for path in mixed.iterdir()}
    assert "failed: " in ended["3"].err
    again = command("extract-features", mixed, tmp_path / "3", *OPTIONS, "--readers", "2")
    assert "0 videos extracted (0 clips, " in again.err
    assert "3 already done, 2 failed" in again.err


@pytest.mark.parametrize("readers", ["0", "-1", "many", "1.5"])
def test_a_number_of_readers_that_makes_no_sense(readers: str, command, mixed: Path, tmp_path: Path) -> None:
    ended = command("extract-features", mixed, tmp_path / "out", *OPTIONS, f"--readers={readers}")
    assert ended.code == 2
    assert f"readers must be auto or a number of 1 or more, not {readers}" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGKILL", "SIGINT"])
def test_a_stopped_run_goes_on_with_any_number_of_readers(by: str, command, write_video, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "out"
    for seed in range(6):
        write_video(videos / f"v{seed}.mp4", seconds=3.3, seed=seed)
    run = subprocess.run(
        [sys.executable, DYING_RUN, by, "write:6", videos, store, *OPTIONS, "--readers", "3"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == (130 if by == "SIGINT" else -signal.SIGKILL), run.stderr
    if by == "SIGINT":
        assert run.stderr.strip().splitlines()[-1].startswith("interrupted: 2 of 6 videos are done")
    assert sum(map(is_success, FeatureStore(store).records.values())) == 2
    assert command("extract-features", videos, store, *OPTIONS, "--readers", "2").code == 0
    assert command("extract-features", videos, tmp_path / "undisturbed", *OPTIONS).code == 0
    assert content(store) == content(tmp_path / "undisturbed")
    assert verify_store(store).problems == []
