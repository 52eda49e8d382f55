"""The plan of a reading: which frames of a file make which clips."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .clips import Selection, frames_of_segment
from .recipes import RECIPES, Recipe
from .video import TAKE_GAPS, VideoError, VideoFacts

SEGMENT_ROUNDS_S = 0.5
"""How far the stated end of a segment in seconds may lie beyond the video, because people round it."""


@dataclass(frozen=True)
class Plan:
    """What is read of a file."""

    facts: VideoFacts
    """Without the times, which nothing needs afterwards."""
    selection: Selection
    start_s: float
    """Where the clips or the segment start, whichever is first, in seconds after the first frame."""
    end_s: float
    """End of the segment, or of the video."""
    segment: dict[str, Any] | None
    """For the record of a segment: start, end, unit, and the first and last frame of its clips."""
    seek_times: np.ndarray | None
    """Seconds at which the frames from the first selected one to the last one are shown, if they are sought."""


def make_plan(facts: VideoFacts, recipe: Recipe, segment: tuple[float, float, str] | None) -> Plan:
    """Choose the frames that the clips need.

    Args:
        facts: of the file.
        recipe: how frames become clips.
        segment: start, end, and "seconds" or "frames" (`extractors.clips.frames_of_segment`); None for all of the file.

    Raises:
        VideoError: the file is damaged, or it or the segment is too short.
    """
    if facts.damage and not facts.is_partial:
        raise VideoError(facts.failure)
    part = _part(facts, segment)
    selection = recipe.select(facts.times, part)
    start_s = float(facts.times[part[0]] - facts.times[0])
    end_s = float((facts.times[part[1]] if part[1] < len(facts.times) else facts.end_s) - facts.times[0])
    if len(selection.frames) == 0:
        remedy = f"; {facts.remedy}" if facts.paused_s and facts.remedy == TAKE_GAPS else ""
        fitting = [other.name for other in RECIPES.values() if len(other.select(facts.times, part).frames)]
        raise VideoError(
            f"{_describe(facts, segment)} is too short: it lasts {end_s - start_s:.2f} s, and one clip of the recipe "
            f"{recipe.name} takes {recipe.timeline}{remedy}; "
            + (f"recipes that fit are {', '.join(fitting)} (--recipe)" if fitting else "no recipe fits it")
        )
    first, last = int(selection.frames[0, 0]), int(selection.frames[-1, -1])
    can_seek = segment is not None and facts.has_timestamps and not (facts.num_restarts or facts.is_partial)
    return Plan(
        facts.without_times(),
        selection,
        min(start_s, float(selection.clip_times[0, 0])),
        end_s,
        segment and dict(zip(("start", "end", "unit"), segment, strict=True), first_frame=first, last_frame=last),
        facts.times[first : last + 1].copy() if can_seek else None,
    )


def _part(facts: VideoFacts, segment: tuple[float, float, str] | None) -> tuple[int, int]:
    """The first frame of a segment, and that after its last one."""
    if segment is None:
        return 0, len(facts.times)
    first, last = frames_of_segment(facts.times, segment)
    is_beyond = last > len(facts.times) or (
        segment[2] == "seconds" and segment[1] > facts.duration_s + SEGMENT_ROUNDS_S
    )
    if is_beyond or first >= last:
        raise VideoError(
            f"{_describe(facts, segment)} {'ends after the video' if is_beyond else 'holds no frame'}: the video has "
            f"{len(facts.times)} frames in {facts.duration_s:.2f} s; correct its start and end"
        )
    return first, last


def _describe(facts: VideoFacts, segment: tuple[float, float, str] | None) -> str:
    """The file, or a segment of it, for messages."""
    if segment is None:
        return str(facts.path)
    start, end, unit = segment
    return f"the segment {start:.10g} to {end:.10g} {unit} of {facts.path}"
