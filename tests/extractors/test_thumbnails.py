"""Thumbnails: taken in the one pass, at the right times, in the shape that a player shows, and bounded in number."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from cheap_backbone import colours
from PIL import Image

from cofinal.extractors import thumbnails
from cofinal.extractors.extract import extract


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Eight seconds of pixels twice as wide as high, which grow lighter from frame to frame."""
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for number in range(200):
            frame = np.full((320, 320, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_thumbnails_show_the_frames_of_their_times(film: Path) -> None:
    extraction = extract(film, colours(), thumbnails=True)
    assert len(extraction.features) == 6
    assert len(extraction.thumbnails) == 6 * 32 / 4
    first, last = extraction.clip_times[0, 0], extraction.clip_times[-1, 1]
    assert np.array_equal(extraction.features, extract(film, colours()).features)
    for one in extraction.thumbnails:
        assert first <= one.time_s < last
        image = Image.open(io.BytesIO(one.jpeg))
        assert image.size == (256, 128)
        assert np.asarray(image).mean() == pytest.approx(25 * one.time_s, abs=3)
    times = [one.time_s for one in extraction.thumbnails]
    assert np.allclose(np.diff(times), 4 / 25)


def test_a_long_video_has_no_more_of_them(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MOST", 10)
    taken = extract(film, colours(), thumbnails=True).thumbnails
    assert 5 < len(taken) <= 10
    assert extract(film, colours()).thumbnails == []
