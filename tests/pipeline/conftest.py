"""A small real feature store and head, made once, and a way to run the console commands."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from cofinal.pipeline import cli

COMMANDS = {
    "extract-features": cli.extract_features_command,
    "train-head": cli.train_head_command,
    "score-video": cli.score_video_command,
    "serve-scores": cli.serve_scores_command,
    "list-backbones": cli.list_backbones_command,
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Ended]:
    """Run a console command as its entry point does."""

    def run(name: str, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            COMMANDS[name]()
        captured = capfd.readouterr()
        return Ended(end.value.code or 0, captured.out, captured.err)

    return run


def _write_video(path: Path, *, seconds: float = 1.4, seed: int = 0, size: tuple[int, int] = (96, 64)) -> Path:
    """Write a small real video, 25 frames a second, of a pattern that moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for shift in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, shift * (seed + 1), axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """The function that writes a small real video: path, seconds, seed, size."""
    return _write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small videos with labels (`labels.csv`), in a folder."""
    folder = tmp_path_factory.mktemp("club") / "videos"
    for seed in range(8):
        _write_video(folder / f"v{seed}.mp4", seed=seed)
    rows = "".join(f"v{seed},{5 + seed / 2}\n" for seed in range(8))
    (folder / "labels.csv").write_text("video,score\n" + rows)
    return folder


@pytest.fixture(scope="session")
def trained(videos: Path) -> Path:
    """A head trained from those videos by one command, features cached beside them."""
    from cofinal import train_head

    head = videos.parent / "head.safetensors"
    train_head(videos, "csv", out=head, epochs=2, folds=2)
    return head


@pytest.fixture(scope="session")
def store(videos: Path, trained: Path) -> Path:
    """The feature store that the training made beside the videos."""
    return videos.with_name("videos-features")
