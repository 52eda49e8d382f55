"""Label files: the published ones as a whole, and rows that cannot be read."""

from collections import Counter
from pathlib import Path

import pytest

from cofinal.data.labels import CSV_NAME, LabelSet, TableOptions, read_labels, with_ranges

RG_HEADER = "Video_Name\tDifficulty_Score    Execution_Score Total_Score\tPenalty\tVideo_length\n"


@pytest.mark.shared
def test_rg_real_files(shared: Path) -> None:
    labels = read_labels("rg", [shared / "data/rg"])
    assert Counter((row.action, row.split) for row in labels.rows) == {
        (action, split): count
        for action in ("Ball", "Clubs", "Hoop", "Ribbon")
        for split, count in (("train", 200), ("test", 50))
    }
    assert labels.targets == ("Difficulty", "Execution", "Total")
    first = labels.rows[0]
    assert (first.video, first.scores) == ("Ball_001", {"Difficulty": 10.5, "Execution": 8.3, "Total": 18.8})


@pytest.mark.shared
def test_fisv_real_file_keeps_its_first_and_last_row(shared: Path) -> None:
    labels = read_labels("fisv", [shared / "data/fisv"])
    assert len(labels.rows) == 400
    assert labels.rows[0].video == "1"
    assert labels.rows[0].scores == {"TES": 28.71, "PCS": 29.36}
    assert labels.actions == ()
    assert max(row.scores["TES"] for row in labels.rows) == 42.81 < labels.ranges["TES"][1]


def csv_labels(folder: Path, text: str) -> LabelSet:
    (folder / CSV_NAME).write_text(text)
    return read_labels("csv", [folder])


def test_csv_with_everything(tmp_path: Path) -> None:
    labels = csv_labels(
        tmp_path,
        "video,vault,bars,split,group\na/1.mp4,9.5,,train,anna\n2,8,7.5,train,eva\n3,2,1,test,\n4,9,7,train,eva\n\n",
    )
    assert labels.targets == ("vault", "bars")
    assert labels.rows[0].scores == {"vault": 9.5}
    assert [row.split for row in labels.rows] == ["train", "train", "test", "train"]
    assert [row.group for row in labels.rows] == ["anna", "eva", None, "eva"]
    assert labels.ranges == {}
    assert labels.files == (tmp_path / "labels.csv",)


def test_csv_may_be_named_itself(tmp_path: Path) -> None:
    path = tmp_path / "judges.csv"
    path.write_text("video,score\na,1\nb,2\n")
    assert len(read_labels("csv", [path]).rows) == 2


@pytest.mark.parametrize(
    ("dataset", "name", "text", "message"),
    [
        ("rg", "train.txt", RG_HEADER + "Ball_001 10.5 8.3 18.8 0\n", r"train.txt line 2: expected 6 fields"),
        (
            "rg",
            "train.txt",
            RG_HEADER + "Ball_001 ten 8.3 18.8 0 92\n",
            r"line 2: expected a number for Difficulty",
        ),
        ("rg", "train.txt", RG_HEADER + "Rope_001 1 8.3 18.8 0 92\n", r"line 2: .*Ball, Clubs, Hoop, Ribbon"),
        (
            "rg",
            "train.txt",
            RG_HEADER + "Ball_001 1 12 18.8 0 92\n",
            r"expected Execution between 0 and 10, found 12",
        ),
        (
            "fisv",
            "train.txt",
            "1 28.71 29.36 1\n2 nan 29 0\n",
            r"train.txt line 2: expected a number for TES",
        ),
        (
            "fisv",
            "train.txt",
            "1 28.71 29.36 1\n1 28.71 29.36 1\n",
            r"line 2: '1' is labelled already in .*line 1",
        ),
        ("fisv", "train.txt", "\n", r"have no row"),
        ("fisv", "train.txt", "1 2_8.71 29.36 1\n", r"line 1: expected a number for TES, found '2_8.71'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, dataset: str, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_labels(dataset, [tmp_path])


def test_binary_label_file(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="cannot be read as text"):
        read_labels("fisv", [tmp_path])


def test_places_are_tried_in_order(tmp_path: Path) -> None:
    for folder, score in (("second", 2), ("third", 3)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.txt").write_text(f"1 {score} 20 0\n")
    (tmp_path / "first").mkdir()
    labels = read_labels("fisv", [tmp_path / "first", tmp_path / "second", tmp_path / "third"])
    assert labels.rows[0].scores["TES"] == 2
    with pytest.raises(ValueError, match=r"first.*--labels"):
        read_labels("fisv", [tmp_path / "first"])


def test_a_range_is_kept_and_holds_all_scores(tmp_path: Path) -> None:
    labels = csv_labels(tmp_path, "video,Final\na,12\nb,29.5\n")
    assert with_ranges(labels, ["final=0:30"]).ranges == {"Final": (0, 30)}
    with pytest.raises(ValueError, match=r"labels.csv line 3: Final is 29.5, outside of --range Final=0:29"):
        with_ranges(labels, ["Final=0:29"])
    with pytest.raises(ValueError, match="unknown target 'Total'; known are Final"):
        with_ranges(labels, ["Total=0:30"])


def test_options_of_tables_are_refused_for_published_formats(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 2 20 0\n")
    with pytest.raises(ValueError, match="--sum are for tables"):
        read_labels("fisv", [tmp_path], TableOptions(sums=["Total=TES+PCS"]))


def test_unknown_dataset_lists_the_known() -> None:
    with pytest.raises(ValueError, match="rg, fisv, mtl-aqa, unlv-dive, jigsaws, csv"):
        read_labels("mtl", [])
