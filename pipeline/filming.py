"""How routines were filmed, from the records of their extraction: a head says when a video was filmed otherwise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Filming:
    """How one video was filmed; None where its record does not say."""

    frames_per_s: float | None
    aspect: float | None
    """Width of the picture to its height, as its features show it."""
    cuts_s: list[float] | None
    """Seconds at which the picture is cut."""
    stills_s: list[list[float]] | None
    """Start and end in seconds of each time that the picture stands still."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Filming":
        """Read it off an extraction's record; records of earlier versions lack some entries."""
        container = record.get("container", {})
        width, height = container.get("width"), container.get("height")
        return cls(
            container.get("frames_per_s"),
            width / height * record.get("pixel_aspect", 1) if width and height else None,
            record.get("cuts_s"),
            record.get("stills_s"),
        )


UNKNOWN = Filming(None, None, None, None)


def filming_of_training(filmings: Iterable[Filming]) -> dict[str, list[float] | bool | None]:
    """Return how all training routines were filmed, as a head's metadata have it.

    Returns:
        `frames_per_s` and `aspect`: lowest and highest. `has_cuts` and `has_stills`: whether any routine has one. None
        where no record says it.
    """
    filmings = list(filmings)

    def known(name: str) -> list[Any]:
        return [value for filming in filmings if (value := getattr(filming, name)) is not None]

    def span(name: str) -> list[float] | None:
        values = known(name)
        return [min(values), max(values)] if values else None

    def has_any(name: str) -> bool | None:
        values = known(name)
        return any(values) if values else None

    return {
        "frames_per_s": span("frames_per_s"),
        "aspect": span("aspect"),
        "has_cuts": has_any("cuts_s"),
        "has_stills": has_any("stills_s"),
    }
