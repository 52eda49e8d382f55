"""Extraction compared with the public scripts' way, on a generated video of 92 seconds.

    python -m benchmarks.extraction                    # I3D and VST-B, about 30 minutes on 2 quiet cores
    python -m benchmarks.extraction --backbone i3d     # about 6 minutes

The public way decodes all frames, transforms them with PIL into one float tensor, and runs the backbone in fp32 on
batches of 4 clips, on all cores. For Video Swin its network is torchvision's. Weights, frames and recipe are the same
as ours.

Each measurement runs in a process of its own. Its clock starts when the backbone is loaded; OpenVINO's model is in the
cache by then. Peak memory covers that process and its children from before the loading, library files included. For the
baseline, which is one process, the system records it. For ours it is the proportional set size (PSS), measured in
separate runs because measuring takes time. The seconds of a stage are those it takes alone. Our runs and the stages
alternate, twice by default, and the faster run counts. The baseline runs once. VST-B has random weights, so that
nothing is fetched; I3D has the published ones.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer
from torch import Tensor, nn

from cofinal.extractors.backbone import PRECISIONS, Backbone, load_backbone
from cofinal.extractors.catalogue import CATALOGUE
from cofinal.extractors.decoders import choose_decoder
from cofinal.extractors.extract import extract
from cofinal.extractors.probing import probe
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import one_thread
from cofinal.extractors.recipes import Recipe, get_recipe
from cofinal.models.checkpoint import serialise_head
from cofinal.models.cofinal import CoFInAl, CoFInAlConfig
from cofinal.pipeline.console import ends_well, out, print_message

from .memory import peak_pss
from .tables import print_table

FPS, HEIGHT, WIDTH, DURATION_S = 25, 720, 1280, 92
BASELINE_BATCH = 4
BARE_EVERY = 4
"""The bare network is timed again after this many batches of the baseline."""
MATMUL = 4096
"""Rows and columns of the matrices whose product measures the machine's peak."""

WEIGHTS = {"i3d": None, "vst-b": "random"}
GOALS = {  # speed-up, wall over its bound, share of the matmul peak, wall over the video's duration
    "i3d": (2.8, 1.15, 0.80, 0.4),
    "vst-b": (3.5, 1.10, 0.70, 1.7),
}


def write_video(path: Path, duration_s: float) -> Path:
    """Encode a camera that swings over a textured hall while three figures cross it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    coarse = (np.sin(x / 37) + np.sin(y / 23) + np.sin((x + 2 * y) / 61)) * 30
    hall = (128 + coarse[..., None] + rng.normal(0, 12, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(round(duration_s * FPS)):
            image = np.roll(hall, (int(40 * np.sin(index / 30)), 3 * index), axis=(0, 1))
            for figure in range(3):
                left, top = (5 + 2 * figure) * index % (WIDTH - 90), 100 + 150 * figure
                image[top : top + 200, left : left + 90] //= np.uint8(figure + 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def load(name: str, **options: str) -> Backbone:
    """The backbone on the CPU."""
    return load_backbone(name, weights=WEIGHTS[name], device="cpu", **options)


def prepare(name: str) -> tuple[str, str]:
    """Have OpenVINO's model in the cache, where it is the engine; the engine and the precision."""
    backbone = load(name)
    return backbone.engine, backbone.precision


