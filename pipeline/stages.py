"""How far scoring is: the stage of the current video, and the time that is left for all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .console import err, print_message, printable, progress

OnStage = Callable[[str, float, float | None], None]
"""Called with a stage ("loading", "extracting", "scoring", "reporting"). While extracting, also with the seconds of
video that are done and those of the whole video; 0 and None where nothing can be counted."""


@contextmanager
def show_stages(num_videos: int) -> Iterator[Callable[[int, Path], OnStage]]:
    """Show progress on stderr: of one video its seconds, of several videos their number.

    Args:
        num_videos: how many there are.

    Yields:
        A function from a video's index and path to its `OnStage`.
    """
    unit = "s of video" if num_videos == 1 else "videos"
    with progress(unit) as bar:
        task = bar.add_task("loading the head", total=None if num_videos == 1 else num_videos)

        def begin(index: int, path: Path) -> OnStage:
            if num_videos == 1 and not err.is_terminal:  # on a terminal the bar shows it
                print_message(f"scoring {path.name}")

            def show(stage: str, done_s: float, total_s: float | None) -> None:
                what = "loading the backbone for" if stage == "loading" else stage
                bar.update(task, description=printable(f"{what} {path.name}"))
                if num_videos > 1:
                    bar.update(task, completed=index + (min(done_s / total_s, 1) if total_s else 0))
                elif total_s:
                    bar.update(task, completed=done_s, total=total_s)

            return show

        yield begin
