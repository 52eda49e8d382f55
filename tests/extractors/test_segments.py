"""Segments of videos: the very frames of the whole video, found from the key frame before them."""

from pathlib import Path

import av
import numpy as np
import pytest
from cheap_backbone import colours
from hypothesis import given
from hypothesis import strategies as st

from cofinal.extractors import seeking
from cofinal.extractors.clips import frames_of_segment
from cofinal.extractors.decoders import probe, read_frames
from cofinal.extractors.extract import extract
from cofinal.extractors.reader import Reader
from cofinal.extractors.video import VideoError

KINDS = {
    "b-frames.mp4": {"g": "12", "bf": "3"},
    "open-gop.mkv": {"g": "12", "bf": "3", "x264-params": "open-gop=1"},
    "intra-refresh.mkv": {"g": "12", "x264-params": "intra-refresh=1"},
    "one-key-frame.mp4": {"g": "1000"},
    "b-frames.ts": {"g": "12", "bf": "2"},
    "mpeg4.avi": {"codec": "mpeg4", "g": "12"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "12", "bf": "2"},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "12"},
}


@given(
    st.lists(st.floats(0.001, 0.2), min_size=1, max_size=200), st.floats(0, 20), st.floats(0.01, 20), st.floats(0, 9)
)
def test_a_segment_in_seconds_holds_the_frames_shown_within_it(gaps, start, length, first_s) -> None:
    times = first_s + np.cumsum([0.0, *gaps])
    first, last = frames_of_segment(times, (start, start + length, "seconds"))
    shown = times - times[0]
    assert (shown[first:last] >= start - 0.0011).all()
    assert (shown[first:last] < start + length - 0.0009).all()
    assert set(np.flatnonzero((shown >= start) & (shown < start + length - 0.002))) <= set(range(first, last))


def test_frames_count_from_0_and_the_end_is_not_part_of_a_segment() -> None:
    assert frames_of_segment(np.arange(100) / 25, (10, 20, "frames")) == (10, 20)
    assert frames_of_segment(np.arange(100) / 25, (0.4, 0.8, "seconds")) == (10, 20)
    rounded = (np.arange(100) / 30).round(3)  # as Matroska stores them
    assert frames_of_segment(rounded, (10 / 30, 20 / 30, "seconds")) == (10, 20)


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_of_a_segment_are_those_of_the_whole_video(name: str, render, reader: Reader) -> None:
    path = render(name, num_frames=60, **KINDS[name])
    whole = [frame for _, frame in read_frames(path, "pyav")]
    backbone = colours(clip_frames=4)
    for start, end in ((0, 8), (12, 20), (17, 33), (23, 60), (51, 60)):
        extraction = extract(path, backbone, segment=(start, end, "frames"), reader=reader)
        frames = [backbone.recipe.apply(frame) for frame in whole]
        head = (end - start) % 4 // 2
        clips = [frames[first : first + 4] for first in range(start + head, end - 3, 4)]
        expected = np.concatenate([backbone.features(_stack(clip)) for clip in clips])
        assert np.array_equal(extraction.features, expected), (start, extraction.record["decoder_reason"])
        segment = extraction.record["segment"]
        assert (segment["start"], segment["end"], segment["unit"]) == (start, end, "frames")


def _stack(clip):
    import torch

    return torch.stack(list(clip))[None]


def test_seeking_decodes_from_the_key_frame_before_the_segment_only(render, monkeypatch: pytest.MonkeyPatch) -> None:
    path = render("long.mp4", num_frames=200, g="20", bf="2", sc_threshold="0")
    facts, decoded = probe(path), []
    matched = seeking.match_times

    def counted(path, frames, times):
        return matched(path, (decoded.append(frame.time) or frame for frame in frames), times)

    monkeypatch.setattr("cofinal.extractors.pyav_reading.match_times", counted)
    frames = list(read_frames(facts, wanted=np.arange(130, 140), seek_times=facts.times[130:140]))
    assert len(frames) == 10
    np.testing.assert_allclose(decoded, facts.times[120:140])  # key frames are 0, 20, 40, ...


def test_a_segment_of_interlaced_video_is_deinterlaced_as_within_the_whole(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "interlaced.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        random = np.random.default_rng(0)
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(random.integers(0, 256, (64, 96, 3), np.uint8))))
        container.mux(stream.encode())
    facts = probe(path)
    assert facts.is_interlaced
    whole = [frame for _, frame in read_frames(facts, "pyav", deinterlace=True)]
    for first, last in ((0, 10), (20, 30), (23, 41), (40, 50)):
        times, wanted = facts.times[first:last], np.arange(first, last)
        part = [frame for _, frame in read_frames(facts, wanted=wanted, seek_times=times, deinterlace=True)]
        assert np.array_equal(part, whole[first:last])


def test_a_segment_that_the_video_does_not_hold_is_an_error(render, reader: Reader) -> None:
    path, backbone = render("video.mp4", num_frames=50), colours(clip_frames=4)
    for segment, message in (
        ((40, 60, "frames"), "segment 40 to 60 frames of .*video.mp4 ends after the video: .* 50 frames in 2.00 s"),
        ((1.0, 3.0, "seconds"), "segment 1 to 3 seconds of .* ends after the video"),
        ((0.045, 0.075, "seconds"), "holds no frame"),
        ((10, 13, "frames"), r"is too short: it lasts 0\.12 s"),
    ):
        with pytest.raises(VideoError, match=message):
            extract(path, backbone, segment=segment, reader=reader)
    rounded = extract(path, backbone, segment=(1.0, 2.3, "seconds"), reader=reader)  # of 2.0 s
    assert rounded.record["segment"]["last_frame"] == 48  # of 25 to 49, the last one fills no clip


def test_too_short_names_the_recipes_that_fit(render, reader: Reader) -> None:
    with pytest.raises(VideoError, match=r"recipes that fit are musdl-i3d \(--recipe\)"):
        extract(render("short.mp4", num_frames=20), colours(), reader=reader)
    with pytest.raises(VideoError, match="no recipe fits it"):
        extract(render("tiny.mp4", num_frames=3), colours(), reader=reader)
