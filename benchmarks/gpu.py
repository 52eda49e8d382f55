"""Everything that a GPU must show, in one run of under 4 minutes that needs no network.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --backbone i3d --batches 1 --seconds 2     # the same code on a CPU

It prints the result of the `gpu` tests; what each backbone does alone, by batch size, precision and window method; how
far its features are from the CPU's; and what extraction does from end to end, by number of readers and beside the
public way (fp32, batches of 4 clips, one thread that decodes) in the same run. I3D has its published weights if they
are in the cache, else random ones; Video Swin-B has random weights.

"On the GPU" are passes over clips that lie there already, "submitted" are batches that come from memory as in a run.
The peak is what torch reaches with bf16 matrices of 8192 x 8192. "Idle" is the share of the time in which no kernel ran
(alone), or no pass (end to end). Everything is generated here: clips of noise, and a film of a few seconds that counts
as several videos.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import numpy as np
import torch
import typer
from torch import Tensor, nn

from cofinal.extractors.backbone import Backbone, load_backbone
from cofinal.extractors.catalogue import CATALOGUE
from cofinal.extractors.extract import extract_many, suitable_readers
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video
from cofinal.extractors.recipes import get_recipe
from cofinal.extractors.video_swin import WindowAttention
from cofinal.extractors.weights import I3D_KINETICS400
from cofinal.pipeline.console import ends_well, print_message

from .extraction import BASELINE_BATCH, first_output, public_clips, public_network, write_video
from .tables import print_table

MATMUL = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the matrices whose product measures the peak."""
MEASURED_S = 0.7
"""Each rate is measured for so many seconds, after one pass that is not counted."""
TESTS_TIMEOUT_S = 120


def weights_of(name: str) -> str | None:
    """Published weights of I3D if they are here, else random ones."""
    return None if name == "i3d" and I3D_KINETICS400.cached.exists() else "random"


def load(name: str, device: str, precision: str) -> Backbone:
    """A backbone that torch runs."""
    return load_backbone(name, weights=weights_of(name), device=device, precision=precision, engine="torch")


