"""decord by segments against PyAV: frames a second, CPU time and peak memory of the reading processes.

    python -m benchmarks.decoding                                # key frames 12, 50 and 250 apart, 1 and 4 readers
    python -m benchmarks.decoding --sizes 640x360 --readers 1
    python -m benchmarks.decoding --seconds 92 --gops 250 --sizes 640x360,1280x720 --readers 1      # a routine of RG
    python -m benchmarks.decoding --delay 8                      # the consumer takes 8 ms a frame

Each video is generated and read in full through `extractors.reader`, as the commands do, by 1 and by 4 reading
processes at the same time, each of which reads the same file. The decoders take turns, and the fastest turn counts, so
that the ratios mean something on a machine with other work. CPU time and memory are those of the reading processes.
Memory is what they take beyond what they hold before they read; it is measured in a turn of its own, because that takes
time.
"""

import itertools
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer

from cofinal.extractors.memory import most_decoder_bytes
from cofinal.extractors.reader import Reader
from cofinal.extractors.video import VideoFacts
from cofinal.pipeline.console import ends_well, print_message

from .memory import Peak, peak_pss, pss_mib
from .tables import print_table
from .throughput import cpu_of

FPS = 25
DECODERS = ("pyav", "decord")


def write_routine(path: Path, size: tuple[int, int], seconds: float, gop: int) -> Path:
    """Encode a camera that swings over a hall while three figures cross it, with key frames `gop` frames apart."""
    width, height = size
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 160, (-(-height // 16), -(-width // 16), 3)), np.ones((16, 16, 1), int))
    hall = (coarse[:height, :width] + rng.normal(48, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)
    options = {"preset": "veryfast", "crf": "23", "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * FPS)):
            image = np.roll(hall, (int(height / 18 * np.sin(index / 30)), 3 * index), axis=(0, 1))
            for figure in range(3):
                left, top = (5 + 2 * figure) * index % (width - width // 14), (1 + 2 * figure) * height // 7
                image[top : top + height // 4, left : left + width // 14] //= np.uint8(figure + 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True)
class Cost:
    """What reading a video takes."""

    rate: float
    """Frames a second, of all readers."""
    cpu_ms: float
    """CPU time a frame."""
    peak_mib: float
    """Memory of a reader."""


def read_all(reader: Reader, facts: VideoFacts, decoder: str, delay_s: float) -> None:
    """Read all frames of a video; the consumer sleeps for `delay_s` after each one."""
    for _ in reader.read_frames(facts, decoder, wanted=np.arange(len(facts.times))):
        if delay_s:
            time.sleep(delay_s)


def measure(path: Path, decoder: str, num_readers: int, delay_s: float, *, memory: bool = False) -> Cost:
    """Read a video with some new readers at the same time; `memory` also watches their memory, which slows them."""
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(decoder_bytes=most_decoder_bytes())) for _ in range(num_readers)]
        facts = [reader.probe(path) for reader in readers]
        threads = [
            threading.Thread(target=read_all, args=(reader, fact, decoder, delay_s))
            for reader, fact in zip(readers, facts, strict=True)
        ]
        pids = [reader.pid or 0 for reader in readers]
        before_mib = sum(pss_mib(pid)[0] for pid in pids)
        peak = stack.enter_context(peak_pss(pids, every_s=0.02)) if memory else Peak(before_mib)
        cpu_s, started = sum(map(cpu_of, pids)), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall_s = time.perf_counter() - started
        cpu_s = sum(map(cpu_of, pids)) - cpu_s
    num_frames = num_readers * len(facts[0].times)
    return Cost(num_frames / wall_s, 1000 * cpu_s / num_frames, max(0.0, peak.memory - before_mib) / num_readers)


def measure_all(path: Path, turns: int, num_readers: int, delay_s: float) -> list[list[float]]:
    """Frames a second, CPU ms a frame and MiB a reader, each with PyAV and with decord."""
    costs: dict[str, list[Cost]] = {decoder: [] for decoder in DECODERS}
    for _ in range(turns):
        for decoder in DECODERS:
            costs[decoder].append(measure(path, decoder, num_readers, delay_s))
    peaks = [measure(path, decoder, num_readers, delay_s, memory=True).peak_mib for decoder in DECODERS]
    rates = [max(cost.rate for cost in costs[decoder]) for decoder in DECODERS]
    return [rates, [min(cost.cpu_ms for cost in costs[decoder]) for decoder in DECODERS], peaks]


def _main(
    sizes: Annotated[str, typer.Option(help="Widths x heights.")] = "640x360,854x480,1280x720,1920x1080",
    gops: Annotated[str, typer.Option(help="Frames from one key frame to the next.")] = "12,50,250",
    readers: Annotated[str, typer.Option(help="Numbers of reading processes.")] = "1,4",
    seconds: Annotated[float, typer.Option(help="Duration of each video.")] = 20,
    delay: Annotated[float, typer.Option(help="Milliseconds that the consumer takes for a frame.")] = 0,
    turns: Annotated[int, typer.Option(help="How often everything is measured; the fastest counts.")] = 3,
) -> None:
    """Measure and print a table in Markdown."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="decoding-") as folder:
        for size, gop in itertools.product(sizes.split(","), map(int, gops.split(","))):
            width, height = map(int, size.split("x"))
            path = write_routine(Path(folder, f"{size}-{gop}.mp4"), (width, height), seconds, gop)
            for num_readers in map(int, readers.split(",")):
                rates, cpus, peaks = measure_all(path, turns, num_readers, delay / 1000)
                cells = [f"{rates[0]:.0f}", f"{rates[1]:.0f}", f"{rates[1] / rates[0]:.2f}"]
                cells += [f"{cpus[0]:.2f}", f"{cpus[1]:.2f}", f"{cpus[1] / cpus[0]:.2f}"]
                cells += [f"{peaks[0]:.0f}", f"{peaks[1]:.0f}"]
                rows.append([size, str(gop), str(num_readers), *cells])
                print_message(" | ".join(rows[-1]))
            path.unlink()
    columns = ["size", "key frames every", "readers"]
    columns += ["PyAV, frames a second", "decord", "ratio", "PyAV, CPU ms a frame", "decord", "ratio"]
    print_table([*columns, "PyAV, MiB a reader", "decord"], rows)


if __name__ == "__main__":
    typer.run(ends_well(_main))
