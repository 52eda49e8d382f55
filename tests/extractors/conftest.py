"""The published I3D weights, fetched into the user's own cache on first use and read from there ever after."""

from pathlib import Path

import pytest
from hypothesis import settings

from extractors.weights import published

settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")


@pytest.fixture(scope="session")
def i3d_weights() -> Path:
    """The published Kinetics-400 weights of I3D."""
    return published()
