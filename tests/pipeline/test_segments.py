"""Segments of longer videos, from the labels to the head; and frames in folders, from the command to the score."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from cheap_backbone import colours
from PIL import Image

from cofinal import extract_features, score_video, train_head
from cofinal.data.arrays import load_features
from cofinal.data.datasets import join
from cofinal.data.feature_store import FeatureStore
from cofinal.data.label_rows import LabelSet, Segment
from cofinal.data.labels import TableOptions, read_labels
from cofinal.extractors.backbone import Backbone
from cofinal.extractors.video import VIDEO_SUFFIXES, VideoError
from cofinal.pipeline.options import ExtractorOptions
from cofinal.pipeline.sources import Sources, cut_segments, find_videos
from cofinal.pipeline.verification import verify_store

NUM_FRAMES = 150


@pytest.fixture(autouse=True)
def _cheap_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ExtractorOptions, name: str, *, recipe: str | None, weights: str | None) -> Backbone:
        return colours(recipe or "gdlt-i3d")

    monkeypatch.setattr(ExtractorOptions, "load_backbone", load)


def make_video(path: Path, seed: int, num_frames: int = NUM_FRAMES) -> list[np.ndarray]:
    """Write a video of noise, and return its frames."""
    random = np.random.default_rng(seed)
    frames = [random.integers(0, 256, (32, 48, 3), np.uint8) for _ in range(num_frames)]
    make_video_of(path, frames)
    return frames


def make_video_of(path: Path, frames: list[np.ndarray]) -> None:
    """Write a video without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def save_frames(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / f"{number:04}.png")
    return folder


def table(folder: Path, text: str) -> LabelSet:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text(text)
    return read_labels("csv", [folder], TableOptions())


SECONDS = "video,score,start,end\ncup.mkv,5.5,0.4,2.0\ncup.mkv,7,3.04,5\nother,4,,\n"


def test_rows_of_one_video_are_told_apart_by_their_segments(tmp_path: Path) -> None:
    labels = table(tmp_path, SECONDS)
    assert [row.video for row in labels.rows] == ["cup.mkv@0.4-2.0s", "cup.mkv@3.04-5.0s", "other"]
    assert labels.rows[1].segment == Segment("cup.mkv", 3.04, 5.0, "seconds")
    joined = join(labels, ["a/cup@0.4-2.0s", "a/cup@3.04-5.0s", "a/other"], VIDEO_SUFFIXES)
    assert [name for _, name in joined.pairs] == ["a/cup@0.4-2.0s", "a/cup@3.04-5.0s", "a/other"]
    assert not joined.whole
    with pytest.raises(ValueError, match="labelled already in line 2"):
        table(tmp_path, "video,score,start,end\ncup,5,1,2\ncup,6,1,2\n")


def test_features_named_as_the_longer_video_count_as_those_of_one_segment(tmp_path: Path) -> None:
    labels = table(tmp_path, "video,score,start_frame,end_frame\ncup.mkv,5.5,10,50\n")
    joined = join(labels, ["cup"], VIDEO_SUFFIXES)
    assert [name for _, name in joined.whole] == ["cup"]
    assert "1 segments have features that are named as the longer video" in joined.leftovers()[0]
    with pytest.raises(ValueError, match="both mean the features 'cup'; extract its segments"):
        join(table(tmp_path, SECONDS), ["cup", "other"], VIDEO_SUFFIXES)


def test_leading_zeros_that_excel_ate_do_not_matter(tmp_path: Path) -> None:
    labels = table(tmp_path, "video,score,start_frame,end_frame\n1,5.5,10,50\n")
    assert [name for _, name in join(labels, ["001@10-50f"]).pairs] == ["001@10-50f"]


@pytest.mark.shared
def test_published_dives_are_cut_out_of_the_long_videos_or_found_as_files_of_their_own(shared: Path) -> None:
    labels = read_labels("mtl-aqa", [shared / "data/labels/mtl-aqa"])
    shorter = [row for row in labels.rows if row.segment and row.segment.end - row.segment.start < 103]
    assert len(shorter) == 758  # docs/extraction.md
    names = [f"{number:02}" for number in (*range(1, 8), 9, 10, 13, 14, 17, 18, 22, 26)]
    sources = cut_segments(Sources({name: Path(f"{name}.mp4") for name in names}, Path(), 0), labels)
    assert len(sources.paths) == len(sources.segments) == 1412
    assert next(iter(sources.paths.items())) == ("01@7377-7462f", Path("01.mp4"))
    assert len(join(labels, sources.paths, VIDEO_SUFFIXES).pairs) == 1412

    apart = {"01_01": Path("01_01"), "1_2": Path("1_2"), "2": Path("2.mp4")}  # as MUSDL and others name them
    sources = cut_segments(Sources(apart, Path(), 0), labels)
    assert list(sources.paths)[:2] == ["01_01", "1_2"]
    assert len(sources.segments) == 108
    joined = join(labels, sources.paths, VIDEO_SUFFIXES)
    assert len(joined.pairs) == 110


