"""No run loses data: if it is killed, interrupted, out of disk space or started twice, the store stays valid."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofinal import extract_features, score_video
from cofinal.data.arrays import load_features
from cofinal.data.feature_store import FeatureStore
from cofinal.data.records import is_success
from cofinal.data.source_files import file_sha256
from cofinal.pipeline.verification import verify_store

DYING_RUN = Path(__file__).with_name("dying_run.py")
TIMES = {"seconds", "stage_seconds"}
CHEAP = {"backbone": "i3d", "recipe": "actionnet-i3d", "weights": "random"}
OPTIONS = ["--backbone", "i3d", "--recipe", "actionnet-i3d", "--weights", "random"]


def start(*arguments: object, **options) -> subprocess.Popen:
    """Start a Python process."""
    return subprocess.Popen([sys.executable, *map(str, arguments)], stderr=subprocess.PIPE, text=True, **options)


def run_dying(moment: str, videos: Path, store: Path, *, by: str = "SIGKILL") -> tuple[int, str]:
    run = start(DYING_RUN, by, moment, videos, store, *OPTIONS)
    _, stderr = run.communicate(timeout=120)
    return run.returncode, stderr


def done(store: Path) -> set[str]:
    """Return the names of the recorded videos, after checking that each has its recorded array and all arrays load."""
    opened = FeatureStore(store)
    names = {name for name, record in opened.records.items() if is_success(record)}
    assert all(file_sha256(opened.path(name)) == opened.records[name]["features_sha256"] for name in names)
    for name in opened.names():
        load_features(opened.path(name))
    return names


def assert_same(store: Path, undisturbed: Path) -> None:
    """Arrays are byte-equal, records are equal except times and order, and no temporary file or problem is left."""
    one, other = FeatureStore(store), FeatureStore(undisturbed)
    assert one.names() == other.names()
    assert all(one.path(name).read_bytes() == other.path(name).read_bytes() for name in one.names())

    def timeless(records: dict) -> dict:
        return {name: {k: v for k, v in record.items() if k not in TIMES} for name, record in records.items()}

    assert timeless(one.records) == timeless(other.records)
    assert not list(store.rglob(".writing-*"))
    assert verify_store(store).problems == []


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_ends_as_an_undisturbed_one(write_video, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "out"
    total = 40
    for seed in range(total):
        write_video(videos / f"{seed % 3}/v{seed:02}.mp4", seconds=3.3, seed=seed)
    moments = [
        "write:4",  # after the manifest, an array and its record: inside the second array
        *("write:1", "write:2", "write:3", "write:4", "write:2", "write:5"),
        *("fsync:1", "fsync:2", "fsync:3", "fsync:5", "replace:1", "replace:2", "replaced:1", "replaced:2"),
    ]
    inside_writes, kills, before = 0, 0, 0
    for moment in moments:
        code, stderr = run_dying(moment, videos, store)
        assert code == -signal.SIGKILL, stderr
        inside_writes += moment.startswith("write")
        kills += 1
        assert before <= len(done(store)) < total
        before = len(done(store))
        assert before >= 1
    delays = random.Random(0)
    for _ in range(6):  # and six at random moments
        size = (store / "videos.jsonl").stat().st_size
        run = start(DYING_RUN, "SIGKILL", "never:0", videos, store, *OPTIONS)
        while (store / "videos.jsonl").stat().st_size <= size:
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(delays.uniform(0, 0.6))
        run.kill()
        run.communicate(timeout=60)
        assert run.returncode == -signal.SIGKILL
        kills += 1
        assert before <= len(done(store)) < total
        before = len(done(store))
    assert kills >= 20
    assert inside_writes >= 5
    summary = extract_features(videos, store, **CHEAP)
    assert (summary.already_done, summary.extracted, summary.failed) == (before, total - before, [])
    extract_features(videos, tmp_path / "undisturbed", **CHEAP)
    assert_same(store, tmp_path / "undisturbed")


@pytest.mark.slow
def test_ctrl_c_inside_a_write_leaves_nothing_half_and_says_how_to_go_on(write_video, tmp_path: Path) -> None:
    for seed in range(3):
        write_video(tmp_path / f"videos/v{seed}.mp4", seconds=3.3, seed=seed)
    code, stderr = run_dying("write:4", tmp_path / "videos", tmp_path / "out", by="SIGINT")
    assert code == 130
    assert stderr.strip().splitlines()[-1] == "interrupted: 1 of 3 videos are done; run the same command again to go on"
    assert "Traceback" not in stderr
    assert done(tmp_path / "out") == {"v0"}
    assert verify_store(tmp_path / "out").problems == []
    assert not list((tmp_path / "out").rglob(".writing-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 48 KiB on it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: a full disk, because no tmpfs can be mounted here ({mounted and mounted.stderr})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_and_a_rerun_completes_it(
    command, videos: Path, store: Path, small_disk: Path
) -> None:
    out = small_disk / "out"
    ended = command("extract-features", videos, out)
    assert ended.code == 1
    assert ended.err.strip().splitlines()[-1] == (
        f"error: {out} cannot be written (No space left on device); its records so far stay valid, so correct "
        "the cause and run the same command again to go on"
    )
    before = done(out)
    assert 1 <= len(before) < 8
    assert command("extract-features", videos, out).code in (1, 2)  # the disk is still full
    assert done(out) >= before
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    assert command("extract-features", videos, out).code == 0
    assert_same(out, store)


@pytest.mark.parametrize(("limit", "torn"), [(3000, "array"), (5000, "record")])
def test_a_write_that_the_system_cuts_off(command, videos: Path, tmp_path: Path, limit: int, torn: str) -> None:
    """Like a full disk, but by a limit on file sizes, which needs no root rights; an array has 4224 bytes."""
    out = tmp_path / "out"
    code = f"""
