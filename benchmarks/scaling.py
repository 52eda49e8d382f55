"""How extraction scales over the workers of a Ray cluster, and where it would stop to.

    python -m benchmarks.scaling

1. Workers on nodes of this machine, with a backbone that sleeps: how many videos a second pass through 1, 2 and 4 of
   them while all are at work. The real reader reads real videos of 16 x 16 pixels.
2. What a video costs the driver, whose workers do nothing: Ray, and the store's durable writes. The least of several
   runs, because other programs only add. Once with arrays of one clip and once with those of a routine.
3. A simulation with these costs. Each worker has one reader and so two videos, the least that `--ray` gives: it reads
   one while it computes the other. Reading from shared storage is a queue of one bandwidth, the driver a queue that
   takes each video the measured time.
"""

import heapq
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stderr
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ray.cluster_utils import Cluster

from cofinal.data.feature_store import FeatureStore
from cofinal.extractors import ray_worker
from cofinal.extractors.backbone import Backbone
from cofinal.extractors.extract import Extraction, Finished
from cofinal.extractors.ray_cluster import RayCluster
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video
from cofinal.extractors.recipes import get_recipe
from cofinal.extractors.work import Work
from cofinal.pipeline import extraction
from cofinal.pipeline.console import ends_well, out, print_message
from cofinal.pipeline.manifest import manifest_of

from .memory import Sleeper
from .store import RECORD
from .tables import print_table
from .throughput import write_tiny_video

NUM_WORKERS = (1, 2, 4)
CLIP_FRAMES = 4
"""Of a video with the backbone that sleeps: on a busy machine each frame waits for its turn."""
ROUTINE_CLIPS = 164
"""Clips of a routine of 210 seconds."""
WORKERS_SECONDS = {"I3D on two cores": 63.0, "GPU with 30 clips a second": 5.5, "GPU with 150 clips a second": 1.1}
"""What a worker takes for a routine: .30 of its duration (benchmarks/README.md), and two assumed GPUs."""
VIDEO_MB, STORAGE_MB_S = 40, 5000
"""Assumed: the size of a routine's video, and the bandwidth of shared storage."""

MOST_VIDEOS_A_WORKER = 1000
"""In a simulated run."""
SATURATED = 0.95


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[str]:
    """Start nodes with a core each on this machine; yield the cluster's address."""
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def load_sleeper(device: str, *, delay_s: float) -> tuple[Backbone, dict[str, Any]]:
    """Load a backbone that sleeps for each clip, and takes small ones."""
    recipe = replace(get_recipe("gdlt-i3d"), clip_frames=CLIP_FRAMES, resize=8, crop=(8, 8), size=(8, 8))
    return Backbone("none", recipe, Sleeper(delay_s), 1024, "random", device, "fp32"), {}


def videos_a_second(num_workers: int, film: Path, delay_s: float, videos_a_worker: int) -> float:
    """How many videos pass through the workers while all are at work."""
    work = Work(load=partial(load_sleeper, delay_s=delay_s), make_reader=lambda _: Reader())
    ends: list[float] = []
    films = (Video(film) for _ in repeat(None))
    with (
        cluster_of(num_workers) as address,
        RayCluster(address, work, device="cpu", most_workers=num_workers) as cluster,
        closing(cluster.extract_many(films, tries=lambda _: 0, on_death=lambda _: None)) as run,
    ):
        for finished in run:
            finished.extraction()
            if cluster.num_ready == num_workers:
                ends.append(time.perf_counter())
            if len(ends) > num_workers * videos_a_worker:
                break
    return (len(ends) - 1) / (ends[-1] - ends[0])


def load_nothing(device: str, *, num_clips: int, place: str, **_: Any) -> tuple[Backbone, dict[str, Any]]:
    """Let the worker extract features of so many clips in no time."""

    def extract_many(videos: Iterable[Video], *_: Any, **__: Any) -> Iterator[Finished]:
        features, times = np.zeros((num_clips, 1024), np.float32), np.zeros((num_clips, 2))
        for video in videos:
            yield Finished(video, video.find_facts(), Extraction(features, times, None, dict(RECORD), []))

    ray_worker.extract_many = extract_many  # type: ignore[assignment]
    backbone = Backbone("i3d", get_recipe("gdlt-i3d"), Sleeper(0), 1024, "random", device, "fp32")
    return backbone, manifest_of(backbone, "random", place) | {"backbone_choice": None}


