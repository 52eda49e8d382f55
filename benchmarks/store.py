"""What the feature store costs beside decoding and the backbone, with many small videos.

    python -m benchmarks.store [--videos 10000]

Prints how long each video takes in a run whose features come at once (hashing the file, writing array and record so
that they survive a power cut, progress), and how long a resumed run takes from its start to its end when all is done:
the whole command in a process of its own, beside a process that only imports what the command imports. Seconds of CPU
are printed too, which tell more where other programs run.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.tables import print_table
from extractors.extract import Extraction
from pipeline import extraction
from pipeline.console import ends_well, say

COMMAND = "from pipeline.cli import extract_features_command as command; command()"
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


def _instant(path: Path, backbone: Any, **_: Any) -> Extraction:
    return Extraction(np.zeros((1, 1024), np.float32), np.zeros((1, 2)), None, dict(RECORD))


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


def _main(videos: Annotated[int, typer.Option(help="Number of videos.")] = 10_000) -> None:
    """Measure the store and print a table in Markdown."""
    with tempfile.TemporaryDirectory(prefix="store-", dir=".") as name:  # the disk at hand: /tmp may be in memory
        sources, store = Path(name, "videos"), Path(name, "out")
        for number in range(videos):
            path = sources / f"{number // 1000}/v{number:05}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number)
        say(f"{videos} videos whose features come at once")
        extraction.extract = _instant  # type: ignore[assignment]
        started = time.perf_counter()
        first = extraction.extract_features(sources, store, backbone="i3d", weights="random")
        whole = time.perf_counter() - started
        assert first.extracted == videos, first.failed[:1]
        say("resumed runs")
        rows = {
            "start to end of a resumed run with all done": ("-c", COMMAND, str(sources), str(store), *RANDOM),
            "only its imports": ("-c", "import pipeline.extraction"),
            "--verify": ("-c", COMMAND, "--verify", str(store)),
        }
        measured = {what: _seconds(*arguments) for what, arguments in rows.items()}
    overhead = ["overhead a video in a first run", f"{1000 * whole / videos:.2f} ms", ""]
    table = [overhead, *([what, f"{clock:.2f} s", f"{cpu:.2f} s"] for what, (clock, cpu) in measured.items())]
    print_table([f"{videos} videos", "by the clock", "CPU"], table)


if __name__ == "__main__":
    typer.run(ends_well(_main))
