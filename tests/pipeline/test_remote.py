"""extract-features to and from object storage: `memory://` here; a real S3 server in test_s3.py."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cofinal import extract_features
from cofinal.data.feature_store import FeatureStore
from cofinal.data.remote import SCRATCH_PREFIX, Scratch
from cofinal.data.source_files import file_sha256
from cofinal.pipeline.remote_sources import find_remote_videos, is_remote

CHEAP = {"backbone": "i3d", "recipe": "actionnet-i3d", "weights": "random"}
OPTIONS = ["--backbone", "i3d", "--recipe", "actionnet-i3d", "--weights", "random"]


@pytest.fixture(autouse=True)
def scratch_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which a run must leave without a scratch folder."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert not list(place.glob(f"{SCRATCH_PREFIX}*"))


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """The storage in memory, empty."""
    storage = fsspec.filesystem("memory", use_listings_cache=False)
    storage.rm("/", recursive=True)
    yield storage
    storage.rm("/", recursive=True)


class FaultyStorage(MemoryFileSystem):
    """The storage in memory by another protocol, with what can go wrong."""

    protocol = "faulty"
    before_reading: ClassVar[list[Callable[[str], None]]] = []
    """Called with the path of each file before it is read."""
    says: ClassVar[dict[str, int]] = {}
    """Sizes in bytes that it says, where they are not the true ones."""

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("faulty://"))

    def info(self, path, **options):
        info = super().info(path, **options)
        return info | {"size": self.says.get(info["name"], info["size"])}

    def find(self, path, **options):
        return {name: self.info(name) for name in super().find(path, withdirs=False)}

    def _open(self, path, mode="rb", **options):
        for call in self.before_reading if mode == "rb" else ():
            call(path)
        return super()._open(path, mode, **options)


@pytest.fixture
def faulty(memory, monkeypatch: pytest.MonkeyPatch) -> type[FaultyStorage]:
    fsspec.register_implementation("faulty", FaultyStorage, clobber=True)
    monkeypatch.setattr(FaultyStorage, "before_reading", [])
    monkeypatch.setattr(FaultyStorage, "says", {})
    return FaultyStorage


@pytest.fixture(scope="module")
def films(write_video, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos v0, v1 and v2 of one clip each."""
    folder = tmp_path_factory.mktemp("films")
    for seed in range(3):
        write_video(folder / f"v{seed}.mp4", seconds=3.3, seed=seed)
    return folder


