"""What video files are: real, generated and broken ones have the right facts, or are refused with a reason."""

import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from awkward_files import READABLE

from cofinal.extractors.decoders import read_frames
from cofinal.extractors.probing import probe
from cofinal.extractors.timeline import Timeline, holes, missing
from cofinal.extractors.video import UnfaithfulError, VideoError


@pytest.mark.shared
def test_times_from_decoding_are_those_of_the_packets(shared: Path) -> None:
    for path in (shared / "videos" / "awkward" / name for name in READABLE):
        scanned, decoded = probe(path), probe(path, by_decoding=True)
        assert np.array_equal(scanned.times, decoded.times), path
        assert replace(scanned, longest_run=0).to_json() == decoded.to_json()


def test_an_unknown_codec(render, tmp_path: Path) -> None:
    content = render("video.mkv").read_bytes()
    (tmp_path / "unknown.mkv").write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(VideoError, match="holds video of a codec that FFmpeg does not know"):
        probe(tmp_path / "unknown.mkv")


@pytest.mark.shared
def test_a_missing_file_and_a_file_without_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4 cannot be read as a video: No such file"):
        probe(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame) + stream.encode())
    with pytest.raises(VideoError, match="holds no video"):
        probe(tmp_path / "sound.mp4")


@pytest.mark.parametrize(
    ("name", "codec"), [("joined.ts", "libx264"), ("joined.mpg", "mpeg2video"), ("joined.m2ts", "mpeg2video")]
)
def test_joined_recordings_follow_each_other(name, codec, render) -> None:
    path = render(name, codec, bf="2")
    alone = np.array([time for time, _ in read_frames(path)])
    path.write_bytes(3 * path.read_bytes())
    for facts in (probe(path), probe(path, by_decoding=True)):
        assert facts.num_restarts == 2
        np.testing.assert_allclose(facts.times, alone[0] + np.arange(90) / 25, atol=1e-3)
    frames = [frame for _, frame in read_frames(path)]
    assert len(frames) == 90
    for part in (frames[30:60], frames[60:]):
        assert np.abs(np.float32(part) - frames[:30]).mean() < 3


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    """A picture of 60,000 x 60,000 pixels in a hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.mp4"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    with pytest.raises(VideoError, match=r"no frame that can be decoded within 35389440 pixels \(--max-pixels\)"):
        probe(path)


def test_a_timestamp_far_out_is_refused_before_ticks_are_counted(render, tmp_path: Path) -> None:
    with av.open(str(render("video.mkv"))) as source, av.open(str(tmp_path / "far.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream = stream
            if index == 29:
                packet.pts = packet.dts = 10**9  # in milliseconds, eleven days
            target.mux(packet)
    with pytest.raises(VideoError, match=r"lasts 1000\d{3}\.\d\d s, and 43200 s are allowed \(--max-duration\)"):
        probe(tmp_path / "far.mkv")


def test_holes_are_where_packets_in_a_row_show_nothing() -> None:
    announced = np.arange(0, 150) / 25
    for shown, expected in (
        (announced, 0),
        (np.delete(announced, np.s_[50:100]), 2),
        (np.delete(announced, [7, 20, 21]), 0.08),  # a single packet may rightly show nothing
    ):
        assert holes(announced, shown, 0.5).sum() == pytest.approx(expected)
    assert holes(announced[::2], announced[::4], 0.5).sum() == 0  # fields of interlaced pictures


@pytest.mark.parametrize(
    ("gaps_s", "expected_s"),
    [
        ([0.04] * 100, 0),
        ([0.04] * 50 + [0.5] + [0.04] * 50, 0),  # no more than is allowed
        ([0.04] * 50 + [2.04] + [0.04] * 50, 2),
        ([0.03, 0.05] * 50 + [2.04] + [0.03, 0.05] * 50, 2.0),  # the uneven rate of a telephone
        ([1.0] * 20 + [3.0] + [1.0] * 20, 0),  # slides
        ([0.04] * 60 + [0.2, 3.0, 0.12, 0.04, 0.6, 0.04, 1.0], 0),  # a screen recording
        ([2.0], 0),
    ],
)
def test_holes_are_where_a_steady_source_stops(gaps_s: list[float], expected_s: float) -> None:
    times = np.cumsum([7.0, *gaps_s])
    holes_s = holes(times, times, 0.5)
    assert holes_s.sum() == pytest.approx(expected_s, abs=0.02)
    assert np.flatnonzero(holes_s).tolist() == ([int(np.argmax(gaps_s))] if expected_s else [])


@pytest.mark.parametrize(
    ("start_s", "end_s", "hole_s", "stated_end_s", "message"),
    [
        (0.0, 9.5, 0.0, 10.0, None),
        (0.0, 9.4, 0.0, 10.0, "v.mp4 breaks off: it can be read up to 9.40 s of 10.00 s"),
        (0.0, 98.0, 0.0, 100.0, None),
        (0.0, 97.9, 0.0, 100.0, "v.mp4 breaks off: it can be read up to 97.90 s of 100.00 s"),
        (0.6, 10.0, 0.0, 10.0, "v.mp4 is damaged: 0.60 s of 10.00 s at its start cannot be decoded"),
        (0.0, 10.0, 0.6, 10.0, "v.mp4 is damaged: 0.60 s of 10.00 s are missing in its middle, after 0.00 s"),
        (0.2, 9.7, 0.2, 10.0, "v.mp4 breaks off: it can be read up to 9.70 s of 10.00 s"),
        (0.0, 12.0, 0.0, 10.0, None),
    ],
)
def test_what_counts_as_missing(
    start_s: float, end_s: float, hole_s: float, stated_end_s: float, message: str | None
) -> None:
    timeline = Timeline(np.array([start_s, end_s - 0.04]), end_s, 0.0, stated_end_s)
    assert missing(Path("v.mp4"), timeline, np.array([hole_s])) == message


def with_a_hole(source: Path, target: Path, *, blanked: bool) -> Path:
    """Remove the packets of two seconds in the middle of eight, or replace them by packets without a picture."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in [packet for packet in whole.demux(video=0) if packet.size]:
            assert packet.pts is not None
            kept = packet
            if 2 <= packet.pts * packet.time_base < 4:
                if not blanked:
                    continue
                kept = av.Packet(b"\0\0\0\1\x0a")  # H.264 for the end of a sequence
                kept.pts, kept.dts, kept.duration, kept.time_base = packet.pts, packet.dts, 1, packet.time_base
            kept.stream = stream
            container.mux(kept)
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("blanked", [False, True])
def test_a_hole_in_the_middle_is_damage(suffix: str, blanked: bool, render, tmp_path: Path) -> None:
    whole = render(f"whole{suffix}", num_frames=200, g="25", sc_threshold="0", bf="0")
    path = with_a_hole(whole, tmp_path / f"hole{suffix}", blanked=blanked)
    message = r"2\.00 s of 8\.\d\d s are missing in its middle, after 1\.96 s"
    facts = probe(path)
    if blanked:  # only decoding notices it
        assert (facts.damage, len(facts.times)) == (None, 200)
        for decoder in ("auto", "pyav"):
            with pytest.raises(UnfaithfulError):
                list(read_frames(facts, decoder))
        facts = probe(path, by_decoding=True)
    with pytest.raises(VideoError, match=message):
        list(read_frames(facts))
    partial = probe(path, by_decoding=blanked, allow_partial=True)
    assert partial.is_partial
    expected = list(read_frames(whole, "pyav"))[:50]
    for (time_s, frame), (expected_time_s, expected_frame) in zip(read_frames(partial), expected, strict=True):
        assert time_s == pytest.approx(expected_time_s, abs=1e-3)
        assert np.array_equal(frame, expected_frame)


