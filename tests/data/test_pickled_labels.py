"""The published label files of MTL-AQA, UNLV-Dive and JIGSAWS, as a whole and in small made-up ones."""

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cofinal.data.label_rows import Segment
from cofinal.data.labels import read_labels


@pytest.mark.shared
def test_mtl_aqa(shared: Path) -> None:
    labels = read_labels("mtl-aqa", [shared / "data/labels/mtl-aqa"])
    assert Counter(row.split for row in labels.rows) == {"train": 1059, "test": 353}
    assert (labels.targets, labels.ranges, labels.actions) == (("Final",), {"Final": (0, 105)}, ())
    assert labels.panels == {"Final": "middle"}
    first = labels.rows[0]
    assert (first.video, first.aliases, first.event) == ("01_01", ("1_1",), "01")
    assert first.scores == {"Final": 88.0}
    assert first.segment == Segment("01", 7377, 7462, "frames")
    assert first.info["difficulty"] == "3.2"
    assert first.marks["Final"] == pytest.approx([3.2 * 3 * mark for mark in (9.5, 9, 9.5, 9, 8.5, 9.5, 8.5)])
    assert any(note.startswith("in 27 of 1412 dives the published marks do not give") for note in labels.notes)
    assert len({row.video for row in labels.rows}) == 1412


@pytest.mark.shared
def test_mtl_aqa_without_the_marks(shared: Path, tmp_path: Path) -> None:
    for name in ("final_annotations_dict.pkl", "train_split_0.pkl", "test_split_0.pkl"):
        shutil.copy(shared / "data/labels/mtl-aqa" / name, tmp_path)
    labels = read_labels("mtl-aqa", [tmp_path])
    assert len(labels.rows) == 1412
    assert labels.panels == {}
    assert read_labels("mtl-aqa", [tmp_path / "final_annotations_dict.pkl"]).rows == labels.rows


@pytest.mark.shared
def test_unlv_dive(shared: Path) -> None:
    labels = read_labels("unlv-dive", [shared / "data/labels/unlv-dive"])
    assert Counter(row.split for row in labels.rows) == {"train": 299, "test": 70}
    assert "1 dives of the split have no label; they are left out" in labels.notes
    assert "3 dives are in neither part of the split; they are left out" in labels.notes
    assert all(labels.ranges["Final"][0] <= row.scores["Final"] <= labels.ranges["Final"][1] for row in labels.rows)


@pytest.mark.shared
def test_jigsaws(shared: Path) -> None:
    labels = read_labels("jigsaws", [shared / "data/labels/jigsaws"])
    assert Counter(row.action for row in labels.rows) == {"Suturing": 39, "Knot_Tying": 36, "Needle_Passing": 28}
    assert {row.fold for row in labels.rows} == {0, 1, 2, 3}
    assert labels.ranges == {"Score": (6, 30)}
    row = next(row for row in labels.rows if row.video == "Needle_Passing_B001")
    assert row.scores == {"Score": 8}
    assert row.aliases == ("Needle_Passing_B001_capture1",)
    assert row.info == {"surgeon": "B", "ratings": "1 1 1 2 1 2"}


DIVE = {
    "final_score": 60.0,
    "difficulty": 2.0,
    "start_frame": 1,
    "end_frame": 99,
    "position": 1,
    "armstand": 0,
    "rotation_type": 1,
    "ss_no": 3,
    "tw_no": 0,
    "primary_view": 0,
    "judge_scores": np.array([10.0] * 7),
}


def write(folder: Path, **contents: object) -> None:
    for name, content in contents.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol=3))


def test_made_up_dives_in_neither_part_are_left_out_and_said(tmp_path: Path) -> None:
    dives = {(1, n): DIVE for n in range(1, 5)}
    write(tmp_path, final_annotations_dict=dives, train_split_0=[(np.uint8(1), np.uint8(2))], test_split_0=[(1, 4)])
    labels = read_labels("mtl-aqa", [tmp_path])
    assert [(row.video, row.split) for row in labels.rows] == [("01_02", "train"), ("01_04", "test")]
    assert "2 dives are in neither part of the split; they are left out" in labels.notes
    assert any(note.startswith("in 0 of 2 dives") for note in labels.notes)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"final_annotations_dict": {(1, 1): DIVE}}, r"train_split_0.pkl cannot be read as labels"),
        (
            {"final_annotations_dict": {}, "train_split_0": [(1, 1)], "test_split_0": []},
            r"not the published labels",
        ),
        (
            {"final_annotations_dict": [], "train_split_0": [(1, 1)], "test_split_0": []},
            r"not the published labels",
        ),
        (
            {"final_annotations_dict": {(1, 1): {"score": 1}}, "train_split_0": [(1, 1)], "test_split_0": []},
            r"not the published labels",
        ),
        ({}, r"no augmented_final_annotations_dict.pkl or final_annotations_dict.pkl in "),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, contents: dict, message: str) -> None:
    write(tmp_path, **contents)
    with pytest.raises(ValueError, match=message):
        read_labels("mtl-aqa", [tmp_path])


@pytest.mark.parametrize(
    ("ratings", "splits"),
    [({"Suturing_B001": [1] * 5}, {"Suturing": [["Suturing_B001"]]}), ({"Suturing_B001": [1] * 6}, {}), ([], {})],
)
def test_jigsaws_of_another_form_are_refused(tmp_path: Path, ratings: object, splits: object) -> None:
    write(tmp_path, label=ratings, splits=splits)
    with pytest.raises(ValueError, match="labels of JIGSAWS"):
        read_labels("jigsaws", [tmp_path])
