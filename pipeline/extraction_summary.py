"""What one run of extract-features did."""

from dataclasses import asdict, dataclass, field
from typing import Any

from .console import print_message, print_result


@dataclass
class ExtractionSummary:
    """What one run of extract-features did."""

    store: str
    identity: dict[str, str]
    videos: int
    """Videos found, each segment counted as one; with `shard`, those of this part."""
    extracted: int = 0
    already_done: int = 0
    clips: int = 0
    """Clips extracted by this run."""
    seconds: float = 0.0
    failed: list[dict[str, str]] = field(default_factory=list)
    """`{"video", "error"}` of each video that could not be extracted, now or in an earlier run."""
    warnings: list[str] = field(default_factory=list)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """With `classes`: each video's most probable Kinetics-400 class, `{"class", "probability"}`."""

    def as_json(self) -> dict[str, Any]:
        """Return the summary as the JSON object that `--json` prints."""
        return {"format": 1, **asdict(self)}


def print_summary(summary: ExtractionSummary) -> None:
    """Print a run for people: classes on stdout, counts and failures on stderr."""
    for name, top in summary.classes.items():
        print_result(f"{name}: {top['class']} {top['probability']:.3f}")
    print_message(
        f"{summary.extracted} videos extracted ({summary.clips} clips, {summary.seconds:.1f} s), "
        f"{summary.already_done} already done, {len(summary.failed)} failed: {summary.store}"
    )
    for failure in summary.failed:
        print_message(f"failed: {failure['error']}")
