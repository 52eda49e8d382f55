"""Fixtures for every room's tests: the shared folder of real data, and a process left as it was found."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")
SHARED = Path(os.environ.get("COFINAL_SHARED", Path(__file__).parent.parent.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos, features and golden outputs; without it a skip here, a failure in CI."""
    if not SHARED.is_dir():
        message = f"{SHARED} is not there: set COFINAL_SHARED to the folder of real test data"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return SHARED


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
