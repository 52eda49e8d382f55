"""extract-features to and from object storage: `memory://` here; a real S3 server in test_s3.py."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from cheap_backbone import colours
from fsspec.implementations.memory import MemoryFileSystem

from cofinal import extract_features
from cofinal.data.feature_store import FeatureStore
from cofinal.data.remote import find_file
from cofinal.data.remote_store import RemoteStore
from cofinal.data.scratch import SCRATCH_PREFIX, Scratch
from cofinal.data.source_files import file_sha256
from cofinal.extractors.backbone import Backbone
from cofinal.pipeline.options import ExtractorOptions
from cofinal.pipeline.remote_sources import find_remote_videos, is_remote
from cofinal.pipeline.verification import verify_store


@pytest.fixture(autouse=True)
def _cheap_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ExtractorOptions, name: str, *, recipe: str | None, weights: str | None) -> Backbone:
        return colours(recipe or "gdlt-i3d")

    monkeypatch.setattr(ExtractorOptions, "load_backbone", load)


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
    before_writing: ClassVar[list[Callable[[str], None]]] = []
    """Called with the path of each file before it is written."""
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

    def cat_file(self, path, **options):
        for call in self.before_reading:
            call(self._strip_protocol(path))
        return super().cat_file(path, **options)

    def _open(self, path, mode="rb", **options):
        for call in list(self.before_reading if mode == "rb" else self.before_writing):
            call(path)
        return super()._open(path, mode, **options)


@pytest.fixture
def faulty(memory, monkeypatch: pytest.MonkeyPatch) -> type[FaultyStorage]:
    fsspec.register_implementation("faulty", FaultyStorage, clobber=True)
    monkeypatch.setattr(FaultyStorage, "before_reading", [])
    monkeypatch.setattr(FaultyStorage, "before_writing", [])
    monkeypatch.setattr(FaultyStorage, "says", {})
    return FaultyStorage


@pytest.fixture(scope="module")
def films(write_video, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos v0, v1 and v2 of one clip each."""
    folder = tmp_path_factory.mktemp("films")
    for seed in range(3):
        write_video(folder / f"v{seed}.mp4", seed=seed)
    return folder


@pytest.fixture
def local(films: Path, tmp_path: Path) -> dict[str, bytes]:
    """Their features, made from the files on the disk."""
    extract_features(films, tmp_path / "local")
    return arrays(tmp_path / "local")


def upload(storage: fsspec.AbstractFileSystem, films: Path, folder: str) -> None:
    for path in films.glob("*.mp4"):
        storage.pipe_file(f"{folder}/{path.name}", path.read_bytes())


