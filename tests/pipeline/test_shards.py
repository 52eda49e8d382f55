"""Shards: what the environment says, and several processes that write one store until it is as one process makes it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_interruptions import assert_same, done

from cofinal.data.feature_store import FeatureStore
from cofinal.data.label_rows import Segment
from cofinal.data.shards import Shard
from cofinal.data.source_files import source_facts
from cofinal.pipeline.shards import parse_shard, videos_of_shard
from cofinal.pipeline.sources import Sources
from cofinal.pipeline.verification import verify_store

DYING_RUN = Path(__file__).with_name("dying_run.py")
OPTIONS = ["--backbone", "i3d", "--recipe", "actionnet-i3d", "--weights", "random"]
ARRAY = dict(zip(("ID", "MIN", "MAX", "STEP", "COUNT"), ["10", "4", "12", "2", "5"], strict=True))
SLURM_ARRAY = {f"SLURM_ARRAY_TASK_{name}": value for name, value in ARRAY.items()}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "shard", "local", "said_by"),
    [
        (SLURM_ARRAY, "4/5", None, "Slurm array"),
        (SRUN, "6/8", 1, "srun"),
        (SLURM_ARRAY | SRUN, "30/40", 1, "Slurm array and srun"),
        (TORCHRUN, "3/3", 0, "torchrun"),
        (TORCHRUN | SRUN, "3/3", 0, "torchrun"),  # srun started torchrun
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, "1/2", None, "Open MPI"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, "2/2", 1, "PMI"),
        ({"PMI_RANK": "5", "PMI_SIZE": "8"} | SRUN, "6/8", 1, "PMI"),
    ],
)
def test_what_the_environment_says(environment: dict[str, str], shard: str, local: int | None, said_by: str) -> None:
    found, number, by = parse_shard("auto", environment)
    assert (str(found), number, by) == (shard, local, said_by)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("auto", {}, "finds no shard in the environment"),
        ("auto", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "finds no shard"),  # a batch script without srun
        ("auto", SLURM_ARRAY | {"SLURM_ARRAY_TASK_COUNT": "3"}, "cannot number the tasks"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "needs a number in the environment variable RANK, not 'x'"),
        *((text, {}, "I from 1 to N") for text in ("0/2", "3/2", "1", "1/0", "-1/2", "all", "1/2/3", "")),
    ],
)
def test_what_is_no_shard(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_shard(text, environment)


def test_each_process_of_a_machine_takes_another_gpu(
    command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    ended = command("extract-features", videos, tmp_path / "out", *OPTIONS, "--shard", "auto")
    assert "shard 4/4, from torchrun; device cuda:1" in ended.err
    ended = command("extract-features", videos, tmp_path / "out", *OPTIONS, "--shard", "auto", "--device", "cpu")
    assert "shard 4/4, from torchrun; device cpu" in ended.err


def test_the_parts_together_are_the_whole(command, videos: Path, store: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", ["--weights", "random"]
    command("extract-features", videos, tmp_path / "whole", *options)
    numbers = []
    for index in (1, 2, 3):
        ended = command("extract-features", videos, out, *options, "--shard", f"{index}/3", "--json")
        assert ended.code == 0, ended.err
        numbers.append(json.loads(ended.out)["extracted"])
        assert re.search(
            rf"^shard {index}/3: [23] of 8 videos, \S+ of \S+ GB; the shards have", ended.err, re.MULTILINE
        )
    assert sorted(numbers) == [2, 3, 3]
    shutil.copy(videos / "v0.mp4", tmp_path / "late.mp4")
    again = json.loads(command("extract-features", videos, out, *options, "--shard", "2/3", "--json").out)
    assert (again["extracted"], again["already_done"]) == (0, numbers[1])
    assert verify_store(out).problems == []
    merged = json.loads(command("extract-features", videos, out, *options, "--json").out)
    assert (merged["extracted"], merged["already_done"]) == (0, 8)
    assert not (out / "shards").exists()
    assert_same(out, tmp_path / "whole")


def test_segments_of_one_video_go_to_one_shard(command, write_video, tmp_path: Path) -> None:
    for seed in range(3):
        write_video(tmp_path / f"in/v{seed}.mp4", seconds=3, seed=seed)
    rows = [f"v{seed},{start},{start + 1.4},5" for seed in range(3) for start in (0, 0.5, 1)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,start,end,score", *rows]))
    options = ["--weights", "random", "--dataset", "csv", "--labels", tmp_path / "labels.csv"]
    for index in (1, 2):
        ended = command("extract-features", tmp_path / "in", tmp_path / "out", *options, "--shard", f"{index}/2")
        assert ended.code == 0, ended.err
        found = FeatureStore(tmp_path / "out").names()
        assert len(found) in ((3, 6), (9,))[index - 1]
        assert len({name.split("@")[0] for name in found}) == len(found) // 3


def test_what_is_left_to_do_of_segments_is_balanced(tmp_path: Path) -> None:
    paths, segments = {}, {}
    for n in range(5):
        (tmp_path / f"v{n}.mp4").write_bytes(b"x" * (n + 1))
        for start in (0, 1):
            segment = Segment(f"v{n}", start, start + 1, "seconds")
            segments[f"v{n}{segment.suffix}"] = segment
            paths[f"v{n}{segment.suffix}"] = tmp_path / f"v{n}.mp4"
    sources = Sources(paths, tmp_path, 0, segments=segments)
    manifest = {"backbone": "i3d", "recipe": "gdlt-i3d", "weights_sha256": "a" * 64}
    with FeatureStore(tmp_path / "out") as store:
        store.open(manifest)
        for name in ("v4@0-1s", "v4@1-2s", "v3@0-1s"):
            store.append({"video": name, **source_facts(paths[name])})
    with FeatureStore(tmp_path / "out") as store:
        shard = Shard(1, 2)
        store.open(manifest, shard=shard)
        own = videos_of_shard(store, sources, shard)
    assert {segments[name].video for name in own.paths} == {"v3", "v0", "v4"}  # v4 is done, so it comes last


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, DYING_RUN, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_shard_is_taken_up_by_another_host(
    command, write_video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shards work at once, one is killed inside a write, and the store ends as one process makes it."""
    videos, out = tmp_path / "in", tmp_path / "out"
    for seed in range(8):
        write_video(videos / f"{seed % 2}/v{seed}.mp4", seconds=3.3, seed=seed)
    killed = start("SIGKILL", "write:6", videos, out, *OPTIONS, "--shard", "1/2")
    other = start("SIGKILL", "never:0", videos, out, *OPTIONS, "--shard", "2/2")
    assert killed.wait(120) == -signal.SIGKILL, killed.communicate()[1]
    assert other.wait(120) == 0, other.communicate()[1]
    before = len(done(out))
    assert 4 < before < 8
    monkeypatch.setattr("cofinal.data.lock.socket.gethostname", lambda: "node7")
    ended = command("extract-features", videos, out, *OPTIONS, "--shard", "1/2", "--json")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert (summary["already_done"], summary["extracted"]) == (before - 4, 8 - before)
    (warning,) = (text for text in summary["warnings"] if "was left by" in text)
    assert f"1-of-2.lock was left by process {killed.pid} on {os.uname().nodename}, since 20" in warning
    assert command("extract-features", videos, tmp_path / "whole", *OPTIONS).code == 0
    assert_same(out, tmp_path / "whole")
    assert command("extract-features", videos, out, *OPTIONS).code == 0
    assert_same(out, tmp_path / "whole")


