"""The feature store: identity, resume, names, and what a killed run leaves behind."""

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cofinal.data import feature_store, records, source_files
from cofinal.data.arrays import load_features
from cofinal.data.feature_store import FeatureStore, Status, find_store
from cofinal.data.lock import LockedError
from cofinal.data.records import is_success
from cofinal.data.shards import Shard
from cofinal.data.source_files import source_facts

IDENTITY = {"backbone": "i3d", "recipe": "gdlt-i3d", "weights_sha256": "a" * 64}
MANIFEST = {**IDENTITY, "precision": "fp32", "versions": {"torch": "2.9"}}


def a_video(folder: Path, content: bytes = b"frames") -> Path:
    path = folder / "x.mp4"
    path.write_bytes(content)
    return path


def a_store(folder: Path) -> FeatureStore:
    store = FeatureStore(folder / "out")
    store.open(MANIFEST)
    return store


def record_of(video: Path) -> dict:
    return {**source_facts(video), "clips": 2}


def test_features_come_back_and_are_done(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    features = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    store.write("a/x", features, record_of(video))
    again = FeatureStore(store.folder)
    assert again.names() == ["a/x"]
    assert again.identity == IDENTITY
    np.testing.assert_array_equal(again.load("a/x"), features)
    assert again.status("a/x", video) is Status.DONE
    assert again.status("a/y", video) is Status.TO_DO
    assert not list(store.folder.rglob(".writing-*"))


def test_touched_file_is_done_by_its_content_but_a_changed_one_is_not(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    os.utime(video, ns=(0, 0))
    before = store.records_path.read_bytes()
    assert store.status("x", video) is Status.DONE
    assert store.records_path.read_bytes() == before  # who asks does not write
    store.update_source_facts("x", video)
    assert FeatureStore(store.folder).records["x"]["mtime_ns"] == 0
    after = store.records_path.read_bytes()
    store.update_source_facts("x", video)  # nothing has changed since
    assert store.records_path.read_bytes() == after
    video.write_bytes(b"FRAMES")  # as many bytes, other content
    assert store.status("x", video) is Status.TO_DO
    store.update_source_facts("x", video)
    video.unlink()
    assert store.status("x", video) is Status.TO_DO
    store.update_source_facts("x", video)
    assert store.records_path.read_bytes() == after


def test_missing_or_cut_array_is_to_do(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    array = store.path("x").read_bytes()
    store.path("x").write_bytes(array[:-1])
    assert store.status("x", video) is Status.TO_DO
    store.path("x").unlink()
    assert store.status("x", video) is Status.TO_DO


def test_a_failure_that_is_the_files_fault_holds_until_the_file_changes(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.append({"video": "x", **source_facts(video), "error": "broken", "unusable": True})
    store.append({"video": "y", **source_facts(video), "error": "out of memory", "unusable": False})
    assert store.status("x", video) is Status.FAILED
    assert store.status("y", video) is Status.TO_DO
    os.utime(video, ns=(0, 0))
    assert store.status("x", video) is Status.TO_DO


def test_a_changed_file_is_hashed_once_for_its_status_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    video.write_bytes(b"other frames")
    hashed, file_sha256 = [], source_files.file_sha256
    monkeypatch.setattr(source_files, "file_sha256", lambda path: hashed.append(path) or file_sha256(path))
    assert store.status("x", video) is Status.TO_DO
    assert record_of(video)["sha256"] == file_sha256(video)
    assert hashed == [video]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_torn_last_record_is_ignored_and_the_next_one_readable(tmp_path: Path, cut: int) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    store.write("y", np.ones((1, 2), np.float32), record_of(video))
    store.close()
    path = store.folder / "videos.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    torn = FeatureStore(store.folder)
    assert torn.status("x", video) is Status.DONE
    assert (torn.status("y", video) is Status.DONE) == (cut == 1)  # only the line's end is missing: the record is whole
    torn.open(MANIFEST)
    torn.write("z", np.ones((1, 2), np.float32), record_of(video))
    again = FeatureStore(store.folder)
    assert set(again.records) == {"x", "z"} | ({"y"} if cut == 1 else set())
    assert again.unreadable_lines == []


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    for name in (".writing-x", "a/.writing-y.tmp", "z"):  # names that videos may have
        store.write(name, np.ones((1, 2), np.float32), record_of(video))
    store.close()
    (store.folder / "a/.writing-0123456789abcdef.tmp").write_bytes(b"half")
    path = store.folder / "videos.jsonl"
    whole = path.read_bytes()
    first, rest = whole.split(b"\n", 1)
    path.write_bytes(first + b"\n\n\0\0\0\0\n{torn" + b"\n" + rest + b'{"video": "z", "err')
    again = FeatureStore(store.folder)
    assert again.unreadable_lines == [(path, line) for line in (2, 3, 4, 7)]
    assert len(again.records) == 3
    again.open(MANIFEST)
    assert again.unreadable_lines == []
    assert path.read_bytes() == whole
    assert again.names() == sorted([".writing-x", "a/.writing-y.tmp", "z"])
    assert not list(store.folder.rglob(".writing-0*"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="NOT TESTED: needs /proc to name what is synced")
def test_power_cut_order_of_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a record speaks of is on the disk before the record, and new folders before what they hold."""
    store, video = a_store(tmp_path), a_video(tmp_path)
    events = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(("sync", Path(os.readlink(f"/proc/self/fd/{fd}")))))
    monkeypatch.setattr(os, "replace", lambda a, b: events.append(("rename", Path(b))) or replace(a, b))
    store.write("a/b/x", np.ones((1, 2), np.float32), record_of(video))
    out = store.folder
    assert events.pop(2)[1].name.startswith(".writing-")
    assert events == [
        ("sync", out),  # holds a
        ("sync", out / "a"),  # holds b
        ("rename", out / "a/b/x.npy"),
        ("sync", out / "a/b"),
        ("sync", out / "videos.jsonl"),
    ]


def test_a_killed_overwrite_leaves_no_array_under_the_record_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    appended = len(store.records_path.read_bytes().splitlines())
    store.write("x", np.ones((1, 2), np.float32), record_of(video))  # the same bytes: the record held all the time
    assert len(store.records_path.read_bytes().splitlines()) == appended + 1
    for killed_at in ("write_atomic", "append"):
        calls = iter([None]) if killed_at == "append" else iter([])  # the withdrawal passes, the new record does not
        append = FeatureStore.append

        def dying(self, *arguments, calls=calls, append=append):
            if next(calls, "killed") == "killed":
                raise KeyboardInterrupt
            append(self, *arguments)

        with monkeypatch.context() as patch:
            if killed_at == "append":
                patch.setattr(FeatureStore, "append", dying)
            else:
                patch.setattr(feature_store, "write_atomic", dying)
            with pytest.raises(KeyboardInterrupt):
                store.write("x", np.full((1, 2), 2, np.float32), record_of(video))
        assert FeatureStore(store.folder).status("x", video) is Status.TO_DO
        store.write("x", np.ones((1, 2), np.float32), record_of(video))
        assert FeatureStore(store.folder).status("x", video) is Status.DONE


def test_features_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    with pytest.raises(ValueError, match="'x' hold NaN or infinity"):
        store.write("x", np.full((1, 2), np.nan, np.float32), record_of(video))
    assert store.names() == []
    assert store.records == {}


def test_only_one_writes_and_everybody_reads(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    second = FeatureStore(store.folder)
    assert second.load("x").shape == (1, 2)
    with pytest.raises(ValueError, match=rf"out is being written by another run \(process {os.getpid()} on "):
        second.open(MANIFEST)
    store.write("y", np.ones((1, 2), np.float32), record_of(video))
    store.close()
    with second:
        second.open(MANIFEST)
        assert second.status("y", video) is Status.DONE  # though it was written after `second` was made
    with FeatureStore(store.folder) as third:
        third.open(MANIFEST)


def test_a_refused_store_is_let_go(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    store = FeatureStore(tmp_path / "out")
    with pytest.raises(ValueError, match="another kind"):
        store.open({**MANIFEST, "recipe": "kinetics-i3d"})
    with FeatureStore(tmp_path / "out") as other:
        other.open(MANIFEST)


def test_another_identity_is_refused_with_both_named(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.close()
    with pytest.raises(ValueError, match=r"gdlt-i3d.*kinetics-i3d"):
        FeatureStore(store.folder).open({**MANIFEST, "recipe": "kinetics-i3d"})
    assert FeatureStore(store.folder).identity == IDENTITY


def test_another_precision_is_a_warning(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    with FeatureStore(tmp_path / "out") as store:
        assert store.open(MANIFEST) == []
    (warning,) = FeatureStore(store.folder).open({**MANIFEST, "precision": "bf16"})
    assert "fp32" in warning
    assert "bf16" in warning


def test_folder_of_unknown_features_is_readable_but_not_extended(tmp_path: Path) -> None:
    np.save(tmp_path / "7.npy", np.ones((3, 5), np.float16))
    store = FeatureStore(tmp_path)
    assert store.identity is None
    assert store.load("7").dtype == np.float32
    with pytest.raises(ValueError, match="unknown"):
        store.open(MANIFEST)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_name_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leads out"):
        a_store(tmp_path).write(name, np.ones((1, 2), np.float32), {})
    assert not list(tmp_path.rglob("x.npy"))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "NaN or infinity in 1 of 2"),
        (np.zeros(4), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.zeros((2, 3), int), "float"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=f"x.npy.*{reason}"):
        load_features(path)


def test_object_array_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([print], object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        load_features(path)


def test_foreign_manifest_and_later_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(ValueError, match="not a feature store"):
        FeatureStore(tmp_path)
    store = a_store(tmp_path)
    path = store.folder / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="format 2"):
        FeatureStore(store.folder)


def test_store_of_an_array_is_found_through_subfolders(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("a/b/x", np.ones((1, 2), np.float32), record_of(video))
    found = find_store(store.path("a/b/x"))
    assert found is not None
    assert found.identity == IDENTITY


# --- shards -------------------------------------------------------------------------------------------------------


def a_shard(folder: Path, index: int, count: int) -> FeatureStore:
    store = FeatureStore(folder / "out")
    store.open(MANIFEST, shard=Shard(index, count))
    return store


def test_shards_write_at_once_and_everybody_sees_all_records(tmp_path: Path) -> None:
    video = a_video(tmp_path)
    first, second = a_shard(tmp_path, 1, 2), a_shard(tmp_path, 2, 2)
    first.write("x", np.ones((1, 2), np.float32), record_of(video))
    second.write("y", np.ones((1, 2), np.float32), record_of(video))
    seen = FeatureStore(first.folder)
    assert seen.records.keys() == {"x", "y"}
    assert seen.identity == IDENTITY
    assert find_store(seen.path("x")) is not None
    first.close()
    assert a_shard(tmp_path, 1, 2).status("y", video) is Status.DONE


def test_who_may_write_beside_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "PATIENCE_S", 0)
    refused = "is being written by another run"
    here = rf"process {os.getpid()} on "
    first = a_shard(tmp_path, 1, 2)
    with pytest.raises(LockedError, match=rf"{refused} \(shard 1/2: {here}"):
        a_shard(tmp_path, 1, 2)  # the same shard twice
    with pytest.raises(LockedError, match=rf"{refused} \(shard 1/2: {here}"):
        a_shard(tmp_path, 3, 4)  # shards of another number, whose videos would overlap
    second = a_shard(tmp_path, 2, 2)
    with pytest.raises(LockedError, match=rf"{refused} \(shard 1/2: {here}.*, and 1 more\)"):
        a_store(tmp_path)
    first.close()
    with pytest.raises(LockedError, match=rf"{refused} \(shard 2/2: {here}"):
        a_store(tmp_path)
    second.close()
    whole = a_store(tmp_path)
    with pytest.raises(LockedError, match=rf"{refused} \({here}"):
        a_shard(tmp_path, 1, 2)
    whole.close()
    a_shard(tmp_path, 3, 4).close()


def test_a_run_without_shards_merges_what_they_have_left(tmp_path: Path) -> None:
    whole, video = a_store(tmp_path), a_video(tmp_path)
    whole.append({"video": "x", **source_facts(video), "error": "broken", "unusable": True})
    whole.close()
    first, second = a_shard(tmp_path, 1, 2), a_shard(tmp_path, 2, 2)
    first.write("x", np.ones((1, 2), np.float32), record_of(video))  # newer than that failure
    second.write("y", np.ones((1, 2), np.float32), record_of(video))
    second.begin("z", record_of(video))
    first.records_path.write_bytes(first.records_path.read_bytes() + b'{"video": "torn')
    before = FeatureStore(whole.folder).records
    assert before["x"] == first.records["x"]
    assert FeatureStore(whole.folder).unreadable_lines == [(first.records_path, 2)]
    del first, second  # killed
    gc.collect()
    whole = a_store(tmp_path)
    assert FeatureStore(whole.folder).records == before
    assert [path.name for path in whole.folder.iterdir() if path.is_dir()] == []
    assert len(whole.records_path.read_bytes().splitlines()) == 3
    assert whole.attempts("z", video) == 1
    whole.append({"video": "x", **source_facts(video), "error": "broken again"})
    assert FeatureStore(whole.folder).records["x"]["error"] == "broken again"


@pytest.mark.parametrize("killed_at", range(6))
def test_a_merge_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int) -> None:
    video = a_video(tmp_path)
    for index, name in enumerate("xy", start=1):
        store = a_shard(tmp_path, index, 2)
        store.write(name, np.ones((1, 2), np.float32), record_of(video))
        store.close()
    calls = iter(range(100))

    def dying(function):  # a kill before the n-th change of a file
        def call(*arguments, **options):
            if next(calls) == killed_at:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", dying(records.write_atomic))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            a_store(tmp_path)
    seen = FeatureStore(tmp_path / "out")
    assert {name for name, record in seen.records.items() if is_success(record)} == {"x", "y"}
    a_shard(tmp_path, 1, 2).close()
    whole = a_store(tmp_path)
    assert {whole.status(name, video) for name in "xy"} == {Status.DONE}
    assert not (whole.folder / "shards").exists()


def test_a_shard_mends_its_own_files_only(tmp_path: Path) -> None:
    first, second = a_shard(tmp_path, 1, 2), a_shard(tmp_path, 2, 2)
    for store in (first, second):
        store.records_path.write_bytes(b'{"video": "torn')
        (store.folder / f".writing-{store.records_path.stem}0123.tmp").write_bytes(b"half")
    first.close()
    first = a_shard(tmp_path, 1, 2)
    assert first.records_path.read_bytes() == b""
    assert second.records_path.read_bytes() == b'{"video": "torn'
    assert [path.name for path in first.folder.glob(".writing-*")] == [".writing-2-of-20123.tmp"]


def test_a_store_is_read_while_a_shard_ends(tmp_path: Path) -> None:
    a_shard(tmp_path, 1, 2).close()
    attempts = tmp_path / "out/shards/2-of-2.attempts"
    is_over = threading.Event()

    def begin_and_end() -> None:
        while not is_over.is_set():
            attempts.touch()
            attempts.unlink()

    with ThreadPoolExecutor() as pool:
        ending = pool.submit(begin_and_end)
        try:
            for _ in range(1000):
                FeatureStore(tmp_path / "out")
        finally:
            is_over.set()
        ending.result()


@pytest.mark.parametrize("turn", range(5))
def test_shards_of_two_identities_that_start_at_once(tmp_path: Path, turn: int) -> None:
    video = a_video(tmp_path)

    def start(index: int) -> FeatureStore | None:
        store = FeatureStore(tmp_path / "out")
        try:
            store.open(MANIFEST if index % 2 else {**MANIFEST, "recipe": "kinetics-i3d"}, shard=Shard(index, 8))
        except ValueError as error:
            if "another kind" not in str(error):
                raise
            return None
        store.write(f"x{index}", np.ones((1, 2), np.float32), record_of(video))
        return store

    with ThreadPoolExecutor(8) as pool:
        stores = [store for store in pool.map(start, range(1, 9)) if store]
    assert len(stores) == 4
    assert all(store.identity == FeatureStore(tmp_path / "out").identity for store in stores)
    assert len(FeatureStore(tmp_path / "out").names()) == 4


def test_shards_of_a_new_count_that_start_at_once(tmp_path: Path) -> None:
    for index in range(1, 5):
        a_shard(tmp_path, index, 4).close()
    barrier = threading.Barrier(8)

    def start(index: int) -> FeatureStore:
        barrier.wait()
        return a_shard(tmp_path, index, 8)

    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(start, range(1, 9)))
    assert len(list((stores[0].folder / "shards").glob("*-of-8.lock"))) == 8


def test_a_shard_waits_for_the_one_that_begins_anew(tmp_path: Path) -> None:
    whole = a_store(tmp_path)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(a_shard, tmp_path, 1, 2)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        whole.close()
        waiting.result(10)


def test_a_store_tells_which_videos_are_a_shards(tmp_path: Path) -> None:
    videos = {}
    for n in range(5):
        videos[f"v{n}"] = tmp_path / f"v{n}.mp4"
        videos[f"v{n}"].write_bytes(b"x" * (n + 1))
    first, second = a_shard(tmp_path, 1, 2), a_shard(tmp_path, 2, 2)
    (own, loads), (others, _) = first.assign(videos, done={"v4"}), second.assign(videos, done={"v4"})
    assert own == {"v3", "v0", "v4"}  # v4 is done, so it comes last, and what is left to do is balanced
    assert own | others == set(videos)
    assert not own & others
    assert sorted(loads) == [5, 10]
