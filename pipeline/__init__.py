"""The commands as functions; the only room that knows all others.

    from pipeline import extract_features, train_head, score_video, list_backbones

They are imported on first use, so that `--help` need not wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.backbones import list_backbones
    from pipeline.extraction import ExtractionSummary, extract_features
    from pipeline.head_training import TrainingResult, train_head
    from pipeline.scoring import Score, score_video

__all__ = [
    "ExtractionSummary",
    "Score",
    "TrainingResult",
    "extract_features",
    "list_backbones",
    "score_video",
    "train_head",
]

_HOMES = {
    "extract_features": "extraction",
    "ExtractionSummary": "extraction",
    "train_head": "head_training",
    "TrainingResult": "head_training",
    "score_video": "scoring",
    "Score": "scoring",
    "list_backbones": "backbones",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pipeline.{_HOMES[name]}"), name)
