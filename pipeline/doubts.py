"""When not to trust a score: the routine, or its filming, is unlike what the head was trained on."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..models.checkpoint import Head
from .filming import Filming

TOLERANCE = 0.03
"""Frame rates and aspects that differ by a smaller share are the same: 29.97 and 30, 854 x 480 and 16:9."""


def doubts_of(head: Head, features: np.ndarray, filming: Filming) -> list[str]:
    """Return a sentence for each reason not to trust a head's score of a routine.

    Args:
        head: the head.
        features: the routine's clip features (T, C).
        filming: how it was filmed.
    """
    training = head.metadata.get("training_set")
    if training is None:
        return []
    return [
        *_of_features(head, features),
        *_of_length(training, len(features)),
        *_of_filming(training["filming"], filming),
    ]


def _of_features(head: Head, features: np.ndarray) -> Iterator[str]:
    neighbours = head.neighbourhood
    if neighbours is None:
        return
    distance = neighbours.distance(neighbours.place(features))
    if distance > neighbours.far:
        yield (
            "the video is unlike the training routines: its distance to the nearest ones is "
            f"{distance / neighbours.far:.1f} times the one that 95% of them keep to each other"
        )


def _of_length(training: dict[str, Any], clips: int) -> Iterator[str]:
    low, high = training["clips"]
    if not low <= clips <= high:
        yield f"the routine has {clips} clips, and the training routines have {low} to {high}"


def _of_filming(training: dict[str, Any], filming: Filming) -> Iterator[str]:
    spans = {
        "frames_per_s": "the video has {} frames a second, and the training videos have {}",
        "aspect": "the picture is {} times as wide as high, and those of the training videos {}",
    }
    for name, sentence in spans.items():
        value, span = getattr(filming, name), training[name]
        if (
            value is not None
            and span is not None
            and not span[0] * (1 - TOLERANCE) <= value <= span[1] * (1 + TOLERANCE)
        ):
            low, high = (f"{end:.4g}" for end in span)
            yield sentence.format(f"{value:.4g}", low if low == high else f"{low} to {high}")
    if filming.cuts_s and training["has_cuts"] is False:
        more = f" (the first of {len(filming.cuts_s)} cuts)" if len(filming.cuts_s) > 1 else ""
        yield f"the picture is cut at {filming.cuts_s[0]:.1f} s{more}, and no training video has a cut"
    if filming.stills_s and training["has_stills"] is False:
        start, end = filming.stills_s[0]
        yield f"the picture stands still from {start:.1f} to {end:.1f} s, and no training video has a still"
