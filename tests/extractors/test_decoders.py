"""Reading frames: the right ones come out of real and generated files, or an error with a reason."""

import importlib.util
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import av.bitstream
import av.stream
import numpy as np
import pytest
from awkward_files import BROKEN, READABLE

from cofinal.extractors.decoders import choose_decoder, read_frames
from cofinal.extractors.probing import probe
from cofinal.extractors.video import UnfaithfulError, VideoError

HAS_DECORD = importlib.util.find_spec("decord") is not None


@pytest.fixture
def awkward(shared: Path) -> Path:
    return shared / "videos" / "awkward"


@pytest.mark.shared
def test_every_awkward_file_is_in_a_table(awkward: Path) -> None:
    assert {path.name for path in awkward.iterdir()} == READABLE.keys() | BROKEN.keys()


@pytest.mark.shared
@pytest.mark.parametrize("name", READABLE)
def test_awkward_files_are_read_in_full(name: str, awkward: Path) -> None:
    num_frames, first_s, last_s, size, decoder = READABLE[name]
    facts = probe(awkward / name)
    assert len(facts.times) == num_frames
    assert (facts.height, facts.width) == size
    if HAS_DECORD:
        assert choose_decoder(facts)[0] == decoder

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
def test_broken_files_are_refused_with_a_reason(name: str, awkward: Path) -> None:
    with pytest.raises(VideoError, match=BROKEN[name]) as raised:
        for _ in read_frames(awkward / name, "pyav"):
            pass
    assert str(raised.value).startswith(str(awkward / name))
    assert "\n" not in str(raised.value)


@pytest.mark.shared
@pytest.mark.parametrize(
    "decoder", ["pyav", pytest.param("decord", marks=pytest.mark.skipif(not HAS_DECORD, reason="no decord"))]
)
def test_only_wanted_frames_are_yielded(decoder: str, shared: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        ("xvid.avi", "mpeg4", "yuv420p", {"bf": "2"}),
        ("h264.avi", "libx264", "yuv420p", {}),  # AVI stores decoding times only
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
    # every frame shows the ramp where it was drawn, so no frame is missing, repeated or out of order
    for index, frame in enumerate(frames):
        drawn = np.roll(np.arange(96) * 2, 3 * index)
        assert np.abs(frame[:, :, 1].mean(0) - drawn).mean() < 12, index


def test_full_range_is_recognised(render) -> None:
    limited, full = (
        np.stack([frame for _, frame in read_frames(render(f"{name}.mkv", "libx264", name, crf="1"))])
        for name in ("yuv420p", "yuvj420p")
    )
    assert np.abs(limited.astype(int) - full).mean() < 2


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


def test_lost_frames_are_noticed(render) -> None:
    facts = probe(render("video.mp4", "libx264", "yuv420p"))
    more = replace(facts, times=np.append(facts.times, facts.end_s))
    for decoder in ("pyav", "decord") if HAS_DECORD else ("pyav",):
        with pytest.raises(UnfaithfulError, match="announces 31 frames, and 30 come out of it"):
            list(read_frames(more, decoder))


def remux(source: Path, target: Path, *, options: dict[str, str] | None = None, bitstream_filter: str = "") -> Path:
    """Copy the packets of a video, through a bitstream filter if one is given."""
    with av.open(str(source)) as whole, av.open(str(target), "w", options=options or {}) as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        change = av.bitstream.BitStreamFilterContext(bitstream_filter or "null", whole.streams.video[0])
        given = [packet for packet in whole.demux(video=0) if packet.size]
        for packet in [changed for one in given for changed in change.filter(one)] + change.filter(None):
            packet.stream = stream
            container.mux(packet)
    return target


UNITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the track of an MP4; the film's own one comes before it."""
    content = path.read_bytes()
    assert content.count(UNITY) == 2
    place = content.rindex(UNITY)
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 0x40000000)
    path.write_bytes(content[:place] + matrix + content[place + 36 :])
    return path


