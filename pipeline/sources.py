"""Find the videos that a command works on, and give each its name in the feature store."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..data.datasets import NameIndex, find_row
from ..data.feature_store import FeatureStore
from ..data.label_rows import LabelSet, Segment
from ..data.remote import RemoteFile
from ..extractors.frame_folders import is_frame_folder, number_frames
from ..extractors.video import VIDEO_SUFFIXES

CLUTTER = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"})
"""Folders of copies, previews and deleted files that systems and file servers make without a leading dot."""


@dataclass(frozen=True)
class Sources:
    """The videos to work on."""

    paths: dict[str, Path]
    """File or folder of frames by store name: `a/x` for `a/x.mp4` or `a/x/0001.jpg`, in sorted order."""
    folder: Path
    """The folder of the videos, or of the list that names them; labels are looked for here too."""
    num_others: int
    """Files in the folder that are not videos by their suffix, or hidden."""
    num_frame_folders_left: int = 0
    """Folders of numbered frames that are left alone because nothing says how many frames are a second."""
    segments: dict[str, Segment] = field(default_factory=dict)
    """By store name the segment of the file; absent where the whole video is meant."""
    remote: dict[Path, RemoteFile] = field(default_factory=dict)
    """By path the remote file of which a copy lies there while it is read; absent for files on the disk."""
    url: str | None = None
    """The folder's, if it is remote."""

    @property
    def place(self) -> str:
        """The folder as users name it: its path or URL."""
        return self.url or str(self.folder)

    def source(self, name: str) -> Path | RemoteFile:
        """Return where a video comes from."""
        return self.remote.get(self.paths[name], self.paths[name])

    def video_of(self, name: str) -> str:
        """Return the store name of the whole video, for a segment too."""
        segment = self.segments.get(name)
        return name.removesuffix(segment.suffix) if segment else name

    def of_videos(self, videos: Collection[str]) -> "Sources":
        """Return only these videos, by their store names, and their segments."""
        return replace(self, paths={name: path for name, path in self.paths.items() if self.video_of(name) in videos})

    def describe(self, name: str) -> str:
        """Return the path or URL of a video; a segment's ends as its store name does."""
        segment = self.segments.get(name)
        return f"{self.source(name)}{segment.suffix if segment else ''}"


def find_videos(videos: str | Path, fps: float | None = None) -> Sources:
    """Find the videos of a VIDEOS argument.

    Args:
        videos: a file; a folder of numbered frames; any other folder, searched recursively for these and for known
            video suffixes, without hidden files and folders; or a `.txt` list with one path per line, relative to the
            list's own folder. A file that is named or listed counts whatever its name.
        fps: frames per second of folders of numbered frames. Without it, a search leaves them alone.

    Raises:
        ValueError: a path does not exist, there is no video, two videos would have the same name, or `fps` is missing
            or has no use.
    """
    sources = _find_videos(Path(videos), fps)
    _require_frames(str(videos), sources.paths.values(), fps)
    return sources


def _find_videos(root: Path, fps: float | None) -> Sources:
    if root.is_dir() and is_frame_folder(root):
        _require_fps(root, fps)
        return Sources(name_paths([root], root.parent), root.parent, 0)
    if root.is_dir():
        return _search(root, fps)
    if not root.exists():
        raise ValueError(f"{root} does not exist; name a video, a folder of videos or a .txt list of paths")
    if root.suffix.lower() != ".txt":
        return Sources({root.stem: root}, root.parent, 0)
    listed = [root.parent / line for line in split_list(root.read_bytes(), str(root))]
    missing = [path for path in listed if not path.exists()]
    if missing:
        raise ValueError(
            f"{root} lists {missing[0]}, which does not exist ({len(missing)} of {len(listed)} paths do not)"
        )
    folders = [path for path in listed if path.is_dir()]
    if others := [folder for folder in folders if not is_frame_folder(folder)]:
        raise ValueError(f"{root} lists {others[0]}, which is a folder; list the videos in it")
    for folder in folders:
        _require_fps(folder, fps)
    return Sources(name_paths(listed, root.parent), root.parent, 0)