def noise(backbone: Backbone, number: int) -> Tensor:
    """(number, F, H, W, 3) uint8."""
    shape = (number, backbone.recipe.clip_frames, *backbone.recipe.size, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def synchronise(device: str) -> None:
    """Wait until the device has nothing to do."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def seconds_each(run: Callable[[], object], device: str) -> float:
    """Seconds of one of many runs that follow each other, with what they leave to the device."""
    run()
    synchronise(device)
    started, num_runs = time.perf_counter(), 0
    while time.perf_counter() - started < MEASURED_S:
        run()
        num_runs += 1
    synchronise(device)
    return (time.perf_counter() - started) / num_runs


def matmul_flops(device: str) -> float:
    """Floating-point operations a second of a bf16 matrix product."""
    side = MATMUL[torch.device(device).type]
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_each(lambda: a @ b, device)


@contextmanager
def windows(method: str) -> Iterator[None]:
    """Have Video Swin's windows "rolled" or cut "in pieces", on every device."""
    chosen = WindowAttention._rolled if method == "rolled" else WindowAttention._in_pieces
    with patch.multiple(WindowAttention, _rolled=chosen, _in_pieces=chosen):
        yield


def alone(backbone: Backbone, batch: int, peak_flops: float) -> list[str]:
    """Measure a backbone's passes; return the cells of a row."""
    on_gpu, device = backbone.device != "cpu", backbone.device
    clips = noise(backbone, batch)
    there = clips.to(device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        pass_s = seconds_each(lambda: backbone._compute(there), device)
        idle = f"{idle_share(lambda: backbone._compute(there), device):.0%}" if on_gpu else ""
    peak_mib = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}" if on_gpu else ""
    waiting: deque = deque()

    def submit() -> None:
        waiting.append(backbone.submit(list(clips)))
        if len(waiting) == backbone.batches_in_flight:
            waiting.popleft().result()

    submitted_s = seconds_each(submit, device)
    flops = CATALOGUE[backbone.name].gflop * 1e9 * batch / pass_s
    rates = [f"{batch / pass_s:.3g}", f"{flops / peak_flops:.0%}", f"{batch / submitted_s:.3g}"]
    return [str(batch), *rates, idle, peak_mib]


def idle_share(run: Callable[[], object], device: str) -> float:
    """Share of the time of ten runs in which the GPU ran no kernel."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        started = time.perf_counter()
        for _ in range(10):
            run()
        synchronise(device)
        wall_s = time.perf_counter() - started
    busy_s = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    return max(0.0, 1 - busy_s / wall_s)


def as_graph(backbone: Backbone, batch: int) -> float:
    """Seconds of a pass that is replayed as a CUDA graph; the program itself does not use graphs."""
    clips = noise(backbone, batch).to(backbone.device)
    with torch.inference_mode():
        backbone._compute(clips)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            backbone._compute(clips)
        return seconds_each(graph.replay, backbone.device)


class Timed(nn.Module):
    """A network that notes how long the device works on its passes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.cpu_s = 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the network."""
        if not x.is_cuda:
            started = time.perf_counter()
            outputs = self.network(x)
            self.cpu_s += time.perf_counter() - started
            return outputs
        span = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        span[0].record()
        outputs = self.network(x)
        span[1].record()
        self.spans.append(span)
        return outputs

    def busy_s(self) -> float:
        """Seconds of all passes, once they are over."""
        return self.cpu_s + sum(start.elapsed_time(end) for start, end in self.spans) / 1000


def end_to_end(backbone: Backbone, film: Path, num_readers: int, num_videos: int) -> tuple[float, float]:
    """Extract a film several times; clips a second, and the share of the time without a pass."""
    assert isinstance(backbone.network, nn.Module)
    batch_clips = backbone.batch_clips
    backbone.features(noise(backbone, batch_clips))
    timed = Timed(backbone.network)
    timed_backbone = replace(backbone, network=timed)
    readers = [Reader() for _ in range(num_readers)]
    try:
        started, num_clips = time.perf_counter(), 0
        films = [Video(film) for _ in range(num_videos)]
        for finished in extract_many(films, timed_backbone, readers=readers, batch_clips=batch_clips):
            num_clips += len(finished.extraction().features)
        wall_s = time.perf_counter() - started
    finally:
        for reader in readers:
            reader.close()
    synchronise(backbone.device)
    return num_clips / wall_s, 1 - timed.busy_s() / wall_s


@torch.inference_mode()
def public_way(name: str, film: Path, device: str) -> float:
    """Clips a second of the public way."""
    network = public_network(name, weights_of(name) or "KINETICS400").to(device)
    started = time.perf_counter()
    clips = public_clips(film, get_recipe(CATALOGUE[name].recipe), "NONE")
    for batch in clips.split(BASELINE_BATCH):
        first_output(network(batch.to(device))).cpu()
    return len(clips) / (time.perf_counter() - started)


def gpu_tests() -> str:
    """Run the tests marked `gpu`; return pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu"]
    root = Path(__file__).parent.parent
    try:
        run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=TESTS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"they took more than {TESTS_TIMEOUT_S} s"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    last = (run.stdout.strip() or run.stderr.strip()).splitlines()[-1:]
    return "; ".join([*last, *failed])


def rows_alone(name: str, device: str, batches: list[int], peak_flops: float) -> list[list[str]]:
    """Measure a backbone in every precision: all batch sizes in bf16, the largest one in the others."""
    rows = []
    largest = max(batches)
    for precision in ("bf16", "fp16", "fp32") if device != "cpu" else ("bf16", "fp32"):
        backbone = load(name, device, precision)
        methods = ("rolled", "in pieces") if name.startswith("vst") else ("",)
        for method in methods if precision == "bf16" else methods[:1]:
            for batch in batches if precision == "bf16" and method == methods[0] else [largest]:
                with windows(method or "rolled"):
                    rows.append([name, precision, method, *alone(backbone, batch, peak_flops)])
        if device != "cpu" and precision == "bf16":
            pass_s = as_graph(backbone, largest)
            share = CATALOGUE[name].gflop * 1e9 * largest / pass_s / peak_flops
            shown = f"{largest / pass_s:.3g}", f"{share:.0%}"
            rows.append([name, precision, f"{methods[0]} as a CUDA graph".strip(), str(largest), *shown, "", "", ""])
    return rows


def rows_of_cosines(name: str, device: str) -> list[list[str]]:
    """Compare features of two clips with the CPU's in fp32."""
    exact = load(name, "cpu", "fp32")
    clips = noise(exact, 2)
    clips[1] //= 3
    a = exact.features(clips)
    rows = []
    for precision in ("fp32", "bf16", "fp16") if device != "cpu" else ("bf16",):
        b = load(name, device, precision).features(clips)
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        rows.append([name, precision, f"{cosines.min():.6f}"])
    return rows


def rows_end_to_end(name: str, device: str, film: Path) -> list[list[str]]:
    """Measure extraction by number of readers, and the public way."""
    backbone = load(name, device, "auto")
    auto = suitable_readers(backbone)
    rows = []
    for num_readers in sorted({1, min(4, auto), auto}):
        rate, idle = end_to_end(backbone, film, num_readers, num_videos=2 * num_readers)
        rows.append([name, f"readers: {num_readers}, {backbone.precision}", f"{rate:.3g}", f"{idle:.0%}"])
    rows.append([name, "the public way", f"{public_way(name, film, device):.3g}", ""])
    return rows


def _main(
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda",
    backbone: Annotated[list[str] | None, typer.Option(help="i3d or vst-b, may be repeated; by default both.")] = None,
    batches: Annotated[list[int] | None, typer.Option(help="Batch sizes; by default 1 4 8 16 32.")] = None,
    seconds: Annotated[float, typer.Option(help="Duration of the film.")] = 20,
) -> None:
    """Measure and print tables in Markdown."""
    names, sizes = backbone or ["i3d", "vst-b"], batches or [1, 4, 8, 16, 32]
    if device == "cpu":
        card = "a CPU"
        print_message("gpu tests: not run, they need a GPU")
    else:
        card = torch.cuda.get_device_name(device)
        print_message(f"gpu tests: {gpu_tests()}")
    peak_flops = matmul_flops(device)
    print_message(f"{card}, {os.cpu_count()} cores, torch {torch.__version__}: {peak_flops / 1e12:.1f} TFLOP/s in bf16")
    columns = ["backbone alone", "precision", "windows", "batch"]
    columns += ["clips a second on the device", "of the peak", "clips a second submitted", "idle", "peak MiB"]
    print_table(columns, [row for name in names for row in rows_alone(name, device, sizes, peak_flops)])
    columns = ["backbone", "precision", "lowest cosine with the CPU's fp32"]
    print_table(columns, [row for name in names for row in rows_of_cosines(name, device)])
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        film = write_video(Path(folder, "film.mp4"), seconds)
        columns = ["end to end", "", "clips a second", "idle"]
        print_table(columns, [row for name in names for row in rows_end_to_end(name, device, film)])


if __name__ == "__main__":
    typer.run(ends_well(_main))
