"""Console output: progress and messages go to stderr, results to stdout, and each kind of ending has its exit code."""

import functools
import logging
import os
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..data.files import WriteError
from ..extractors.video import VideoError

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

LINE_INTERVAL_S, LONGEST_LINE_INTERVAL_S = 5.0, 60.0
"""Seconds between two progress lines at first, and in a run of hours."""
SPEED_PERIOD_S = 300.0
"""The time left is estimated from the speed of the last five minutes: rich's 30 s are less than one slow step."""


def print_message(message: str) -> None:
    """Print a message on stderr, on one line, with all escaped that a file name in it could do to a terminal."""
    err.print(printable(message), markup=False)


def print_result(result: str) -> None:
    """Print a result on stdout, escaped as in `print_message`."""
    out.print(printable(result), markup=False)


def print_table(table: Table) -> None:
    """Print a table on stdout, wide enough for all its columns."""
    out.width = max(out.width, out.measure(table, options=out.options.update_width(1000)).maximum)
    out.print(table, crop=False)


def printable(text: str) -> str:
    """Return a text in which line ends, control codes and stray bytes are escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def progress(unit: str = "") -> Progress:
    """Return a progress display on stderr, to be used in a `with` statement.

    A terminal shows a bar. Elsewhere (a log file, a pipe) a plain line appears every few seconds.

    Args:
        unit: what a task's `completed` and `total` count, in the plural; empty if nothing can be counted.
    """
    if not err.is_terminal:
        return _ProgressLines(unit)
    counts = (MofNCompleteColumn(), TextColumn(unit)) if unit else ()
    time_left = (TextColumn("left"), TimeRemainingColumn()) if unit else ()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *counts,
        TimeElapsedColumn(),
        *time_left,
        console=err,
        transient=True,
        redirect_stdout=False,  # results stay on stdout, also while a bar is shown
        speed_estimate_period=SPEED_PERIOD_S,
    )


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show that a step is going on of which no part can be counted."""
    with progress() as bar:
        bar.add_task(printable(description), total=None)
        yield


class _ProgressLines(Progress):
    """Progress as plain lines: `rendering: 12 of 100 routines, 40 s left`.

    A thread prints them, so that they come even during a step that takes minutes.
    """

    def __init__(self, unit: str) -> None:
        super().__init__(console=err, disable=True, speed_estimate_period=SPEED_PERIOD_S)
        self.unit = unit
        self._stopped = threading.Event()
        self._printer = threading.Thread(target=self._print_lines, daemon=True)

    def start(self) -> None:
        self._printer.start()

    def stop(self) -> None:
        self._stopped.set()
        self._printer.join()

    def _print_lines(self) -> None:
        started = time.monotonic()
        interval_s = LINE_INTERVAL_S
        with suppress(OSError):  # nobody reads stderr any more; that must not stop the work
            while not self._stopped.wait(interval_s):
                for task in self.tasks:
                    if not task.finished:
                        print(printable(self._line(task)), file=sys.stderr, flush=True)
                # the log of a long run stays short
                interval_s = min(max(LINE_INTERVAL_S, (time.monotonic() - started) / 20), LONGEST_LINE_INTERVAL_S)

    def _line(self, task: Task) -> str:
        if task.total is None:
            return f"{task.description}: {format_duration(task.elapsed or 0)} so far"
        time_left = f", {format_duration(task.time_remaining)} left" if task.time_remaining is not None else ""
        return f"{task.description}: {int(task.completed)} of {int(task.total)} {self.unit}{time_left}"


def format_span(span: Sequence[float]) -> str:
    """Return a span of points: `3.24 to 6.10`."""
    return f"{span[0]:.2f} to {span[1]:.2f}"


def format_duration(seconds: float) -> str:
    """Return a duration in the unit that fits: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ends_well(command: Callable[..., int | None]) -> Callable[..., None]:
    """Make a command end with the right exit code, and with one sentence instead of a traceback.

    The exit codes are 0 done; 1 some or all videos failed (the command's return value, or a VideoError), or the disk
    failed (WriteError); 2 usage or input error; 130 interrupted. The command's `debug` option shows tracebacks too.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        _set_up_logging(bool(kwargs.get("debug")))
        try:
            code = command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            print_message(f"interrupted: {interrupt}" if str(interrupt) else "interrupted")
            code = 130
        except BrokenPipeError:
            # the reader of stdout has gone: without this, Python's flush at exit would fail with a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:
            if kwargs.get("debug"):
                err.print_exception()
            if isinstance(error, ValueError | OSError | WriteError):
                print_message(f"error: {one_sentence(error)}")
                code = 1 if isinstance(error, VideoError | WriteError) else 2
            else:
                fault = f"{type(error).__name__}: {one_sentence(error)}"
                print_message(f"error: a fault of this program, {fault}; --debug shows where")
                code = 1
        raise SystemExit(code or 0)

    return run


@contextmanager
def stops_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, which job systems and `kill` send, do what Ctrl-C does; for the main thread."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _set_up_logging(debug: bool) -> None:
    """Send this program's log messages to stderr; with `debug` all of them, tracebacks included."""
    handler = RichHandler(console=err, show_time=False, show_level=False, show_path=False)
    logger = logging.getLogger("cofinal")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


def one_sentence(error: Exception) -> str:
    """Return an error's message on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
