"""Real files, broken ones among them: the right frames come out, or one sentence."""

import importlib.util
import shutil
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from cofinal.extractors import video
from cofinal.extractors.video import UnfaithfulError, VideoError, choose_decoder, probe, read_frames

# file -> frames, first and last time of presentation, (height, width), who reads it
READABLE = {
    "74_claimed_56_decode.mp4": (56, 0.0, 2.2, (360, 640), "pyav"),
    "av1.mkv": (125, 0.0, 4.96, (360, 640), "pyav"),
    "bt709_full_range.mp4": (30, 0.0, 29 / 30, (720, 1280), "decord"),
    "edit_list_30_claimed_25_decode.mp4": (25, 0.0, 0.96, (64, 64), "pyav"),
    "hevc_10bit.mp4": (30, 0.0, 29 / 30, (200, 200), "pyav"),
    "mp4_named_avi.avi": (280, 0.0, 279 / 28, (256, 340), "decord"),
    "odd_size_vp9.mp4": (25, 0.0, 0.96, (241, 321), "pyav"),
    "rotated_90.mov": (3, 0.0, 2 / 30, (568, 320), "decord"),
    "starts_at_8s.mp4": (12, 8.333, 8.6997, (112, 200), "decord"),
    "two_video_streams.mp4": (390, 0.0, 12.9796, (270, 480), "decord"),
    "unordered_timestamps.mov": (4, 0.0, 0.09375, (50, 50), "decord"),
    "variable_frame_rate_1080p.mp4": (72, 0.0, 2.5333, (1080, 1920), "pyav"),
}
BROKEN = {
    "corrupted_midway.mp4": r"breaks off after \d+ frames, at 2\.\d\d s \(Invalid data",
    "empty.mp4": "cannot be read as a video: Invalid data",
    "text.mp4": "cannot be read as a video: Invalid data",
    "truncated.mkv": r"breaks off: it can be read up to 9\.40 s of 10\.33 s",
    "truncated_mp4_maybe_no_index.mp4": "cannot be read as a video: Invalid data",
}
HAS_DECORD = importlib.util.find_spec("decord") is not None


@pytest.fixture
def awkward(shared: Path) -> Path:
    return shared / "videos" / "awkward"


@pytest.mark.shared
def test_every_awkward_file_is_in_one_of_the_tables(awkward: Path) -> None:
    assert {path.name for path in awkward.iterdir()} == READABLE.keys() | BROKEN.keys()


@pytest.mark.shared
@pytest.mark.parametrize("name", READABLE)
def test_what_awkward_files_hold(name: str, awkward: Path) -> None:
    num_frames, first_s, last_s, size, reader = READABLE[name]
    facts = probe(awkward / name)
    assert len(facts.times) == num_frames
    assert (facts.height, facts.width) == size
    if HAS_DECORD:
        assert choose_decoder(facts)[0] == reader

    times = []
    for time_s, frame in read_frames(awkward / name):
        times.append(time_s)
        assert frame.shape == (*size, 3)
        assert frame.dtype == np.uint8
    assert times == facts.times.tolist()
    assert (times[0], times[-1]) == pytest.approx((first_s, last_s), abs=1e-3)
    assert times == sorted(times)


@pytest.mark.shared
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_said_of_broken_files(name: str, awkward: Path) -> None:
    with pytest.raises(VideoError, match=BROKEN[name]) as raised:
        for _ in read_frames(awkward / name, "pyav"):
            pass
    assert str(raised.value).startswith(str(awkward / name))
    assert "\n" not in str(raised.value)


@pytest.mark.shared
@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel here")
def test_both_decoders_give_the_same_frames(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "DECORD_MAX_BYTES", 2**30)
    files = list((shared / "videos" / "action").iterdir())
    files += [
        path for name in READABLE if choose_decoder(probe(path := shared / "videos/awkward" / name))[0] == "decord"
    ]
    assert len(files) == 5 + 7
    for path in files:
        for (time_s, ours), (time_again_s, theirs) in zip(
            read_frames(path, "decord"), read_frames(path, "pyav"), strict=True
        ):
            assert time_s == time_again_s
            assert np.array_equal(ours, theirs), path


