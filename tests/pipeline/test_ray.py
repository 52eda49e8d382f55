"""extract-features on a Ray cluster of this machine: store, messages and endings are those of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cofinal.data.feature_store import FeatureStore, is_success
from cofinal.pipeline.verification import verify_store

OPTIONS = ["--backbone", "i3d", "--recipe", "actionnet-i3d", "--weights", "random"]
TIMES = {"seconds", "stage_seconds"}
COMMAND = "from cofinal.pipeline.cli import extract_features_command as command; command()"
MARK = "COFINAL_TEST_RUN"


def content(store: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a store's arrays, and its records without times."""
    opened = FeatureStore(store)
    arrays = {name: opened.path(name).read_bytes() for name in opened.names()}
    records = {n: {k: v for k, v in record.items() if k not in TIMES} for n, record in opened.records.items()}
    return arrays, records


@pytest.fixture
def ray() -> Any:
    """Ray, or a skip that says so."""
    return pytest.importorskip("ray", reason="NOT TESTED: --ray, because Ray is not installed (the extra `ray`)")


@pytest.mark.parametrize("arguments", ["VIDEOS OUT --ray", "--ray VIDEOS OUT", "--ray auto VIDEOS OUT"])
def test_without_ray_the_option_says_what_is_missing(
    arguments: str, command, write_video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "videos/v.mp4")
    monkeypatch.delitem(sys.modules, "cofinal.extractors.ray_cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    paths = {"VIDEOS": tmp_path / "videos", "OUT": tmp_path / "out"}
    ended = command("extract-features", *(paths.get(word, word) for word in arguments.split()))
    assert ended.code == 2
    assert ended.err == "error: --ray needs Ray: pip install 'cofinal[ray]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", ["videos out --ray headnode", "--ray headnode videos out --overwrite"])
def test_an_address_without_a_port_is_named(arguments: str, command) -> None:
    ended = command("extract-features", *arguments.split())
    assert ended.code == 2
    assert "headnode is not the address of a Ray cluster: an address is host:port, auto or local" in ended.err


@pytest.mark.parametrize("arguments", ["videos out more --ray", "videos out more --ray --overwrite", "videos out more"])
def test_other_surplus_arguments_are_named(arguments: str, command) -> None:
    ended = command("extract-features", *arguments.split())
    assert ended.code == 2
    assert "Got unexpected extra argument(s) (more)" in ended.err


def test_videos_at_a_url_are_refused(command, write_video, tmp_path: Path) -> None:
    content = write_video(tmp_path / "v.mp4").read_bytes()
    fsspec.filesystem("memory").pipe_file("/ray/v.mp4", content)
    ended = command("extract-features", "memory://ray", tmp_path / "out", *OPTIONS, "--ray")
    assert ended.code == 2
    assert "--ray reads videos from a file system that all nodes see, not from a URL: copy them there" in ended.err


@pytest.mark.slow
def test_the_store_is_the_same_as_without_ray(ray, command, write_video, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        write_video(tmp_path / f"videos/v{seed}.mp4", seconds=3.3 if seed else 1.4, seed=seed)
    (tmp_path / "videos/text.mp4").write_text("no video")
    ended = command("extract-features", "videos", "out", *OPTIONS, "--json", "--ray")
    assert ended.code == 1, ended.err
    summary = json.loads(ended.out)
    assert (summary["extracted"], summary["already_done"], len(summary["failed"])) == (3, 0, 2)
    assert "[5/5] " in ended.err
    assert command("extract-features", tmp_path / "videos", "alone", *OPTIONS).code == 1
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    one, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("out", "alone"))
    assert one == other
    again = command("extract-features", "videos", "out", *OPTIONS, "--ray")
    assert again.code == 1
    assert "0 videos extracted (0 clips, " in again.err
    assert "3 already done, 2 failed" in again.err


@pytest.mark.slow
def test_a_video_that_kills_the_only_worker_fails_alone(
    ray, command, write_video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cheap_backbone
    import mortal_backbone

    for module in (cheap_backbone, mortal_backbone):
        ray.cloudpickle.register_pickle_by_value(module)  # the workers do not find the tests' modules
    monkeypatch.setattr("cofinal.pipeline.extraction.load_backbone", mortal_backbone.load_mortal)
    mortal_backbone.write_white_video(tmp_path / "videos/a-poison.mp4", seconds=3.3)
    for seed in range(2):
        write_video(tmp_path / f"videos/v{seed}.mp4", seconds=3.3, seed=seed)
    ended = command("extract-features", tmp_path / "videos", tmp_path / "out", *OPTIONS, "--ray", "--json")
    assert ended.code == 1, ended.err
    summary = json.loads(ended.out)
    assert summary["extracted"] == 2
    (failure,) = summary["failed"]
    assert "a-poison.mp4 is given up: 3 workers died while they had it" in failure["error"]
    again = command("extract-features", tmp_path / "videos", tmp_path / "out", *OPTIONS)
    assert "2 already done, 1 failed" in again.err
    assert "(failed in an earlier run; --retry-failed tries again)" in again.err


@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGINT", "SIGKILL"])
def test_a_stopped_run_loses_nothing_and_leaves_nothing_running(
    by: str, ray, command, write_video, tmp_path: Path
) -> None:
    videos, store = tmp_path / "videos", tmp_path / "out"
    for seed in range(6):
        write_video(videos / f"v{seed:02}.mp4", seconds=3.3, seed=seed)
    mark = f"{MARK}={tmp_path}"
    run = subprocess.Popen(
        [sys.executable, "-c", COMMAND, videos, store, *OPTIONS, "--ray"],
        env=os.environ | {MARK: str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    records = store / "videos.jsonl"
    while not records.exists() or records.read_bytes().count(b"\n") < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    if by == "SIGINT":
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    else:
        run.kill()
    _, stderr = run.communicate(timeout=60)
    num_done = sum(map(is_success, FeatureStore(store).records.values()))
    assert 2 <= num_done < 6
    if by == "SIGINT":
        assert run.returncode == 130, stderr
        assert stderr.strip().splitlines()[-1] == (
            f"interrupted: {num_done} of 6 videos are done; run the same command again to go on"
        )
    deadline = time.monotonic() + 120  # Ray's own processes take a minute to find that a killed driver is gone
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []
    assert verify_store(store).problems == []
    assert command("extract-features", videos, store, *OPTIONS).code == 0
    assert command("extract-features", videos, tmp_path / "undisturbed", *OPTIONS).code == 0
    assert content(store) == content(tmp_path / "undisturbed")


def processes_with(variable: str) -> list[str]:
    """The command lines of the processes that have a variable in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has just ended
    return found
