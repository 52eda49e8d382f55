"""How videos are extracted, and the call that extracts them: the same in this process and on a Ray cluster."""

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .backbone import Backbone
from .extract import Finished, OnProgress
from .reader import Reader
from .reading import Video

Load = Callable[[str], tuple[Backbone, dict[str, Any]]]
"""From a device to the backbone on it, and what its features are made with."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How videos are extracted."""

    load: Load
    """Builds the backbone."""
    make_reader: Callable[[int], Reader]
    """Makes one of so many readers."""
    folder: Path | None = None
    """Where the videos are. A worker that does not see it would fail one video after another."""
    num_readers: int | None = None
    """None for what suits the backbone and the cores that it may use."""
    batch_clips: int | None = None
    """As in `extract_many`."""
    classify: bool = False
    """As in `extract_many`."""


class Extract(Protocol):
    """Extracts videos, as `extract_many` does."""

    def __call__(
        self,
        videos: Collection[Video],
        *,
        on_progress: OnProgress,
        tries: Callable[[Video], int],
        on_death: Callable[[Video], None],
    ) -> Generator[Finished, None, None]:
        """Extract videos.

        Args:
            videos: which.
            on_progress: as in `extract_many`.
            tries: from a video to how many processes died in earlier runs that had it.
            on_death: called for each video that another process had when it died.
        """