import resource
from cofinal.data.feature_store import FeatureStore
from cofinal.pipeline.cli import extract_features_command

def write(*arguments, write=FeatureStore.write):  # from here on: shared memory for frames is a file too
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    write(*arguments)

FeatureStore.write = write
extract_features_command()
"""
    run = start("-c", code, videos, out, "--weights", "random")
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 1, stderr
    assert "cannot be written (File too large)" in stderr.strip().splitlines()[-1]
    if torn == "array":
        assert not done(out)
        assert not list(out.rglob(".writing-*"))
        return
    before = done(out)
    line, array = (problem["what"] for problem in verify_store(out).problems)
    assert line == f"{out}/videos.jsonl line {len(before) + 1}"
    assert array == f"{out}/v{len(before)}.npy"
    assert command("extract-features", videos, out, "--weights", "random").code == 0
    assert len(done(out)) == 8
    assert verify_store(out).problems == []


def test_a_second_run_is_refused_and_names_the_first(command, store: Path, videos: Path, trained, tmp_path) -> None:
    shutil.copytree(store, tmp_path / "out")
    first = start(
        "-c",
        "import sys, time; from cofinal.data.feature_store import FeatureStore\n"
        "store = FeatureStore(sys.argv[1]); store.open(store.manifest)\n"
        "print('open', flush=True); time.sleep(600)",
        tmp_path / "out",
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "open\n"
    ended = command("extract-features", videos, tmp_path / "out")
    assert ended.code == 2
    assert f"is being written by another run (process {first.pid} on {os.uname().nodename}, since 20" in ended.err
    ended = command("extract-features", "--verify", tmp_path / "out")
    assert ended.code == 2
    assert f"is being written (process {first.pid} on" in ended.err
    assert score_video(tmp_path / "out/v0.npy", trained).clips == 1  # reading needs no lock
    assert FeatureStore(tmp_path / "out").load("v1").shape == (1, 1024)
    first.kill()
    first.communicate(timeout=60)
    after_the_kill = json.loads(command("extract-features", videos, tmp_path / "out", "--json").out)
    assert after_the_kill["already_done"] == 8
