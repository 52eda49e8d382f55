"""Find the videos that a command works on, and give each its name in the feature store."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.feature_store import FeatureStore
from ..extractors.video import VIDEO_SUFFIXES

CLUTTER = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"})
"""Folders of copies, previews and deleted files that systems and file servers make without a leading dot."""


@dataclass(frozen=True)
class Sources:
    """The videos to work on."""

    paths: dict[str, Path]
    """File by store name: `a/x` for `a/x.mp4`, in sorted order."""
    folder: Path
    """The folder of the videos, or of the list that names them; labels are looked for here too."""
    num_others: int
    """Files in the folder that are not videos by their suffix, or hidden."""


def find_videos(videos: str | Path) -> Sources:
    """Find the videos of a VIDEOS argument.

    Args:
        videos: a file; a folder, searched recursively for known video suffixes, without hidden files and folders; or
            a `.txt` list with one path per line, relative to the list's own folder. A file that is named or listed
            counts whatever its name.

    Raises:
        ValueError: a path does not exist, there is no video, or two videos would have the same name.
    """
    root = Path(videos)
    if root.is_dir():
        files = sorted(_files_below(root))
        found = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")]
        if not found:
            raise ValueError(
                f"{root} holds no video ({len(files)} files, none with a suffix such as .mp4, .mkv, .avi that is not "
                "hidden); name a folder with videos, a video file or a .txt list of paths"
            )
        return Sources(_named(found, root), root, len(files) - len(found))
    if not root.exists():
        raise ValueError(f"{root} does not exist; name a video, a folder of videos or a .txt list of paths")
    if root.suffix.lower() != ".txt":
        return Sources({root.stem: root}, root.parent, 0)
    try:
        lines = root.read_text(encoding="utf-8-sig").split(
            "\n"
        )  # splitlines would split at characters that names may have
    except UnicodeDecodeError as error:
        raise ValueError(f"{root} is not a text file with one path per line ({error})") from error
    listed = [root.parent / line.strip() for line in lines if line.strip()]
    if not listed:
        raise ValueError(f"{root} lists no video; write one path per line")
    missing = [path for path in listed if not path.exists()]
    if missing:
        raise ValueError(
            f"{root} lists {missing[0]}, which does not exist ({len(missing)} of {len(listed)} paths do not)"
        )
    if folders := [path for path in listed if path.is_dir()]:
        raise ValueError(f"{root} lists {folders[0]}, which is a folder; list the videos in it")
    return Sources(_named(listed, root.parent), root.parent, 0)


def is_store(folder: Path) -> bool:
    """Whether a folder is a feature store: it has a manifest, or holds `.npy` files."""
    return folder.is_dir() and ((folder / "manifest.json").exists() or any(folder.rglob("*.npy")))


def is_one_routine(named: Sequence[Path]) -> bool:
    """Whether what the user named is one file, not a folder, a list or several."""
    return len(named) == 1 and named[0].is_file() and named[0].suffix.lower() != ".txt"


def find_routines(named: Sequence[Path]) -> dict[str, Path]:
    """Find the routines that score-video works on.

    Args:
        named: what `find_videos` takes, `.npy` files and feature stores.

    Returns:
        File by name, as in a feature store; of several arguments the names start at the folder that holds all files.

    Raises:
        ValueError: as `find_videos`, or a store is empty.
    """
    found = [_routines_of(path) for path in named]
    if len(found) == 1:
        return found[0]
    files = list(dict.fromkeys(path for one in found for path in one.values()))
    return _named(files, Path(os.path.commonpath([path.absolute().parent for path in files])))


def _routines_of(path: Path) -> dict[str, Path]:
    if path.suffix == ".npy" and path.exists():
        return {path.stem: path}
    if not is_store(path):
        return find_videos(path).paths
    store = FeatureStore(path)
    names = store.names()
    if not names:
        raise ValueError(f"{path} is a feature store without features; extract some with extract-features")
    return {name: store.path(name) for name in names}


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, except in hidden folders and `CLUTTER`.

    Links to folders are followed, and each real folder is visited once.
    """
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder that was visited already
            folders.clear()
            continue
        seen.add(real)
        # sorted: if two paths lead to a folder, the same one must name its videos on every machine
        folders[:] = sorted(name for name in folders if not (name.startswith(".") or name in CLUTTER))
        yield from (Path(place, name) for name in files)


def _named(paths: list[Path], root: Path) -> dict[str, Path]:
    """Name each file by its path below the root, or by its stem if it is elsewhere."""
    # normpath, not resolve: a link keeps its own name, and no `..` is left that could lead a name out of the store
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