@pytest.mark.shared
@pytest.mark.parametrize(
    "decoder", ["pyav", pytest.param("decord", marks=pytest.mark.skipif(not HAS_DECORD, reason="no decord"))]
)
def test_only_wanted_frames_are_given(decoder: str, shared: Path) -> None:
    path = shared / "videos" / "action" / "walking_the_dog.mp4"
    wanted = np.array([0, 7, 8, 300])
    some = list(read_frames(path, decoder, wanted=wanted))
    every = list(read_frames(path, decoder))
    assert [time_s for time_s, _ in some] == [every[index][0] for index in wanted]
    assert all(np.array_equal(frame, every[index][1]) for (_, frame), index in zip(some, wanted, strict=True))


@pytest.mark.shared
def test_rotated_video_stands_upright(awkward: Path) -> None:
    with av.open(str(awkward / "rotated_90.mov")) as container:
        stored = next(container.decode(video=0))
        turned = np.rot90(stored.to_ndarray(format="rgb24"), stored.rotation // 90)
    assert np.array_equal(next(read_frames(awkward / "rotated_90.mov", "pyav"))[1], turned)


@pytest.mark.shared
def test_a_cut_mp4_says_where_it_breaks(shared: Path, tmp_path: Path) -> None:
    """The index says 10 s, and the second half of the data is not there."""
    with av.open(str(shared / "videos" / "action" / "cleaning_pool.mp4")) as source:
        path = tmp_path / "index_first.mp4"
        with av.open(str(path), "w", options={"movflags": "faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"breaks off.* [345]\.\d\d s"):
        list(read_frames(path))


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
    ("name", "codec", "pixel_format", "options"),
    [
        ("xvid.avi", "mpeg4", "yuv420p", {"bf": "2"}),
        ("h264.avi", "libx264", "yuv420p", {}),  # its timestamps are those of decoding
        ("broadcast.ts", "mpeg2video", "yuv420p", {"bf": "2"}),
        ("dvd.mpg", "mpeg2video", "yuv420p", {}),
        ("alternate.webm", "libvpx-vp9", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
        ("old.wmv", "wmv2", "yuv420p", {}),
        ("older.mpg", "mpeg1video", "yuv420p", {}),
        ("older.webm", "libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        ("mpeg4.mp4", "mpeg4", "yuv420p", {}),
        ("hevc.mkv", "libx265", "yuv420p", {"x265-params": "log-level=none"}),
        ("moving.gif", "gif", "rgb8", {}),
        ("full_colour.mp4", "libx264", "yuv444p", {}),
        ("10bit.mov", "libx264", "yuv422p10le", {}),
        ("hdr.mp4", "libx265", "yuv420p10le", {"x265-params": "colorprim=bt2020:transfer=smpte2084:log-level=none"}),
        ("full_range.mkv", "libx264", "yuvj420p", {}),
        ("webm_named.mp4", "libvpx-vp9", "yuv420p", {"format": "webm", "cpu-used": "8"}),
        ("no_timestamps.h264", "libx264", "yuv420p", {"format": "h264"}),
    ],
)
def test_containers_and_codecs(name, codec, pixel_format, options, render) -> None:
    path = render(name, codec, pixel_format, **options)
    times, frames = zip(*read_frames(path), strict=True)
    np.testing.assert_allclose(np.array(times) - times[0], np.arange(30) / 25, atol=1e-3)
    assert probe(path).has_timestamps == (name != "no_timestamps.h264")
    # every frame shows the ramp where it was when it was drawn, so none is missing, repeated or out of order
    for index, frame in enumerate(frames):
        drawn = np.roll(np.arange(96) * 2, 3 * index)
        assert np.abs(frame[:, :, 1].mean(0) - drawn).mean() < 12, index


def test_full_range_is_taken_for_what_it_is(render) -> None:
    limited, full = (
        np.stack([frame for _, frame in read_frames(render(f"{name}.mkv", "libx264", name, crf="1"))])
        for name in ("yuv420p", "yuvj420p")
    )
    assert np.abs(limited.astype(int) - full).mean() < 2


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


def test_metadata_that_are_not_utf8(render, tmp_path: Path) -> None:
    whole = render("video.avi", "mpeg4")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "tagged.avi"), "w") as target:
        target.metadata["title"] = "Gala-Abend, Kuer XX"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    path = tmp_path / "latin1.avi"
    content = (tmp_path / "tagged.avi").read_bytes()
    assert content.count(b"Kuer XX") == 1
    path.write_bytes(content.replace(b"Kuer XX", b"K\xfcr \xc4\xe9!"))
    assert len(list(read_frames(path))) == 30


def test_an_odd_size(render) -> None:
    for codec in ("libx264", "libvpx-vp9"):
        path = render(f"{codec}.mkv", codec, "yuv444p", size=(63, 97))
        assert choose_decoder(probe(path))[0] == "pyav"
        assert {frame.shape for _, frame in read_frames(path)} == {(63, 97, 3)}


@pytest.mark.shared
def test_bt601_colours_are_read_whatever_the_file_states(awkward: Path) -> None:
    path = awkward / "two_video_streams.mp4"  # it states BT.709
    facts = probe(path)
    assert choose_decoder(facts, colours="bt601") == (
        "pyav",
        "decord cannot read colours as bt601, which the recipe asks for",
    )
    with pytest.raises(VideoError, match="cannot read colours as bt601"):
        choose_decoder(facts, "decord", colours="bt601")
    with av.open(str(path)) as container:
        frame = next(container.decode(container.streams.best("video")))
    for colours, matrix in (("bt601", "ITU601"), ("tagged", "ITU709")):
        expected = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix).to_ndarray()
        assert np.array_equal(next(read_frames(path, colours=colours))[1], expected)


def test_a_decompression_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
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
        (np.delete(announced, [7, 20, 21]), 0.08),  # one alone may be meant to show nothing
    ):
        assert video._holes(announced, shown, 0.5).sum() == pytest.approx(expected)
    assert video._holes(announced[::2], announced[::4], 0.5).sum() == 0  # half pictures


