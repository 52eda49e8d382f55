"""Fixtures for every room's tests: the shared folder of real data, and a process left as it was found."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")
SHARED = Path(os.environ.get("COFINAL_SHARED", Path(__file__).parent.parent.parent / "shared"))


NOT_THERE = "the shared folder of real test data is not there"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos, features and golden outputs; without it a skip here, a failure in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED}: {NOT_THERE}; set COFINAL_SHARED")
        pytest.skip(NOT_THERE)
    return SHARED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was not run without the shared folder; list any other skip."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    without_shared = sum(NOT_THERE in reason for reason in reasons)
    if without_shared:
        terminalreporter.write_line(
            f"{without_shared} tests were not run. They need real videos, features and recorded outputs that cannot be "
            f"published (expected in {SHARED}, or in COFINAL_SHARED). The maintainers' CI runs them."
        )
    for reason in reasons:
        if NOT_THERE not in reason:
            terminalreporter.write_line(f"not run: {reason}")


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo with data seed 0; minutes, for slow tests."""
    folder = tmp_path_factory.mktemp("demo-seeds") / "0"
    environment = os.environ | {"COFINAL_DEFAULT_HEAD": str(folder.parent / "default.safetensors")}
    command = [sys.executable, "-m", "cofinal.pipeline.demo", str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def _seeds_restored() -> Iterator[None]:
    """Random states are the same after a test as before it."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


@pytest.fixture(autouse=True)
def _no_default_head(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor set the user's default head."""
    monkeypatch.setenv("COFINAL_DEFAULT_HEAD", str(tmp_path_factory.mktemp("home") / "default.safetensors"))
