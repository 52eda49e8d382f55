"""Labels are matched to features by name."""

from pathlib import Path

import pytest

from cofinal.data.datasets import join, with_column
from cofinal.data.labels import LabelRow, LabelSet


def labels(*videos: str) -> LabelSet:
    rows = tuple(LabelRow(video, {"score": 1.0}, f"labels.csv line {i + 2}") for i, video in enumerate(videos))
    return LabelSet("csv", ("score",), {}, (), rows, ())


NAMES = ["a/x", "b/x", "deep/er/y", "b/z", "v1.2", "w"]


def test_relative_name_then_unique_stem_then_suffix() -> None:
    joined = join(labels("a/x", "y", "b/z.mp4", "v1.2", "vids/w.MP4"), NAMES, {".mp4"})
    assert [name for _, name in joined.pairs] == ["a/x", "deep/er/y", "b/z", "v1.2", "w"]
    assert joined.features_without_label == ("b/x",)
    assert joined.rows_without_features == ()


def test_only_a_videos_suffix_is_taken_off() -> None:
    with pytest.raises(ValueError, match="none of the 1 labels"):
        join(labels("clip.1"), ["clip"], {".mp4"})


def test_folders_of_windows_are_folders() -> None:
    joined = join(labels("D:\\judged\\001.mp4", r"\\club\b\x.MP4", "C:w"), ["001", "a/x", "b/x", "w"], {".mp4"})
    assert [name for _, name in joined.pairs] == ["001", "b/x", "w"]
    with pytest.raises(ValueError, match="matches 'a/x' and 'b/x'"):
        join(labels(r"D:\x.mp4"), ["a/x", "b/x"], {".mp4"})


def test_a_name_is_the_same_however_its_accents_are_coded() -> None:
    composed, apart = "Zo\u00eb", "Zoe\u0308"
    assert composed != apart
    for label, name in ((composed, apart), (apart, composed)):
        assert join(labels(f"{label}.mp4"), [name], {".mp4"}).pairs[0][1] == name
    assert join(labels(apart), [composed, apart]).pairs[0][1] == apart  # exactly the same comes first
    with pytest.raises(ValueError, match="matches"):
        join(labels(composed), [f"a/{composed}", f"b/{apart}"])


def test_leading_zeros_that_excel_took_are_found_and_said() -> None:
    joined = join(labels("1", "002", "10.mp4"), ["001", "002", "010"], {".mp4"})
    assert [name for _, name in joined.pairs] == ["001", "002", "010"]
    assert joined.leftovers() == [
        "2 labels match but for leading zeros, which Excel takes off: 1 is 001, 10.mp4 is 010"
    ]
    with pytest.raises(ValueError, match=r"line 2: '1' matches '01' and '001'"):
        join(labels("1"), ["01", "001"])
    with pytest.raises(ValueError, match="both mean the features '001'"):
        join(labels("1", "001"), ["001"])
    with pytest.raises(ValueError, match="none of the 2 labels"):
        join(labels("1.0", "1_2"), ["001", "012"])


def test_an_alias_is_found_after_the_name() -> None:
    row = LabelRow("trial", {"score": 1.0}, "here", aliases=("trial_capture1",))
    alone = LabelSet("jigsaws", ("score",), {}, (), (row,), ())
    assert join(alone, ["trial_capture1"]).pairs == ((row, "trial_capture1"),)
    assert join(alone, ["trial_capture1", "trial"]).pairs == ((row, "trial"),)


def test_ambiguous_stem_names_both() -> None:
    with pytest.raises(ValueError, match=r"line 2: 'x' matches 'a/x' and 'b/x'"):
        join(labels("x"), ["a/x", "b/x"])


def test_two_rows_for_one_feature() -> None:
    with pytest.raises(ValueError, match=r"line 3 and .*line 2 both mean the features 'a/x'"):
        join(labels("x", "a/x.mp4"), ["a/x"], {".mp4"})


def test_no_match_shows_an_example_of_each_side() -> None:
    with pytest.raises(ValueError, match=r"none of the 2 labels \('p'.*3 feature files \('1'"):
        join(labels("p", "q"), ["1", "2", "3"])


def test_leftovers_are_counted_and_the_first_ten_named() -> None:
    joined = join(labels("x", *(f"gone{i}" for i in range(12))), ["x", "extra"])
    rows, features = joined.leftovers()
    assert rows.startswith("12 label rows have no feature file: gone0, ")
    assert rows.endswith("gone9, ...")
    assert features == "1 feature files have no label: extra"


def test_a_column_is_matched_by_the_same_rules(tmp_path: Path) -> None:
    file = tmp_path / "a:b.csv"
    file.write_text("skater, video ,event\ns1,a/x,e1\ns2,b/x,e1\ns3,deep/er/y,e2\ns4,w.mp4,e2\ns5,more,e2\n")
    ungrouped = labels("a/x", "b/x.MP4", "y", "vids/w.mp4")
    grouped = with_column(ungrouped, "group", f"{file}:skater", {".mp4"})
    assert [row.group for row in grouped.rows] == ["s1", "s2", "s3", "s4"]
    assert [row.event for row in grouped.rows] == [None] * 4
    both = with_column(grouped, "event", f"{file}:event", {".mp4"})
    assert [(row.group, row.event) for row in both.rows] == [("s1", "e1"), ("s2", "e1"), ("s3", "e2"), ("s4", "e2")]


def test_a_column_comes_from_any_table(tmp_path: Path) -> None:
    file = tmp_path / "skaters.csv"
    file.write_bytes("Video;Läufer\r\nD:\\x\\1.mp4;s1\r\n002;s2\r\n".encode("cp1252"))
    grouped = with_column(labels("001", "x/002.mp4"), "group", f"{file}:läufer", {".mp4"})
    assert [row.group for row in grouped.rows] == ["s1", "s2"]


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        ("video,skater\nx,s1\n", "skaters.csv", "'skaters.csv' is not FILE:COLUMN, for example skaters.csv:skater"),
        ("video,skater\nx,s1\n", "gone.csv:skater", "gone.csv cannot be read"),
        ("video,skater\nx,s1\n", "skaters.csv:event", "expected the columns video and event, found video, skater"),
        (
            "video,skater\nx,s1\n",
            "skaters.csv:skater",
            "lacks 1 of the 2 labelled videos, the first is 'y'; add a line",
        ),
        ("video,skater\nx,s1\ny,\n", "skaters.csv:skater", "line 3: expected a video and its skater, found 'y', ''"),
        ("video,skater\nx,s1\nx,s2\n", "skaters.csv:skater", "line 3: expected each video once"),
        ("video,skater\na/x,s1\nb/x,s2\ny,s1\n", "skaters.csv:skater", "'x' matches 'a/x' and 'b/x'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("skaters.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        with_column(labels("x", "y"), "group", source)
