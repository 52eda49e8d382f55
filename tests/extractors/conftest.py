"""The published I3D weights, fetched into the user's own cache on first use and read from there ever after."""

from pathlib import Path

import pytest

from extractors.weights import published


@pytest.fixture(scope="session")
def i3d_weights() -> Path:
    """The published Kinetics-400 weights of I3D."""
    return published()
