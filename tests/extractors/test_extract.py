"""Streaming a video through a backbone: the features are those of the whole video, and no thread is left behind."""

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from cheap_backbone import colours

from cofinal.extractors import i3d
from cofinal.extractors.approximations import frame_warnings
from cofinal.extractors.backbone import load_backbone
from cofinal.extractors.clips import select
from cofinal.extractors.decoders import read_frames
from cofinal.extractors.extract import extract
from cofinal.extractors.probing import probe
from cofinal.extractors.reader import Reader
from cofinal.extractors.recipes import RECIPES, Recipe
from cofinal.extractors.video import VideoError


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "read-clips"] == []


@pytest.fixture
def action(shared: Path) -> Path:
    return shared / "videos" / "action"


@pytest.mark.shared
@pytest.mark.parametrize("recipe", RECIPES)
def test_streaming_gives_the_features_of_the_whole_video(recipe: str, action: Path, reader: Reader) -> None:
    backbone, path = colours(recipe), action / "juggling_soccer_ball.mp4"
    selection = backbone.recipe.select(probe(path).times)
    frames = torch.stack([backbone.recipe.apply(frame) for _, frame in read_frames(path)])
    expected = np.concatenate([backbone.features(frames[clip][None]) for clip in selection.frames])

    for decoder in ("auto", "pyav"):
        extraction = extract(path, backbone, decoder=decoder, reader=reader)
        assert np.array_equal(extraction.features, expected)
        assert np.array_equal(extraction.clip_times, selection.clip_times)
    batched = extract(path, backbone, batch_clips=3, reader=reader)
    np.testing.assert_allclose(batched.features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("clip_frames", "stride"), [(8, 3), (8, 8), (8, 11), (5, 1)])
@pytest.mark.parametrize("rate", [25, 40])  # the second repeats frames
def test_overlapping_clips_equal_clips_that_are_cut_alone(
    render, reader: Reader, clip_frames: int, stride: int, rate: int
) -> None:
    path, backbone = render("video.mp4", num_frames=41), colours(clip_frames=clip_frames, stride=stride, fps=rate)
    selection = backbone.recipe.select(probe(path).times)
    frames = [backbone.recipe.apply(frame) for _, frame in read_frames(path)]
    expected = [backbone.features(torch.stack([frames[i] for i in clip])[None])[0] for clip in selection.frames]
    assert len(expected) > 3
    prepared = []
    apply = type(backbone.recipe).apply
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(backbone.recipe), "apply", lambda self, frame, aspect: prepared.append(1) or apply(self, frame, aspect)
        )
        extraction = extract(path, backbone, reader=reader)
    assert np.array_equal(extraction.features, expected)
    assert len(prepared) == len(np.unique(selection.frames))  # each frame once, however many clips it is in


@pytest.mark.shared
def test_the_record(action: Path) -> None:
    seen: list[tuple[float, float]] = []
    threads = torch.get_num_threads()
    extraction = extract(
        action / "juggling_soccer_ball.mp4", colours(), on_progress=lambda done, total: seen.append((done, total))
    )
    record = json.loads(json.dumps(extraction.record))
    assert (record["frames_decoded"], record["clips"], record["duration_s"]) == (247, 8, 10.292)
    assert record["container"]["codec"] == "h264"
    assert record["decoder"] in ("decord", "pyav")
    assert "decord" in record["decoder_reason"]
    assert record["stage_seconds"].keys() == {"read", "backbone", "wall"}
    assert record["warnings"] == [
        "the video is slower than the recipe's 25 frames per second: 10 of 256 frames repeat the one before"
    ]
    assert extraction.probabilities is None
    assert torch.get_num_threads() == threads
    assert seen == [(pytest.approx(1.28 * (clip + 1)), pytest.approx(10.2917, abs=1e-3)) for clip in range(8)]


@pytest.mark.shared
def test_narrow_video_is_padded_with_a_warning(shared: Path) -> None:
    backbone = colours(clip_frames=2)
    extraction = extract(shared / "videos" / "awkward" / "rotated_90.mov", backbone)
    assert extraction.record["warnings"] == [
        "the frame is narrower than the crop of gdlt-i3d: black is added at its sides"
    ]


def test_a_short_missing_tail_is_warned_of(render, reader: Reader) -> None:
    facts = reader.probe(render("v.mp4"))
    backbone = colours(clip_frames=4)
    selection = select(facts.times, backbone.recipe.fps, 4)
    before = frame_warnings(facts, selection, backbone.recipe, 0, 0.0)
    short = replace(facts, stated_end_s=facts.end_s + 0.3)
    after = frame_warnings(short, selection, backbone.recipe, 0, 0.0)
    assert [warning for warning in after if warning not in before] == [
        "the last 0.30 s of the stated duration are missing"
    ]
    assert len(after) == len(before) + 1


