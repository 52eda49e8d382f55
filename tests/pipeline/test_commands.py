"""The three commands from end to end: what they write, print and end with, on good and on bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors import safe_open

from cofinal import extract_features, score_video, train_head
from cofinal.data.feature_store import FeatureStore
from cofinal.data.text_labels import RG_HEADER
from cofinal.extractors.video import GENERATED_COMMENT
from cofinal.pipeline.options import ExtractorOptions
from cofinal.pipeline.report import render_report
from cofinal.pipeline.score_output import print_score
from cofinal.pipeline.scoring import Scorer, _action_in_name
from cofinal.pipeline.unfinished import new_head


def one_sentence(ended) -> str:
    """Return the error of a command that did nothing, having checked that it is one line on stderr."""
    assert ended.code == 2
    assert ended.out == ""
    lines = ended.err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in ended.err
    return lines[-1]


# --- extract-features ---------------------------------------------------------------------------------------------


def test_store_holds_features_manifest_and_records(videos: Path, store: Path) -> None:
    found = FeatureStore(store)
    assert found.names() == [f"v{seed}" for seed in range(8)]
    assert found.identity is not None
    assert found.identity["recipe"] == "gdlt-i3d"
    assert found.load("v0").shape == (1, 1024)
    assert np.load(store / "v0.npy").dtype == np.float32
    record = found.records["v0"]
    assert record["clips"] == 1
    assert record["size"] == (videos / "v0.mp4").stat().st_size
    assert record["decoder"] in ("decord", "pyav")
    assert found.manifest is not None
    assert found.manifest["videos"] == str(videos)


def test_second_run_does_nothing_and_overwrite_gives_the_same_bytes(command, videos: Path, store: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.glob("*.npy")}
    again = json.loads(command("extract-features", videos, store, "--json").out)
    assert (again["extracted"], again["already_done"], again["failed"]) == (0, 8, [])
    assert all(path.stat().st_mtime_ns == stamp for path, (stamp, _) in before.items())
    once = json.loads(command("extract-features", videos / "v3.mp4", store, "--overwrite", "--json").out)
    assert once["extracted"] == 1
    path = store / "v3.npy"
    assert path.stat().st_mtime_ns != before[path][0]
    assert path.read_bytes() == before[path][1]


def test_bad_files_among_good_ones_cost_only_themselves(command, write_video, tmp_path: Path) -> None:
    write_video(tmp_path / "in/good one.mp4")
    write_video(tmp_path / "in/-dash.mp4", seed=1)
    write_video(tmp_path / "in/short.mp4", seconds=0.8)
    (tmp_path / "in/empty.mp4").touch()
    (tmp_path / "in/text.avi").write_text("not a video")
    (tmp_path / "in/dangling.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "in/notes.txt").write_text("left alone")
    ended = command("extract-features", tmp_path / "in", tmp_path / "out", "--json")
    summary = json.loads(ended.out)
    assert ended.code == 1
    assert FeatureStore(tmp_path / "out").names() == ["-dash", "good one"]
    errors = {Path(failure["video"]).name: failure["error"] for failure in summary["failed"]}
    assert set(errors) == {"short.mp4", "empty.mp4", "text.avi", "dangling.mp4"}
    assert "1.28" in errors["short.mp4"]  # how long it must be
    assert all(name in ended.err for name in errors)
    assert "Traceback" not in ended.err
    write_video(tmp_path / "in/short.mp4", seconds=1.4)
    again = json.loads(command("extract-features", tmp_path / "in", tmp_path / "out", "--json").out)
    assert (again["extracted"], again["already_done"], len(again["failed"])) == (1, 2, 3)


def test_a_video_that_went_bad_leaves_no_stale_features(write_video, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in/v.mp4")
    extract_features(video, tmp_path / "out", weights="random")
    video.write_bytes(b"garbage")
    assert len(extract_features(video, tmp_path / "out", weights="random").failed) == 1
    assert FeatureStore(tmp_path / "out").names() == []


def test_an_array_that_was_cut_is_made_again(command, write_video, tmp_path: Path) -> None:
    run = ["extract-features", write_video(tmp_path / "v.mp4"), tmp_path / "out", "--weights", "random", "--json"]
    command(*run)
    whole = (tmp_path / "out/v.npy").read_bytes()
    (tmp_path / "out/v.npy").write_bytes(whole[:-100])
    assert json.loads(command(*run).out)["extracted"] == 1
    assert (tmp_path / "out/v.npy").read_bytes() == whole


def test_another_folders_video_of_the_same_name_is_refused(command, write_video, videos: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a/v0.mp4", seed=5)
    shutil.copytree(videos, tmp_path / "moved")
    run = ["--weights", "random"]
    assert command("extract-features", videos / "v0.mp4", tmp_path / "out", *run).code == 0
    before = (tmp_path / "out/v0.npy").read_bytes()
    error = one_sentence(command("extract-features", tmp_path / "a", tmp_path / "out", *run))
    assert f"{videos / 'v0.mp4'} and {tmp_path / 'a/v0.mp4'} would both become v0.npy" in error
    assert (tmp_path / "out/v0.npy").read_bytes() == before
    copied = command("extract-features", tmp_path / "moved/v0.mp4", tmp_path / "out", *run, "--json")
    assert json.loads(copied.out)["already_done"] == 1


def test_debug_shows_why_a_video_failed(command, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    ended = command("extract-features", tmp_path / "v.mp4", tmp_path / "out", "--weights", "random", "--debug")
    assert ended.code == 1
    assert "Traceback" in ended.err


def test_videos_that_crash_hang_or_confuse_their_reader_cost_only_themselves(
    command, write_video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cofinal.extractors.reader.SOURCE", "faulty_video")
    faults = {"crash_at_9": "SIGSEGV", "hang_at_9": "for 1 s (--stall-timeout)", "garbage_at_9": "invalid answers"}
    for seed, name in enumerate((*faults, "good")):
        write_video(tmp_path / f"in/{name}.mp4", seed=seed)
    run = ["extract-features", tmp_path / "in", tmp_path / "out", "--stall-timeout", "1", "--json"]
    ended = command(*run)
    assert ended.code == 1
    errors = {Path(failure["video"]).stem: failure["error"] for failure in json.loads(ended.out)["failed"]}
    assert errors.keys() == faults.keys()
    assert all(reason in errors[name] for name, reason in faults.items())
    assert FeatureStore(tmp_path / "out").names() == ["good"]
    records = FeatureStore(tmp_path / "out").records
    assert all(records[name]["error"] == error for name, error in errors.items())

    monkeypatch.setattr("cofinal.extractors.reader.SOURCE", "cofinal.extractors.decoders")
    ended = command(*run)  # not tried again, but not forgotten
    assert ended.code == 1
    again = json.loads(ended.out)["failed"]
    assert len(again) == 3
    assert all(failure["error"].endswith("--retry-failed tries again)") for failure in again)
    ended = command(*run, "--retry-failed")
    assert ended.code == 0
    assert (json.loads(ended.out)["extracted"], json.loads(ended.out)["already_done"]) == (3, 1)


@pytest.mark.shared
def test_a_damaged_video_gives_its_good_part_only_if_that_is_allowed(
    command, shared: Path, trained: Path, tmp_path: Path
) -> None:
    path = shared / "videos" / "awkward" / "truncated.mkv"
    extracting = ["extract-features", path, tmp_path / "out", "--weights", "random", "--recipe", "actionnet-i3d"]
    ended = command(*extracting)
    assert ended.code == 1
    assert "breaks off: it can be read up to 9.40 s of 10.33 s" in ended.err
    ended = command(*extracting, "--retry-failed", "--allow-partial")
    assert ended.code == 0
    assert "only a part of the video was used" in ended.err
    record = FeatureStore(tmp_path / "out").records["truncated"]
    assert (record["partial"], record["clips"]) == (True, 3)
    ended = command("score-video", path, "--head", trained)
    assert (ended.code, ended.out) == (1, "")


def test_limits_refuse_a_video_with_both_numbers(command, videos: Path, trained: Path, tmp_path: Path) -> None:
    for run in (
        ["extract-features", videos / "v0.mp4", tmp_path / "out", "--weights", "random"],
        ["score-video", videos / "v0.mp4", "--head", trained],
    ):
        for option, said in (("--max-pixels", "6144 pixels, and 1 are"), ("--max-duration", "1.40 s, and 1 s are")):
            ended = command(*run, option, "1", *(["--retry-failed"] if run[0] == "extract-features" else []))
            assert ended.code == 1
            assert f"{said} allowed ({option})" in ended.err
            assert option.lstrip("-") in one_sentence(command(*run, option, "0"))


@pytest.mark.shared
@pytest.mark.slow
def test_classes_of_the_real_videos(command, shared: Path, tmp_path: Path) -> None:
    ended = command("extract-features", shared / "videos/action", tmp_path / "out", "--classes")
    assert ended.code == 0
    for line in ended.out.strip().splitlines():
        name, said = line.split(": ")
        assert said.rsplit(" ", 1)[0] == name.replace("_", " ")
        assert float(said.rsplit(" ", 1)[1]) > 0.5
    assert len(ended.out.strip().splitlines()) == 5


def test_random_weights_say_so(command, videos: Path, tmp_path: Path) -> None:
    ended = command("extract-features", videos / "v0.mp4", tmp_path / "out", "--weights", "random")
    assert ended.code == 0
    assert "RANDOM" in ended.err
    assert FeatureStore(tmp_path / "out").manifest["weights_sha256"] == "random"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.mp4", "out"], "gone.mp4 does not exist"),
        (["empty", "out"], "holds no video"),
        (["twins", "out"], r"x.mkv and twins/x.mp4 would both become x.npy"),
        (["v.mp4", "file"], "file is a file"),
        (["v.mp4", "file/out"], "file"),
        (["v.mp4", "out", "--backbone", "resnet"], "i3d"),
        (["v.mp4", "out", "--recipe", "mine"], "gdlt-i3d"),
        (["v.mp4", "out", "--device", "tpu"], "auto, cpu, cuda"),
        (["v.mp4", "out", "--precision", "int4"], "fp32, bf16, fp16"),
        (["v.mp4", "out", "--decoder", "ffmpeg"], "auto, decord, pyav"),
        (["v.mp4", "out", "--decoder-memory", "-1"], "decoder-memory must be from 0 to"),
        (["v.mp4", "out", "--batch-clips", "0"], "at least 1"),
        (["v.mp4", "out", "--stall-timeout", "0"], "more than 0 seconds"),
        (["v.mp4", "out", "--weights", "gone.pt"], "gone.pt"),
        (["v.mp4", "out", "--weights", "file"], "file"),
    ],
)
def test_bad_input_to_extract_features(
    command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(videos / "v0.mp4", "v.mp4")
    Path("empty").mkdir()
    Path("twins").mkdir()
    Path("twins/x.mp4").touch()
    Path("twins/x.mkv").touch()
    Path("file").write_text("a file")
    assert message in one_sentence(command("extract-features", *arguments))
    assert not Path("out").exists()


def test_decord_where_it_is_not_installed_is_no_fault_of_the_videos(
    command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cofinal.extractors.decoders._has_decord", lambda: False)
    ended = command("extract-features", videos, tmp_path / "out", "--decoder", "decord", "--weights", "random")
    assert "decord is not installed" in one_sentence(ended)
    assert not (tmp_path / "out").exists()


def test_store_of_another_identity_is_left_as_it_is(command, videos: Path, store: Path) -> None:
    before = (store / "manifest.json").read_bytes()
    error = one_sentence(command("extract-features", videos, store, "--recipe", "actionnet-i3d"))
    assert "gdlt-i3d" in error
    assert "actionnet-i3d" in error
    assert (store / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_rerun_is_byte_equal(write_video, tmp_path: Path) -> None:
    for seed in range(6):
        write_video(tmp_path / f"in/v{seed}.mp4", seconds=6, seed=seed)
    script = [sys.executable, "-c", "from cofinal.pipeline.cli import extract_features_command as c; c()"]
    arguments = [str(tmp_path / "in"), str(tmp_path / "out")]
    run = subprocess.Popen([*script, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out/v1.npy").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "run the same command again" in said
    assert "Traceback" not in said
    done = FeatureStore(tmp_path / "out").names()
    assert 2 <= len(done) < 6
    assert subprocess.run([*script, *arguments], check=False).returncode == 0
    extract_features(tmp_path / "in", tmp_path / "undisturbed")
    for name in (f"v{seed}.npy" for seed in range(6)):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


# --- train-head ---------------------------------------------------------------------------------------------------


def test_training_writes_results_predictions_plot_and_head_beside_each_other(trained: Path) -> None:
    results = json.loads(trained.with_suffix(".results.json").read_text())
    assert results["format"] == 1
    assert (results["dataset"], results["protocol"]) == ("csv", "cv")
    figures = results["targets"]["score"]
    assert {"srcc", "r_l2", "mae", "rmse", "n", "intervals"} <= set(figures)
    assert figures["n"] == 8
    assert set(results["baselines"]) == {"mean", "ridge", "kernel_ridge"}
    assert set(results["average"]) == {"srcc", "r_l2"}
    assert set(results["training"]["versions"]) == {"python", "cofinal", "torch", "numpy", "scipy", "scikit-learn"}
    lines = trained.with_suffix(".predictions.csv").read_text().splitlines()
    assert lines[0].startswith("video,action,target,true,predicted,grade,subgrade")
    assert [line.split(",")[0] for line in lines[1:]] == [f"v{seed}" for seed in range(8)]
    for picture in (".predicted.png", ".curves.png"):
        assert trained.with_suffix(picture).read_bytes().startswith(b"\x89PNG")
    curves = trained.with_suffix(".curves.csv").read_text().splitlines()
    assert curves[0] == "seed,split,epoch,coarse,fine,final,total"
    assert [line.split(",")[:3] for line in curves[1:]] == [
        ["0", split, epoch] for split in ("without 1", "without 2", "all") for epoch in "12"
    ]
    with safe_open(trained, "pt") as file:
        metadata = json.loads(file.metadata()["cofinal"])["metadata"]
    assert metadata["identity"]["backbone"] == "i3d"
    assert metadata["generated"] is False
    assert metadata["ranges"] == {"score": [5.0, 8.5]}


def test_heads_without_a_name_get_one_each(
    store: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several trainings end at one time."""
    monkeypatch.chdir(tmp_path)
    heads = [train_head(store, "csv", labels=videos, epochs=1, folds=2).head for _ in range(2)]
    assert heads[1].stem == f"{heads[0].stem}-2"
    assert all(head.stat().st_size > 1000 for head in heads)
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(new_head, ["csv"] * 40))
    assert len(names) == 40
    assert not names & set(heads)


