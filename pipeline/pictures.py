"""Thumbnails as the pictures of a page: a film strip, and moments as small looping pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image

from ..extractors.thumbnails import Thumbnail

STRIP = 8
"""Pictures in a film strip; an even number, so that a narrow page can leave out every second one."""
LONGEST_FRAME_S = 0.5
"""A loop shows a picture no longer, where a long video has few of them a second."""


@dataclass(frozen=True)
class Still:
    """A picture of the film strip."""

    time_s: float
    source: str
    """A data URL."""


@dataclass(frozen=True)
class Loop:
    """A moment that moves."""

    moving: str
    """Data URL of an animated WebP."""
    still: str
    """Data URL of its first picture, for those who want no motion."""


def film_strip(thumbnails: Sequence[Thumbnail], start_s: float, end_s: float) -> list[Still]:
    """Return the picture at the beginning of each of `STRIP` equal parts of the time; none without thumbnails."""
    if not thumbnails:
        return []
    moments = [start_s + (end_s - start_s) * i / STRIP for i in range(STRIP)]
    nearest = (min(thumbnails, key=lambda one: abs(one.time_s - moment)) for moment in moments)
    return [Still(one.time_s, _data_url("image/jpeg", one.jpeg)) for one in nearest]


def loop(thumbnails: Sequence[Thumbnail], start_s: float, end_s: float) -> Loop | None:
    """Return a clip as a looping picture; None where it has no thumbnail."""
    shown = [one for one in thumbnails if start_s <= one.time_s < end_s]
    if not shown:
        return None
    images = [Image.open(io.BytesIO(one.jpeg)) for one in shown]
    gaps = [later.time_s - one.time_s for one, later in pairwise(shown)] or [LONGEST_FRAME_S]
    milliseconds = round(1000 * min(sum(gaps) / len(gaps), LONGEST_FRAME_S))
    buffer = io.BytesIO()
    images[0].save(
        buffer, "WEBP", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, quality=60, method=3
    )
    return Loop(_data_url("image/webp", buffer.getvalue()), _data_url("image/jpeg", shown[0].jpeg))


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
