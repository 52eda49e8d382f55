"""CoFInAl: action quality assessment from raw video.

    from cofinal import extract_features, train_head, score_video, score_videos

The functions are imported on first use, so that `--help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline.extraction import extract_features
    from .pipeline.head_training import train_head
    from .pipeline.scoring import score_video
    from .pipeline.scoring_many import score_videos

__all__ = ["__version__", "extract_features", "score_video", "score_videos", "train_head"]

__version__ = "0.1.0"

MODULES = {
    "extract_features": "extraction",
    "train_head": "head_training",
    "score_video": "scoring",
    "score_videos": "scoring_many",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'cofinal' has no attribute {name!r}")
    return getattr(import_module(f".pipeline.{MODULES[name]}", __name__), name)
