"""Published weights, videos encoded for the tests, and a reader for all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from cofinal.extractors.reader import Reader
from cofinal.extractors.weights import fetch_weights


@pytest.fixture(scope="session")
def i3d_weights() -> Path:
    """The published Kinetics-400 weights of I3D, downloaded into the user's cache on first use."""
    return fetch_weights()


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    """A reader as the commands use it, one for all tests."""
    with Reader() as reader:
        yield reader


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Path]:
    """Encode a moving ramp with a codec into a container."""

    def render(
        name: str,
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        num_frames: int = 30,
        size: tuple[int, int] = (64, 96),
        **options: str,
    ) -> Path:
        height, width = size
        with av.open(str(tmp_path / name), "w", format=options.pop("format", None)) as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            for index in range(num_frames):
                image = np.roll(np.tile(np.arange(width) * 192 // width, (height, 1)), width * index // 32, axis=1)
                frame = av.VideoFrame.from_ndarray(np.dstack([image] * 3).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return tmp_path / name

    return render
