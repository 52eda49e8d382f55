"""Which videos belong to which shard, where several processes write one feature store at once.

    shards/                in the store's folder, until a run without shards
      assignment-0.json    `{"shards", "bytes", "videos"}`; the next files add videos that have come later
      2-of-8.jsonl         the records of shard 2, as `videos.jsonl` has them
      2-of-8.lock          the process that works on shard 2
      2-of-8.attempts      the videos that it has begun

An assignment is written once, whole, by the first shard that needs it, and all shards go by it. So a video keeps its
shard when others appear. A new video goes to the shard with the fewest bytes, the largest first. So no shard has more
bytes than the mean and one video.
"""

import heapq
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import write_once


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the videos."""

    index: int
    """From 1."""
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def stem(self) -> str:
        """The start of the names of its files."""
        return f"{self.index}-of-{self.count}"


SUFFIXES = (".jsonl", ".attempts", ".lock")


def shard_files(folder: Path, suffix: str) -> list[Path]:
    """Return the shards' files of a kind in a folder, sorted: `.jsonl`, `.attempts` or `.lock`."""
    pattern = re.compile(r"[1-9]\d*-of-[1-9]\d*" + re.escape(suffix))
    return sorted(path for path in _entries(folder) if pattern.fullmatch(path.name))


def own_files(folder: Path) -> list[Path]:
    """Return all files of a folder that are the shards', in the order in which they may be removed."""
    assignments = [path for path in _entries(folder) if re.fullmatch(r"assignment-\d+\.json", path.name)]
    assignments.sort(key=lambda path: int(path.stem.removeprefix("assignment-")), reverse=True)
    return [*(path for suffix in SUFFIXES for path in shard_files(folder, suffix)), *assignments]


def remove_shards(folder: Path) -> None:
    """Remove the shards' files from a folder; nobody may be using them."""
    for path in own_files(folder):
        path.unlink()
    if folder.is_dir() and not _entries(folder):  # videos may have a folder of this name too
        folder.rmdir()


def distribute(sizes: Mapping[str, int], loads: Sequence[int], last: Collection[str] = ()) -> dict[str, int]:
    """Give each video to the shard with the fewest bytes, the largest videos first.

    Args:
        sizes: bytes by video.
        loads: bytes that each shard has already.
        last: videos to distribute after the others, so that the others are balanced by themselves.

    Returns:
        By video its shard, from 1.
    """
    shards = [(load, 0, index) for index, load in enumerate(loads, start=1)]
    heapq.heapify(shards)
    shard_of = {}
    for video in sorted(sizes, key=lambda video: (video in last, -sizes[video], video)):
        load, num_videos, index = shards[0]
        heapq.heapreplace(shards, (load + sizes[video], num_videos + 1, index))
        shard_of[video] = index
    return shard_of


class Assignment:
    """Which shard each video belongs to, as the files of a folder say it.

    Args:
        folder: the folder of the shards' files.

    Raises:
        ValueError: a file is not an assignment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.loads: list[int] = []
        """Bytes of each shard's videos; empty if there is no assignment yet."""
        self.shard_of: dict[str, int] = {}
        self._num_files = 0
        self._read()

    def begin(self, shard: Shard) -> bool:
        """Begin an assignment to so many shards, unless there is one; return whether it is of so many."""
        if not self.loads:
            self._add({}, [0] * shard.count, shard)
        return len(self.loads) == shard.count

    def add(self, sizes: Mapping[str, int], shard: Shard, last: Collection[str] = ()) -> None:
        """Assign the videos that are not assigned yet; other shards may do so at the same time.

        Args:
            sizes: bytes by video.
            shard: the one that asks.
            last: as in `distribute`.
        """
        while missing := {video: size for video, size in sizes.items() if video not in self.shard_of}:
            shard_of, loads = distribute(missing, self.loads, last), list(self.loads)
            for video, index in shard_of.items():
                loads[index - 1] += missing[video]
            self._add(shard_of, loads, shard)

    def _add(self, shard_of: dict[str, int], loads: list[int], shard: Shard) -> None:
        content = {"shards": len(loads), "bytes": loads, "videos": shard_of}
        write_once(self._path(), json.dumps(content).encode() + b"\n", shard.stem)
        self._read()  # what another shard may have written at the same time counts

    def _read(self) -> None:
        while (path := self._path()).exists():
            content = _read_assignment(path)
            self.loads = content["bytes"]
            self.shard_of |= content["videos"]
            self._num_files += 1

    def _path(self) -> Path:
        return self._folder / f"assignment-{self._num_files}.json"


def _entries(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []


def _read_assignment(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        count, loads, videos = content["shards"], content["bytes"], content["videos"]
        is_valid = len(loads) == count >= 1 and {*map(type, loads), *map(type, videos.values())} <= {int}
        is_valid = is_valid and all(1 <= index <= count for index in videos.values())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        is_valid = False
    if not is_valid:
        raise ValueError(f"{path} is not an assignment of videos to shards; run once without --shard, which removes it")
    return content
