"""Folders of numbered frames: read as the same pictures in a video are, and refused where they are not whole."""

from pathlib import Path

import av
import numpy as np
import pytest
from cheap_backbone import colours
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cofinal.extractors.decoders import probe, read_frames
from cofinal.extractors.extract import extract
from cofinal.extractors.frame_folders import is_frame_folder, number_frames
from cofinal.extractors.reader import Reader
from cofinal.extractors.video import Limits, VideoError

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)


def save(folder: Path, pictures: np.ndarray = PICTURES, pattern: str = "{:04}.png", first: int = 1) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, start=first):
        Image.fromarray(picture).save(folder / pattern.format(number))
    return folder


@given(
    st.integers(0, 999), st.integers(2, 40), st.sampled_from(["{}.jpg", "{:05}.PNG", "img_{:03}.jpeg"]), st.randoms()
)
def test_pictures_are_ordered_by_their_numbers(first: int, count: int, pattern: str, random) -> None:
    names = [pattern.format(number) for number in range(first, first + count)]
    shuffled = random.sample([*names, ".DS_Store", "Thumbs.db"], count + 2)
    assert number_frames(shuffled) == dict(zip(range(first, first + count), names, strict=True))


def test_other_folders_are_not_frames() -> None:
    for names in (
        ["1.jpg"],
        ["1.jpg", "2.jpg", "notes.txt"],
        ["a1.jpg", "b2.jpg"],
        ["1.jpg", "01.jpg"],
        ["1.mp4", "2.mp4"],
        ["anna.jpg", "bea.jpg"],
        [],
    ):
        assert number_frames(names) is None


def test_a_folder_of_frames_is_one_only_without_folders_in_it(tmp_path: Path) -> None:
    folder = save(tmp_path / "frames")
    assert is_frame_folder(folder)
    (folder / "0001").mkdir()
    assert not is_frame_folder(folder)
    assert not is_frame_folder(tmp_path)


def test_the_frames_are_the_pictures(tmp_path: Path) -> None:
    folder = save(tmp_path / "frames", pattern="frame{}.png", first=0)  # without leading zeros: 10 comes after 9
    facts = probe(folder, fps=25)
    assert (facts.width, facts.height, facts.duration_s) == (64, 48, 0.8)
    read = list(read_frames(facts, wanted=np.array([0, 9, 10, 19])))
    assert [round(time_s, 2) for time_s, _ in read] == [0, 0.36, 0.4, 0.76]
    assert np.array_equal([frame for _, frame in read], PICTURES[[0, 9, 10, 19]])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_other_kinds_become_rgb_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    folder, suffix = tmp_path / "frames", "tif" if mode == "CMYK" else "png"
    folder.mkdir()
    for number in (1, 2):
        Image.fromarray(PICTURES[number]).convert(mode).save(folder / f"{number}.{suffix}")
    expected = Image.fromarray(PICTURES[1]).convert(mode).convert("RGB")
    assert np.array_equal(next(read_frames(probe(folder, fps=5)))[1], np.asarray(expected))


def test_photographs_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        Image.fromarray(PICTURES[0]).save(folder / f"{number}.png", exif=exif)
    facts = probe(folder, fps=5)
    assert (facts.width, facts.height) == (48, 64)
    assert np.array_equal(next(read_frames(facts))[1], np.rot90(PICTURES[0], -1))


def test_features_equal_those_of_the_same_pictures_as_a_video(tmp_path: Path, reader: Reader) -> None:
    folder, video = save(tmp_path / "frames"), tmp_path / "video.mkv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=25)  # without loss, and in RGB
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for picture in PICTURES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    backbone = colours(clip_frames=4)
    for segment in (None, (3, 17, "frames"), (0.2, 0.6, "seconds")):
        of_frames = extract(folder, backbone, fps=25, segment=segment, reader=reader)
        of_video = extract(video, backbone, segment=segment, reader=reader)
        assert np.array_equal(of_frames.features, of_video.features)
        np.testing.assert_allclose(of_frames.clip_times, of_video.clip_times, atol=1e-3)
    assert of_frames.record["decoder"] == "pillow"
    assert of_frames.record["container"]["frames_per_s"] == 25


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, reader: Reader) -> None:
    folder = save(tmp_path / "frames")
    with pytest.raises(VideoError, match=r"holds numbered frames: say how many are a second \(--fps\)"):
        reader.probe(folder)
    with pytest.raises(VideoError, match=r"64 x 48, 3072 pixels, and 100 are allowed"):
        probe(folder, Limits(max_pixels=100), fps=25)
    with pytest.raises(VideoError, match=r"lasts 20.00 s, and 10 s are allowed"):
        probe(folder, Limits(max_duration_s=10), fps=1)
    with pytest.raises(VideoError, match="Pillow reads; use --decoder auto"):
        extract(folder, colours(clip_frames=4), fps=25, decoder="pyav", reader=reader)

    content = (folder / "0007.png").read_bytes()
    (folder / "0007.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"0007\.png cannot be read as a picture"):
        extract(folder, colours(clip_frames=4), fps=25, reader=reader)
    Image.fromarray(PICTURES[0, :40]).save(folder / "0007.png")
    with pytest.raises(VideoError, match=r"0007\.png has 64 x 40 pixels, 0001\.png has 64 x 48"):
        reader.probe(folder, fps=25)
    Image.fromarray(PICTURES[0, ..., 0].astype(np.uint16)).save(folder / "0007.png")
    with pytest.raises(VideoError, match=r"has pixels of the kind I;16"):
        reader.probe(folder, fps=25)
    for number in (7, 11, 12):
        (folder / f"{number:04}.png").unlink()
    with pytest.raises(VideoError, match=r"lacks frames between 1 and 20: 7, 11 to 12; add them"):
        reader.probe(folder, fps=25)
    (folder / "notes.txt").touch()
    with pytest.raises(VideoError, match="not one of numbered frames alone"):
        reader.probe(folder, fps=25)
