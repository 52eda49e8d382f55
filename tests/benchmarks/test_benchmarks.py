"""Every benchmark runs to its end on its smallest size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
SMALLEST = {
    "extraction": ["--backbone", "i3d", "--seconds", "4", "--turns", "1"],
    "memory": ["1", "--delay", "0"],
    "throughput": ["--videos", "2", "--seconds", "2", "--turns", "1"],
    "gpu": ["--device", "cpu", "--backbone", "i3d", "--batches", "1", "--seconds", "2"],
    "store": ["--videos", "20", "--decoded", "3"],
    "scaling": [
        *("--videos", "20", "--routines", "5", "--runs", "1", "--videos-a-worker", "4", "--delay", "0.1"),
        *("--simulated", "2000", "--workers", "10"),
    ],
}
SMALLEST_OF_FISV = {
    "accuracy": ["--seeds", "2", "--routines", "20"],
    "ablation": ["--seeds", "1", "--kinds", "event-disjoint", "--variants", "no mixup", "--paper", "--epochs", "1"],
    "figures": ["--seeds", "1", "--epochs", "1"],
    "learning_curve": ["--draws", "1", "--sizes", "6", "--sizes", "12"],
    "training": ["--workers", "1"],
}


def run_benchmark(name: str, *arguments: object) -> str:
    """Run a benchmark as its user does, and return what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    benchmark = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert benchmark.returncode == 0, benchmark.stderr
    return benchmark.stdout


@pytest.fixture(scope="module")
def fisv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up Fis-V folder: 24 routines of 12 skaters at 6 events, with features of width 8."""
    folder = tmp_path_factory.mktemp("fisv")
    (folder / "features").mkdir()
    rng = np.random.default_rng(0)
    scores = rng.uniform(15, 35, (24, 1)) + rng.normal(size=(24, 2))
    labels, skaters = [], ["video,skater,event"]
    for video, (tes, pcs) in enumerate(scores, start=1):
        clips = rng.normal(loc=tes / 10, size=(5 + video % 4, 8)).astype(np.float32)
        np.save(folder / "features" / f"{video}.npy", clips)
        labels.append(f"{video} {tes:.2f} {pcs:.2f} 0")
        skaters.append(f"{video},s{video % 12},e{video % 6}")
    judges = [f"{name}_J{judge}" for name in ("PCS", "GOE") for judge in range(1, 10)]
    marks = [f"{video},20," + ",".join(f"{mark:.2f}" for mark in rng.normal(size=18)) for video in range(1, 7)]
    (folder / "panels.csv").write_text("\n".join([",".join(["video", "base_value", *judges]), *marks]) + "\n")
    (folder / "train.txt").write_text("\n".join(labels) + "\n")
    (folder / "skaters.csv").write_text("\n".join(skaters) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_extraction_benchmarks_run(name: str) -> None:
    assert run_benchmark(name, *SMALLEST[name]).strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST_OF_FISV)
def test_head_benchmarks_run(name: str, fisv: Path, tmp_path: Path) -> None:
    writes = {"ablation": ["--out", tmp_path / "ablation.csv"], "figures": ["--out", tmp_path]}
    printed = run_benchmark(name, fisv, *SMALLEST_OF_FISV[name], *writes.get(name, []))
    if name == "accuracy":
        assert printed.count("| 100.0% |") == 6  # every score lies inside the grade beside it
        assert "coverage" in printed
        assert re.search(r"\| 6 \| -?0\.", printed.partition("one human judge")[2])  # six programmes have a panel
    elif name == "learning_curve":
        assert [printed.count(f"| random | {size} | ") for size in (6, 12)] == [2, 2]  # TES and PCS
    elif name == "ablation":
        heads = {line.split(",")[2] for line in (tmp_path / "ablation.csv").read_text().splitlines()}
        assert heads == {"head", "default", "no mixup", "cofinal-paper", "gdlt"}
    elif name == "figures":
        names = ("attention", "clips", "embeddings", "grades", "predicted")
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"{figure}.{suffix}" for figure in names for suffix in ("csv", "png")
        ]
    else:
        assert "plain loop / fit" in printed


@pytest.mark.slow
def test_the_demo_benchmark_runs(demo_folder: Path) -> None:
    table = run_benchmark("demo_seeds", demo_folder.parent, "--seeds", 1)
    assert "kernel ridge" in table
