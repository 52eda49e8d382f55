"""score-video of several routines: a ranking, what is kept, what fails, and the judges' scores beside them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cofinal import score_video, score_videos
from cofinal.pipeline.evaluation import mae, srcc
from cofinal.pipeline.evidence import Evidence
from cofinal.pipeline.ranking import ranked, ranking_target
from cofinal.pipeline.verdict import CoarseGrade, Score, TargetScore


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def made_up(points: float, action: str | None = None) -> Score:
    coarse = CoarseGrade(1, 1, (0.0, 9.0), [1.0], [0.0, 9.0], None)
    evidence = Evidence([], {}, None, [])
    verdict = {"Total": TargetScore(coarse, None, points, None)}
    return Score("v.mp4", "h", action, verdict, {}, 9, None, 1, [], [], {}, evidence, {})


def test_a_folder_is_scored_by_one_process_and_ranked(
    command, videos: Path, trained: Path, store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    for i in range(3):
        shutil.copy(videos / f"v{i}.mp4", folder / "a" / f"v{i}.mp4")
    (folder / "broken.mp4").touch()
    table, reports = tmp_path / "out/scores.csv", tmp_path / "reports"
    ended = command("score-video", folder, "--head", trained, "--csv", table, "--report", reports)
    assert ended.code == 1
    assert "3 videos scored, 1 failed" in ended.err
    rows = rows_of(table)
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    points = [float(row["score"]) for row in rows[:3]]
    assert points == sorted(points, reverse=True)
    for row in rows[:3]:
        cached = score_video(store / f"{Path(row['video']).stem}.npy", trained)
        assert cached.targets["score"].score == float(row["score"])
    assert "broken.mp4" in rows[3]["error"]
    index = (reports / "index.html").read_text()
    for row in rows[:3]:
        page = f"a/{Path(row['video']).stem}.html"
        assert f'href="{page}"' in index
        assert (reports / page).exists()
    assert rows[3]["error"].partition(" ")[2] in index.replace("&#39;", "'")

    # what has not changed is kept, and what is new or changed is scored
    written = {page: page.stat().st_mtime_ns for page in reports.rglob("v*.html")}
    shutil.copy(videos / "v4.mp4", folder / "a/v1.mp4")
    os.utime(folder / "a/v2.mp4")
    shutil.copy(videos / "v3.mp4", folder / "v3.mp4")
    (reports / "scores.jsonl").open("a").write('{"name": "torn')
    result = score_videos(folder, trained, csv=table, report=reports)
    assert (len(result.scores), result.kept, len(result.failed)) == (4, 2, 1)
    changed = {page.stem for page, when in written.items() if page.stat().st_mtime_ns != when}
    assert changed == {"v1"}
    assert result.scores["a/v1"].targets == score_video(store / "v4.npy", trained).targets
    assert score_videos(folder, trained, csv=table, report=reports).kept == 4

    # another video of the same name takes the report over
    other = tmp_path / "other/a/v0.mp4"
    other.parent.mkdir(parents=True)
    shutil.copy(videos / "v5.mp4", other)
    assert score_videos(other.parent.parent, trained, report=reports).kept == 0
    assert score_videos(folder, trained, report=reports).kept == 3
    assert str(folder / "a/v0.mp4") in (reports / "a/v0.html").read_text()
    shutil.rmtree(folder / "a")
    assert score_videos(folder, trained, csv=table, report=reports, decoder="pyav").kept == 0


def test_json_of_several_is_a_line_each(command, videos: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").touch()
    named = [videos / "v0.mp4", tmp_path / "broken.mp4", videos / "v1.mp4"]
    ended = command("score-video", *named, "--head", trained, "--json")
    assert ended.code == 1
    first, second, failed = map(json.loads, ended.out.splitlines())
    assert [first["video"], second["video"], failed["video"]] == [str(named[0]), str(named[2]), str(named[1])]
    assert set(failed) == {"format", "video", "error"}
    assert json.loads(json.dumps(Score.from_json(first).as_json())) == first


def test_scores_are_compared_with_the_judges(command, trained: Path, store: Path, tmp_path: Path) -> None:
    run = ["score-video", store, "--head", trained, "--dataset", "csv"]
    ended = command(*run, "--json")
    *scores, last = map(json.loads, ended.out.splitlines())
    points = np.array([x["targets"]["score"]["score"] for x in scores])
    truth = np.array([5 + int(Path(x["video"]).stem[1:]) / 2 for x in scores])
    figures = last["evaluation"]["targets"]["score"]
    assert (figures["n"], figures["srcc"]) == (8, pytest.approx(srcc(truth, points)))
    assert figures["mae"] == pytest.approx(mae(truth, points))
    assert "if the head was not trained on them" in last["evaluation"]["warnings"][0]

    # a test split is evaluated alone
    labels = tmp_path / "judged.csv"
    labels.write_text("video,score,split\nv0,5,train\nv1,7,test\nv2,6,test\nv3,9,test\ngone,4,test\n")
    result = score_videos(store, trained, dataset="csv", labels=labels)
    assert (result.evaluation["evaluated"], result.evaluation["targets"]["score"]["n"]) == ("test", 3)
    assert result.evaluation["warnings"] == []
    ended = command(*run, "--labels", labels)
    assert "1 label rows have no feature file: gone" in ended.err
    assert f"{result.evaluation['targets']['score']['mae']:.2f}" in ended.out


def test_coverage_is_that_of_the_heads_intervals(command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    rows = ["video,score"]
    for i in range(20):
        np.save(tmp_path / f"features/r{i}.npy", rng.normal(i, 1, (5, 8)).astype(np.float32))
        rows.append(f"r{i},{i}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    head = tmp_path / "h.safetensors"
    assert command("train-head", tmp_path / "features", "--dataset", "csv", "--epochs", 2, "--out", head).code == 0
    result = score_videos(tmp_path / "features", head, dataset="csv")
    spans = {name: score.targets["score"].interval.span for name, score in result.scores.items()}
    inside = [low <= int(name[1:]) <= high for name, (low, high) in spans.items()]
    assert result.evaluation["targets"]["score"]["coverage"] == pytest.approx(np.mean(inside))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["v0.mp4", "v1.mp4", "--report", "r.html"], "several videos; name a folder"),
        (["v0.mp4", "--csv", "."], "is a folder; name the table's file"),
        (["v0.mp4", "--report", "labels.csv"], "name a folder, or for one video a page *.html"),
        (["v0.mp4", "v1.mp4", "--rank-by", "TES"], "unknown target; this head has score"),
        (["v0.mp4", "v1.mp4", "--labels", "labels.csv"], "--labels needs --dataset"),
        (["v0.mp4", "v1.mp4", "--dataset", "csv"], "name the judges' scores with --labels"),
        (["v0.mp4", "--dataset", "csv"], "one video was named"),
        (["v0.mp4", "v1.mp4", "--dataset", "csv", "--labels", "labels.csv", "--csv", "labels.csv"], "judges' table"),
        (["v0.mp4", "v1.mp4", "--panel", "score=A,B"], "--dataset is missing"),
        (["v0.mp4", "gone.mp4"], "gone.mp4 does not exist"),
    ],
)
def test_bad_arguments_do_nothing(
    command, videos: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, arguments: list, message: str
) -> None:
    monkeypatch.chdir(videos)
    before = sorted(videos.iterdir())
    ended = command("score-video", *arguments, "--head", trained)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert sorted(videos.iterdir()) == before


def test_labels_of_other_targets_are_refused(command, videos: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("video,Grace\nv0,5\nv1,6\n")
    ended = command("score-video", videos, "--head", trained, "--dataset", "csv", "--labels", tmp_path / "l.csv")
    assert ended.code == 2
    assert "Grace" in ended.err


def test_equal_scores_share_a_rank_and_each_action_has_its_own() -> None:
    scores = {"a": made_up(5, "Ball"), "b": made_up(7, "Ball"), "c": made_up(5, "Ball"), "d": made_up(1, "Ball")}
    places = ranked(scores | {"e": made_up(3, "Hoop")}, "Total")
    assert [(place.name, place.rank) for place in places] == [("b", 1), ("a", 2), ("c", 2), ("d", 4), ("e", 1)]
    assert ranking_target(["TES", "PCS"], None) == "TES"
    assert ranking_target(["Difficulty", "Total"], None) == "Total"
    assert ranking_target(["TES", "PCS"], "pcs") == "PCS"


def test_a_spreadsheet_takes_no_name_for_a_formula(
    videos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(videos / "v0.mp4", "=1+1.mp4")
    Path("=bad.mp4").touch()
    score_videos(["=1+1.mp4", "=bad.mp4"], trained, csv="s.csv")
    rows = rows_of(Path("s.csv"))
    assert [row["video"] for row in rows] == ["./=1+1.mp4", "./=bad.mp4"]
    assert rows[1]["error"].startswith("./=bad.mp4")


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_is_done(videos: Path, trained: Path, tmp_path: Path) -> None:
    run = [sys.executable, "-m", "cofinal", "score-video", videos, "--head", trained, "--csv", tmp_path / "s.csv"]
    process = subprocess.Popen(list(map(str, run)), stderr=subprocess.PIPE, text=True)
    log = tmp_path / "s.csv.jsonl"
    while not log.exists() or not log.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "of 8 videos are scored; run the same command again to go on" in said
    done = len(log.read_text().splitlines())
    assert 1 <= done < 8
    assert len(rows_of(tmp_path / "s.csv")) == done
    assert score_videos(videos, trained, csv=tmp_path / "s.csv").kept == done


def test_videos_that_labels_cut_are_not_scored_whole(command, videos: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("video,start,end,score\nv0,0,0.7,5\nv1,0,0.7,6\n")
    ended = command("score-video", videos, "--head", trained, "--dataset", "csv", "--labels", tmp_path / "l.csv")
    assert ended.code == 2
    assert "judges segments of" in ended.err
    assert "extract-features VIDEOS OUT --dataset csv" in ended.err
