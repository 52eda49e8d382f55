"""Which videos a command means, and the name each has in the feature store."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..extractors.video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Sources:
    """The videos to work on."""

    paths: dict[str, Path]
    """File by store name: `a/x` for `a/x.mp4`, in sorted order."""
    folder: Path
    """Where they came from; labels are looked for here too."""
    num_others: int
    """Files in the folder that are not videos by their suffix."""


def find_videos(videos: str | Path) -> Sources:
    """Find the videos that a user's VIDEOS argument names.

    Args:
        videos: a file; a folder, searched recursively for known video suffixes; or a `.txt` list with a path a line,
            relative to the list's own folder. A path named directly or listed is always tried.

    Raises:
        ValueError: nothing is there, nothing is a video, or two sources would share one name.
    """
    root = Path(videos)
    if root.is_dir():
        found = sorted(_files_below(root))
        listed = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
        if not listed:
            raise ValueError(
                f"{root} holds no video ({len(found)} files, none with a suffix such as .mp4, .mkv, .avi); "
                "name a folder with videos, a video file or a .txt list of paths"
            )
        return Sources(_named(listed, root), root, len(found) - len(listed))
    if not root.exists():
        raise ValueError(f"{root} does not exist; name a video, a folder of videos or a .txt list of paths")
    if root.suffix.lower() != ".txt":
        return Sources({root.stem: root}, root.parent, 0)
    try:
        lines = root.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: other line ends may be in a name
    except UnicodeDecodeError as error:
        raise ValueError(f"{root} is not a text file of paths, one a line ({error})") from error
    listed = [root.parent / line.strip() for line in lines if line.strip()]
    if not listed:
        raise ValueError(f"{root} lists no video; write a path a line")
    missing = [path for path in listed if not path.exists()]
    if missing:
        raise ValueError(f"{root} lists {missing[0]}, which does not exist ({len(missing)} such of {len(listed)})")
    if folders := [path for path in listed if path.is_dir()]:
        raise ValueError(f"{root} lists {folders[0]}, which is a folder; list the videos in it")
    return Sources(_named(listed, root.parent), root.parent, 0)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, through links to folders too, each real folder once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back to where we have been
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # so that of two ways to a folder the same one names its videos on every machine
        yield from (Path(place, name) for name in files)


def _named(paths: list[Path], root: Path) -> dict[str, Path]:
    """Name each file by its place below the root, or by its stem where it lies elsewhere."""
    # normpath, not resolve: a link keeps the name its user gave it, and `..` cannot lead a name out of the store
    base = os.path.join(os.path.normpath(root.absolute()), "")
    named: dict[str, Path] = {}
    places: dict[str, str] = {}
    for path in paths:
        place = os.path.normpath(path.absolute())
        inside = place.removeprefix(base) if place.startswith(base) else os.path.basename(place)
        name = inside.removesuffix(path.suffix).replace(os.sep, "/")
        if places.setdefault(name, place) != place:
            raise ValueError(
                f"{named[name]} and {path} would both become {name}.npy; rename one or extract them into two stores"
            )
        named.setdefault(name, path)
    return named
