"""Peak memory of extraction from 1, 10 and 60 minutes of 1080p video, with a backbone slower than the decoder.

    python -m benchmarks.memory                     # about seven minutes on 2 quiet cores
    python -m benchmarks.memory --container mkv     # Matroska files hold no index of every frame
    python -m benchmarks.memory --recipe gdlt-i3d   # every frame instead of every fifth: about twenty minutes
    python -m benchmarks.memory 1 10 --readers 4    # as many videos of each duration at the same time

The cost of a video is the peak proportional set size (PSS) of a fresh process and its children, less the PSS after a
first clip of the same kind. Library files are counted apart, because their share changes when other programs open the
same files. malloc returns large blocks at once, so that the figure is memory in use, not memory kept. The backbone
sleeps for `--delay` seconds a clip and returns zeros. The printed seconds show that it is slower than reading, so a
decoder that decodes ahead without bound would show.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer
from torch import Tensor, nn

from cofinal.extractors.backbone import Backbone
from cofinal.extractors.extract import extract, extract_many
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video
from cofinal.extractors.recipes import get_recipe
from cofinal.pipeline.console import ends_well, print_result

FPS, PERIOD_S = 25, 2


class Sleeper(nn.Module):
    """A backbone that sleeps and returns zeros."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, F, H, W) -> features (B, 1024) and logits (B, 400)."""
        time.sleep(self.delay_s * len(clips))
        return torch.zeros(len(clips), 1024), torch.zeros(len(clips), 400)


def write_video(path: Path, packets: list[av.Packet], template: av.VideoStream, seconds: int) -> Path:
    """Write a video that repeats the packets of `PERIOD_S` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(template)
        for start_s in range(0, seconds, PERIOD_S):
            for packet in packets:
                again = av.Packet(bytes(packet))
                assert packet.pts is not None
                assert packet.dts is not None
                shift = int(start_s / packet.time_base)
                again.pts, again.dts, again.duration = packet.pts + shift, packet.dts + shift, packet.duration
                again.time_base, again.is_keyframe, again.stream = packet.time_base, packet.is_keyframe, stream
                container.mux(again)
    return path


def encode(path: Path) -> Path:
    """Encode `PERIOD_S` seconds of 1080p: a square moves over a still picture."""
    y, x = np.mgrid[:1080, :1920]
    still = np.dstack([x % 256, y % 256, (x // 8 + y // 8) % 256]).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "30", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(PERIOD_S * FPS):
            image = still.copy()
            image[400:700, 20 * index : 20 * index + 300] = (255, 0, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def pss_mib(pid: int) -> tuple[float, float]:
    """Proportional set size of a process and all its descendants: allocated and shared memory, files."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").open()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0.0, 0.0
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in rollup)}
    below = [pss_mib(int(child)) for line in children for child in line.split()]
    own = ((kib["Pss_Anon"] + kib["Pss_Shmem"]) / 1024, kib["Pss_File"] / 1024)
    return own[0] + sum(memory for memory, _ in below), own[1] + sum(files for _, files in below)


@dataclass
class Peak:
    """The highest PSS seen, in MiB."""

    memory: float = 0.0
    files: float = 0.0


@contextmanager
def peak_pss(pids: Sequence[int], every_s: float = 0.05) -> Iterator[Peak]:
    """Watch the PSS of processes and all below them, which slows them: each look walks all pages."""
    ended, peak = threading.Event(), Peak()

    def watch() -> None:
        while not ended.wait(every_s):
            memory, files = map(sum, zip(*map(pss_mib, pids), strict=True))
            peak.memory, peak.files = max(peak.memory, memory), max(peak.files, files)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@dataclass
class Measured:
    """What videos at the same time cost, in MiB, and the record of the first one's extraction."""

    before: float
    peak: float
    files: float
    record: dict[str, Any]


def measure(short: Path, path: Path, recipe: str, delay_s: float, num_readers: int, decoder: str) -> Measured:
    """Extract a video once in each reader, all at the same time, after a warm-up in each."""
    backbone = Backbone("sleeper", get_recipe(recipe), Sleeper(delay_s), 1024, "random", "cpu", "fp32")
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader()) for _ in range(num_readers)]
        for reader in readers:
            extract(short, backbone, reader=reader, decoder=decoder)
        before, _ = pss_mib(os.getpid())
        with peak_pss([os.getpid()]) as peak:
            run = extract_many([Video(path, decoder=decoder) for _ in readers], backbone, readers=readers)
            records = [finished.extraction().record for finished in run]
    return Measured(before, peak.memory, peak.files, records[0])


def _main(
    minutes: Annotated[list[int] | None, typer.Argument(help="Durations of the videos; by default 1 10 60.")] = None,
    delay: Annotated[float, typer.Option(help="Seconds the backbone takes for a clip.")] = 0.25,
    recipe: Annotated[str, typer.Option(help="How frames become clips.")] = "actionnet-i3d",
    container: Annotated[str, typer.Option(help="mp4 or mkv.")] = "mp4",
    readers: Annotated[int, typer.Option(help="Number of readers, and of videos at the same time.")] = 1,
    decoder: Annotated[str, typer.Option(help="auto, decord or pyav.")] = "auto",
) -> None:
    """Measure and print a line for each duration."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    first: Measured | None = None
    with tempfile.TemporaryDirectory() as name, av.open(str(encode(Path(name) / "period.mp4"))) as period:
        template = period.streams.video[0]
        packets = [packet for packet in period.demux(template) if packet.size]
        clip_s = get_recipe(recipe).clip_s
        short = write_video(Path(name) / f"short.{container}", packets, template, int(clip_s) + 2)
        for duration in minutes or [1, 10, 60]:
            path = write_video(Path(name) / f"{duration}.{container}", packets, template, 60 * duration)
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                measured = fresh.submit(measure, short, path, recipe, delay, readers, decoder).result()
            first = first or measured
            seconds, clips = measured.record["stage_seconds"], measured.record["clips"]
            cost, cost_of_first = measured.peak - measured.before, first.peak - first.before
            print_result(
                f"{duration:3d} min: {cost:.0f} MiB ({cost / cost_of_first:.3f} of the first); with the "
                f"{measured.before:.0f} MiB after one clip {measured.peak:.0f} "
                f"({measured.peak / first.peak:.3f} of the first), "
                f"and {measured.files:.0f} of files. {clips} clips by {measured.record['decoder']}: "
                f"{seconds['read'] / clips:.2f} s to read one, {seconds['backbone'] / clips:.2f} s in the backbone, "
                f"{seconds['wall']:.0f} s in all"
            )


if __name__ == "__main__":
    typer.run(ends_well(_main))
