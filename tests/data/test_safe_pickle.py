"""Pickled labels are read, and nothing in a pickle is ever run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cofinal.data.safe_pickle import read_pickle


def written(folder: Path, content: Any, protocol: int = 3) -> Path:
    file = folder / "labels.pkl"
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    return file


def test_plain_content_comes_back(tmp_path: Path) -> None:
    content = {(1, "a"): [1.5, None, True, b"x", {"s": {1: 2}}], "ä": ()}
    assert read_pickle(written(tmp_path, content)) == content


@pytest.mark.parametrize("kind", ["?", "i1", ">i4", "u8", "f2", ">f4", "f8"])
def test_arrays_and_single_numbers_of_numpy(tmp_path: Path, kind: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    found = read_pickle(written(tmp_path, {"a": array, "t": np.asfortranarray(array), "n": (array[1, 1],)}))
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["t"], array)
    assert found["n"] == (array[1, 1],)
    assert type(found["n"][0]) in (int, float, bool)


def test_what_python_2_wrote(tmp_path: Path) -> None:
    file = tmp_path / "old.pkl"
    file.write_bytes(
        b"(dp0\nS'judge'\np1\ncnumpy.core.multiarray\nscalar\np2\n(cnumpy\ndtype\np3\n(S'u1'\np4\nI0\nI1\ntp5\n"
        b"Rp6\n(I3\nS'|'\np7\nNNNI-1\nI-1\nI0\ntp8\nbS'\\x07'\np9\ntp10\nRp11\ns."
    )
    assert read_pickle(file) == {"judge": 7}


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "asks for builtins.print"),
        (Path("x"), "asks for pathlib"),
        (np.array(["text"]), "array of 'U4'"),
        (np.array([Evil()], dtype=object), "asks for builtins.print|array of 'O8'"),
        (np.dtype("f8"), "holds a _PickledType"),
        (np.ndarray, "asks for numpy.ndarray|holds a type"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: Any, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=rf"labels.pkl cannot be read as labels: .*({message})"):
        read_pickle(written(tmp_path, content))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({"a": np.zeros(9)}, protocol=3)[:-9],
        b"\x80\x03}r\xff\xff\xff\x7f.",  # claims to number two thousand million objects
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x03ccopyreg\n_reconstructor\n.",
    ],
)
def test_damaged_and_hostile_files_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.pkl cannot be read as labels: ."):
        read_pickle(tmp_path / "x.pkl")


def test_one_content_may_not_be_copied_without_end(tmp_path: Path) -> None:
    array = pickle.dumps(np.zeros(100), protocol=2)
    assert len(array) < 2000
    shared = np.zeros(100)
    file = written(tmp_path, [shared, shared])
    first, second = read_pickle(file)
    assert first is second