@pytest.mark.shared
def test_frames_with_concealed_damage_are_counted(action: Path, tmp_path: Path, reader: Reader) -> None:
    path, backbone = tmp_path / "damaged.mp4", colours(clip_frames=4)
    with av.open(str(action / "cleaning_pool.mp4")) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for index, packet in enumerate(packet for packet in whole.demux(video=0) if packet.size):
            content = bytearray(bytes(packet))
            if index == 60:
                content[3600:3632] = bytes(range(32))  # of 7249
            damaged = av.Packet(bytes(content))
            damaged.pts, damaged.dts, damaged.duration = packet.pts, packet.dts, packet.duration
            damaged.time_base, damaged.is_keyframe, damaged.stream = packet.time_base, packet.is_keyframe, stream
            container.mux(damaged)
    record = extract(path, backbone, reader=reader).record
    assert record["decoder"] == "pyav"
    assert record["decoder_reason"].startswith("the first reading failed: decord met damage in ")
    assert (record["frames_decoded"], record["concealed_frames"]) == (300, 1)
    assert "the decoder concealed damaged parts of 1 frames, the first at 2.03 s" in record["warnings"]
    record = extract(action / "cleaning_pool.mp4", backbone, reader=reader).record
    assert (record["decoder"], record["concealed_frames"]) == ("decord", 0)
    assert not any("concealed" in warning for warning in record["warnings"])


@pytest.mark.shared
def test_a_video_shorter_than_a_clip_says_how_long_it_must_be(shared: Path) -> None:
    path = shared / "videos" / "awkward" / "starts_at_8s.mp4"
    with pytest.raises(VideoError, match=r"lasts 0\.40 s, .* takes 1\.28 s \(32 frames at 25 per second\)"):
        extract(path, colours())
    extraction = extract(path, colours(clip_frames=4))
    assert extraction.clip_times.tolist() == [[0.04, 0.2], [0.2, 0.36]]  # the first and last of 10 frames are dropped


@pytest.mark.shared
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corrupted_midway.mp4", r"breaks off after \d+ frames, at 2\.\d\d s"),
        ("truncated.mkv", r"breaks off: it can be read up to 9\.40 s of 10\.33 s"),
        ("text.mp4", "cannot be read as a video"),
        ("empty.mp4", "cannot be read as a video"),
    ],
)
def test_broken_videos_are_errors_and_never_features(name: str, message: str, decoder: str, shared: Path) -> None:
    with pytest.raises(VideoError, match=message):
        extract(shared / "videos" / "awkward" / name, colours(clip_frames=8), decoder=decoder)


def test_a_recording_cut_anywhere_gives_what_can_be_decoded(tmp_path: Path) -> None:
    """The packets before the first key frame announce frames that do not come."""
    path = tmp_path / "broadcast.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "40", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 256, (200, 64, 96, 3), dtype=np.uint8)
        for image in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 4 // 188 * 188 :])  # from about the 50th frame on

    with av.open(str(path)) as container:
        announced = sum(1 for packet in container.demux(video=0) if packet.size)
    with pytest.raises(VideoError, match=r"1\.20 s of 6\.00 s at its start cannot be decoded"):
        extract(path, colours(clip_frames=16))
    extraction = extract(path, colours(clip_frames=16), allow_partial=True)
    assert announced > 120
    assert extraction.record["partial"]
    assert "at its start" in extraction.record["warnings"][0]
    assert extraction.record["frames_decoded"] == 120  # from the next key frame on
    assert extraction.record["clips"] == 7


@pytest.mark.shared
def test_a_second_reading_is_recorded(action: Path, monkeypatch) -> None:
    path = action / "cleaning_pool.mp4"
    expected = extract(path, colours())
    probe_rightly = Reader.probe

    def misled(self: Reader, path: Path, *, by_decoding: bool = False, **options: bool):
        facts = probe_rightly(self, path, by_decoding=by_decoding, **options)
        return facts if by_decoding else replace(facts, times=np.append(facts.times, facts.end_s))

    monkeypatch.setattr(Reader, "probe", misled)
    extraction = extract(path, colours())
    assert extraction.record["decoder"] == "pyav"
    assert "announces 301 frames, and 300 come out" in extraction.record["decoder_reason"]
    assert np.array_equal(extraction.features, expected.features)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "num_clips"), [("corrupted_midway.mp4", 8), ("truncated.mkv", 29)])