@pytest.mark.parametrize(
    ("gaps_s", "expected_s"),
    [
        ([0.04] * 100, 0),
        ([0.04] * 50 + [0.5] + [0.04] * 50, 0),  # no more than is allowed
        ([0.04] * 50 + [2.04] + [0.04] * 50, 2),
        ([0.03, 0.05] * 50 + [2.04] + [0.03, 0.05] * 50, 2.0),  # a telephone's pace
        ([1.0] * 20 + [3.0] + [1.0] * 20, 0),  # slides
        ([0.04] * 60 + [0.2, 3.0, 0.12, 0.04, 0.6, 0.04, 1.0], 0),  # a recording of a screen
        ([2.0], 0),
    ],
)
def test_holes_are_where_a_steady_source_stops(gaps_s: list[float], expected_s: float) -> None:
    times = np.cumsum([7.0, *gaps_s])
    holes_s = video._holes(times, times, 0.5)
    assert holes_s.sum() == pytest.approx(expected_s, abs=0.02)
    assert np.flatnonzero(holes_s).tolist() == ([int(np.argmax(gaps_s))] if expected_s else [])


@pytest.mark.parametrize(
    ("start_s", "end_s", "hole_s", "stated_end_s", "said"),
    [
        (0.0, 9.5, 0.0, 10.0, None),
        (0.0, 9.4, 0.0, 10.0, "v.mp4 breaks off: it can be read up to 9.40 s of 10.00 s."),
        (0.0, 98.0, 0.0, 100.0, None),
        (0.0, 97.9, 0.0, 100.0, "v.mp4 breaks off: it can be read up to 97.90 s of 100.00 s."),
        (0.6, 10.0, 0.0, 10.0, "v.mp4 is damaged: 0.60 s of 10.00 s at its start cannot be decoded."),
        (0.0, 10.0, 0.6, 10.0, "v.mp4 is damaged: 0.60 s of 10.00 s are missing in its middle, after 0.00 s."),
        (0.2, 9.7, 0.2, 10.0, "v.mp4 breaks off: it can be read up to 9.70 s of 10.00 s."),
        (0.0, 12.0, 0.0, 10.0, None),
    ],
)
def test_what_counts_as_missing(
    start_s: float, end_s: float, hole_s: float, stated_end_s: float, said: str | None
) -> None:
    times, allowed_s = np.array([start_s, end_s - 0.04]), max(0.5, 0.02 * stated_end_s)
    assert video._missing(Path("v.mp4"), times, end_s, np.array([hole_s]), 0.0, stated_end_s, allowed_s) == said


