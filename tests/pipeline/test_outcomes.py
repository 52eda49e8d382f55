"""What becomes of videos: what is noted of each."""

from pathlib import Path

import pytest
from rich.progress import Progress

from cofinal.data import source_files
from cofinal.data.feature_store import FeatureStore
from cofinal.pipeline.extraction_summary import ExtractionSummary
from cofinal.pipeline.outcomes import Outcomes
from cofinal.pipeline.sources import Sources

IDENTITY = {"backbone": "i3d", "recipe": "gdlt-i3d", "weights_sha256": "a" * 64}


def test_a_death_is_counted_without_reading_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(source_files, "file_sha256", lambda path: read.append(path) or "")
    video = tmp_path / "x.mp4"
    video.write_bytes(b"frames")
    sources = Sources({"x": video, "gone": tmp_path / "gone.mp4"}, tmp_path, 0)
    with FeatureStore(tmp_path / "out") as store:
        store.open(IDENTITY)
        outcomes = Outcomes(store, sources, ExtractionSummary("out", IDENTITY, 2), Progress(disable=True))
        for name in ("x", "gone", "x"):
            outcomes.count_death(name)
        assert (outcomes.attempts("x"), outcomes.attempts("gone")) == (2, 0)
    assert read == []
    with FeatureStore(tmp_path / "out") as store:
        store.open(IDENTITY)
        assert store.attempts("x", video) == 2