def test_a_part_is_extracted_only_if_asked_for_and_marked(name: str, num_clips: int, shared: Path, reader) -> None:
    path, backbone = shared / "videos" / "awkward" / name, colours(clip_frames=8)
    with pytest.raises(VideoError, match="breaks off") as raised:
        extract(path, backbone, reader=reader)
    damage, remedy = str(raised.value).split("; ")
    assert remedy == "--allow-partial uses the part that can be decoded"
    extraction = extract(path, backbone, allow_partial=True, reader=reader)
    assert extraction.record["partial"]
    assert extraction.record["warnings"][0] == f"only a part of the video was used (--allow-partial): {damage}"
    assert extraction.record["container"]["damage"] == damage

    good = []
    with suppress(VideoError):
        for time_s, frame in read_frames(path, "pyav"):
            good.append((time_s, backbone.recipe.apply(frame)))
    selection = select(np.array([time_s for time_s, _ in good]), backbone.recipe.fps, backbone.recipe.clip_frames)
    clips = (torch.stack([good[index][1] for index in clip]) for clip in selection.frames)
    expected = np.concatenate([backbone.features(clip[None]) for clip in clips])
    assert len(expected) == num_clips
    assert np.array_equal(extraction.features, expected)


@pytest.mark.shared
def test_nothing_is_marked_where_nothing_is_missing(action: Path, reader) -> None:
    whole = extract(action / "cleaning_pool.mp4", colours(), reader=reader)
    allowed = extract(action / "cleaning_pool.mp4", colours(), allow_partial=True, reader=reader)
    assert not allowed.record["partial"]
    assert allowed.record["warnings"] == whole.record["warnings"]
    assert np.array_equal(allowed.features, whole.features)


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel here")
def test_pyav_reads_again_what_crashed_decord(render, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofinal.extractors.reader.SOURCE", "faulty_video")
    path = render("crash_decord.mp4", num_frames=40)
    extraction = extract(path, colours())
    assert extraction.record["decoder"] == "pyav"
    assert "crashed the process that read it (SIGSEGV)" in extraction.record["decoder_reason"]
    assert np.array_equal(extraction.features, extract(path, colours(), decoder="pyav").features)
    with pytest.raises(VideoError, match="SIGSEGV"):
        extract(path, colours(), decoder="decord")


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel here")
def test_the_memory_of_decord_is_that_of_the_reader(render) -> None:
    path = render("video.mp4", num_frames=40, g="10")
    needed_bytes = probe(path).longest_run * 64 * 96 * 3
    for decoder_bytes, expected in ((needed_bytes, "decord"), (needed_bytes - 1, "pyav")):
        with Reader(decoder_bytes=decoder_bytes) as reader:
            record = extract(path, colours(), reader=reader).record
        assert record["decoder"] == expected
        assert ("(--decoder-memory)" in record["decoder_reason"]) == (expected == "pyav")


@pytest.mark.shared
def test_invalid_options(action: Path) -> None:
    path = action / "cleaning_pool.mp4"
    with pytest.raises(ValueError, match="unknown decoder 'opencv'; known are auto, decord, pyav"):
        extract(path, colours(), decoder="opencv")
    with pytest.raises(ValueError, match="batch-clips must be at least 1, not 0"):
        extract(path, colours(), batch_clips=0)


@pytest.mark.shared
def test_an_interrupt_stops_the_reader(action: Path) -> None:
    def interrupt(done: float, total: float) -> None:
        raise KeyboardInterrupt

    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        extract(action / "walking_the_dog.mp4", colours(clip_frames=4), on_progress=interrupt)
    assert time.perf_counter() - started < 5


def test_no_other_thread_gets_fewer_threads_of_torch(render, reader: Reader) -> None:
    """Neither this thread, nor one that uses torch for the first time meanwhile, nor one that extracts at the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen: list[int] = []

    def look(done_s: float, total_s: float) -> None:
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        seen.append(torch.get_num_threads())

    def extract_another() -> None:
        extract(path, colours(clip_frames=4))
        seen.append(torch.get_num_threads())

    try:
        path = render("video.mp4", num_frames=60)
        other = threading.Thread(target=extract_another)
        other.start()
        extract(path, colours(clip_frames=4), reader=reader, on_progress=look)
        other.join()
        assert set(seen) == {3}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_frames_are_prepared_in_one_thread(render, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    apply = Recipe.apply

    def watched(self: Recipe, *arguments: object) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return apply(self, *arguments)

    monkeypatch.setattr(Recipe, "apply", watched)
    extract(render("video.mp4"), colours(clip_frames=4), reader=reader)
    assert seen == {1}


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    ["cleaning_pool"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("arm_wrestling", "flipping_pancake", "juggling_soccer_ball", "walking_the_dog")
    ],
)
def test_the_top_class_of_real_videos_is_right(name: str, action: Path, i3d_weights: Path) -> None:
    (path,) = action.glob(f"{name}.*")
    extraction = extract(path, load_backbone(recipe="kinetics-i3d", device="cpu", engine="torch"), classify=True)
    assert extraction.probabilities is not None
    assert len(extraction.probabilities) == len(extraction.features) >= 3
    mean = extraction.probabilities.mean(0)
    assert i3d.class_names()[mean.argmax()] == name.replace("_", " ")
    assert mean.max() > 0.9