def test_a_head_is_trained_on_segments_of_videos(tmp_path: Path, capfd) -> None:
    frames = {name: make_video(tmp_path / f"videos/{name}.mkv", seed) for seed, name in enumerate(("cup", "final"))}
    lines = [
        f"{name}.mkv,{start % 7 + seed},{start / 25:g},{(start + 34) / 25:g}"
        for seed, name in enumerate(frames)
        for start in range(5, 105, 20)
    ]
    (tmp_path / "labels.csv").write_text("video,score,start,end\n" + "\n".join(lines) + "\n")
    result = train_head(
        tmp_path / "videos", "csv", labels=tmp_path / "labels.csv", out=tmp_path / "h.safetensors", epochs=2
    )
    assert result.results["training"]["videos"] == 10
    assert {entry["video"] for entry in result.predictions} >= {"cup.mkv@0.2-1.56s", "final.mkv@3.4-4.76s"}

    store = FeatureStore(tmp_path / "videos-features")
    assert len(store.names()) == 10
    record = store.records["final@3.4-4.76s"]
    assert record["segment"] == {"start": 3.4, "end": 4.76, "unit": "seconds", "first_frame": 86, "last_frame": 117}
    assert (record["clips"], record["frames_decoded"]) == (1, 32)

    # the same 34 frames as a file of their own
    make_video_of(tmp_path / "alone.mkv", frames["final"][85:119])
    extract_features(tmp_path / "alone.mkv", tmp_path / "alone")
    assert np.array_equal(load_features(tmp_path / "alone/alone.npy"), store.load("final@3.4-4.76s"))

    assert "these rows are segments of longer videos" in capfd.readouterr().err
    again = extract_features(tmp_path / "videos", tmp_path / "videos-features", dataset="csv")
    assert (again.videos, again.already_done, again.extracted) == (10, 10, 0)


