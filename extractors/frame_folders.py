"""Folders of numbered pictures, one a frame, as ffmpeg or a research repository leaves them: they count as a video.

Pillow reads the pictures, as the loaders of such repositories do. `extractors.video` explains why torch is not imported
here.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .video import Limits, VideoError, VideoFacts

CONTAINER = "numbered frames"
"""The container in the facts of such a folder."""
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "@eadir"})
"""What Windows and file servers put into folders of pictures, in lower case."""
MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "1"})
"""Pillow's names of the kinds of pixels with 8 bits or fewer, which it converts to RGB rightly."""
EXIF_ORIENTATION = 0x0112


def number_frames(names: Iterable[str]) -> dict[int, str] | None:
    """The names of pictures by their numbers, in order.

    Args:
        names: all files of a folder; those that `is_clutter` do not count.

    Returns:
        None if one is no picture, or is not named by one common prefix and a number of its own, or if there are fewer
        than two.
    """
    numbered: dict[int, str] = {}
    prefixes = set()
    for name in names:
        if is_clutter(name):
            continue
        match = re.fullmatch(r"(.*?)([0-9]{1,18})(\.[a-zA-Z]+)", name)
        if match is None or match[3].lower() not in PICTURE_SUFFIXES or int(match[2]) in numbered:
            return None
        numbered[int(match[2])] = name
        prefixes.add(match[1])
    return dict(sorted(numbered.items())) if len(prefixes) == 1 and len(numbered) > 1 else None


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name says nothing about what a folder of pictures is."""
    return name.startswith(".") or name.lower() in CLUTTER


def is_frame_folder(folder: Path) -> bool:
    """Whether a folder holds numbered pictures and nothing else."""
    return folder.is_dir() and _pictures(folder) is not None


def probe_frames(folder: Path, limits: Limits, fps: float | None, heartbeat: Callable[[], object]) -> VideoFacts:
    """Find out what a folder of numbered frames is, as `extractors.probing.probe` does for a file.

    Args:
        folder: the folder.
        limits: how large and long it may be.
        fps: frames per second.
        heartbeat: called with every picture.

    Raises:
        VideoError: it holds other files too, lacks numbers, or its pictures differ in size or cannot be read; or `fps`
            is None.
    """
    pictures = _pictures(folder)
    if pictures is None:
        raise VideoError(f"{folder} is a folder, and not one of numbered frames alone (0001.jpg, 0002.jpg, ...)")
    if fps is None:
        raise VideoError(f"{folder} holds numbered frames: say how many are a second (--fps)")
    _refuse_gaps(folder, list(pictures))
    paths = [folder / name for name in pictures.values()]
    sizes: dict[tuple[int, int], Path] = {}
    for path in paths:
        heartbeat()
        with _opened(path) as picture:
            size = _upright_size(picture)
            limits.check_size(path, *size)
            codec, mode = str(picture.format).lower(), picture.mode
        first = next(iter(sizes.items()), (size, path))
        if sizes.setdefault(size, path) is path and first[0] != size:
            raise VideoError(
                f"{path} has {size[0]} x {size[1]} pixels, {first[1].name} has {first[0][0]} x {first[0][1]}: all "
                "frames of a folder must have one size"
            )
    limits.check_duration(folder, len(paths) / fps)
    (width, height) = size
    return VideoFacts(
        path=folder,
        container=CONTAINER,
        codec=codec,
        pixel_format=mode,
        width=width,
        height=height,
        rotation=0,
        is_mirrored=False,
        sample_aspect_ratio="1:1",
        field_order="progressive",
        matrix="unknown",
        transfer="unknown",
        num_video_streams=1,
        is_generated=False,
        longest_run=0,
        times=np.arange(len(paths)) / fps,
        end_s=len(paths) / fps,
        stated_end_s=len(paths) / fps,
        num_discarded=0,
        num_restarts=0,
        has_timestamps=True,
        paused_s=0.0,
        damage=None,
        remedy=None,
        is_partial=False,
    )


def read_frame_folder(
    folder: Path, is_wanted: np.ndarray, heartbeat: Callable[[], object]
) -> Iterator[tuple[int, np.ndarray]]:
    """The wanted frames with their indices, each (H, W, 3) uint8 RGB; `is_wanted` is (N,) bool."""
    paths = [folder / name for name in (_pictures(folder) or {}).values()]
    if len(paths) != len(is_wanted):
        raise VideoError(f"{folder} held {len(is_wanted)} frames a moment ago, now {len(paths)}; run it again")
    for index in np.flatnonzero(is_wanted):
        heartbeat()
        with _opened(paths[index]) as picture:
            yield int(index), np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _pictures(folder: Path) -> dict[int, str] | None:
    entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
    if any(entry.is_dir() for entry in entries):
        return None
    return number_frames(entry.name for entry in entries)


def _refuse_gaps(folder: Path, numbers: list[int]) -> None:
    gaps = [(one + 1, next_one - 1) for one, next_one in itertools.pairwise(numbers) if next_one > one + 1]
    if gaps:
        named = [f"{low}" if low == high else f"{low} to {high}" for low, high in gaps]
        raise VideoError(
            f"{folder} lacks frames between {numbers[0]} and {numbers[-1]}: {', '.join(named[:10])}"
            f"{', ...' if len(named) > 10 else ''}; add them, or number the pictures without gaps"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    Image.MAX_IMAGE_PIXELS = None  # `Limits` says how large a picture may be, before its pixels are read
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.mode not in MODES:
                raise VideoError(f"{path} has pixels of the kind {picture.mode}; convert it to 8 bits a colour")
            yield picture
    except OSError as error:
        raise VideoError(f"{path} cannot be read as a picture ({error}); replace it") from error


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height as displayed; the orientations from 5 on swap them."""
    width, height = picture.size
    return (height, width) if picture.getexif().get(EXIF_ORIENTATION, 1) >= 5 else (width, height)
