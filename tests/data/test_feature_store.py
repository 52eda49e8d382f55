"""The feature store: identity, resume, names, and what a killed run leaves behind."""

from pathlib import Path

import numpy as np
import pytest

from data.feature_store import FeatureStore, find_store, load_features, source_facts

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
    assert again.is_done("a/x", video)
    assert not again.is_done("a/y", video)
    assert not list(store.folder.rglob(".writing-*"))


def test_touched_file_is_done_by_its_content_but_a_changed_one_is_not(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    video.write_bytes(b"frames")
    assert FeatureStore(store.folder).is_done("x", video)
    video.write_bytes(b"other frames")
    assert not FeatureStore(store.folder).is_done("x", video)


def test_missing_array_or_error_record_is_not_done(tmp_path: Path) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    store.path("x").unlink()
    assert not store.is_done("x", video)
    store.append({"video": "y", **source_facts(video), "error": "broken"})
    assert not store.is_done("y", video)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_torn_last_record_is_ignored_and_the_next_one_readable(tmp_path: Path, cut: int) -> None:
    store, video = a_store(tmp_path), a_video(tmp_path)
    store.write("x", np.ones((1, 2), np.float32), record_of(video))
    store.write("y", np.ones((1, 2), np.float32), record_of(video))
    path = store.folder / "videos.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    torn = FeatureStore(store.folder)
    assert torn.is_done("x", video)
    assert torn.is_done("y", video) == (cut == 1)  # only the line's end is missing: the record is whole
    torn.write("z", np.ones((1, 2), np.float32), record_of(video))
    assert set(FeatureStore(store.folder).records) == {"x", "z"} | ({"y"} if cut == 1 else set())


def test_another_identity_is_refused_with_both_named(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    with pytest.raises(ValueError, match=r"gdlt-i3d.*kinetics-i3d"):
        FeatureStore(store.folder).open({**MANIFEST, "recipe": "kinetics-i3d"})
    assert FeatureStore(store.folder).identity == IDENTITY


def test_another_precision_is_a_warning(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    assert FeatureStore(store.folder).open(MANIFEST) == []
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