def with_sound(path: Path, codec: str, sound: str, *, video_s: float, sound_s: float, **options: str) -> Path:
    """Encode a moving ramp and silence."""
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream(sound, rate=44100, layout="mono")
        audio.bit_rate = 32000
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1764), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        for index in range(round(25 * max(video_s, sound_s))):
            silence.pts = 1764 * index
            if index < 25 * sound_s:
                container.mux(audio.encode(silence))
            if index < 25 * video_s:
                image = np.roll(np.tile(np.uint8(np.arange(96) * 2), (64, 1)), index, axis=1)
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.dstack([image] * 3), format="rgb24")))
        container.mux(audio.encode() + video.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "sound", "options"),
    [
        ("v.flv", "libx264", "aac", {}),
        ("v.wmv", "wmv2", "wmav2", {}),
        ("v.mkv", "libx264", "aac", {"fflags": "+bitexact"}),  # no duration of each track
    ],
)
def test_sound_that_outlasts_the_picture_is_no_damage(name, codec, sound, options, tmp_path: Path) -> None:
    path = with_sound(tmp_path / name, codec, sound, video_s=3, sound_s=5, **options)
    facts = probe(path)
    assert (len(facts.times), facts.damage) == (75, None)
    assert facts.stated_end_s == pytest.approx(facts.end_s, abs=0.1)
    if name == "v.wmv":  # FFmpeg gives no duration for a part of one
        return
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert "breaks off" in str(probe(cut).damage)
    even = with_sound(tmp_path / f"even_{name}", codec, sound, video_s=5, sound_s=5, **options)
    even.write_bytes(even.read_bytes()[: even.stat().st_size // 2])
    assert "breaks off" in str(probe(even).damage)


@pytest.mark.parametrize("after", [1, 60])
def test_a_pause_in_a_steady_source_can_be_a_still(after: int, render, tmp_path: Path) -> None:
    path = tmp_path / "pause.mp4"
    with av.open(str(render("v.mp4", num_frames=150, bf="0"))) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for index, packet in enumerate(packet for packet in whole.demux(video=0) if packet.size):
            packet.stream = stream
            if index >= after:
                packet.pts = packet.dts = packet.pts + round(0.8 / packet.time_base)
            container.mux(packet)
    refused = probe(path)
    assert refused.failure.endswith("; --allow-gaps takes the pause as a still")
    for by_decoding in (False, True):
        taken = probe(path, allow_gaps=True, by_decoding=by_decoding)
        assert (taken.damage, taken.remedy, len(taken.times)) == (None, None, 150)
        assert taken.paused_s == refused.paused_s == pytest.approx(0.8, abs=0.01)
    assert len(probe(path, allow_partial=True).times) == after


def test_frames_that_are_lost_are_no_pause(render, tmp_path: Path) -> None:
    whole = render("whole.mp4", num_frames=200, g="25", sc_threshold="0", bf="0")
    path = with_a_hole(whole, tmp_path / "hole.mp4", blanked=True)
    facts = probe(path, by_decoding=True, allow_gaps=True)
    assert facts.failure.endswith(
        "missing in its middle, after 1.96 s; --allow-partial uses the part that can be decoded"
    )


@pytest.mark.parametrize(
    ("stated", "rotation", "expected"),
    [
        ("4:3", 0, 4 / 3),
        ("4:3", 90, 3 / 4),
        ("224:225", 0, 1.0),  # rounding
        ("1:1", 0, 1.0),
    ],
)
def test_the_shape_of_a_displayed_pixel(stated: str, rotation: int, expected: float, render) -> None:
    facts = replace(probe(render("v.mp4")), sample_aspect_ratio=stated, rotation=rotation)
    assert facts.pixel_aspect == pytest.approx(expected)


def test_signal_facts(render) -> None:
    facts = probe(render("v.mp4"))
    assert (facts.sample_aspect_ratio, facts.field_order) == ("1:1", "progressive")
    assert (facts.matrix, facts.transfer, facts.is_interlaced) == ("unknown", "unknown", False)
    hdr = {"x265-params": "colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc:log-level=none"}
    facts = probe(render("hlg.mp4", "libx265", "yuv420p10le", **hdr))
    assert (facts.matrix, facts.transfer) == ("bt2020nc", "arib-std-b67")
    facts = probe(render("fields.ts", "mpeg2video", flags="+ildct+ilme"))
    assert facts.is_interlaced


def test_links_in_a_playlist_are_not_followed_over_the_network(tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "innocent.mp4").write_text(playlist)
    with pytest.raises(VideoError):
        probe(tmp_path / "innocent.mp4")
    shutil.copy(tmp_path / "innocent.mp4", tmp_path / "list.m3u8")
    with pytest.raises(VideoError):
        probe(tmp_path / "list.m3u8")