def arrays(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*.npy")}


def test_videos_at_a_url_give_the_features_of_local_ones(films: Path, local, memory, tmp_path: Path) -> None:
    upload(memory, films, "/club/videos/a")
    upload(memory, films, "/club/videos/.hidden")
    memory.pipe_file("/club/videos/notes.pdf", b"other")
    summary = extract_features("memory://club/videos", tmp_path / "out", readers=2)
    assert (summary.videos, summary.extracted, summary.failed) == (3, 3, [])
    assert arrays(tmp_path / "out") == {f"a/{name}": content for name, content in local.items()}
    store = FeatureStore(tmp_path / "out")
    assert store.records["a/v0"]["source"] == "memory:///club/videos/a/v0.mp4"
    assert store.records["a/v0"]["sha256"] == file_sha256(films / "v0.mp4")
    assert store.manifest["videos"] == "memory:///club/videos"


def test_a_file_url_is_its_path(films: Path, local, tmp_path: Path) -> None:
    extract_features(f"file://{films}", f"file://{tmp_path}/out")
    assert arrays(tmp_path / "out") == local
    assert FeatureStore(tmp_path / "out").records["v0"]["source"] == str(films / "v0.mp4")


def test_a_video_is_downloaded_again_only_if_its_version_has_changed(films: Path, faulty, memory, tmp_path) -> None:
    read: list[str] = []
    faulty.before_reading.append(read.append)
    upload(memory, films, "/club")
    for number in (3, 0):
        assert extract_features("faulty://club", tmp_path / "out").extracted == number
    assert len(read) == 3
    memory.pipe_file("/club/v1.mp4", (films / "v0.mp4").read_bytes())
    assert extract_features("faulty://club", tmp_path / "out").extracted == 1
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
    with pytest.raises(ValueError, match=r"memory://club/videos/a/v1\.mkv and memory://club/videos/a/v1\.mp4 would"):
        found("memory://club/videos")


def test_one_clear_sentence_for_a_url_that_cannot_be_read(command, memory, tmp_path: Path) -> None:
    memory.pipe_file("/club/notes.pdf", b"other")
    for url, message in {
        "memory://club": "holds no video (1 files",
        "memory://nothing": "does not exist or holds no video",
        "nonsense://club": "Protocol not known: nonsense",
        "gs://club/videos": "gcsfs",
    }.items():
        ended = command("extract-features", url, tmp_path / "out")
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
    summary = extract_features("faulty://club", tmp_path / "out")
    errors = {failure["video"].removeprefix("faulty:///club/"): failure["error"] for failure in summary.failed}
    expected = {
        "a/v1.mp4": "has been deleted since this run began",
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
    again = extract_features("faulty://club", tmp_path / "out")
    assert again.extracted == 3  # those of b, c and d
    assert [failure["video"] for failure in again.failed] == ["faulty:///club/a/v2.mp4"]  # 7 bytes, no video


def test_no_more_copies_than_readers(films: Path, faulty, memory, scratch_place: Path, tmp_path: Path) -> None:
    numbers: list[int] = []
    faulty.before_reading.append(lambda _: numbers.append(len(list(scratch_place.rglob("*.mp4")))))
    for folder in "abcd":
        upload(memory, films, f"/club/{folder}")
    labels = tmp_path / "labels.csv"
    labels.write_text("video,score,start,end\n" + "".join(f"a/v0,1,{s},{s + 1.3}\n" for s in (0, 0.01, 0.02, 0.03)))
    summary = extract_features("faulty://club", tmp_path / "out", readers=2, dataset="csv", labels=labels)
    assert summary.extracted == 15, summary.failed
    assert len(numbers) == 12  # each file once, also the one with four segments
    assert max(numbers) <= 2


def test_another_video_of_the_same_name_is_refused(films: Path, memory, tmp_path: Path) -> None:
    upload(memory, films, "/club")
    extract_features("memory://club", tmp_path / "out")
    memory.pipe_file("/other/v0.mp4", (films / "v1.mp4").read_bytes())
    with pytest.raises(ValueError, match=r"memory:///club/v0\.mp4 and memory:///other/v0\.mp4 would"):
        extract_features("memory://other", tmp_path / "out")
    memory.rm("/club", recursive=True)
    assert extract_features("memory://other", tmp_path / "out").extracted == 1


def test_scratch_folders_of_killed_runs_are_removed(memory, scratch_place: Path) -> None:
    program = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]; from cofinal.data.scratch import Scratch; "
        "Scratch().path_of('s3://bucket/x.mp4').parent.mkdir(parents=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(scratch_place)]).returncode == -signal.SIGKILL
    (left,) = scratch_place.iterdir()
    with Scratch() as one, Scratch() as other:
        assert one.folder.is_dir()
        assert not left.exists()
        assert other.folder.is_dir()
        assert one.folder.is_dir()  # in use, so the other run left it


def test_a_store_at_a_url_becomes_one_on_the_disk(films: Path, local, memory, tmp_path: Path) -> None:
    """The arrays are those of a local store, and a copy of the URL is a valid store with all records."""
    (films / "broken.mp4").write_bytes(b"no video")
    try:
        first = extract_features(films, "memory://club/out/")
        again = extract_features(films, "memory://club/out")
    finally:
        (films / "broken.mp4").unlink()
    assert first.store == "memory://club/out"
    assert (first.extracted, again.extracted, again.already_done) == (3, 0, 3)
    assert len(again.failed) == 1
    memory.get("/club/out", str(tmp_path / "out"), recursive=True)
    assert arrays(tmp_path / "out") == local
    checked = verify_store(tmp_path / "out")
    assert (checked.arrays, checked.failed_videos, checked.problems) == (3, 1, [])
    record = FeatureStore(tmp_path / "out").records["v0"]
    assert record["source"] == str(films / "v0.mp4")
    with pytest.raises(ValueError, match=r"memory://club/out holds features of another kind"):
        extract_features(films, "memory://club/out", recipe="gdlt-vst")
    memory.rm("/club/out/manifest.json")
    with pytest.raises(ValueError, match=r"memory://club/out holds \.npy files but no manifest"):
        extract_features(films, "memory://club/out")


def test_a_run_to_a_url_goes_on_after_it_was_stopped(films: Path, local, faulty, memory, tmp_path: Path) -> None:
    upload(memory, films, "/club/videos")
    written: list[str] = []

    def interrupt(path: str) -> None:
        written.append(path)
        if sum(one.endswith(".npy") for one in written) == 2:
            raise KeyboardInterrupt

    faulty.before_writing.append(interrupt)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 videos are done; run the same command again"):
        extract_features("faulty://club/videos", "faulty://club/out")
    assert not memory.exists("/club/out/videos.jsonl")
    faulty.before_writing.clear()
    faulty.before_reading.append(written.append)
    summary = extract_features("faulty://club/videos", "faulty://club/out")
    assert (summary.extracted, summary.already_done) == (2, 1)
    assert {path for path in written if path.endswith(".mp4")} == {"/club/videos/v1.mp4", "/club/videos/v2.mp4"}
    written.clear()
    assert extract_features("faulty://club/videos", "faulty://club/out").already_done == 3
    assert sorted(written) == ["/club/out/manifest.json", "/club/out/videos.jsonl"]  # all records in one
    memory.get("/club/out", str(tmp_path / "out"), recursive=True)
    assert arrays(tmp_path / "out") == local
    assert verify_store(tmp_path / "out").problems == []


def test_runs_with_videos_of_their_own_share_a_url(films: Path, faulty, memory, tmp_path: Path) -> None:
    """Whoever ends last writes all records, also those that came after its start."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "w0.mp4").write_bytes((films / "v0.mp4").read_bytes())

    def extract_the_other(path: str) -> None:
        if path.endswith("v1.npy"):
            faulty.before_writing.clear()
            extract_features(other, "memory://club/out")

    faulty.before_writing.append(extract_the_other)
    extract_features(films, "faulty://club/out")
    memory.get("/club/out", str(tmp_path / "out"), recursive=True)
    assert FeatureStore(tmp_path / "out").records.keys() == {"v0", "v1", "v2", "w0"}
    assert verify_store(tmp_path / "out").problems == []


def test_copying_ends_when_the_run_is_stopped(faulty, memory) -> None:
    memory.pipe_file("/club/x.mp4", b"x" * 100)
    file = find_file("faulty://club/x.mp4")
    assert file is not None
    with Scratch() as scratch, ThreadPoolExecutor() as pool:
        with pytest.raises(KeyboardInterrupt), scratch.stopped_by_errors():
            raise KeyboardInterrupt
        with pytest.raises(ValueError, match="broke off after 0 of 100 bytes"):
            pool.submit(scratch.fetch, file).result()


def test_a_video_that_kills_three_runs_is_given_up(films: Path, memory) -> None:
    """The attempts are at the URL, so they count on every machine."""
    upload(memory, films, "/club/videos")
    memory.mv("/club/videos/v1.mp4", "/club/v1.mp4")
    extract_features("memory://club/videos", "memory://club/out")
    memory.mv("/club/v1.mp4", "/club/videos/v1.mp4")
    source = find_file("memory://club/videos/v1.mp4")
    assert source is not None
    for before, is_killed in ((0, True), (1, False), (1, True), (2, True)):
        with Scratch() as scratch:
            store = RemoteStore("memory://club/out", scratch.path_of("memory://club/out"))
            assert store.manifest is not None
            store.open(store.manifest)
            assert store.attempts("v1", source) == before
            assert store.begin("v1", source.facts) == before + 1
            if is_killed:
                store.locks.release()
            else:
                store.close()  # takes it back
    summary = extract_features("memory://club/videos", "memory://club/out")
    (failure,) = summary.failed
    assert failure["video"] == "memory:///club/videos/v1.mp4"
    assert "is given up: it was being extracted when 3 runs crashed or were killed" in failure["error"]
    assert not memory.find("/club/out/attempts")
    assert extract_features("memory://club/videos", "memory://club/out", retry_failed=True).extracted == 1
    assert not memory.find("/club/out/attempts")


def test_a_url_that_cannot_be_written(films: Path, command, faulty, memory) -> None:
    refused = []

    def refuse(path: str) -> None:
        if path.endswith(refused[0]):
            raise PermissionError("Access Denied")

    faulty.before_writing.append(refuse)
    for moment, code in {"manifest.json": 2, "v1.npy": 1, "records/v1.json": 1}.items():
        refused[:] = [moment]
        ended = command("extract-features", films, "faulty://club/out")
        assert ended.code == code
        assert f"faulty://club/out{'' if code == 2 else '/' + moment} cannot be written (Access Denied)" in ended.err
    faulty.before_writing.clear()
    assert extract_features(films, "faulty://club/out").already_done == 1


def test_a_url_that_cannot_be_read_at_the_end(films: Path, command, faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        faulty.before_writing.append(lambda path: path.endswith("v2.npy") and patch.setattr(faulty, "find", refuse))
        ended = command("extract-features", films, "faulty://club/out")
    assert ended.code == 1  # 2 would say that nothing was done
    assert "faulty://club/out cannot be read (Access Denied)" in ended.err
    assert "the records so far stay valid, and the same command goes on" in ended.err
    faulty.before_writing.clear()
    assert extract_features(films, "faulty://club/out").already_done == 3


def test_what_needs_a_file_system_says_so(films: Path, command, memory) -> None:
    ended = command("extract-features", films, "memory://club/out", "--shard", "1/2")
    assert (ended.code, "--shard needs a store on a file system, not memory://club/out" in ended.err) == (2, True)
    ended = command("extract-features", "--verify", "memory://club/out")
    assert (ended.code, "copy memory://club/out there first" in ended.err) == (2, True)
    upload(memory, films, "/club/videos")
    ended = command("extract-features", "memory://club/videos", "memory://club/out", "--dataset", "csv")
    assert (ended.code, "name their file with --labels" in ended.err) == (2, True)
