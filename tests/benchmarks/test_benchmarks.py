"""Every benchmark runs to its end on its smallest size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SMALLEST = {
    "extraction": ["--backbone", "i3d", "--seconds", "4"],
    "memory": ["1", "--delay", "0"],
    "store": ["--videos", "20", "--decoded", "3"],
}


def run_benchmark(name: str, *arguments: object) -> str:
    """Run a benchmark as its user does, and return what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    benchmark = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert benchmark.returncode == 0, benchmark.stderr
    return benchmark.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_extraction_benchmarks_run(name: str) -> None:
    assert run_benchmark(name, *SMALLEST[name]).strip()


@pytest.mark.slow
def test_the_demo_benchmark_runs(demo_folder: Path) -> None:
    table = run_benchmark("demo_seeds", demo_folder.parent, "--seeds", 1)
    assert "kernel ridge" in table