def test_whole_videos_do_not_stand_for_their_segments(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/cup.mkv", 0, 40)
    extract_features(tmp_path / "videos", tmp_path / "out")
    table(tmp_path, "video,score,start,end\ncup,5,0.2,1.6\n")
    with pytest.raises(ValueError, match="holds features of the whole video cup: extract the segments"):
        train_head(tmp_path / "out", "csv", out=tmp_path / "h.safetensors")


def test_a_segment_that_fails_is_named_and_the_others_are_extracted(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/cup.mkv", 0, 60)
    table(tmp_path, "video,score,start,end\ncup,5,0.2,1.6\ncup,6,0.4,9\ncup,7,0.4,0.5\n")
    summary = extract_features(tmp_path / "videos", tmp_path / "out", dataset="csv")
    assert (summary.videos, summary.extracted) == (3, 1)
    assert summary.failed[0]["video"] == str(tmp_path / "videos/cup.mkv@0.4-0.5s")
    problems = verify_store(tmp_path / "out", tmp_path / "videos").problems
    assert [entry["problem"][:19] for entry in problems] == ["failed: the segment"] * 2
    assert "the segment 0.4 to 0.5 seconds of" in summary.failed[0]["error"]
    assert "the segment 0.4 to 9 seconds of" in summary.failed[1]["error"]


def test_options_that_go_together(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/cup.mkv", 0, 40)
    with pytest.raises(ValueError, match="name their format with --dataset"):
        extract_features(tmp_path / "videos", tmp_path / "out", labels=tmp_path)
    table(tmp_path, "video,score\ncup,5\n")
    with pytest.raises(ValueError, match="cuts none of the videos"):
        extract_features(tmp_path / "videos", tmp_path / "out", dataset="csv")
    with pytest.raises(ValueError, match="no folder of numbered frames alone"):
        extract_features(tmp_path / "videos", tmp_path / "out", fps=25)
    with pytest.raises(ValueError, match="leave --fps out"):
        score_video(tmp_path / "videos/cup.mkv", fps=25)
    with pytest.raises(ValueError, match="fps must be more than 0"):
        extract_features(tmp_path / "videos", tmp_path / "out", fps=0)


def test_musdl_features_of_a_dive_end_with_its_segment(tmp_path: Path) -> None:
    frames = make_video(tmp_path / "videos/01.mkv", 0)
    table(tmp_path, "video,score,start_frame,end_frame\n01,5,60,130\n")
    out = tmp_path / "out"
    summary = extract_features(tmp_path / "videos", out, dataset="csv", recipe="musdl-i3d")
    assert summary.failed == []
    store = FeatureStore(out)
    assert store.identity is not None
    assert store.identity["recipe"] == "musdl-i3d"
    record = store.records["01@60-130f"]
    assert (record["clips"], record["segment"]["first_frame"], record["segment"]["last_frame"]) == (10, 27, 129)
    make_video_of(tmp_path / "alone.mkv", frames[27:130])
    extract_features(tmp_path / "alone.mkv", tmp_path / "alone", recipe="musdl-i3d")
    assert np.array_equal(load_features(tmp_path / "alone/alone.npy"), store.load("01@60-130f"))


# --- folders of numbered frames ---


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    frames = make_video(tmp_path / "videos/a.mkv", 0, 40)
    save_frames(tmp_path / "videos/sub/v1.2", frames)
    save_frames(tmp_path / "videos/b", frames[:5])
    sources = find_videos(tmp_path / "videos", fps=25)
    assert list(sources.paths) == ["a", "b", "sub/v1.2"]
    assert sources.num_others == 0
    left = find_videos(tmp_path / "videos")
    assert (list(left.paths), left.num_frame_folders_left) == (["a"], 2)
    assert find_videos(tmp_path / "videos/sub/v1.2", fps=25).paths == {"v1.2": tmp_path / "videos/sub/v1.2"}
    for place in ("videos/b", "videos/sub"):
        with pytest.raises(ValueError, match="holds numbered frames: say how many are a second with --fps"):
            find_videos(tmp_path / place)
    (tmp_path / "list.txt").write_text("videos/sub/v1.2\nvideos/a.mkv\n")
    assert list(find_videos(tmp_path / "list.txt", fps=25).paths) == ["videos/sub/v1.2", "videos/a"]

    summary = extract_features(tmp_path / "videos", tmp_path / "out", fps=25)
    assert (summary.extracted, len(summary.failed)) == (2, 1)
    assert "b is too short" in summary.failed[0]["error"]
    store = FeatureStore(tmp_path / "out")
    assert np.array_equal(store.load("a"), store.load("sub/v1.2"))

    again = extract_features(tmp_path / "videos", tmp_path / "out", fps=25)
    assert (again.already_done, again.extracted) == (2, 0)
    Image.fromarray(frames[0]).save(tmp_path / "videos/sub/v1.2/0040.png")
    (problem,) = [
        entry
        for entry in verify_store(tmp_path / "out", tmp_path / "videos", fps=25).problems
        if "v1.2" in entry["what"]
    ]
    assert "is not the file that its features were made from" in problem["problem"]
    changed = extract_features(tmp_path / "videos", tmp_path / "out", fps=25)
    assert (changed.already_done, changed.extracted) == (1, 1)


def test_a_folder_of_frames_is_scored(tmp_path: Path) -> None:
    frames = make_video(tmp_path / "videos/a.mkv", 0, 70)
    for name in ("b", "c", "d", "e", "f", "g"):
        make_video(tmp_path / f"videos/{name}.mkv", ord(name), 40)
    table(tmp_path, "video,score\n" + "".join(f"{name},{i}\n" for i, name in enumerate("abcdefg")))
    extract_features(tmp_path / "videos", tmp_path / "out")
    head = train_head(tmp_path / "out", "csv", out=tmp_path / "h.safetensors", epochs=1).head
    folder = save_frames(tmp_path / "frames", frames)
    score = score_video(folder, head, fps=25)
    expected = score_video(tmp_path / "videos/a.mkv", head)
    assert score.targets == expected.targets
    np.testing.assert_allclose(score.clip_times, expected.clip_times, atol=0.002)
    json.dumps(score.as_json())
    with pytest.raises(ValueError, match="say how many are a second with --fps"):
        score_video(folder, head)
    (folder / "0009.png").unlink()
    with pytest.raises(VideoError, match="lacks frames between 1 and 70: 9"):
        score_video(folder, head, fps=25)