@dataclass(frozen=True)
class DriverCost:
    """What a video costs the driver, in seconds."""

    ray: float
    """CPU time for everything but the store: Ray, messages, progress."""
    store: float
    """CPU time for writing array and record."""
    waiting: float
    """For the disk."""

    @property
    def total(self) -> float:
        """For how long the driver is busy with a video."""
        return self.ray + self.store + self.waiting


def measure_driver(address: str, folder: Path, num_videos: int, num_clips: int) -> DriverCost:
    """Run the whole command, but for the work of its worker."""
    sources = folder / "videos"
    for number in range(num_videos):
        path = sources / f"{number // 1000}/v{number:05}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    spans: list[tuple[float, float]] = []
    cpu = [0.0, 0.0]

    def write(*arguments: Any, write: Any = FeatureStore.write) -> None:
        cpu[1] = time.process_time()
        cpu[0] = cpu[0] or cpu[1]
        started = time.perf_counter(), time.thread_time()
        write(*arguments)
        spans.append((time.perf_counter() - started[0], time.thread_time() - started[1]))

    load, own_write = extraction.load_backbone, FeatureStore.write
    extraction.load_backbone = partial(load_nothing, num_clips=num_clips)
    FeatureStore.write = write  # type: ignore[method-assign, assignment]
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # a line for each video
            run = extraction.extract_features(sources, folder / "out", backbone="i3d", ray=address, readers=8)
    finally:
        extraction.load_backbone, FeatureStore.write = load, own_write  # type: ignore[method-assign]
    assert run.extracted == num_videos, run.failed[:1]
    wall, store = (sum(column) / num_videos for column in zip(*spans, strict=True))
    return DriverCost((cpu[1] - cpu[0]) / (num_videos - 1) - store, store, wall - store)


@dataclass(frozen=True)
class Simulated:
    """A simulated run."""

    videos_a_second: float
    efficiency: float
    """Share of the workers' time that they compute."""
    driver: float
    """Share of the time that the drivers are busy."""
    storage: float
    """Share of the time that the shared storage is busy."""


def simulate(
    num_workers: int, num_videos: int, *, worker_s: float, driver_s: float, read_s: float, num_drivers: int = 1
) -> Simulated:
    """Simulate a run event by event.

    Args:
        num_workers: each has one reader and two videos: it computes one, and reads the next.
        num_videos: how many there are.
        worker_s: seconds that a worker computes a video.
        driver_s: seconds that a driver is busy with a video.
        read_s: seconds that the shared storage is busy with a video.
        num_drivers: each has its share of the workers.
    """
    storage_free, driver_free = 0.0, [0.0] * num_drivers
    reader_free, compute_free = [0.0] * num_workers, [0.0] * num_workers
    num_sent = min(2 * num_workers, num_videos)
    events = [(0.0, False, number % num_workers) for number in range(num_sent)]  # time, whether it is computed, worker
    end = 0.0
    while events:
        now, is_computed, worker = heapq.heappop(events)
        if not is_computed and now < reader_free[worker]:  # its reader is at another video
            heapq.heappush(events, (reader_free[worker], False, worker))
        elif not is_computed:
            storage_free = reader_free[worker] = max(now, storage_free) + read_s
            compute_free[worker] = max(storage_free, compute_free[worker]) + worker_s
            heapq.heappush(events, (compute_free[worker], True, worker))
        else:
            driver = worker % num_drivers
            begun = max(now, driver_free[driver])
            driver_free[driver] = end = begun + driver_s
            if num_sent < num_videos:  # a driver sends the next video before it writes the features
                num_sent += 1
                heapq.heappush(events, (begun, False, worker))
    busy = num_videos / end
    return Simulated(busy, busy * worker_s / num_workers, busy * driver_s / num_drivers, busy * read_s)


