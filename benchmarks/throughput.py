"""How fast many small videos pass through 1, 2 and 4 readers, against what the cores allow.

    python -m benchmarks.throughput                     # a backbone that costs nothing
    python -m benchmarks.throughput --backbone i3d      # the published I3D

The bound is the CPU time that decoding and preparing the videos takes, one after the other and without a backbone (with
it, also the backbone's alone), divided by the cores. Readers are started and used once before the clock. All runs of a
turn follow each other; the table has the median of the turns. Other programs' load is what all cores did in the time of
the runs, less what the runs did: "left" is the bound against the time that these programs left.

Python runs one thread at a time; decoding and resizing do not count. What does is measured with pictures so small that
nothing else is left. Its share of a frame's CPU time limits how many readers are of use.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import torch
import typer
from torch import Tensor

from cofinal.extractors.backbone import Backbone, load_backbone
from cofinal.extractors.batches import Pending
from cofinal.extractors.decoders import choose_decoder
from cofinal.extractors.extract import extract, extract_many
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video, one_thread
from cofinal.extractors.recipes import get_recipe
from cofinal.pipeline.console import ends_well, out, print_message

from .extraction import write_video
from .memory import Sleeper
from .tables import print_table

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
NUM_READERS = (1, 2, 4)


class FreeBackbone(Backbone):
    """A backbone that costs nothing: it does not look at its clips."""

    def submit(self, clips: Sequence[Tensor]) -> Pending:
        """Features (B, 1024) and no classes."""
        return Pending(torch.zeros(len(clips), self.feature_dim), self.feature_dim)


@dataclass
class Cost:
    """What something took, in seconds."""

    wall: float
    cpu: float
    """Of this process and the readers."""
    others: float
    """CPU time of all other programs meanwhile."""


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_A_SECOND


def cpu_of_all() -> float:
    """CPU seconds of all programs so far."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / TICKS_A_SECOND


def measure(run: Callable[[], object], readers: Sequence[Reader]) -> Cost:
    """Run something that uses these readers, whose processes stay the same."""

    def now() -> tuple[float, float, float]:
        own = time.process_time() + sum(cpu_of(reader.pid) for reader in readers if reader.pid)
        return time.perf_counter(), own, cpu_of_all()

    before = now()
    run()
    wall, cpu, of_all = (after - earlier for after, earlier in zip(now(), before, strict=True))
    return Cost(wall, cpu, max(of_all - cpu, 0.0))


def read_alone(paths: Sequence[Path], reader: Reader, backbone: Backbone) -> None:
    """Decode and prepare all frames of the clips, in one thread beside the reading process."""
    recipe = backbone.recipe
    with one_thread():
        for path in paths:
            facts = reader.probe(path)
            wanted = np.unique(recipe.select(facts.times).frames)
            decoder, _ = choose_decoder(facts, "auto", recipe.colours)
            for frame in reader.read_frames(facts, decoder, wanted=wanted):
                recipe.apply(frame)


def run_many(paths: Sequence[Path], readers: Sequence[Reader], backbone: Backbone) -> None:
    """Extract all videos."""
    for finished in extract_many(map(Video, paths), backbone, readers=readers):
        finished.extraction()


def compute_alone(num_clips: int, backbone: Backbone) -> None:
    """Run the backbone on as many clips as the videos have."""
    clip = torch.zeros((1, backbone.recipe.clip_frames, *backbone.recipe.size, 3), dtype=torch.uint8)
    for _ in range(num_clips):
        backbone.features(clip)


def frames_a_second(film: Path, reader: Reader) -> float:
    """What the threads of this process can do with frames that take no work themselves."""
    recipe = replace(get_recipe("gdlt-i3d"), resize=8, crop=(8, 8), size=(8, 8))
    backbone = FreeBackbone("none", recipe, Sleeper(0), 1024, "random", "cpu", "fp32")
    best = 0.0
    for _ in range(3):
        before = time.process_time()
        clips = len(extract(film, backbone, reader=reader).features)
        best = max(best, clips * recipe.clip_frames / (time.process_time() - before))
    return best


def write_tiny_video(path: Path, num_frames: int) -> Path:
    """Encode noise of 16 x 16 pixels."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(num_frames):
            image = rng.integers(0, 256, (16, 16, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _main(
    backbone: Annotated[str, typer.Option(help="none, or a name of list-backbones.")] = "none",
    videos: Annotated[int, typer.Option(help="Number of videos.")] = 16,
    seconds: Annotated[float, typer.Option(help="Duration of each video.")] = 4,
    turns: Annotated[int, typer.Option(help="How often everything is measured.")] = 5,
) -> None:
    """Measure and print a table in Markdown."""
    cores = os.cpu_count() or 1
    network = (
        FreeBackbone("none", get_recipe("gdlt-i3d"), Sleeper(0), 1024, "random", "cpu", "fp32")
        if backbone == "none"
        else load_backbone(backbone, device="cpu")
    )
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        film = write_video(Path(folder, "film.mp4"), seconds)
        paths = [Path(folder, f"v{number:03}.mp4") for number in range(videos)]
        for path in paths:
            path.hardlink_to(film)
        readers = [Reader() for _ in range(max(NUM_READERS))]
        try:
            for reader in readers:
                num_clips = videos * len(extract(film, network, reader=reader).features)
            limit = frames_a_second(write_tiny_video(Path(folder, "tiny.mp4"), 1600), readers[0])
            rows: dict[int, list[tuple[Cost, float]]] = {number: [] for number in NUM_READERS}
            for turn in range(turns):
                print_message(f"turn {turn + 1} of {turns}")
                alone = measure(lambda: read_alone(paths, readers[0], network), readers[:1]).cpu
                if backbone != "none":
                    alone += measure(lambda: compute_alone(num_clips, network), []).cpu
                for number in NUM_READERS:
                    run = partial(run_many, paths, readers[:number], network)
                    rows[number].append((measure(run, readers[:number]), alone))
        finally:
            for reader in readers:
                reader.close()
    columns = ["readers", "videos a second", "of the bound", "of the bound, left", "CPU against the bound's", "others"]
    table = []
    for number, costs in rows.items():
        figures = [
            [
                videos / cost.wall,
                alone / cores / cost.wall,
                alone / (cores * cost.wall - cost.others),
                cost.cpu / alone,
                cost.others / cost.wall,
            ]
            for cost, alone in costs
        ]
        rate, bound, left, cpu, others = (statistics.median(column) for column in zip(*figures, strict=True))
        cells = [f"{rate:.2f}", f"{bound:.0%}", f"{left:.0%}", f"{cpu:.2f}", f"{others:.1f} cores"]
        table.append([str(number), *cells])
    print_table(columns, table)
    num_frames = num_clips * network.recipe.clip_frames
    each_s = statistics.median(alone for _, alone in rows[1]) / num_frames
    out.print(
        f"Python's own work: {1e6 / limit:.0f} of {1e6 * each_s:.0f} microseconds of CPU time a frame, room "
        f"for {each_s * limit:.0f} readers of such videos."
    )


if __name__ == "__main__":
    typer.run(ends_well(_main))
