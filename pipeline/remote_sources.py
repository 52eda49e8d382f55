"""Find the videos that a URL or a list of URLs names; `pipeline.sources` has the rules for files on the disk."""

from pathlib import Path, PurePosixPath

from ..data.remote import RemoteFile, find_file, find_files, is_url, list_files, read_file
from ..data.scratch import Scratch
from ..extractors.video import VIDEO_SUFFIXES
from .console import waiting
from .sources import CLUTTER, Sources, name_paths, split_list


def is_remote(videos: str | Path) -> bool:
    """Whether a VIDEOS argument is a URL, or a `.txt` list on the disk of which the first line is one."""
    if is_url(videos):
        return True
    path = Path(videos)
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        return is_url(file.read(100).decode("utf-8-sig", "replace").lstrip())


def find_remote_videos(videos: str | Path, scratch: Scratch) -> Sources:
    """Find the videos of a VIDEOS argument for which `is_remote` is true.

    Args:
        videos: the URL of a file, of a folder or of a `.txt` list, or the path of a list of URLs. Folders are searched
            as on the disk. A list at a URL may also hold paths relative to its own folder.
        scratch: where copies of the files will lie.

    Raises:
        ValueError: a URL cannot be read or does not exist, there is no video, or two videos would have the same name.
    """
    with waiting(f"listing {videos}"):
        if not is_url(videos):
            return _listed(Path(videos).read_bytes(), str(videos), Path(videos).parent, scratch)
        if (file := find_file(str(videos))) is None:
            return _search(str(videos), scratch)
        if file.url.lower().endswith(".txt"):
            return _listed(read_file(file.url), file.url, file.folder, scratch)
        return _sources([file], file.folder, scratch)


def _search(url: str, scratch: Scratch) -> Sources:
    folder, files = list_files(url)
    visible = [file for file in files if not _is_hidden(file.url.removeprefix(f"{folder}/"))]
    found = [
        file
        for file in visible
        if PurePosixPath(file.url).suffix.lower() in VIDEO_SUFFIXES and not file.url.rpartition("/")[2].startswith(".")
    ]
    if not found:
        raise ValueError(
            f"{url} does not exist or holds no video ({len(files)} files, none with a suffix such as .mp4, .mkv, .avi "
            "that is not hidden); name a folder with videos, a video file or a .txt list"
        )
    return _sources(sorted(found, key=str), folder, scratch, num_others=len(visible) - len(found))


def _is_hidden(path: str) -> bool:
    """Whether a folder on the way to a file is hidden, or cannot be a folder on the disk."""
    return any(not part or part.startswith(".") or part in CLUTTER for part in path.split("/")[:-1])


def _listed(content: bytes, list_name: str, folder: str | Path, scratch: Scratch) -> Sources:
    lines = split_list(content, list_name)
    if isinstance(folder, Path) and (others := [line for line in lines if not is_url(line)]):
        raise ValueError(f"{list_name} lists URLs and the path {others[0]}; make two lists of them")
    urls = [line if is_url(line) else f"{folder}/{line}" for line in lines]
    found = find_files(urls)
    if missing := [url for url, file in zip(urls, found, strict=True) if file is None]:
        raise ValueError(
            f"{list_name} lists {missing[0]}, which is no file there ({len(missing)} of {len(urls)} are not)"
        )
    return _sources([file for file in found if file], folder, scratch)


def _sources(files: list[RemoteFile], folder: str | Path, scratch: Scratch, num_others: int = 0) -> Sources:
    """Name files by their path below a folder (a URL, or a path for a list on the disk), or else by their stem."""
    remote = {scratch.path_of(file.url): file for file in files}
    if isinstance(folder, Path):
        return Sources(name_paths(list(remote), scratch.folder / "list"), folder, num_others, remote=remote)
    root = scratch.path_of(folder)
    return Sources(name_paths(list(remote), root), root, num_others, remote=remote, url=folder)
