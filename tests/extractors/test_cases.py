"""Videos as people have them: each case of the shared folder gives what a player shows, or says why it does not."""

from pathlib import Path

import numpy as np
import pytest
from cheap_backbone import colours

from cofinal.extractors.decoders import read_frames
from cofinal.extractors.extract import Extraction, extract
from cofinal.extractors.probing import probe
from cofinal.extractors.reader import Reader
from cofinal.extractors.video import VideoError

pytestmark = pytest.mark.shared


@pytest.fixture
def cases(shared: Path) -> Path:
    return shared / "cases"


def cosine(a: Extraction, b: Extraction) -> float:
    x, y = a.features.ravel().astype(float), b.features.ravel().astype(float)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.mark.parametrize(
    ("odd", "upright", "difference"),
    [
        # the references of the first two were encoded once more
        ("mirrored-upside-down/mirrored.mp4", "mirrored-upside-down/expected.mp4", 4),
        ("mirrored-upside-down/vflipped.mp4", "mirrored-upside-down/upright.mp4", 4),
        ("mkv-rotation-ignored/phone_remuxed.mkv", "mkv-rotation-ignored/phone.mp4", 0),
        ("two-video-streams/two_angles.mp4", "two-video-streams/default_angle_only.mp4", 0),
    ],
)
def test_the_frames_are_those_that_a_player_shows(odd: str, upright: str, difference: float, cases, reader) -> None:
    ours, expected = extract(cases / odd, colours(), reader=reader), extract(cases / upright, colours(), reader=reader)
    assert cosine(ours, expected) > 0.999
    frames = [frame for _, frame in read_frames(cases / odd, "pyav")]
    for frame, (_, reference) in zip(frames, read_frames(cases / upright, "pyav"), strict=True):
        assert np.abs(frame.astype(float) - reference).mean() <= difference


def test_a_second_stream_is_recorded(cases: Path, reader: Reader) -> None:
    record = extract(cases / "two-video-streams/two_angles.mp4", colours(), reader=reader).record
    assert record["container"]["num_video_streams"] == 2
    assert "2 video streams: only the one of 320 x 180 is read" in record["warnings"][0]


def test_a_size_that_changes_is_kept(cases: Path, reader: Reader) -> None:
    path = cases / "size-changes-midway/turned_phone.mp4"
    ours = extract(path, colours(), reader=reader)
    assert ours.record["decoder"] == "pyav"
    assert np.array_equal(ours.features, extract(path, colours(), decoder="pyav", reader=reader).features)


def test_pixels_that_are_not_square(cases: Path, reader: Reader) -> None:
    stored, square = (cases / "anamorphic-squeezed" / name for name in ("anamorphic.mp4", "square.mp4"))
    expected = extract(square, colours(), reader=reader)
    as_stored = extract(stored, colours(), reader=reader)
    as_shown = extract(stored, colours(), display_aspect=True, reader=reader)
    assert cosine(as_stored, expected) < 0.95
    assert cosine(as_shown, expected) > 0.995
    assert as_stored.record["container"]["sample_aspect_ratio"] == "4:3"
    assert (as_stored.record["pixel_aspect"], as_shown.record["pixel_aspect"]) == (1, 1.3333)
    assert any("pixels of 4:3: they are taken as square" in warning for warning in as_stored.record["warnings"])
    assert any("pixels of 4:3: they are stretched" in warning for warning in as_shown.record["warnings"])
    assert expected.record["warnings"] == []


def test_interlaced_video(cases: Path, reader: Reader) -> None:
    path = cases / "interlaced-combed/i50.ts"
    combed, reference = extract(path, colours(), reader=reader), cases / "interlaced-combed/deinterlaced.mp4"
    assert combed.record["container"]["field_order"] == "tt"
    assert not combed.record["deinterlaced"]
    assert any("interlaced: a frame shows two moments" in warning for warning in combed.record["warnings"])
    record = extract(path, colours(), deinterlace=True, reader=reader).record
    assert record["deinterlaced"]
    assert any("its frames are deinterlaced" in warning for warning in record["warnings"])
    differences = []
    for deinterlace in (False, True):
        frames = read_frames(path, deinterlace=deinterlace)
        pairs = zip(frames, read_frames(reference), strict=True)
        differences.append(np.mean([np.abs(ours.astype(float) - theirs).mean() for (_, ours), (_, theirs) in pairs]))
    assert differences[1] < differences[0] / 2


def test_high_dynamic_range_is_said(cases: Path, reader: Reader) -> None:
    record = extract(cases / "hdr-taken-for-sdr/hdr_pq.mov", colours(), reader=reader).record
    assert (record["container"]["transfer"], record["container"]["matrix"]) == ("smpte2084", "bt2020nc")
    assert any("the video is HDR (PQ): it is taken as SDR" in warning for warning in record["warnings"])


def test_unusual_matrices(cases: Path, reader: Reader) -> None:
    record = extract(cases / "rare-matrix-refused/bt2020c_10bit.mp4", colours(), reader=reader).record
    assert any("BT.2020 of constant luminance" in warning for warning in record["warnings"])
    with pytest.raises(VideoError, match=r"ycgco\.mp4 has colours of the matrix ycgco, which FFmpeg cannot turn into"):
        extract(cases / "rare-matrix-refused/ycgco.mp4", colours(), reader=reader)


@pytest.mark.parametrize(
    "name", ["whole.mp4", "whole_flv.flv", "whole_mkv.mkv", "whole_wmv.wmv", "screen_recording_ends_still.webm"]
)
def test_sound_that_outlasts_the_picture(name: str, cases: Path, reader: Reader) -> None:
    extraction = extract(cases / "sound-outlasts-picture" / name, colours(), reader=reader)
    assert len(extraction.features) == 2
    assert not any("missing" in warning for warning in extraction.record["warnings"])


@pytest.mark.parametrize(
    ("name", "pause_s", "partial"),
    [("long_first_frame.mp4", "0.70", "is too short"), ("dropout_at_2s.mp4", "0.83", "")],
)
def test_a_pause_in_a_steady_source(name: str, pause_s: str, partial: str, cases: Path, reader: Reader) -> None:
    path = cases / "steady-source-with-one-pause" / name
    with pytest.raises(VideoError, match=r"missing in its middle.*; --allow-gaps takes the pause as a still"):
        extract(path, colours(), reader=reader)
    extraction = extract(path, colours(), allow_gaps=True, reader=reader)
    assert len(extraction.features) == 7
    assert not extraction.record["partial"]
    assert (
        f"the video pauses for {pause_s} s: a pause is taken as a still (--allow-gaps)"
        in (extraction.record["warnings"])
    )
    if name == "long_first_frame.mp4":
        with pytest.raises(VideoError, match=r"is too short.*; --allow-gaps takes the pause as a still"):
            extract(path, colours(), allow_partial=True, reader=reader)


def test_animated_webp(cases: Path) -> None:
    with pytest.raises(VideoError, match=r"no frame that can be decoded: this FFmpeg cannot decode its webp"):
        probe(cases / "webp-message/animated.webp")
