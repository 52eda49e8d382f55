"""Small pictures of a video, taken from the frames that the clips are made of: no second pass, and bounded memory."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 256
"""Pixels of a thumbnail's longer side."""
PER_SECOND = 6.25
"""Thumbnails a second: enough for a moment to be seen to move."""
MOST = 2048
"""The most thumbnails of a video, about 16 MB; a longer video has fewer a second."""
ROUNDING_S = 1e-6
"""By which a time may miss the next thumbnail's."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a frame, in the shape in which a player shows it."""

    time_s: float
    """Seconds after the video's first frame."""
    jpeg: bytes


class ThumbnailTaker:
    """Takes thumbnails of the frames that it is shown, at even distances.

    Args:
        clip_times: start and end (T, 2) of each clip in seconds.
        pixel_aspect: width of a pixel to its height.
    """

    def __init__(self, clip_times: np.ndarray, pixel_aspect: float) -> None:
        self.taken: list[Thumbnail] = []
        self._pixel_aspect = pixel_aspect
        self._next_s = float(clip_times[0, 0])
        self._distance_s = max(1 / PER_SECOND, float(clip_times[-1, 1] - clip_times[0, 0]) / (MOST - 1))

    def show(self, frame: np.ndarray, time_s: float) -> None:
        """Take a frame's thumbnail if it is time for the next one.

        Args:
            frame: (H, W, 3) uint8, RGB.
            time_s: when it is shown, in seconds after the video's first frame.
        """
        if time_s < self._next_s - ROUNDING_S:
            return
        self._next_s = time_s + self._distance_s
        height, width = frame.shape[0], frame.shape[1] * self._pixel_aspect
        scale = min(1, SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        self.taken.append(Thumbnail(time_s, buffer.getvalue()))