def with_a_hole(source: Path, target: Path, *, blanked: bool) -> Path:
    """Two seconds in the middle of eight: packets that are not there, or that hold no picture."""
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
    said = r"2\.00 s of 8\.\d\d s are missing in its middle, after 1\.96 s"
    facts = probe(path)
    if blanked:  # only decoding finds it out
        assert (facts.damage, len(facts.times)) == (None, 200)
        for decoder in ("auto", "pyav"):
            with pytest.raises(UnfaithfulError):
                list(read_frames(facts, decoder))
        facts = probe(path, by_decoding=True)
    with pytest.raises(VideoError, match=said):
        list(read_frames(facts))
    partial = probe(path, by_decoding=blanked, allow_partial=True)
    assert partial.is_partial
    expected = list(read_frames(whole, "pyav"))[:50]
    for (time_s, frame), (expected_time_s, expected_frame) in zip(read_frames(partial), expected, strict=True):
        assert time_s == pytest.approx(expected_time_s, abs=1e-3)
        assert np.array_equal(frame, expected_frame)


def test_lost_frames_are_noticed(render) -> None:
    facts = probe(render("video.mp4", "libx264", "yuv420p"))
    more = replace(facts, times=np.append(facts.times, facts.end_s))
    for decoder in ("pyav", "decord") if HAS_DECORD else ("pyav",):
        with pytest.raises(UnfaithfulError, match="announces 31 frames, and 30 come out of it"):
            list(read_frames(more, decoder))


def test_who_reads(render, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = probe(render("video.mp4", "libx264", "yuv420p"))
    assert choose_decoder(facts, "pyav") == ("pyav", "it was asked for")
    with pytest.raises(ValueError, match='no decoder "opencv"; known are auto, decord, pyav'):
        choose_decoder(facts, "opencv")

    monkeypatch.setitem(sys.modules, "decord", None)
    assert choose_decoder(facts) == ("pyav", "decord is not installed")
    with pytest.raises(ValueError, match="decord is not installed"):
        choose_decoder(facts, "decord")


@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel here")
def test_decord_is_refused_what_it_cannot_do(render) -> None:
    facts = probe(render("video.mp4", "libx264", "yuv420p"))
    assert choose_decoder(facts)[0] == choose_decoder(facts, "decord")[0] == "decord"
    hour = replace(facts, width=1920, height=1080, times=np.arange(90_000) / 25, end_s=3600.0, stated_end_s=3600.0)
    for refused, reason in (
        (hour, "533936 MiB, and 256 MiB are allowed"),
        (replace(facts, pixel_format="yuv420p10le"), "8-bit 4:2:0 H.264 and HEVC only, this is h264 yuv420p10le"),
        (replace(facts, width=95), "even sizes only, this is 95 x 64"),
        (replace(facts, container="avi"), "MP4 and Matroska only, this is avi"),
        (replace(facts, num_discarded=3), "edit list, which leaves out 3 packets"),
        (replace(facts, has_timestamps=False), "no timestamps"),
    ):
        name, why = choose_decoder(refused)
        assert name == "pyav"
        assert reason in why
        with pytest.raises(VideoError, match="use --decoder auto") as raised:
            choose_decoder(refused, "decord")
        assert reason in str(raised.value)


@pytest.mark.shared
def test_times_from_decoding_are_those_of_the_packets(shared: Path) -> None:
    for path in (shared / "videos" / "awkward" / name for name in READABLE):
        scanned, decoded = probe(path), probe(path, by_decoding=True)
        assert np.array_equal(scanned.times, decoded.times), path
        assert scanned.to_json() == decoded.to_json()


def test_links_in_a_playlist_are_not_followed_over_the_network(tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "innocent.mp4").write_text(playlist)
    with pytest.raises(VideoError):
        probe(tmp_path / "innocent.mp4")
    shutil.copy(tmp_path / "innocent.mp4", tmp_path / "list.m3u8")
    with pytest.raises(VideoError):
        probe(tmp_path / "list.m3u8")