@torch.inference_mode()
def public_way(path: Path, name: str) -> dict[str, Any]:
    """Run the baseline on a video."""
    network = public_network(name)
    started = time.perf_counter()
    clips = public_clips(path, get_recipe(CATALOGUE[name].recipe), "AUTO")
    wall_s = time.perf_counter() - started
    features, batch_s, bare_s = [], [], []
    for batch in clips.split(BASELINE_BATCH):
        started = time.perf_counter()
        features.append(first_output(network(batch)))
        batch_s.append(time.perf_counter() - started)
        if len(batch_s) % BARE_EVERY == 1:  # beside each other, as the machine's speed changes
            bare_s.append(_cost(partial(network, batch.contiguous()))[0])
    return {
        "features": torch.cat(features).numpy(),
        "wall_s": wall_s + sum(batch_s),
        "backbone_ratio": sum(batch_s[::BARE_EVERY]) / sum(bare_s),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def public_network(name: str, weights: str | None = None) -> nn.Module:
    """The network of the public scripts in fp32 on the CPU; `weights` are those of `WEIGHTS` if None."""
    from torchvision.models.video import swin3d_b

    weights = weights or WEIGHTS[name]
    network = load_backbone(name, weights=weights, device="cpu", precision="fp32", engine="torch").network
    assert isinstance(network, nn.Module)
    if name == "vst-b":
        state, network = network.state_dict(), swin3d_b().eval()
        network.load_state_dict(state, strict=False)  # its tables of indices are in no file of ours
        network.head = nn.Identity()
    return network.to(memory_format=torch.contiguous_format)


def public_clips(path: Path, recipe: Recipe, thread_type: str) -> Tensor:
    """All clips of a video (T, 3, F, H, W) as the public scripts make them; `thread_type` is the decoder's."""
    from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, PILToTensor, Resize, ToDtype

    assert isinstance(recipe.resize, int)
    transform = Compose(
        [
            Resize(recipe.resize),
            CenterCrop(list(recipe.crop)),
            Resize(list(recipe.size)),
            PILToTensor(),
            ToDtype(torch.float32, scale=True),
            Normalize(recipe.mean, recipe.std),
        ]
    )
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = thread_type
        frames = torch.stack([transform(frame.to_image()) for frame in container.decode(video=0)])
    chosen = recipe.select(probe(path).times).frames
    first, last = chosen[0, 0], chosen[-1, -1] + 1
    assert chosen.size == last - first, "a video of the recipe's own rate"
    return frames[first:last].unflatten(0, chosen.shape).transpose(1, 2)


def first_output(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The features that a network returns, alone or before the class logits."""
    return output if isinstance(output, Tensor) else output[0]


def ours(path: Path, name: str) -> dict[str, Any]:
    """Extract a video as the commands do."""
    backbone = load(name)
    started = time.perf_counter()
    extraction = extract(path, backbone)
    return {"features": extraction.features, "wall_s": time.perf_counter() - started}


def our_memory(path: Path, name: str) -> float:
    """Extract a video once more; the highest PSS in MiB."""
    with peak_pss([os.getpid()]) as peak:
        extract(path, load(name))
    return peak.memory + peak.files


def alone(path: Path, name: str, num_clips: int) -> dict[str, Any]:
    """Run each stage by itself: the seconds that it takes for the whole video, and what the machine's matmul can do."""
    backbone = load(name)
    recipe = backbone.recipe
    frames: list[np.ndarray] = []

    def decode() -> None:
        with Reader() as reader:
            facts = reader.probe(path)
            wanted = recipe.select(facts.times).frames.ravel()
            decoder, _ = choose_decoder(facts, "auto", recipe.colours)
            for frame in reader.read_frames(facts, decoder, wanted=wanted):
                if len(frames) < recipe.clip_frames:
                    frames.append(frame.copy())

    stages = {"decoding": _cost(decode)}
    recipe.apply(frames[0])  # the first time imports
    with one_thread():
        wall_s, cpu_s = _cost(lambda: [recipe.apply(frame) for frame in frames])
    stages["preprocessing"] = (wall_s * num_clips, cpu_s * num_clips)
    clip = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (1, recipe.clip_frames, *recipe.size, 3), np.uint8)
    )
    backbone.features(clip)
    before = matmul_gflops(backbone.precision)
    clip_s, clip_cpu_s = min(_cost(lambda: backbone.features(clip)) for _ in range(10))
    stages["backbone"] = (clip_s * num_clips, clip_cpu_s * num_clips)
    return {
        "stages": stages,
        "gflops": CATALOGUE[name].gflop / clip_s,
        "peak_gflops": max(before, matmul_gflops(backbone.precision)),
    }


def matmul_gflops(precision: str) -> float:
    """Floating-point operations a second of torch's product of two large matrices, in billions; the best of five."""
    a = torch.randn(MATMUL, MATMUL).to(PRECISIONS[precision])
    return 2 * MATMUL**3 / 1e9 / min(_cost(lambda: a @ a)[0] for _ in range(5))