def test_same_seed_same_numbers(store: Path, videos: Path, tmp_path: Path) -> None:
    heads = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for head in heads:
        train_head(store, "csv", labels=videos, out=head, epochs=2, folds=2, seed=3)
    first, second = (head.with_suffix(".predictions.csv").read_bytes() for head in heads)
    assert first == second


@pytest.fixture(scope="session")
def club(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of 36 made-up routines of unknown origin in `features`, with scores, skaters and events beside them."""
    folder = tmp_path_factory.mktemp("made-up")
    (folder / "features").mkdir()
    rng = np.random.default_rng(0)
    scores = rng.uniform(5, 9, 36).round(2)
    for i, score in enumerate(scores):
        clips = rng.normal(size=(5, 16)).astype(np.float32)
        clips[:, 0] += score
        np.save(folder / f"features/r{i}.npy", clips)
    rows = "".join(f"r{i},{score}\n" for i, score in enumerate(scores))
    (folder / "labels.csv").write_text("video,score\n" + rows)
    rows = "".join(f"r{i}.mp4,s{i // 3},e{i % 4}\n" for i in range(36))
    (folder / "skaters.csv").write_text("video,skater,event\n" + rows)
    return folder


def test_a_head_scores_a_routine_as_it_was_evaluated(command, club: Path, tmp_path: Path) -> None:
    """The official protocol evaluates the head that is kept, so the command gives the very numbers of its file."""
    labels = tmp_path / "labels.csv"
    rows = list(csv.DictReader((club / "labels.csv").open()))
    lines = [f"{row['video']},{row['score']},{'test' if i > 29 else ''}" for i, row in enumerate(rows)]
    labels.write_text("\n".join(["video,score,split", *lines]) + "\n")
    head = tmp_path / "h.safetensors"
    run = ["train-head", club / "features", "--dataset", "csv", "--labels", labels, "--epochs", 2, "--out", head]
    assert command(*run).code == 0
    evaluated = list(csv.DictReader(head.with_suffix(".predictions.csv").open()))
    assert len(evaluated) == 6
    for row in evaluated:
        scored = command("score-video", club / f"features/{row['video']}.npy", "--head", head, "--json")
        verdict = json.loads(scored.out)["targets"]["score"]
        assert verdict["score"] == pytest.approx(float(row["predicted"]), abs=1e-3)
        assert (str(verdict["coarse"]["grade"]), str(verdict["fine"]["subgrade"])) == (row["grade"], row["subgrade"])


def test_groups_events_seeds_and_intervals_from_the_command_to_the_score(command, club: Path, tmp_path: Path) -> None:
    head = tmp_path / "h.safetensors"
    skaters = club / "skaters.csv"
    run = ["train-head", club / "features", "--dataset", "csv", "--labels", club, "--epochs", 4, "--folds", 3]
    ended = command(
        *run,
        "--groups",
        f"{skaters}:skater",
        "--events",
        f"{skaters}:event",
        "--seeds",
        2,
        "--intervals",
        "--out",
        head,
    )
    assert ended.code == 0
    results = json.loads(head.with_suffix(".results.json").read_text())
    found, about = results["targets"]["score"], results["training"]
    names = {"srcc", "pearson", "r_l2", "mae", "rmse", "coverage", "width", "srcc_within_events"}
    assert set(found) == names | {"n", "intervals", "std"}
    assert set(found["std"]) == names
    assert set(found["intervals"]) == {"srcc", "r_l2", "mae"}
    assert (about["seeds"], about["grouped"], about["interval_level"]) == (2, True, 0.9)
    assert about["groups"] == f"{skaters}:skater"
    for figure in (found["srcc"], found["std"]["srcc"], results["baselines"]["ridge"]["score"]["srcc"]):
        assert f"{figure:.3f}" in ended.out
    assert all(heading in ended.out for heading in ("3 folds x 2 seeds", "in events", "covered", "width"))
    assert max(map(len, ended.out.splitlines())) <= 100

    rows = list(csv.DictReader(head.with_suffix(".predictions.csv").open()))
    assert [row["seed"] for row in rows] == ["0"] * 36 + ["1"] * 36
    inside = [float(row["low"]) <= float(row["true"]) <= float(row["high"]) for row in rows]
    assert np.mean(inside) == pytest.approx(found["coverage"])
    curves = list(csv.DictReader(head.with_suffix(".curves.csv").open()))
    assert len(curves) == 4 * (2 * (3 + 3) + 1)

    scored = command("score-video", club / "features/r0.npy", "--head", head, "--json")
    said = json.loads(scored.out)["targets"]["score"]
    low, high = said["interval"]["span"]
    first = np.array([float(row["predicted"]) - float(row["true"]) for row in rows[:36]])
    assert said["interval"]["level"] == 0.9
    assert (said["score"] - low, high - said["score"]) == pytest.approx([np.sort(np.abs(first))[33]] * 2, abs=1e-3)
    ended = command("score-video", club / "features/r0.npy", "--head", head, "--report", tmp_path / "r.html")
    assert "90% interval" in ended.out
    assert f"{said['score']:.2f}  {low:.2f} to {high:.2f}" in ended.out
    page = (tmp_path / "r.html").read_text()
    assert "90% interval" in page
    assert f"{low:.2f} to {high:.2f}" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--groups", "skaters.csv"], "'skaters.csv' is not FILE:COLUMN"),
        (["--groups", "skaters.csv:club"], "expected the columns video and club"),
        (["--groups", "few.csv:skater"], "few.csv lacks 35 of the 36 labelled videos, the first is 'r1'"),
        (["--events", "skaters.csv:skater"], "no event in skaters.csv:skater has 4 videos or more"),
        (["--groups", "skaters.csv:event", "--folds", "5"], "4 groups cannot be cut into 5 folds"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--intervals", "--folds", "2"], "at least 3 folds"),
    ],
)
def test_bad_groups_events_and_seeds(
    command, club: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(club / "skaters.csv", ".")
    Path("few.csv").write_text("video,skater\nr0,s0\n")
    ended = command("train-head", club / "features", "--dataset", "csv", "--labels", club, *arguments)
    assert message in one_sentence(ended)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_groups_of_a_csv_file_replace_those_of_the_labels(club: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    lines = (club / "labels.csv").read_text().splitlines()
    labels.write_text("\n".join([f"{lines[0]},group", *(f"{line},{i % 2}" for i, line in enumerate(lines[1:]))]) + "\n")
    run = {"labels": labels, "epochs": 1, "folds": 3, "out": tmp_path / "h.safetensors"}
    with pytest.raises(ValueError, match="2 groups cannot be cut into 3 folds"):
        train_head(club / "features", "csv", **run)
    result = train_head(club / "features", "csv", groups=f"{club / 'skaters.csv'}:skater", **run)
    assert result.results["training"]["grouped"] is True


def test_events_too_small_are_refused_before_extraction_and_among_the_judged(store: Path, tmp_path: Path) -> None:
    labels, events = tmp_path / "labels.csv", tmp_path / "events.csv"
    rows = [f"v{i},{5 + i},{'test' if i > 4 else 'train'}" for i in range(7)]
    labels.write_text("\n".join(["video,score,split", *rows]) + "\n")
    events.write_text("video,event\n" + "".join(f"v{i},{'test' if i > 4 else 'train'}\n" for i in range(7)))
    run = {"labels": labels, "epochs": 1, "events": f"{events}:event", "out": tmp_path / "h.safetensors"}
    with pytest.raises(ValueError, match=r"no event in .* has 4 videos or more to evaluate on"):
        train_head(store, "csv", **run)

    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "v0.mp4").write_bytes(b"not opened")
    events.write_text("video,event\n" + "".join(f"v{i},{i}\n" for i in range(7)))
    with pytest.raises(ValueError, match=r"no event in .* has 4 videos or more"):
        train_head(videos, "csv", **run)
    assert not (tmp_path / "videos-features").exists()


def test_official_protocol_and_leftovers(command, store: Path, tmp_path: Path) -> None:
    rows = [f"v{i},{5 + i},{'test' if i > 4 else 'train'}" for i in range(7)]
    labels = tmp_path / "judges.csv"
    labels.write_text("\n".join(["video,score,split", *rows, "gone,9,train"]) + "\n")
    ended = command(
        "train-head", store, "--dataset", "csv", "--labels", labels, "--epochs", 1, "--json",
        "--out", tmp_path / "h.safetensors", "--no-set-default",
    )  # fmt: skip
    results = json.loads(ended.out)
    assert ended.code == 0
    assert (results["protocol"], results["targets"]["score"]["n"]) == ("official", 2)
    assert "1 label rows have no feature file: gone" in ended.err
    assert "1 feature files have no label: v7" in ended.err


def test_default_head_is_set_once_and_then_only_when_asked(command, store: Path, tmp_path: Path) -> None:
    default, features = Path(os.environ["COFINAL_DEFAULT_HEAD"]), tmp_path / "features"
    features.mkdir()
    shutil.copy(store / "manifest.json", features)  # as if it were known what made them
    rng = np.random.default_rng(0)
    scores = rng.uniform(5, 9, 60).round(2)
    for i, shown in enumerate(scores + rng.normal(size=60) * 0.4):
        np.save(features / f"r{i}.npy", (rng.normal(size=(5, 16)) + shown).astype(np.float32))
    rows = "".join(f"r{i},{score}\n" for i, score in enumerate(scores))
    (features / "labels.csv").write_text("video,score\n" + rows)
    arguments = ["train-head", features, "--dataset", "csv", "--folds", 2]
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    ended = command(*arguments, "--out", first)
    assert "warning" not in ended.err
    assert default.read_bytes() == first.read_bytes()
    command(*arguments, "--out", second, "--epochs", 1)
    assert default.read_bytes() == first.read_bytes()
    command(*arguments, "--out", second, "--epochs", 1, "--set-default")
    assert default.read_bytes() == second.read_bytes()


def test_a_head_with_warnings_is_the_default_only_when_asked(command, store: Path, videos: Path, tmp_path) -> None:
    default, head = Path(os.environ["COFINAL_DEFAULT_HEAD"]), tmp_path / "h.safetensors"
    run = ["train-head", store, "--dataset", "csv", "--labels", videos, "--epochs", 1, "--folds", 4, "--out", head]
    ended = command(*run)
    assert "warning: this head was trained on 8 routines only; expect little" in ended.err
    assert "note: with so few routines in each fold the pooled figures mislead" in ended.err
    assert f"{head} does not become score-video's default head with these warnings; --set-default does it" in ended.err
    assert not default.exists()
    assert "trained on 8 routines only" in command("score-video", store / "v0.npy", "--head", head).err
    command(*run, "--set-default")
    assert default.read_bytes() == head.read_bytes()


def test_videos_of_a_test_split_that_take_no_part_are_named(command, store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    run = ["train-head", store, "--dataset", "csv", "--labels", labels, "--epochs", 1, "--folds", 2]
    for tests, said in ((1, "the only video of the test split, v7, takes no part"), (2, "the 2 videos of the test")):
        rows = [f"v{i},{5 + i},{'test' if i > 7 - tests else 'train'}" for i in range(8)]
        labels.write_text("\n".join(["video,score,split", *rows]) + "\n")
        ended = command(*run, "--protocol", "cv", "--json", "--out", tmp_path / "h.safetensors")
        assert f"note: {said}" in ended.err
        results = json.loads(ended.out)
        assert said in results["notes"][0]
        assert results["training"]["judged"] == 8 - tests


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ("video,score\nv0,5\nv1,high\n", [], "labels.csv line 3, column score: expected a number, found 'high'"),
        ("video,score\na,5\nb,6\n", [], "none of the 2 labels"),
        ("video,score\nv0,5\nv1,6\nv2,7\n", ["--folds", "9"], "cannot be cut into 9 folds"),
        ("video,score\nv0,5\nv1,6\n", ["--protocol", "official"], "--protocol cv"),
        ("video,score\nv0,5\nv1,6\n", ["--protocol", "best"], "auto, official, cv"),
        ("video,score\nv0,5\nv1,6\n", ["--target", "TES"], "unknown target 'TES'; labels.csv has score"),
        (
            "video,score\nv0,5\nv1,6\n",
            ["--head-type", "mlp"],
            "unknown head type 'mlp'; known are cofinal, cofinal-paper, gdlt",
        ),
        ("video,score\nv0,5\nv1,6\n", ["--epochs", "0"], "at least 1"),
        ("video,score\nv0,5\nv1,6\n", ["--set", "colour=red"], "--set NAME=VALUE takes batch_size, coarse_weight"),
        ("video,score\nv0,5\nv1,6\n", ["--subgrades", "1"], "at least 2 sub-grades"),
        ("video,score\nv0,5\nv1,6\n", ["--dataset", "mtl"], "unlv-dive, jigsaws, csv"),
        ("video,score\nv0,5\nv1,6\n", ["--out", "h.pt"], "must end in .safetensors"),
        ("video,score\nv0,5\nv1,5\nv2,5\n", ["--folds", "2"], "score has fewer than two different values"),
        ("video,score,split\nv0,5,\nv1,6,\nv2,7,test\nv3,8,test\n", ["--folds", "2"], "add --protocol cv"),
        (
            "video,group,score,split\nv0,a,5,\nv1,a,6,\nv2,b,7,test\nv3,b,8,test\n",
            ["--groups", "labels.csv:group"],
            "--groups is for cross-validation",
        ),
        ("video,score,split\nv0,5,\nv1,6,\nv2,7,test\nv3,8,test\n", ["--intervals"], "cannot be cut into 5 folds"),
        ("video,score\nv0,5\nv1,6\n", ["--extractor", "i3d:gdlt-i3d:published"], "leave --extractor out"),
    ],
)
def test_bad_input_to_train_head(
    command, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str, arguments: list, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text(labels)
    ended = command("train-head", store, "--dataset", "csv", "--labels", "labels.csv", *arguments)
    assert message in one_sentence(ended)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_target_may_be_constant_if_another_is_wanted(store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("video,score,deduction\nv0,5,0\nv1,6,0\nv2,7,0\nv3,9,0\n")
    run = {"labels": labels, "epochs": 1, "folds": 2, "out": tmp_path / "h.safetensors"}
    assert set(train_head(store, "csv", targets=["score"], **run).results["targets"]) == {"score"}


def rg_labels(store: Path, folder: Path) -> tuple[Path, Path]:
    """A store of ball routines only, with RG label files that know clubs, too."""
    features = folder / "features"
    features.mkdir()
    for i in range(6):
        shutil.copy(store / f"v{i}.npy", features / f"Ball_{i:03}.npy")
    rows = [f"Ball_{i:03}\t{5 + i}\t{4 + i / 2}\t{9 + i * 1.5}\t0\t90" for i in range(6)]
    labels = folder / "train.txt"
    labels.write_text("\n".join(["\t".join(RG_HEADER), *rows, "Clubs_001\t5\t5\t10\t0\t90"]) + "\n")
    return features, labels


def test_an_action_without_rows_or_features_is_refused(command, store: Path, tmp_path: Path) -> None:
    features, labels = rg_labels(store, tmp_path)
    run = ["train-head", features, "--dataset", "rg", "--labels", labels, "--out", tmp_path / "h.safetensors"]
    assert "no label row is left for Hoop" in one_sentence(command(*run, "--action", "Hoop"))
    assert "none of the 1 selected label rows has features" in one_sentence(command(*run, "--action", "Clubs"))


def test_heads_from_generated_routines_or_random_weights_say_so_and_are_no_default(
    command, store: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COFINAL_DEFAULT_HEAD", str(tmp_path / "default.safetensors"))
    features, labels = rg_labels(store, tmp_path)
    head = tmp_path / "h.safetensors"
    run = ["--epochs", 1, "--folds", 2, "--out", head]
    with av.open(str(videos / "v0.mp4")) as real, av.open(str(tmp_path / "v.mp4"), "w") as made:
        made.metadata["comment"] = GENERATED_COMMENT
        stream = made.add_stream_from_template(real.streams.video[0])
        for packet in real.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    shutil.copy(store / "manifest.json", features)
    assert command("extract-features", tmp_path / "v.mp4", features).code == 0
    ended = command("train-head", features, "--dataset", "rg", "--labels", labels, *run, "--action", "Ball")
    assert ended.code == 0
    assert "generated routines" in ended.err
    scored = command("score-video", features / "Ball_000.npy", "--head", head)
    assert "generated routines" in scored.err
    assert "assumed --action Ball, the only one" in scored.err

    ended = command("extract-features", videos, tmp_path / "random", "--weights", "random")
    ended = command("train-head", tmp_path / "random", "--dataset", "csv", "--labels", videos, *run)
    assert ended.code == 0
    assert "RANDOM" in ended.err
    assert "RANDOM" in json.loads(head.with_suffix(".results.json").read_text())["warnings"][0]
    assert "RANDOM" in command("score-video", tmp_path / "random/v0.npy", "--head", head).err
    assert not (tmp_path / "default.safetensors").exists()


def test_bad_arguments_are_found_before_videos_are_extracted(
    command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(videos, "in")
    for arguments in (["--dataset", "mtl"], ["--dataset", "csv", "--out", "h.pt"], ["--dataset", "rg"]):
        one_sentence(command("train-head", "in", *arguments))
    Path("in/labels.csv").write_text("video,score\nno_such_routine,5\n")
    assert "none of the 1 labels" in one_sentence(command("train-head", "in", "--dataset", "csv"))
    assert "gone does not exist" in one_sentence(command("train-head", "gone", "--dataset", "csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_videos_that_all_fail_end_with_1(command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/v0.mp4").touch()
    (tmp_path / "in/labels.csv").write_text("video,score\nv0,5\n")
    ended = command("train-head", tmp_path / "in", "--dataset", "csv")
    assert (ended.code, ended.out) == (1, "")
    assert "none of the 1 videos could be extracted" in ended.err


def test_bad_features_are_named(command, store: Path, videos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(store, copy)
    np.save(copy / "v2.npy", np.full((2, 1024), np.nan, np.float32))
    run = ["train-head", copy, "--dataset", "csv", "--labels", videos]
    error = one_sentence(command(*run))
    assert "v2.npy" in error
    assert "NaN" in error
    np.save(copy / "v2.npy", np.zeros((2, 512), np.float32))
    error = one_sentence(command(*run))
    assert "v2.npy has features of width 512" in error


def test_head_never_lands_in_the_store(command, store: Path, videos: Path) -> None:
    ended = command("train-head", store, "--dataset", "csv", "--labels", videos, "--out", store / "h.safetensors")
    assert "lies in the feature store" in one_sentence(ended)


# --- score-video --------------------------------------------------------------------------------------------------


def test_score_of_a_video_and_of_its_features_agree(command, videos: Path, store: Path, trained: Path) -> None:
    ended = command("score-video", videos / "v2.mp4", "--head", trained, "--json")
    score = json.loads(ended.out)
    assert ended.code == 0
    verdict = score["targets"]["score"]
    assert set(verdict) == {"coarse", "fine", "score"}
    coarse, fine = verdict["coarse"], verdict["fine"]
    assert set(coarse) - {"borderline"} == {"grade", "of", "span", "probabilities", "edges"}
    assert set(fine) == {"subgrade", "of", "span", "edges"}
    assert 1 <= coarse["grade"] <= coarse["of"] == len(coarse["probabilities"]) == len(coarse["edges"]) - 1
    assert sum(coarse["probabilities"]) == pytest.approx(1, abs=1e-3)
    assert coarse["span"] == coarse["edges"][coarse["grade"] - 1 : coarse["grade"] + 1]
    assert 1 <= fine["subgrade"] <= fine["of"]
    assert coarse["span"][0] <= fine["span"][0] <= verdict["score"] <= fine["span"][1] <= coarse["span"][1]
    assert (coarse["edges"][0], coarse["edges"][-1]) == (5.0, 8.5)
    assert score["extractor"]["recipe"] == "gdlt-i3d"
    cached = score_video(store / "v2.npy", trained)
    assert cached.targets["score"].score == verdict["score"]
    assert cached.warnings == score["warnings"]
    assert all(warning.startswith("this head ") for warning in cached.warnings)


VERDICT = re.compile(
    r"  score  +(?P<score>[\d.]+)(  [\d.]+ to [\d.]+)?  (?P<grade>\d) of 4, (?P<low>[\d.]+) to (?P<high>[\d.]+)"
    r"  (?P<fine>\d) of 8, (?P<fine_low>[\d.]+) to (?P<fine_high>[\d.]+)"
)


def test_a_printed_verdict_agrees_with_itself(command, club: Path, tmp_path: Path) -> None:
    head = tmp_path / "h.safetensors"
    train_head(club / "features", "csv", labels=club, epochs=3, folds=2, out=head, ranges=["score=0:10"])
    for i in range(8):
        ended = command("score-video", club / f"features/r{i}.npy", "--head", head)
        title, header, line, *borderline = ended.out.splitlines()
        assert title.endswith(f"r{i}.npy")
        assert max(map(len, (header, line))) <= 80
        matched = re.fullmatch(VERDICT, line.rstrip())
        assert matched, line
        printed = {name: float(matched[name]) for name in ("low", "fine_low", "score", "fine_high", "high")}
        assert list(printed.values()) == sorted(printed.values())
        coarse = score_video(club / f"features/r{i}.npy", head).targets["score"].coarse
        assert coarse.grade == int(matched["grade"])
        assert bool(borderline) == (coarse.borderline is not None)


def test_a_borderline_verdict_is_said_everywhere(club: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    head = tmp_path / "h.safetensors"
    train_head(club / "features", "csv", labels=club, epochs=1, folds=2, out=head)
    with Scorer(head, options=ExtractorOptions()) as scorer:
        scored = scorer.score(club / "features/r0.npy")
    score = scored.score
    verdict = score.targets["score"]
    for borderline in ((2, 3), None):
        changed = replace(verdict, coarse=replace(verdict.coarse, borderline=borderline))
        shown = replace(score, targets={"score": changed})
        capsys.readouterr()
        print_score(shown)
        page = render_report(replace(scored, score=shown), scorer.head)
        assert ("borderline coarse grade: score 2 or 3" in capsys.readouterr().out) == (borderline is not None)
        assert ("borderline 2 / 3" in page) == (borderline is not None)
        assert shown.as_json()["targets"]["score"]["coarse"].get("borderline") == borderline


def test_a_report_that_cannot_be_written_costs_no_score(command, store: Path, trained: Path, tmp_path: Path) -> None:
    run = ["score-video", store / "v1.npy", "--head", trained, "--report"]
    (tmp_path / "r.html").mkdir()
    assert "is a folder" in one_sentence(command(*run, tmp_path / "r.html"))
    (tmp_path / "file").touch()
    ended = command(*run, tmp_path / "file/r.html")
    assert ended.code == 1  # the score is there
    assert "coarse grade" in ended.out
    assert "file" in ended.err


@pytest.mark.parametrize(
    ("name", "action"), [("Ball_017", "Ball"), ("ball 2", "Ball"), ("a_Ball", None), ("Balls", None)]
)
def test_an_action_is_assumed_from_the_start_of_a_name_only(name: str, action: str | None) -> None:
    assert _action_in_name(Path(f"{name}.mp4"), ["Ball", "Hoop"]) == action


def test_a_name_that_is_not_utf8_is_shown_escaped(command, store: Path, trained: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.npy")
    shutil.copy(store / "v1.npy", odd)
    ended = command("score-video", odd, "--head", trained, "--report", tmp_path / "r.html")
    assert ended.code == 0
    assert "caf" in ended.out


def test_no_head_at_all_names_the_two_ways_to_one(command, videos: Path) -> None:
    error = one_sentence(command("score-video", videos / "v0.mp4"))
    assert "train-head" in error
    assert "--head" in error


def test_bad_videos_end_with_1(command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    ended = command("score-video", tmp_path / "empty.mp4", "--head", trained)
    assert (ended.code, ended.out) == (1, "")
    assert "empty.mp4" in ended.err


def test_bad_heads_and_features(command, videos: Path, store: Path, trained: Path, tmp_path: Path) -> None:
    video = videos / "v0.mp4"
    assert "does not exist" in one_sentence(command("score-video", video, "--head", tmp_path / "gone.safetensors"))
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(trained.read_bytes()[:-100])
    assert "corrupt.safetensors" in one_sentence(command("score-video", video, "--head", corrupt))
    ended = command("score-video", store / "v0.npy", "--head", trained, "--decoder", "pyav")
    assert "leave --weights, --precision, --engine and --decoder out" in one_sentence(ended)
    assert "was trained without actions" in one_sentence(
        command("score-video", video, "--head", trained, "--action", "Ball")
    )
    np.save(tmp_path / "narrow.npy", np.zeros((3, 7), np.float32))
    assert "width 7" in one_sentence(command("score-video", tmp_path / "narrow.npy", "--head", trained))
    other = tmp_path / "other"
    shutil.copytree(store, other)
    manifest = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(manifest.replace("gdlt-i3d", "gdlt-vst"))
    error = one_sentence(command("score-video", other / "v0.npy", "--head", trained))
    assert "gdlt-i3d" in error
    assert "gdlt-vst" in error


def test_features_of_unknown_origin_score_only_features(command, store: Path, videos: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "downloaded"
    foreign.mkdir()
    for path in store.glob("*.npy"):
        np.save(foreign / path.name, np.load(path).astype(np.float16))
    run = ["train-head", foreign, "--dataset", "csv", "--labels", videos, "--epochs", 1, "--folds", 2]
    head = tmp_path / "foreign.safetensors"
    assert command(*run, "--out", head).code == 0
    error = one_sentence(command("score-video", videos / "v0.mp4", "--head", head))
    assert "--extractor BACKBONE:RECIPE:WEIGHTS" in error
    scored = command("score-video", foreign / "v0.npy", "--head", head)
    assert scored.code == 0
    assert "only its width was checked" in scored.err
    assert "not BACKBONE:RECIPE:WEIGHTS" in one_sentence(command(*run, "--extractor", "i3d:gdlt-i3d"))
    assert command(*run, "--out", head, "--extractor", "i3d:gdlt-i3d:published").code == 0
    assert command("score-video", videos / "v0.mp4", "--head", head).code == 0


def test_gdlt_is_trained_and_scores_without_a_fine_grade(command, store: Path, videos: Path, tmp_path: Path) -> None:
    head = tmp_path / "gdlt.safetensors"
    run = ["train-head", store, "--dataset", "csv", "--labels", videos, "--epochs", 1, "--folds", 2, "--out", head]
    ended = command(*run, "--head-type", "gdlt", "--set", "width=8", "--json")
    results = json.loads(ended.out)
    assert results["training"]["head_type"] == "gdlt"
    assert results["targets"]["score"]["n"] == 8
    assert "subgrade" not in head.with_suffix(".predictions.csv").read_text()
    verdict = json.loads(command("score-video", store / "v2.npy", "--head", head, "--json").out)["targets"]["score"]
    assert set(verdict) == {"coarse", "score"}
    coarse = verdict["coarse"]
    assert coarse["edges"] == pytest.approx([5, 5 + 3.5 / 6, 6.75, 8.5 - 3.5 / 6, 8.5], abs=1e-4)
    assert coarse["span"][0] <= verdict["score"] <= coarse["span"][1]
    ended = command("score-video", store / "v2.npy", "--head", head, "--report", tmp_path / "r.html")
    assert f"{verdict['score']:.2f}  {coarse['grade']} of 4, " in ended.out
    assert "fine" not in ended.out
    assert "fine grade" not in (tmp_path / "r.html").read_text()


def test_the_papers_head_is_trained_and_scores(command, store: Path, videos: Path, tmp_path: Path) -> None:
    head = tmp_path / "paper.safetensors"
    run = ["train-head", store, "--dataset", "csv", "--labels", videos, "--epochs", 1, "--folds", 2, "--out", head]
    assert command(*run, "--head-type", "cofinal-paper", "--set", "width=8").code == 0
    curves = head.with_suffix(".curves.csv").read_text().splitlines()
    assert curves[0] == "seed,split,epoch,coarse,reversed,fine,prototypes,total"
    verdict = score_video(store / "v2.npy", head).targets["score"]
    assert verdict.coarse.edges == pytest.approx([5, 5.875, 6.75, 7.625, 8.5])
    assert verdict.fine.of == 25
    assert verdict.fine.span[0] <= verdict.score <= verdict.fine.span[1]


def test_help_has_examples(command) -> None:
    for name in ("extract-features", "train-head", "score-video"):
        ended = command(name, "--help")
        assert ended.code == 0
        assert f"  {name} " in ended.out