@pytest.fixture(scope="module")
def local(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Their features, made from the files on the disk."""
    store = tmp_path_factory.mktemp("local") / "out"
    extract_features(films, store, **CHEAP)
    return arrays(store)


def upload(storage: fsspec.AbstractFileSystem, films: Path, folder: str) -> None:
    for path in films.glob("*.mp4"):
        storage.pipe_file(f"{folder}/{path.name}", path.read_bytes())


def arrays(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*.npy")}


def test_videos_at_a_url_give_the_features_of_local_ones(films: Path, local, memory, tmp_path: Path) -> None:
    upload(memory, films, "/club/videos/a")
    upload(memory, films, "/club/videos/.hidden")
    memory.pipe_file("/club/videos/notes.pdf", b"other")
    summary = extract_features("memory://club/videos", tmp_path / "out", readers=2, **CHEAP)
    assert (summary.videos, summary.extracted, summary.failed) == (3, 3, [])
    assert arrays(tmp_path / "out") == {f"a/{name}": content for name, content in local.items()}
    store = FeatureStore(tmp_path / "out")
    assert store.records["a/v0"]["source"] == "memory:///club/videos/a/v0.mp4"
    assert store.records["a/v0"]["sha256"] == file_sha256(films / "v0.mp4")
    assert store.manifest["videos"] == "memory:///club/videos"


def test_a_file_url_is_its_path(films: Path, local, tmp_path: Path) -> None:
    extract_features(f"file://{films}", f"file://{tmp_path}/out", **CHEAP)
    assert arrays(tmp_path / "out") == local
    assert FeatureStore(tmp_path / "out").records["v0"]["source"] == str(films / "v0.mp4")


def test_a_video_is_downloaded_again_only_if_its_version_has_changed(films: Path, faulty, memory, tmp_path) -> None:
    read: list[str] = []
    faulty.before_reading.append(read.append)
    upload(memory, films, "/club")
    for number in (3, 0):
        assert extract_features("faulty://club", tmp_path / "out", **CHEAP).extracted == number
    assert len(read) == 3
    memory.pipe_file("/club/v1.mp4", (films / "v0.mp4").read_bytes())
    assert extract_features("faulty://club", tmp_path / "out", **CHEAP).extracted == 1
    assert read[3:] == ["/club/v1.mp4"]
    made = arrays(tmp_path / "out")
    assert made["v0.npy"] == made["v1.npy"]


def test_lists_and_single_files(films: Path, memory, tmp_path: Path) -> None:
    upload(memory, films, "/club/videos/a")

    def found(videos: str | Path) -> dict[str, str]:
        assert is_remote(videos)
        with Scratch() as scratch:
            sources = find_remote_videos(videos, scratch)
            return {name: sources.describe(name) for name in sources.paths}

    assert found("memory://club/videos/a/v1.mp4") == {"v1": "memory:///club/videos/a/v1.mp4"}
    memory.pipe_file("/club/videos/list.txt", b"a/v1.mp4\r\nmemory://club/videos/a/v0.mp4\n")
    assert list(found("memory://club/videos/list.txt")) == ["a/v1", "a/v0"]
    memory.pipe_file("/other/list.txt", b"memory://club/videos/a/v1.mp4")
    assert list(found("memory://other/list.txt")) == ["v1"]
    listing = tmp_path / "list.txt"
    listing.write_text("memory://club/videos/a/v2.mp4\nmemory://club/videos/a/v0.mp4\n")
    assert list(found(listing)) == ["v2", "v0"]
    for line, message in {
        "memory://club/videos/a/none.mp4": "none.mp4, which is no file there",
        "v0.mp4": "make two lists",
        "memory://club/videos/a/../v0.mp4": "'..' between its slashes",
    }.items():
        listing.write_text(f"memory://club/videos/a/v2.mp4\n{line}\n")
        if ".." in line:
            memory.store["/club/videos/a/../v0.mp4"] = memory.store["/club/videos/a/v0.mp4"]
        with pytest.raises(ValueError, match=message):
            found(listing)
    memory.pipe_file("/club/videos/a/v1.mkv", b"twin")
    with pytest.raises(ValueError, match=r"memory://club/videos/a/v1\.mkv and memory://club/videos/a/v1\.mp4 would both"):
        found("memory://club/videos")


def test_one_clear_sentence_for_a_url_that_cannot_be_read(command, memory, tmp_path: Path) -> None:
    memory.pipe_file("/club/notes.pdf", b"other")
    for url, message in {
        "memory://club": "holds no video (1 files",
        "memory://nothing": "does not exist or holds no video",
        "nonsense://club": "Protocol not known: nonsense",
        "gs://club/videos": "gcsfs",
    }.items():
        ended = command("extract-features", url, tmp_path / "out", *OPTIONS)
        assert ended.code == 2
        assert message in ended.err
        assert url in ended.err
        assert len([line for line in ended.err.splitlines() if line.startswith("error")]) == 1
    assert not (tmp_path / "out").exists()


def test_what_happens_to_one_video_is_its_own_failure(films: Path, faulty, memory, tmp_path: Path) -> None:
    for folder in "abcde":
        upload(memory, films, f"/club/{folder}")

    def disturb(path: str) -> None:
        name = path.removeprefix("/club/")
        if name == "a/v0.mp4":
            memory.rm("/club/a/v1.mp4")  # deleted after the listing
            memory.pipe_file("/club/a/v2.mp4", b"changed")
        if name == "b/v0.mp4":
            raise TimeoutError("the network is slow")

    faulty.before_reading.append(disturb)
    faulty.says["/club/c/v0.mp4"] = (films / "v0.mp4").stat().st_size + 1  # so the download seems truncated
    faulty.says["/club/d/v0.mp4"] = 1 << 60
    summary = extract_features("faulty://club", tmp_path / "out", **CHEAP)
    errors = {failure["video"].removeprefix("faulty:///club/"): failure["error"] for failure in summary.failed}
    expected = {
        "a/v1.mp4": "does not exist",
        "a/v2.mp4": "has changed since this run began",
        "b/v0.mp4": "the network is slow",
        "c/v0.mp4": "broke off after",
        "d/v0.mp4": "make room there, or set TMPDIR",
    }
    assert errors.keys() == expected.keys()
    assert all(f"faulty:///club/{name}" in errors[name] and text in errors[name] for name, text in expected.items())
    assert summary.extracted == 10
    faulty.before_reading.clear()
    faulty.says.clear()
    again = extract_features("faulty://club", tmp_path / "out", **CHEAP)
    assert again.extracted == 3  # those of b, c and d
    assert [failure["video"] for failure in again.failed] == ["faulty:///club/a/v2.mp4"]  # 7 bytes, no video


def test_no_more_copies_than_readers(films: Path, faulty, memory, scratch_place: Path, tmp_path: Path) -> None:
    numbers: list[int] = []
    faulty.before_reading.append(lambda _: numbers.append(len(list(scratch_place.rglob("*.mp4")))))
    for folder in "abcd":
        upload(memory, films, f"/club/{folder}")
    labels = tmp_path / "labels.csv"
    labels.write_text("video,score,start,end\n" + "".join(f"a/v0,1,{s},{s + 3.25}\n" for s in (0, 0.01, 0.02, 0.03)))
    summary = extract_features("faulty://club", tmp_path / "out", readers=2, dataset="csv", labels=labels, **CHEAP)
    assert summary.extracted == 15, summary.failed
    assert len(numbers) == 12  # each file once, also the one with four segments
    assert max(numbers) <= 2


def test_another_video_of_the_same_name_is_refused(films: Path, memory, tmp_path: Path) -> None:
    upload(memory, films, "/club")
    extract_features("memory://club", tmp_path / "out", **CHEAP)
    memory.pipe_file("/other/v0.mp4", (films / "v1.mp4").read_bytes())
    with pytest.raises(ValueError, match=r"memory:///club/v0\.mp4 and memory:///other/v0\.mp4 would both become v0\.npy"):
        extract_features("memory://other", tmp_path / "out", **CHEAP)
    memory.rm("/club", recursive=True)
    assert extract_features("memory://other", tmp_path / "out", **CHEAP).extracted == 1


def test_scratch_folders_of_killed_runs_are_removed(memory, scratch_place: Path) -> None:
    program = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]; from cofinal.data.remote import Scratch; "
        "Scratch().path_of('s3://bucket/x.mp4').parent.mkdir(parents=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(scratch_place)]).returncode == -signal.SIGKILL
    (left,) = scratch_place.iterdir()
    with Scratch() as one, Scratch() as other:
        assert one.folder.is_dir()
        assert not left.exists()
        assert other.folder.is_dir()
        assert one.folder.is_dir()  # in use, so the other run left it