@pytest.fixture
def corner(tmp_path: Path) -> Callable[..., Path]:
    """Encode noise in which no two of the eight orientations look alike."""

    def encode(name: str, size: tuple[int, int] = (64, 96), seed: int = 0, **options: str) -> Path:
        height, width = size
        noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = np.kron(noise, np.ones((8, 8, 1), np.uint8))
        with av.open(str(tmp_path / name), "w", format=options.pop("format", None)) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "10"} | options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(30):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return tmp_path / name

    return encode


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_display_matrix(matrix: tuple[int, int, int, int], shown, suffix: str, corner, tmp_path: Path) -> None:
    """A stored pixel (right, down) is shown at (a * right + c * down, b * right + d * down)."""
    path = corner("video.mp4")
    stored = [frame for _, frame in read_frames(path, "pyav")]
    with_matrix(path, *matrix)
    if suffix == ".mkv":
        path = remux(path, tmp_path / "turned.mkv")
    facts = probe(path)
    assert (facts.height, facts.width) == shown(stored[0]).shape[:2]
    assert facts.is_mirrored == (np.linalg.det(np.reshape(matrix, (2, 2))) < 0)
    for decoder in ("auto", "pyav"):
        for (_, frame), image in zip(read_frames(facts, decoder), stored, strict=True):
            assert np.array_equal(frame, shown(image))


def read_as_commands_do(path: Path) -> tuple[str, list[np.ndarray]]:
    """The frames, read again with PyAV if the first decoder is not faithful; and the reason for the second reading."""
    reason = ""
    try:
        frames = [frame for _, frame in read_frames(path)]
    except UnfaithfulError as error:
        reason = str(error)
        frames = [frame for _, frame in read_frames(path, "pyav")]
    return reason, frames


