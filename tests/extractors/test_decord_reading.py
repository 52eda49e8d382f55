"""decord by segments: the cuts are where they may be, and every frame is the one that PyAV gives."""

import importlib.util
import weakref
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np
import pytest
from awkward_files import READABLE
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from cofinal.extractors import decord_reading
from cofinal.extractors.cutting import Cutter, RunLengths, cut_into_runs, cut_into_segments
from cofinal.extractors.decoders import choose_decoder, read_frames
from cofinal.extractors.opening import open_video
from cofinal.extractors.probing import probe
from cofinal.extractors.video import Limits, UnfaithfulError, VideoError

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel here")

CODECS = {"h264": ("libx264", "x264-params"), "hevc": ("libx265", "x265-params")}


def encode(
    path: Path,
    codec: str = "h264",
    *,
    gop: int = 8,
    bframes: int = 3,
    is_open: bool = False,
    forced: frozenset[int] = frozenset(),
    still: range = range(0),
    start: int = 0,
    step: tuple[int, ...] = (1,),
    num_frames: int = 30,
) -> Path:
    """Encode a pattern that moves, with the key frames and timestamps asked for; the `still` frames are black."""
    encoder, own = CODECS[codec]
    params = f"keyint={gop}:min-keyint=1:scenecut=0:bframes={bframes}:b-adapt=0:open-gop={int(is_open)}"
    params += ":log-level=none:pools=none:frame-threads=1" if codec == "hevc" else ""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25, options={own: params, "preset": "ultrafast", "forced-idr": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        time = start
        for index in range(num_frames):
            picture = image * 0 if index in still else np.roll(image, (index, 3 * index), (0, 1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, time = time, time + step[index % len(step)]
            if index in forced:
                frame.pict_type = av.video.frame.PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets_of(path: Path) -> tuple[list[av.Packet], Cutter]:
    with open_video(path, Limits()) as (container, stream):
        return [packet for packet in container.demux(stream) if packet.size], Cutter.of(stream)


def segments_of(path: Path, max_frames: int = 0) -> list[tuple[list[int], bool]]:
    """The presentation times of the packets of each segment, and whether it ends with the next one's first frame."""
    packets, cutter = packets_of(path)
    segments = cut_into_segments(cut_into_runs(packets, cutter), max_frames)
    return [([packet.pts for packet in segment], ends_with_next) for segment, ends_with_next in segments]


@pytest.mark.parametrize(("codec", "is_open"), [("h264", False), ("hevc", False), ("hevc", True)])
def test_videos_are_cut_at_every_key_frame(codec: str, is_open: bool, tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", codec, gop=8, is_open=is_open)
    packets, _ = packets_of(path)
    has_leading = any(
        later.pts < packet.pts
        for index, packet in enumerate(packets)
        if packet.is_keyframe
        for later in packets[index + 1 :]
    )
    assert has_leading == is_open
    segments = segments_of(path)
    assert [len(times) - ends_with_next for times, ends_with_next in segments] == [8, 8, 8, 6]
    for (times, ends_with_next), (following, _) in pairwise(segments):
        assert ends_with_next
        assert max(times) == following[0] == min(following)
    assert probe(path).longest_run == max(len(times) for times, _ in segments) == 9


def test_open_gops_of_h264_are_not_cut(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", gop=8, is_open=True)
    assert sum(packet.is_keyframe for packet in packets_of(path)[0]) == 4
    assert len(segments_of(path)) == 1
    assert probe(path).longest_run == 30


@pytest.mark.parametrize("name", ["v.avi", "v.ts", "v.mpg"])
def test_other_containers_are_not_cut(name: str, render) -> None:
    packets, cutter = packets_of(render(name, "mpeg2video" if name == "v.mpg" else "libx264"))
    lengths = RunLengths(cutter)
    for packet in packets:
        lengths.add(packet)
    assert len(list(cut_into_runs(packets, cutter))) == 1
    assert lengths.longest == len(packets)


@pytest.mark.parametrize(
    ("max_frames", "expected"), [(0, [8] * 7 + [4]), (16, [16, 16, 16, 12]), (17, [16, 16, 16, 12]), (99, [60])]
)
def test_short_runs_are_joined(max_frames: int, expected: list[int], tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", "hevc", num_frames=60)
    assert [len(times) - ends for times, ends in segments_of(path, max_frames)] == expected


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two runs of a few frames be joined, and no more."""
    monkeypatch.setattr(decord_reading, "JOINED_BYTES", 16 * 64 * 64 * 3)


def assert_decoders_agree(path: Path) -> None:
    facts = probe(path)
    for (time_s, ours), (expected_s, theirs) in zip(
        read_frames(facts, "decord"), read_frames(facts, "pyav"), strict=True
    ):
        assert time_s == expected_s
        assert np.array_equal(ours, theirs), time_s


@needs_decord
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codec=st.sampled_from(sorted(CODECS)),
    suffix=st.sampled_from([".mp4", ".mkv", ".mov"]),
    gop=st.integers(1, 20),
    bframes=st.integers(0, 4),
    is_open=st.booleans(),
    forced=st.frozensets(st.integers(1, 47), max_size=3),
    still_from=st.integers(0, 60),
    start=st.sampled_from([0, 7, 1000]),
    step=st.sampled_from([(1,), (2, 1), (1, 5, 1)]),
    num_frames=st.integers(1, 48),
)
def test_every_frame_is_that_of_pyav(tmp_path: Path, small_segments, suffix, still_from, **structure) -> None:
    try:
        path = encode(tmp_path / f"v{suffix}", still=range(still_from, still_from + 20), **structure)
    except av.error.FFmpegError:  # x265 sometimes gives a short video without timestamps
        reject()
    assert choose_decoder(probe(path))[0] == "decord"
    reason = ""
    try:
        assert_decoders_agree(path)
    except UnfaithfulError as error:  # PyAV then reads the file
        reason = str(error)
    if reason:
        assert "between two key frames that are" in reason
        assert structure["forced"] or structure["is_open"] or structure["gop"] <= structure["bframes"]


def can_decord_read(path: Path) -> bool:
    with suppress(VideoError):
        return choose_decoder(probe(path), "decord")[0] == "decord"
    return False


@needs_decord
@pytest.mark.shared
def test_real_videos(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a segment from each cut to the next, and with segments as they are usually joined."""
    files = [*(shared / "videos" / "action").iterdir(), *(shared / "videos" / "awkward" / name for name in READABLE)]
    files = [path for path in files if can_decord_read(path)]
    assert len(files) == 5 + 7
    assert sum(len(segments_of(path)) > 1 for path in files) >= 5
    for path in files:
        assert_decoders_agree(path)
    monkeypatch.setattr(decord_reading, "JOINED_BYTES", 0)
    for path in files:
        if len(segments_of(path)) > 1:
            assert_decoders_agree(path)


@needs_decord
def test_one_reader_at_a_time(tmp_path: Path, small_segments, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else decord would hold two decoded segments."""
    decord = decord_reading._import_decord()
    alive: weakref.WeakSet[object] = weakref.WeakSet()

    class Watched(decord.VideoReader):
        def __init__(self, *args: object, **options: object) -> None:
            assert not alive
            super().__init__(*args, **options)
            alive.add(self)

    monkeypatch.setattr(decord, "VideoReader", Watched)
    path = encode(tmp_path / "v.mp4", num_frames=60)
    assert len(list(read_frames(path, "decord"))) == 60
    assert not alive


@needs_decord
def test_a_key_frame_that_is_none(tmp_path: Path, small_segments, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut where frames refer to what comes before, as if the bitstream stated it wrongly."""
    path = encode(tmp_path / "v.mp4", gop=20, bframes=0)
    monkeypatch.setattr(Cutter, "cut", lambda self, packet: b"" if packet.pts % 4096 == 0 else None)
    with pytest.raises(UnfaithfulError, match=r"cannot be decoded alone|gives another frame|met damage"):
        list(read_frames(path, "decord"))
