"""Which shard this process is, as the user says it or the job system's environment, and which videos are its own."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..data.feature_store import FeatureStore
from ..data.records import is_success
from ..data.shards import Shard
from .console import print_message
from .sources import Sources


@dataclass(frozen=True)
class _Launcher:
    """A program that starts several processes, and the variables in which each of them finds its number, from 0."""

    name: str
    rank: str
    size: str
    local_rank: tuple[str, ...]
    """The number among the processes of one machine; the first of these that is set."""


LAUNCHERS = (
    _Launcher("torchrun", "RANK", "WORLD_SIZE", ("LOCAL_RANK",)),
    _Launcher("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    _Launcher("PMI", "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "SLURM_LOCALID")),
    # SLURM_NTASKS would be set without srun too, where one process runs
    _Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",)),
)
ARRAY = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))


def choose_shard(text: str, device: str) -> tuple[Shard, str]:
    """Return the shard that `--shard` means, and the device: with both `auto`, the GPU of this process's number.

    Raises:
        ValueError: as `parse_shard`.
    """
    shard, local, said_by = parse_shard(text, os.environ)
    if said_by:
        if device == "auto" and local is not None and (num_gpus := torch.cuda.device_count()):
            device = f"cuda:{local % num_gpus}"
        print_message(f"shard {shard}, from {said_by}; device {device}")
    return shard, device


def videos_of_shard(store: FeatureStore, sources: Sources, shard: Shard) -> Sources:
    """Return the videos of the shard for which the store is open."""
    videos = {sources.video_of(name): sources.source(name) for name in sources.paths}
    done = {name for name, record in store.records.items() if is_success(record)}
    left = {sources.video_of(name) for name in sources.paths if name not in done}  # also for one segment of it
    own_videos, loads = store.assign(videos, done=videos.keys() - left)
    own = sources.of_videos(own_videos)
    gigabytes = [load / 1e9 for load in loads]
    print_message(
        f"shard {shard}: {len(own.paths)} of {len(sources.paths)} videos, {gigabytes[shard.index - 1]:.3g} of "
        f"{sum(gigabytes):.3g} GB; the shards have {min(gigabytes):.3g} to {max(gigabytes):.3g} GB"
    )
    return own


def parse_shard(text: str, environment: Mapping[str, str]) -> tuple[Shard, int | None, str]:
    """Return the shard that a text or the environment names.

    Args:
        text: `I/N`, or `auto` for what the environment says. The tasks of a Slurm array and the processes that a
            launcher starts in each of them are counted together.
        environment: the environment variables.

    Returns:
        The shard; with `auto` the number of this process on its machine, from 0, if it is known; and what says so.

    Raises:
        ValueError: the text is neither, or the environment says nothing.
    """
    if text != "auto":
        given = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
        if given is None or int(given[1]) > int(given[2]):
            raise ValueError(f"shard must be auto, or I/N with I from 1 to N, such as 2/8; not {text}")
        return Shard(int(given[1]), int(given[2])), None, ""
    task, num_tasks = _array_task(environment) if ARRAY[0] in environment else (0, 1)
    launcher = next((one for one in LAUNCHERS if {one.rank, one.size} <= environment.keys()), None)
    if launcher is None and ARRAY[0] not in environment:
        raise ValueError(
            "--shard auto finds no shard in the environment (a Slurm array, srun, torchrun, Open MPI or PMI sets one); "
            "give --shard I/N"
        )
    said_by = "Slurm array" if ARRAY[0] in environment else ""
    if launcher is None:
        return Shard(task + 1, num_tasks), None, said_by
    rank, size = (_number(environment, name) for name in (launcher.rank, launcher.size))
    local = next((_number(environment, name) for name in launcher.local_rank if name in environment), None)
    said_by = " and ".join(filter(None, (said_by, launcher.name)))
    return Shard(task * size + rank + 1, num_tasks * size), local, said_by


def _array_task(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of this task of a Slurm array, from 0, and how many tasks it has."""
    task, first, last, step, count = (_number(environment, name) for name in ARRAY)
    step = max(step, 1)
    if (task - first) % step or first + (count - 1) * step != last:
        raise ValueError(
            f"--shard auto cannot number the tasks of this Slurm array, from {first} to {last}, of which {count} run: "
            "give the array as a range, or --shard I/N"
        )
    return (task - first) // step, count


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"\d+", text):
        raise ValueError(f"--shard auto needs a number in the environment variable {name}, not {text!r}; give I/N")
    return int(text)