def _cost(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU in this process and its children that have ended."""
    started, cpu_s = time.perf_counter(), _cpu_seconds()
    work()
    return time.perf_counter() - started, _cpu_seconds() - cpu_s


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _alone_in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(function, *arguments).result()


def compare(name: str, video: Path, third: Path, video_s: float, turns: int) -> list[tuple[str, str, str]]:
    """Measure a backbone; return rows of quantity, target and measured value."""
    engine, precision = _alone_in_a_process(prepare, name)
    print_message(f"{name}: ours, with {engine} in {precision}")
    runs, stage_runs = [], []
    for _ in range(turns):
        runs.append(_alone_in_a_process(ours, video, name))
        stage_runs.append(_alone_in_a_process(alone, video, name, len(runs[0]["features"])))
    own = min(runs, key=lambda run: run["wall_s"])
    costs = {stage: min(run["stages"][stage] for run in stage_runs) for stage in stage_runs[0]["stages"]}
    gflops, peak_gflops = (max(run[what] for run in stage_runs) for what in ("gflops", "peak_gflops"))
    own_mib, third_mib = (_alone_in_a_process(our_memory, path, name) for path in (video, third))
    print_message(f"{name}: the public way")
    public = _alone_in_a_process(public_way, video, name)

    speed_up, over_bound, share, over_duration = GOALS[name]
    a, b = own["features"], public["features"]
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    longest = max(costs, key=lambda stage: costs[stage][0])
    longest_s, cpu_s = costs[longest][0], sum(cpu for _, cpu in costs.values()) / (os.cpu_count() or 1)
    each = ", ".join(f"{stage} {wall_s:.1f} s (CPU {cpu:.1f} s)" for stage, (wall_s, cpu) in costs.items())
    return [
        (
            "wall time against the baseline",
            f">= {speed_up} x faster",
            f"{public['wall_s'] / own['wall_s']:.2f} x ({public['wall_s']:.1f} s, {own['wall_s']:.1f} s)",
        ),
        (
            "peak memory against the baseline",
            "<= 0.33",
            f"{own_mib / public['peak_mib']:.2f} ({public['peak_mib']:.0f} MiB, {own_mib:.0f} MiB)",
        ),
        ("the same against a third of the video", "flat", f"{own_mib / third_mib:.2f}"),
        (
            "wall time against the larger of the longest stage alone and all stages' CPU seconds / cores",
            f"<= {over_bound}",
            f"{own['wall_s'] / max(longest_s, cpu_s):.2f} ({longest} {longest_s:.1f} s, CPU {cpu_s:.1f} s)",
        ),
        (
            f"backbone alone against the {precision} matmul peak",
            f">= {share:.0%}",
            f"{gflops / peak_gflops:.0%} ({gflops:.0f} of {peak_gflops:.0f} GFLOP/s)",
        ),
        ("features' lowest cosine with the baseline's", ">= 0.999", f"{cosines.min():.5f}"),
        ("wall time against the video's duration", f"<= {over_duration}", f"{own['wall_s'] / video_s:.2f}"),
        ("the baseline's backbone against bare torch", "within 5 %", f"{public['backbone_ratio']:.3f}"),
        ("each stage alone", "", each),
    ]


def score(video: Path, video_s: float) -> str:
    """Score the video with the command and an untrained I3D head; return a sentence on the seconds of each stage."""
    config = CoFInAlConfig(feature_dim=CATALOGUE["i3d"].feature_dim, targets=("score",), ranges=((0.0, 10.0),))
    network = CoFInAl(config)
    metadata = {
        "targets": ["score"],
        "actions": [],
        "identity": load("i3d", engine="torch").identity,
        "weights": "published",
        "generated": True,
        "warnings": [],
        "bounded": [],
        "sums": [],
        "routines": 0,
        "intervals": {"level": 0.9, "radii": {}},
    }
    head = video.with_name("head.safetensors")
    head.write_bytes(serialise_head(network, metadata))
    command = [sys.executable, "-c", "from cofinal.pipeline.cli import score_video_command as command; command()"]

    def run(*arguments: str | Path) -> tuple[float, str]:
        started = time.perf_counter()
        text = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
        return time.perf_counter() - started, text

    wall_s, text = run(video, "--head", head, "--device", "cpu", "--json")
    stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in json.loads(text)["stage_seconds"].items())
    help_s = min(run("--help")[0] for _ in range(3))
    return (
        f"score-video of the {video_s:g} s with I3D, the whole command: {wall_s:.1f} s, of which {stages} "
        f"(reading and backbone side by side). score-video --help: {help_s:.2f} s."
    )


def _main(
    backbone: Annotated[list[str] | None, typer.Option(help="i3d or vst-b, may be repeated; by default both.")] = None,
    seconds: Annotated[float, typer.Option(help="Duration of the video.")] = DURATION_S,
    turns: Annotated[int, typer.Option(help="Runs of ours and of its stages; the fastest counts.")] = 2,
) -> None:
    """Measure and print tables in Markdown."""
    backbones = backbone or list(GOALS)
    for name in backbones:
        if name not in GOALS:
            raise ValueError(f"no backbone {name!r} here; known are {', '.join(GOALS)}")
    with tempfile.TemporaryDirectory(prefix="extraction-") as folder:
        print_message("encoding the video")
        video = write_video(Path(folder, "routine.mp4"), seconds)
        third = write_video(Path(folder, "third.mp4"), seconds / 3)
        for name in backbones:
            print_table([name, "goal", "measured"], compare(name, video, third, seconds, turns))
        if "i3d" in backbones:
            out.print(score(video, seconds), markup=False)


if __name__ == "__main__":
    typer.run(ends_well(_main))
