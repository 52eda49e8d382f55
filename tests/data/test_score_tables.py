"""Which column of a club's table is what, and what is refused, with line and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cofinal.data.label_rows import LabelSet, Segment
from cofinal.data.score_tables import TableOptions, read_score_table


def read(folder: Path, text: str, **options: Any) -> LabelSet:
    file = folder / "scores.csv"
    file.write_text(text)
    return read_score_table(file, TableOptions(**options))


def test_a_club_table_with_everything(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        "Unnamed: 0,Year,Athlete,File,Difficulty,Execution,Group,SPLIT,Apparatus,Action,Event\n"
        "0,2024,Anna,a.mp4,3.2,8.1,g1,train,x,Ball,Cup\n"
        "1,2024,Eva,b.mp4,DNS,7.9,g2,test,x,Hoop,\n"
        "2,2024,Ida,c.mp4,-,dnf,g2,,x,Hoop,Cup\n",
    )
    assert labels.targets == ("Difficulty", "Execution")
    assert labels.actions == ("Ball", "Hoop")
    first, second = labels.rows
    assert (first.video, first.scores, first.action) == ("a.mp4", {"Difficulty": 3.2, "Execution": 8.1}, "Ball")
    assert (first.group, first.split, first.event) == ("g1", "train", "Cup")
    assert first.info == {"Athlete": "Anna", "Apparatus": "x"}
    assert second.scores == {"Execution": 7.9}
    assert second.event == f"row {second.where}"  # so that no two routines without one are of one competition
    said = "\n".join(labels.notes)
    assert "targets: Difficulty, Execution (--target adds or narrows)" in said
    assert "known by their names: Group, SPLIT, Action, Event" in said
    assert "numbers that are not taken for scores: Unnamed: 0, Year" in said
    assert "kept as information: Athlete, Apparatus" in said
    assert "rows without a score (-, –, —, DNS, DNF or empty): 1" in said
    assert labels.reading["video_column"] == "File"
    assert labels.reading["not_judged"] == 1


def test_target_narrows_and_adds(tmp_path: Path) -> None:
    text = "video,score,year,bib\na,1,2019,x\nb,2,2020,7\n"
    assert read(tmp_path, text, targets=["Score"]).targets == ("score",)
    assert read(tmp_path, text, targets=["year", "score"]).rows[1].scores == {"year": 2020, "score": 2}
    with pytest.raises(ValueError, match=r"line 2, column bib: expected a number, found 'x'$"):
        read(tmp_path, text, targets=["bib"])
    with pytest.raises(ValueError, match=r"unknown target 'TES'; .*scores.csv has score, year"):
        read(tmp_path, text, targets=["TES"])


@pytest.mark.parametrize(
    ("header", "video"),
    [("name,VIDEO", "VIDEO"), ("File Name,name", "File Name"), ("clip,name", "clip"), ("athlete,Name", "Name")],
)
def test_the_video_column_is_known_by_its_name(tmp_path: Path, header: str, video: str) -> None:
    assert read(tmp_path, f"{header},score\nx,y,1\n").reading["video_column"] == video


def test_the_video_column_may_be_named(tmp_path: Path) -> None:
    text = "Aufnahme,video,score\nx,y,1\n"
    labels = read(tmp_path, text, video_column="aufnahme")
    assert labels.rows[0].video == "x"
    assert labels.rows[0].info == {"video": "y"}
    with pytest.raises(ValueError, match="has no column 'clip'; it has Aufnahme, video, score"):
        read(tmp_path, text, video_column="clip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,score\na,1\n", r"line 1: expected a column video, file, filename, clip or name .*--video-column"),
        ("Video,VIDEO,score\na,b,1\n", r"'Video' and 'VIDEO' may both be the video"),
        ("video,note\na,good\n", r"line 1: expected a header such as video,score"),
        ("video,year\na,2019\n", r"has numbers in year only, .* name the scores with --target"),
        ("video,score\na,5.3 pts\nb,4 pts\n", r"2 faults: line 2, column score: expected a number, found '5.3 pts'"),
        ("video,score\na,1\nb,high\n", r"line 3, column score: expected a number, found 'high'"),
        ("video,score\na,1\nb,#N/A\n", r"line 3, column score: expected a number, found '#N/A'"),
        ("video,score\na,1\nb,NaN\n", r"line 3, column score: expected a number, found 'NaN'"),
        ("video,score\na,1\nb,1_2\n", r"line 3, column score: expected a number, found '1_2'"),
        ('video,score\na,"1,250"\nb,"2,500"\n', r"line 2, column score: expected a number, found '1,250'"),
        ("video,score,split\na,1,val\n", r"line 2, column split: expected the split train or test, found 'val'"),
        ("video,score,split\na,1,Train\n", r"line 2, column split: expected the split train or test, found 'Train'"),
        ("video,score,Group,group\na,1,x,y\n", r"'Group' and 'group' have one meaning"),
        ("video,score\na,1\na,2\n", r"line 3, column video: 'a' is labelled already in line 2; keep one of the two"),
        ("video,score,start,end\na,1,5,5\n", r"line 2: expected start and end in seconds, the second larger"),
        ("video,score,start\na,1,5\n", r"line 1: a column 'start' needs the other one of start and end"),
        ("video,score,action\na,1,Ball\nb,2,\n", r"line 3, column action: expected the action, found none"),
        ("video,score\n,1\n", r"line 2, column video: expected the name of a video, found none"),
        ("video,score\n# note,\na,1\n", r"line 2, column video: '# note' is a comment; remove the line"),
        ("video,score\na,DNS\n", r"expected a header such as"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    text = "video,vault,split\na,high,train\n,2,train\nc,3,val\nc,4,test\n"
    with pytest.raises(ValueError, match=r"scores.csv has 4 faults: line 2, column vault") as error:
        read(tmp_path, text)
    for part in ("line 2, column vault", "line 3, column video", "line 4, column split", "line 5, column video"):
        assert part in str(error.value)


def test_scores_that_all_have_a_unit_beside_real_scores_are_warned_of(tmp_path: Path) -> None:
    labels = read(tmp_path, "video,score,total\na,5.3 pts,1\nb,4.1 pts,2\n")
    assert labels.targets == ("total",)
    assert any(note.startswith("warning: score looks like numbers with") for note in labels.notes)


def test_segments_of_longer_videos(tmp_path: Path) -> None:
    labels = read(tmp_path, "video,score,Start_Frame,end_frame\na.mp4,1,100,220\na.mp4,2,240,300\n")
    assert labels.rows[0].segment == Segment("a.mp4", 100, 220, "frames")
    assert [row.video for row in labels.rows] == ["a.mp4@100-220f", "a.mp4@240-300f"]
    assert any(note.startswith("start and end: these rows are segments") for note in labels.notes)
    (row,) = read(tmp_path, "video;score;start;end\na;1;0,5;2,0004\n").rows
    assert (row.video, row.segment) == ("a@0.5-2.0s", Segment("a", 0.5, 2.0004, "seconds"))
    with pytest.raises(ValueError, match="labelled already in line 2; keep one of the two"):
        read(tmp_path, "video,score,start,end\na,1,0,5\na,2,0,5\n")


PANEL = "video,E1,E2,E3,E4,Penalty\na,8,8.5,9,7,0\nb,6,6,7,-,0.5\nc,5,-,-,6,0\n"


def test_a_panel_makes_a_target_and_keeps_its_marks(tmp_path: Path) -> None:
    labels = read(tmp_path, PANEL, panels=["Execution=e1,e2,e3,e4"])
    assert labels.targets == ("Penalty", "Execution")
    assert labels.panels == {"Execution": "trimmed"}
    assert [row.scores.get("Execution") for row in labels.rows] == [8.25, 6, None]  # two marks cannot be trimmed
    np.testing.assert_equal(labels.rows[1].marks["Execution"], (6, 6, 7, np.nan))
    assert "Execution: the trimmed mean of E1, E2, E3, E4" in labels.notes
    mean = read(tmp_path, PANEL, panels=["Execution=E1,E2,E3,E4"], panel_score="mean", targets=["Execution"])
    assert [row.scores["Execution"] for row in mean.rows] == [8.125, pytest.approx(19 / 3), 5.5]


def test_a_column_of_the_panels_name_stays_the_score(tmp_path: Path) -> None:
    text = "video,E1,E2,E3,Execution\na,8,8.5,9,8.4\nb,6,6.5,7,6.5\n"
    labels = read(tmp_path, text, panels=["Execution=E1,E2,E3"])
    assert [row.scores for row in labels.rows] == [{"Execution": 8.4}, {"Execution": 6.5}]
    assert any("differs by 0.10 at most" in note for note in labels.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"panels": ["Execution=E1,E9"]}, r"has 2 judges, and --panel-score trimmed needs 3; take --panel-score mean"),
        ({"panels": ["Execution=E1,E2,E9"]}, r"has no column 'E9'; it has video, E1"),
        ({"panels": ["Execution=E1"]}, r"does not name two or more judges; write it like Execution=E1,E2,E3,E4"),
        ({"panels": ["Execution"]}, r"is not understood; write it like"),
        (
            {"panels": ["X=E1,E2"], "panel_score": "best"},
            r"unknown --panel-score 'best'; known are mean, trimmed",
        ),
        ({"sums": ["Total=E1+E7"]}, r"is not understood from '\+E7' on; its parts may be E1, E2, E3, E4, Penalty"),
    ],
)
def test_panels_and_sums_that_do_not_fit_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PANEL, **options)


SUM = "video,Difficulty,Execution,Penalty,Total\na,5,8,0.5,12.5\nb,6,7.25,0,13.24\nc,DNS,7,0,\n"


def test_a_sum_is_checked_on_every_row_and_learnt_through_its_parts(tmp_path: Path) -> None:
    labels = read(tmp_path, SUM, sums=["total=difficulty+Execution-Penalty"])
    assert labels.targets == ("Difficulty", "Execution", "Penalty")
    assert [str(one) for one in labels.sums] == ["Total = Difficulty + Execution - Penalty"]
    assert labels.reading["sums"] == ["Total = Difficulty + Execution - Penalty"]
    assert read(tmp_path, SUM, sums=["Total=Difficulty+Execution-Penalty"], targets=["Total"]).targets == labels.targets
    wrong = SUM.replace("12.5", "13.5").replace("13.24", "13.2")
    with pytest.raises(ValueError, match=r"2 faults: line 2, column Total: 13.5 is not 12.5, which Total = Diff"):
        read(tmp_path, wrong, sums=["Total=Difficulty+Execution-Penalty"])


def test_a_sum_may_have_a_panel_as_a_part(tmp_path: Path) -> None:
    labels = read(tmp_path, PANEL, panels=["E=E1,E2,E3,E4"], sums=["Final=E-Penalty"])
    assert labels.targets == ("Penalty", "E")
    assert str(labels.sums[0]) == "Final = E - Penalty"
