"""One video in, one feature array out, as a stream: memory does not grow with the video.

A background thread decodes, selects, resizes and crops, and hands over whole clips through a short queue, while this
thread runs the backbone on them. Only the features are kept.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extractors.backbone import Backbone
from extractors.clips import Selection, select
from extractors.video import UnfaithfulError, VideoError, VideoFacts, choose_decoder, probe, read_frames

CLIPS_AHEAD = 2
"""Clips that may wait for the backbone."""


@dataclass(frozen=True)
class Extraction:
    """What a backbone saw in one video, T clips."""

    features: np.ndarray
    """(T, C) float32."""
    clip_times: np.ndarray
    """(T, 2) start and end of each clip, in seconds after the first frame."""
    probabilities: np.ndarray | None
    """(T, classes) float32 if classes were asked for."""
    record: dict[str, Any]
    """What was read, by whom and how long it took, ready for JSON."""


def extract(
    path: str | Path,
    backbone: Backbone,
    *,
    decoder: str = "auto",
    batch_clips: int | None = None,
    classify: bool = False,
    on_progress: Callable[[float, float], None] | None = None,
) -> Extraction:
    """Extract the clip features of one video.

    Args:
        path: The video file.
        backbone: From `load_backbone`.
        decoder: "auto", "decord" or "pyav".
        batch_clips: Clips in one pass of the backbone; 1 on a CPU and 8 on a GPU if None.
        classify: Also return the class probabilities of each clip.
        on_progress: Called after each batch with the seconds of video done and in all.

    Raises:
        VideoError: The video cannot be used; the message says why.
    """
    ...
