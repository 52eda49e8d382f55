"""What a video costs beside decoding and the backbone, with many small videos.

    python -m benchmarks.store [--videos 10000] [--decoded 300]

First it measures what a video takes in a run whose extraction takes no time: hashing the file, writing array and record
durably, progress. Then it measures a resumed run with everything done, as a whole command in a process of its own,
beside a process that only imports what the command imports. Last, real videos of one clip (32 frames of 64 x 64 pixels)
go through the whole pipeline with a backbone that returns zeros, beside a loop that only decodes them with decord and
prepares their clip; the start of the reader's process is included. CPU seconds are printed for the commands too,
because other programs do not change them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import av
import decord
import numpy as np
import torch
import typer

from cofinal.extractors.backbone import Backbone
from cofinal.extractors.extract import Extraction, Finished, extract_many
from cofinal.extractors.reading import Video
from cofinal.extractors.recipes import get_recipe
from cofinal.pipeline import extraction, workers
from cofinal.pipeline.console import ends_well, print_message
from cofinal.pipeline.options import ExtractorOptions

from .memory import Sleeper
from .tables import print_table

COMMAND = "from cofinal.pipeline.cli import extract_features_command as command; command()"
RANDOM = ("--backbone", "i3d", "--weights", "random")
RECORD = {
    "decoder": "decord",
    "decoder_reason": "8-bit 4:2:0 H.264 in MP4, even sizes, timestamps, nothing left out, 812.0 MiB decoded",
    "container": {"container": "mov,mp4", "codec": "h264", "pixel_format": "yuv420p", "width": 1280, "height": 720},
    "frames_decoded": 5250,
    "clips": 1,
    "duration_s": 210.0,
    "stage_seconds": {"read": 20.123, "backbone": 110.456, "wall": 112.789},
    "warnings": [],
}


def _instant(videos: Iterable[Video], *_: Any, **__: Any) -> Iterator[Finished]:
    for video in videos:
        extraction = Extraction(np.zeros((1, 1024), np.float32), np.zeros((1, 2)), None, dict(RECORD), [])
        yield Finished(video, video.find_facts(), extraction)


def _tiny_video(path: Path, number: int) -> None:
    """Write 32 frames of 64 x 64 pixels like those of no other number."""
    rng = np.random.default_rng(number)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(32):
            image = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _look_at_nothing(*_: Any, **__: Any) -> Backbone:
    return Backbone("i3d", get_recipe("actionnet-i3d"), Sleeper(0), 1024, "random", "cpu", "fp32")


def _beside_decoding(folder: Path, videos: int) -> tuple[float, float]:
    """Seconds that `videos` real videos take in a run, and those of their stages alone; the lesser of two each."""
    sources = folder / "real"
    sources.mkdir()
    for number in range(videos):
        _tiny_video(sources / f"v{number:05}.mp4", number)
    workers.extract_many = extract_many
    ExtractorOptions.load_backbone = _look_at_nothing  # type: ignore[method-assign]
    times = []
    for turn in range(2):
        started = time.perf_counter()
        run = extraction.extract_features(sources, folder / f"real{turn}", backbone="i3d", weights="random")
        ended = time.perf_counter()
        assert run.extracted == videos, run.failed[:1]
        backbone = _look_at_nothing()
        for path in sources.iterdir():
            frames = decord.VideoReader(str(path))[:].asnumpy()
            clip = torch.stack([backbone.recipe.apply(frame) for frame in frames[::2]])
            assert backbone.features(clip[None]).shape == (1, 1024)
        times.append((ended - started, time.perf_counter() - ended))
    run_s, alone_s = (min(each) for each in zip(*times, strict=True))
    return run_s, alone_s


def _seconds(*arguments: str) -> tuple[float, float]:
    """How long a Python process takes, by the clock and of CPU time; the shortest of three."""
    times = []
    for _ in range(3):
        started, cpu = time.perf_counter(), _cpu_of_children()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append((time.perf_counter() - started, _cpu_of_children() - cpu))
    return min(times)


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _main(
    videos: Annotated[int, typer.Option(help="Number of videos whose extraction takes no time.")] = 10_000,
    decoded: Annotated[int, typer.Option(help="Number of videos that are decoded.")] = 300,
) -> None:
    """Measure and print tables in Markdown."""
    with tempfile.TemporaryDirectory(prefix="store-", dir=".") as name:  # the disk at hand: /tmp may be in memory
        sources, store = Path(name, "videos"), Path(name, "out")
        for number in range(videos):
            path = sources / f"{number // 1000}/v{number:05}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number)
        print_message(f"{videos} videos whose extraction takes no time")
        workers.extract_many = _instant  # type: ignore[assignment]
        started = time.perf_counter()
        first = extraction.extract_features(sources, store, backbone="i3d", weights="random")
        whole = time.perf_counter() - started
        assert first.extracted == videos, first.failed[:1]
        print_message("resumed runs")
        rows = {
            "start to end of a resumed run with all done": ("-c", COMMAND, str(sources), str(store), *RANDOM),
            "only its imports": ("-c", "import cofinal.pipeline.extraction"),
            "--verify": ("-c", COMMAND, "--verify", str(store)),
        }
        measured = {what: _seconds(*arguments) for what, arguments in rows.items()}
        print_message(f"{decoded} videos that are decoded")
        run, alone = _beside_decoding(Path(name), decoded)
    overhead = ["overhead a video in a first run", f"{1000 * whole / videos:.2f} ms", ""]
    table = [overhead, *([what, f"{clock:.2f} s", f"{cpu:.2f} s"] for what, (clock, cpu) in measured.items())]
    print_table([f"{videos} videos", "by the clock", "CPU"], table)
    each = [f"{1000 * seconds / decoded:.1f} ms" for seconds in (run, alone, run - alone)]
    columns = [f"a video, of {decoded}", "in a run", "decoding and preparing alone", "overhead"]
    print_table(columns, [["by the clock", *each]])


if __name__ == "__main__":
    typer.run(ends_well(_main))
