"""What the commands say: progress and messages on stderr, results on stdout, one way to end for each kind of end."""

import functools
import logging
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..data.files import WriteError
from ..extractors.video import VideoError

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a message for people on stderr, on one line, whatever is in the file names it tells of."""
    err.print(printable(message), markup=False)


def tell(result: str) -> None:
    """Print a result on stdout, escaped as `say` does."""
    out.print(printable(result), markup=False)


def show(table: Table) -> None:
    """Print a table on stdout, never narrower than what it says."""
    out.width = max(out.width, out.measure(table, options=out.options.update_width(1000)).maximum)
    out.print(table, crop=False)


def printable(text: str) -> str:
    """Return a text with all escaped that no terminal should be sent: line ends, control codes, stray bytes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def progress(unit: str = "") -> Progress:
    """Return a progress display on stderr with the remaining time; silent where stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
        transient=True,
    )


def ends_well(command: Callable[..., int | None]) -> Callable[..., None]:
    """Make a command end with the right exit code and one sentence instead of a traceback.

    0 done, 1 some or all videos failed (the command's own return value, or a VideoError) or the disk did (WriteError),
    2 usage or input error, 130 interrupted. With the command's `debug` option set, the traceback is shown too.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        _set_up_logging(bool(kwargs.get("debug")))
        try:
            code = command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            say(f"interrupted: {interrupt}" if str(interrupt) else "interrupted")
            code = 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:
            if kwargs.get("debug"):
                err.print_exception()
            if isinstance(error, ValueError | OSError | WriteError):
                say(f"error: {one_sentence(error)}")
                code = 1 if isinstance(error, VideoError | WriteError) else 2
            else:
                fault = f"{type(error).__name__}: {one_sentence(error)}"
                say(f"error: a fault of this program, {fault}; --debug shows where")
                code = 1
        raise SystemExit(code or 0)

    return run


def _set_up_logging(debug: bool) -> None:
    """Send this program's log messages to stderr; with `debug` all of them, tracebacks included."""
    handler = RichHandler(console=err, show_time=False, show_level=False, show_path=False)
    logger = logging.getLogger("cofinal")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


def one_sentence(error: Exception) -> str:
    """Return what an error says, on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