@pytest.mark.parametrize("rotation", [90, 180])
def test_an_orientation_in_the_bitstream(rotation: int, corner, tmp_path: Path) -> None:
    plain = corner("plain.mp4")
    stored = [frame for _, frame in read_frames(plain, "pyav")]
    turning = f"h264_metadata=display_orientation=insert:rotate={rotation}"
    path = remux(plain, tmp_path / "turned.mp4", bitstream_filter=turning)
    reason, frames = read_as_commands_do(path)
    for frame, image in zip(frames, stored, strict=True):
        assert np.array_equal(frame, np.rot90(image, rotation // 90))
    assert not HAS_DECORD or "decord gives another frame 0" in reason


@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel here")
def test_a_grey_picture_does_not_show_what_is_up(corner, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(np, "kron", lambda noise, block: np.full((64, 96, 3), 128, np.uint8))
        path = with_matrix(corner("grey.mp4"), -1, 0, 0, -1)
    with pytest.raises(UnfaithfulError, match="do not show which way up decord's frames are"):
        list(read_frames(path, "decord"))
    assert read_as_commands_do(with_matrix(corner("turned.mp4"), -1, 0, 0, -1))[0] == ""


def test_a_size_that_changes_midway(corner, tmp_path: Path) -> None:
    parts = [corner("wide.h264", format="h264"), corner("high.h264", (96, 64), format="h264")]
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container, av.open(str(parts[0])) as first, av.open(str(parts[1])) as second:
        stream = container.add_stream_from_template(first.streams.video[0])
        packets = [packet for part in (first, second) for packet in part.demux(video=0) if packet.size]
        for index, packet in enumerate(packets):
            packet.pts = packet.dts = round(index / 25 / packet.time_base)
            packet.stream = stream
            container.mux(packet)
    expected = [frame for part in parts for _, frame in read_frames(part)]
    reason, frames = read_as_commands_do(path)
    assert [frame.shape[:2] for frame in frames] == [(64, 96)] * 30 + [(96, 64)] * 30
    assert all(np.array_equal(frame, image) for frame, image in zip(frames, expected, strict=True))
    assert not HAS_DECORD or "decord gives another frame 30 of" in reason


@pytest.mark.parametrize("size", [(64, 96), (128, 192)])
def test_of_two_streams_the_default_one_is_read(size: tuple[int, int], corner, tmp_path: Path) -> None:
    """The other one has the higher bit rate, which decord prefers."""
    main, other = corner("main.mp4", crf="40"), corner("other.mp4", size, 1, crf="1", g="1")
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container, av.open(str(main)) as first, av.open(str(other)) as second:
        sources = [(part, container.add_stream_from_template(part.streams.video[0])) for part in (first, second)]
        sources[1][1].disposition = av.stream.Disposition(0)
        for part, stream in sources:
            for packet in (packet for packet in part.demux(video=0) if packet.size):
                packet.stream = stream
                container.mux(packet)
    facts = probe(path)
    assert facts.num_video_streams == 2
    reason, frames = read_as_commands_do(path)
    assert reason == ""
    for frame, (_, expected) in zip(frames, read_frames(main, "pyav"), strict=True):
        assert np.array_equal(frame, expected)


@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_key_frames_prove_ordinary_files(codec: str, bframes: str, render) -> None:
    if not HAS_DECORD:
        pytest.skip("decord has no wheel here")
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    for name in ("v.mp4", "v.mkv"):
        path = render(name, codec, num_frames=60, g="12", bf=bframes, **options)
        for (_, ours), (_, theirs) in zip(read_frames(path, "decord"), read_frames(path, "pyav"), strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("num_frames", [1, 2, 30])
def test_deinterlacing_keeps_every_frame(num_frames: int, render) -> None:
    path = render("fields.mkv", "mpeg2video", num_frames=num_frames, flags="+ildct+ilme")
    facts = probe(path)
    combed = [frame for _, frame in read_frames(facts)]
    smooth = [frame for _, frame in read_frames(facts, deinterlace=True)]
    assert len(smooth) == len(combed) == num_frames
    for ours, theirs in zip(smooth, combed, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(float) - theirs).mean() < 8
    wanted = np.array([num_frames - 1])
    assert np.array_equal(next(read_frames(facts, wanted=wanted, deinterlace=True))[1], smooth[-1])


def test_matrices_that_ffmpeg_does_not_know(corner) -> None:
    path = corner("ycgco.mp4", colorspace="ycgco")
    facts = probe(path)
    assert facts.matrix == "ycgco"
    if HAS_DECORD:
        assert choose_decoder(facts) == ("pyav", "decord takes the matrix ycgco for another one")
    with pytest.raises(VideoError, match="colours of the matrix ycgco, which FFmpeg cannot turn into RGB; convert it"):
        list(read_frames(path))
    assert len(list(read_frames(path, colours="bt601"))) == 30
    expected = [frame for _, frame in read_frames(corner("nc.mp4", colorspace="bt2020nc"))]
    constant = [frame for _, frame in read_frames(corner("c.mp4", colorspace="bt2020c"))]
    assert np.abs(np.subtract(constant, expected, dtype=float)).mean() < 2  # two encodings differ a little


def test_the_choice_of_a_decoder(render, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = probe(render("video.mp4", "libx264", "yuv420p"))
    assert choose_decoder(facts, "pyav") == ("pyav", "it was asked for")
    with pytest.raises(ValueError, match="unknown decoder 'opencv'; known are auto, decord, pyav"):
        choose_decoder(facts, "opencv")

    monkeypatch.setitem(sys.modules, "decord", None)
    assert choose_decoder(facts) == ("pyav", "decord is not installed")
    with pytest.raises(ValueError, match="decord is not installed"):
        choose_decoder(facts, "decord")


@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel here")
def test_decord_does_not_read_what_it_cannot_read_faithfully(render) -> None:
    facts = probe(render("video.mp4", "libx264", "yuv420p"))
    assert choose_decoder(facts)[0] == choose_decoder(facts, "decord")[0] == "decord"
    routine = replace(facts, width=854, height=480, longest_run=251, times=np.arange(170 * 25) / 25, end_s=170.0)
    assert choose_decoder(routine)[0] == "decord"
    large = replace(routine, width=1280, height=720)
    assert choose_decoder(large) == ("pyav", "decord is slower than PyAV on frames of 1280 x 720")
    assert choose_decoder(large, "decord")[0] == "decord"
    for refused, reason in (
        (replace(facts, width=1920, height=1080, longest_run=200), "1187 MiB, and 1024 MiB are allowed (--decoder-mem"),
        (replace(facts, longest_run=0), "the file's packets do not show its frames"),
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