@pytest.mark.slow
def test_a_video_that_kills_the_program_is_given_up_and_the_others_are_done(
    command, write_video, tmp_path: Path
) -> None:
    videos, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate(("a", "bad", "c", "d")):
        write_video(videos / f"{name}.mp4", seconds=3.3, seed=seed)
    for shard in ([], ["--shard", "1/1"], []):  # attempts are counted across shards too
        run = start("SIGKILL", "bad read:1", videos, out, *OPTIONS, "--readers", "3", *shard)
        assert run.wait(120) == -signal.SIGKILL, run.communicate()[1]
    assert done(out) == {"a", "c", "d"}  # also those that were under way together with it
    ended = command("extract-features", videos, out, *OPTIONS)
    assert ended.code == 1
    assert f"{videos}/bad.mp4 is given up: it was being extracted when 3 runs crashed or were killed" in ended.err
    assert "0 videos extracted" in ended.err
    assert "tries again" in command("extract-features", videos, out, *OPTIONS).err
    assert command("extract-features", videos, out, *OPTIONS, "--retry-failed").code == 0
    assert command("extract-features", videos, tmp_path / "whole", *OPTIONS).code == 0
    assert_same(out, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGTERM", "SIGINT"])
def test_an_interrupted_run_takes_its_attempts_back(by: str, write_video, tmp_path: Path) -> None:
    for seed in range(3):
        write_video(tmp_path / f"in/v{seed}.mp4", seconds=3.3, seed=seed)
    run = start(by, "v1 read:1", tmp_path / "in", tmp_path / "out", *OPTIONS)
    assert run.wait(120) == 130
    assert "interrupted: " in run.communicate()[1]
    assert not (tmp_path / "out/.attempts").exists()