def print_simulation(driver_s: float, num_videos: int, most_workers: int) -> None:
    """Print what 10, 100, ... workers reach, and with saturated drivers or storage also with more of them."""
    rows = []
    for name, worker_s in WORKERS_SECONDS.items():
        num_workers = 10
        while num_workers <= most_workers:
            num_drivers, storage = 1, STORAGE_MB_S
            while True:
                run = simulate(
                    num_workers,
                    min(num_videos, MOST_VIDEOS_A_WORKER * num_workers),
                    worker_s=worker_s,
                    driver_s=driver_s,
                    read_s=VIDEO_MB / storage,
                    num_drivers=num_drivers,
                )
                cells = [name, f"{num_workers}", f"{num_drivers}", f"{storage / 1000:g} GB/s"]
                shares = [f"{share:.0%}" for share in (run.efficiency, run.driver, run.storage)]
                rows.append([*cells, f"{run.videos_a_second:.1f}", *shares])
                if max(run.driver, run.storage) < SATURATED:
                    break
                num_drivers *= 2 if run.driver >= SATURATED else 1
                storage *= 2 if run.storage >= SATURATED else 1
            num_workers *= 10
    columns = ["a worker", "workers", "drivers", "storage", "videos a second", "efficiency", "drivers busy"]
    print_table([*columns, "storage busy"], rows)
    out.print(
        f"One driver is saturated by {1 / driver_s:.0f} videos a second, the storage by {STORAGE_MB_S / VIDEO_MB:.0f}."
    )


def _main(
    videos: Annotated[int, typer.Option(help="Number of tiny videos for the driver's cost.")] = 10_000,
    routines: Annotated[int, typer.Option(help="Number of videos with as many clips as a routine.")] = 500,
    runs: Annotated[int, typer.Option(help="How often the driver's cost is measured.")] = 3,
    delay: Annotated[float, typer.Option(help="Seconds that the backbone sleeps for a video.")] = 1.0,
    videos_a_worker: Annotated[int, typer.Option(help="Videos of each worker with that backbone.")] = 20,
    simulated: Annotated[
        int, typer.Option(help="Most videos in a simulated run; a worker has at most 1000.")
    ] = 1_000_000,
    workers: Annotated[int, typer.Option(help="Number of simulated workers.")] = 1000,
) -> None:
    """Measure and print tables in Markdown."""
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=".") as name:  # the disk at hand: /tmp may be in memory
        film = write_tiny_video(Path(name, "film.mp4").absolute(), CLIP_FRAMES)
        rates = {}
        for number in NUM_WORKERS:
            print_message(f"{number} workers")
            rates[number] = videos_a_second(number, film, delay, videos_a_worker)
        costs = {}
        with cluster_of(1) as address:
            for num_videos, num_clips in ((videos, 1), (routines, ROUTINE_CLIPS)):
                print_message(f"{num_videos} videos of {num_clips} clips, {runs} times")
                folders = (Path(name, f"{num_clips}-{run}") for run in range(runs))
                each = [measure_driver(address, folder, num_videos, num_clips) for folder in folders]
                least = (min(getattr(cost, part.name) for cost in each) for part in fields(DriverCost))
                costs[num_videos, num_clips] = DriverCost(*least)
    rows = [
        [str(number), f"{rate:.2f}", f"{rate / rates[1]:.2f} x", f"{rate / rates[1] / number:.0%}"]
        for number, rate in rates.items()
    ]
    print_table(["workers", "videos a second", "against one", "efficiency"], rows)
    rows = [
        [f"{num_videos} of {num_clips} clips", *(f"{1000 * s:.2f} ms" for s in (c.total, c.ray, c.store, c.waiting))]
        for (num_videos, num_clips), c in costs.items()
    ]
    print_table(["videos", "driver, each", "Ray and progress", "writing", "waiting for the disk"], rows)
    print_message(f"simulating runs of at most {simulated} videos, {MOST_VIDEOS_A_WORKER} for each worker")
    print_simulation(costs[routines, ROUTINE_CLIPS].total, simulated, workers)


if __name__ == "__main__":
    typer.run(ends_well(_main))
