"""extract-features from and to a real S3 server, in processes that are killed and disturbed."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from s3_server import S3Server

from cofinal import extract_features
from cofinal.data.scratch import SCRATCH_PREFIX
from cofinal.pipeline.verification import verify_store

pytestmark = pytest.mark.slow

CHEAP = {"backbone": "i3d", "recipe": "actionnet-i3d", "weights": "random"}
OPTIONS = ["--backbone", "i3d", "--recipe", "actionnet-i3d", "--weights", "random"]
NUM_FILMS = 6


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """An empty S3 server, to which this process and those that it starts turn by themselves."""
    with S3Server() as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TMPDIR": str(tmp_path / "tmp"),
        }.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "tmp").mkdir()
        yield server
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def bucket(server: S3Server, films: Path) -> fsspec.AbstractFileSystem:
    """The storage with the bucket `club` and the films in it."""
    storage = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    storage.mkdir("club")
    for path in films.iterdir():
        storage.pipe_file(f"club/videos/a/{path.name}", path.read_bytes())
    server.requests.clear()
    return storage


@pytest.fixture(scope="module")
def films(write_video, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3") / "videos/a"
    for seed in range(NUM_FILMS):
        write_video(folder / f"v{seed}.mp4", seconds=3.3, seed=seed)
    return folder


@pytest.fixture(scope="module")
def local(films: Path) -> Path:
    """A store on the disk with the films' features."""
    store = films.parents[1] / "local"
    extract_features(films.parent, store, **CHEAP)
    return store


def start(*arguments: object) -> subprocess.Popen:
    program = "from cofinal.pipeline.cli import extract_features_command as run; run()"
    command = [sys.executable, "-c", program, *map(str, arguments), *OPTIONS]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(*arguments: object) -> tuple[int, str]:
    process = start(*arguments)
    _, stderr = process.communicate(timeout=300)
    return process.returncode, stderr


def downloads(server: S3Server) -> list[str]:
    return sorted(Path(path).stem for method, path in server.requests if method == "GET" and path.endswith(".mp4"))


def assert_fetched_store_equals(storage: fsspec.AbstractFileSystem, local: Path, folder: Path) -> None:
    storage.get("club/out", str(folder), recursive=True)
    names = [path.relative_to(local) for path in local.rglob("*.npy")]
    assert len(names) == NUM_FILMS
    assert all((folder / name).read_bytes() == (local / name).read_bytes() for name in names)
    checked = verify_store(folder)
    assert (checked.arrays, checked.problems) == (NUM_FILMS, [])


def test_a_killed_run_goes_on_and_ends_as_a_local_one(server: S3Server, bucket, local: Path, tmp_path: Path) -> None:
    process = start("s3://club/videos", "s3://club/out")
    deadline = time.monotonic() + 300
    while len(bucket.find("club/out/records")) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list((tmp_path / "tmp").glob(f"{SCRATCH_PREFIX}*"))) == 1
    done = {Path(path).stem for path in bucket.find("club/out/records")}
    assert 2 <= len(done) < NUM_FILMS

    server.requests.clear()
    code, stderr = run("s3://club/videos", "s3://club/out")
    assert code == 0, stderr
    assert f"{NUM_FILMS - len(done)} videos extracted" in stderr
    assert set(downloads(server)) == {f"v{seed}" for seed in range(NUM_FILMS)} - done
    assert not list((tmp_path / "tmp").glob(f"{SCRATCH_PREFIX}*"))
    assert_fetched_store_equals(bucket, local, tmp_path / "fetched")

    server.requests.clear()
    code, stderr = run("s3://club/videos", "s3://club/out")
    assert (code, downloads(server)) == (0, [])
    assert f"{NUM_FILMS} already done" in stderr


def test_cut_downloads_and_an_object_that_is_deleted(server: S3Server, bucket, local: Path, tmp_path: Path) -> None:
    server.cuts = {"/club/videos/a/v1.mp4": 1, "/club/videos/a/v2.mp4": 1000}
    lost = bucket.cat_file("club/videos/a/v4.mp4")

    def delete(path: str) -> None:
        if path.endswith("v0.mp4"):
            bucket.rm_file("club/videos/a/v4.mp4")

    server.on_download = delete
    code, stderr = run("s3://club/videos", "s3://club/out")
    assert code == 1
    assert f"{NUM_FILMS - 2} videos extracted" in stderr
    assert "s3://club/videos/a/v2.mp4 cannot be read" in stderr
    assert "s3://club/videos/a/v4.mp4 has been deleted since this run began" in stderr
    assert downloads(server).count("v1") == 2  # the cut download was tried again

    server.cuts, server.on_download = {}, lambda path: None
    bucket.pipe_file("club/videos/a/v4.mp4", lost)
    server.requests.clear()
    code, stderr = run("s3://club/videos", "s3://club/out")
    assert (code, downloads(server)) == (0, ["v2", "v4"]), stderr
    assert_fetched_store_equals(bucket, local, tmp_path / "fetched")


def test_an_interrupted_run_ends_soon_and_leaves_nothing(server: S3Server, bucket, tmp_path: Path) -> None:
    """Also while a video is being downloaded."""
    is_downloading = threading.Event()

    def delay(path: str) -> None:
        if path.endswith("v1.mp4"):
            is_downloading.set()
            time.sleep(2)

    server.on_download = delay
    process = start("s3://club/videos", "s3://club/out")
    assert is_downloading.wait(300)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "run the same command again to go on" in stderr
    assert "Traceback" not in stderr
    assert not list((tmp_path / "tmp").glob(f"{SCRATCH_PREFIX}*"))


def test_addresses_and_credentials_that_are_wrong(
    bucket, films: Path, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(videos: str | Path, store: str | Path) -> str:
        type(bucket).clear_instance_cache()  # this process would go on with the settings that it has read
        ended = command("extract-features", videos, store, *OPTIONS)
        assert ended.code == 2, ended.err
        (error,) = (line for line in ended.err.splitlines() if line.startswith("error: "))
        return error

    out = tmp_path / "out"
    assert "s3://nobody/videos cannot be read: it or its bucket does not exist" in refused("s3://nobody/videos", out)
    assert "s3://club/none does not exist or holds no video" in refused("s3://club/none", out)
    assert "s3://nobody/out cannot be read: it or its bucket" in refused(films, "s3://nobody/out")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "s3://club/videos cannot be read (Unable to locate credentials)" in refused("s3://club/videos", out)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Could not connect to the endpoint URL" in refused("s3://club/videos", out)
    assert not out.exists()
