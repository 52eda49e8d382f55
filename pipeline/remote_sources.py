"""Find the videos that a URL or a list of URLs names; `pipeline.sources` has the rules for files on the disk."""

from pathlib import Path, PurePosixPath

from ..data.remote import RemoteFile, is_url, list_files, look_up, read_file
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
            return _listed(Path(videos).read_bytes(), str(videos), None, scratch)
        (file,) = look_up([str(videos)])
        if file is None:
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


def _listed(content: bytes, list_name: str, folder: str | None, scratch: Scratch) -> Sources:
    lines = split_list(content, list_name)
    if folder is None and (others := [line for line in lines if not is_url(line)]):
        raise ValueError(f"{list_name} lists URLs and the path {others[0]}; make two lists of them")
    urls = [line if is_url(line) else f"{folder}/{line}" for line in lines]
    found = look_up(urls)
    if missing := [url for url, file in zip(urls, found, strict=True) if file is None]:
        raise ValueError(
            f"{list_name} lists {missing[0]}, which is no file there ({len(missing)} of {len(urls)} are not)"
        )
    return _sources([file for file in found if file], folder, scratch)


def _sources(files: list[RemoteFile], folder: str | None, scratch: Scratch, num_others: int = 0) -> Sources:
    """Name files by their path below a folder, or by their stem if they are elsewhere."""
    remote = {scratch.path_of(file.url): file for file in files}
    root = scratch.path_of(folder) if folder else scratch.folder / "list"
    return Sources(name_paths(list(remote), root), root, num_others, remote=remote, url=folder)