def split_list(content: bytes, list_name: str) -> list[str]:
    """Return the paths in a `.txt` list.

    Raises:
        ValueError: it is not text, or lists nothing.
    """
    try:
        # splitlines would split at characters that names may have
        lines = [line.strip() for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{list_name} is not a text file with one path per line ({error})") from error
    if not any(lines):
        raise ValueError(f"{list_name} lists no video; write one path per line")
    return [line for line in lines if line]


def is_store(folder: Path) -> bool:
    """Whether a folder is a feature store: it has a manifest, or holds `.npy` files."""
    return folder.is_dir() and ((folder / "manifest.json").exists() or any(folder.rglob("*.npy")))


def is_one_routine(named: Sequence[Path]) -> bool:
    """Whether what the user named is one video or `.npy`, not a folder of them, a list or several."""
    first = named[0]
    return len(named) == 1 and (is_frame_folder(first) if first.is_dir() else first.suffix.lower() != ".txt")


def find_routines(named: Sequence[Path], fps: float | None = None) -> dict[str, Path]:
    """Find the routines that score-video works on.

    Args:
        named: what `find_videos` takes, `.npy` files and feature stores.
        fps: frames per second of folders of numbered frames.

    Returns:
        Path by name, as in a feature store; of several arguments the names start at the folder that holds all of them.

    Raises:
        ValueError: as `find_videos`, or a store is empty.
    """
    found = [_routines_of(path, fps) for path in named]
    paths = list(dict.fromkeys(path for one in found for path in one.values()))
    _require_frames(", ".join(map(str, named)), paths, fps)
    if len(found) == 1:
        return found[0]
    return name_paths(paths, Path(os.path.commonpath([path.absolute().parent for path in paths])))


def _routines_of(path: Path, fps: float | None) -> dict[str, Path]:
    if path.suffix == ".npy" and path.exists():
        return {path.stem: path}
    if not is_store(path):
        return _find_videos(path, fps).paths
    store = FeatureStore(path)
    names = store.names()
    if not names:
        raise ValueError(f"{path} is a feature store without features; extract some with extract-features")
    return {name: store.path(name) for name in names}


def _require_frames(named: str, paths: Iterable[Path], fps: float | None) -> None:
    if fps is not None and not any(path.is_dir() for path in paths):
        raise ValueError(f"{named} holds no folder of numbered frames alone (0001.jpg, ...): leave --fps out")


def _require_fps(folder: Path, fps: float | None) -> None:
    if fps is None:
        raise ValueError(
            f"{folder} holds numbered frames: say how many are a second with --fps, for example --fps 25 "
            "(extract-features, score-video)"
        )


def _search(root: Path, fps: float | None) -> Sources:
    """Find the videos below a folder."""
    videos, frame_folders, num_files = [], [], 0
    for place, has_folders, names in _places_below(root):
        if not has_folders and number_frames(names):
            frame_folders.append(place)
            continue
        num_files += len(names)
        videos += [
            place / name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
        ]
    if frame_folders and not videos:
        _require_fps(frame_folders[0], fps)
    found = sorted([*videos, *frame_folders] if fps is not None else videos)
    if not found:
        raise ValueError(
            f"{root} holds no video ({num_files} files, none with a suffix such as .mp4, .mkv, .avi that is not "
            "hidden); name a folder with videos, a video file or a .txt list of paths"
        )
    num_left = 0 if fps is not None else len(frame_folders)
    return Sources(name_paths(found, root), root, num_files - len(videos), num_left)


def cut_segments(sources: Sources, labels: LabelSet) -> Sources:
    """Replace the videos that labels cut by their segments, each named as the video with `Segment.suffix`.

    A label whose segment is a file of its own cuts nothing.

    Raises:
        ValueError: a label may mean two videos.
    """
    index = NameIndex(sources.paths, VIDEO_SUFFIXES)
    segments_of: dict[str, set[Segment]] = defaultdict(set)
    for row in labels.rows:
        found = find_row(row, index)
        if found is not None and found.is_whole:
            assert row.segment is not None, "only a segment is a part of a whole"
            segments_of[found.name].add(row.segment)
    paths, segments = {}, {}
    for name, path in sources.paths.items():
        if name not in segments_of:
            paths[name] = path
        for segment in sorted(segments_of[name], key=lambda segment: segment.span):
            paths[name + segment.suffix] = path
            segments[name + segment.suffix] = segment
    return replace(sources, paths=paths, segments=segments)


def _places_below(folder: Path) -> Iterator[tuple[Path, bool, list[str]]]:
    """Yield all folders from this one down, whether each has folders in it, and its files' names.

    Hidden folders and `CLUTTER` are left out.

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
        yield Path(place), bool(folders), files


def name_paths(paths: list[Path], root: Path) -> dict[str, Path]:
    """Name each file by its path below the root, or by its stem if it is elsewhere."""
    # normpath, not resolve: a link keeps its own name, and no `..` is left that could lead a name out of the store
    base = os.path.join(os.path.normpath(root.absolute()), "")
    named: dict[str, Path] = {}
    places: dict[str, str] = {}
    for path in paths:
        place = os.path.normpath(path.absolute())
        inside = place.removeprefix(base) if place.startswith(base) else os.path.basename(place)
        name = (inside if path.is_dir() else inside.removesuffix(path.suffix)).replace(os.sep, "/")
        if places.setdefault(name, place) != place:
            raise ValueError(
                f"{named[name]} and {path} would both become {name}.npy; rename one or extract them into two stores"
            )
        named.setdefault(name, path)
    return named
