"""Small pictures of a video, taken from the frames that the clips are made of: no second pass, and bounded memory."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .clips import Selection
from .recipes import Recipe

SIDE = 256
"""Pixels of a thumbnail's longer side."""
PER_SECOND = 6.25
"""Thumbnails a second: enough for a moment to be seen to move."""
MOST = 2048
"""The most thumbnails of a video, about 16 MB; a longer video has fewer a second."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a frame, in the shape in which a player shows it."""

    clip: int
    """Index of the clip that shows the frame."""
    time_s: float
    """Seconds after the video's first frame."""
    jpeg: bytes


class ThumbnailTaker:
    """Takes every n-th of the frames that it is shown.

    Args:
        selection: the frames of the clips.
        recipe: their frame rate.
        pixel_aspect: width of a pixel to its height.
    """

    def __init__(self, selection: Selection, recipe: Recipe, pixel_aspect: float) -> None:
        self.taken: list[Thumbnail] = []
        self._times, self._recipe, self._pixel_aspect = selection.clip_times, recipe, pixel_aspect
        self._step = max(1, round(recipe.fps / PER_SECOND), math.ceil(selection.frames.size / MOST))

    def show(self, frame: np.ndarray, position: int) -> None:
        """Take a frame's thumbnail if it is its turn.

        Args:
            frame: (H, W, 3) uint8, RGB.
            position: its place among the frames of all clips, counted from 0.
        """
        if position % self._step:
            return
        clip, place = divmod(position, self._recipe.clip_frames)
        height, width = frame.shape[0], frame.shape[1] * self._pixel_aspect
        scale = min(1, SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        time_s = float(self._times[clip, 0]) + place / self._recipe.fps
        self.taken.append(Thumbnail(clip, time_s, buffer.getvalue()))
