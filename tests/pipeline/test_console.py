"""Progress where stderr is no terminal: plain lines, few of them, and nothing that could stop the work."""

import re
import subprocess
import sys

import pytest
from rich.console import Console

from cofinal.pipeline import console
from cofinal.pipeline.console import format_duration

WORK = """
import sys, time
from cofinal.pipeline import console
console.LINE_INTERVAL_S = float(sys.argv[1])
with console.progress("routines") as bar:
    task = bar.add_task("rendering", total=100)
    for _ in range(12):
        time.sleep(0.05)
        bar.advance(task)
    time.sleep(0.9)
with console.progress() as bar:
    bar.add_task("opening\\nthe store", total=None)
    time.sleep(0.9)
print("done")
"""


def work(interval_s: float) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", WORK, str(interval_s)], capture_output=True, text=True, check=True)


def test_a_pipe_gets_a_line_now_and_then() -> None:
    run = work(0.4)
    assert run.stdout == "done\n"
    lines = run.stderr.splitlines()
    rendering = [line for line in lines if line.startswith("rendering: ")]
    assert 2 <= len(rendering) <= 4
    assert all(re.fullmatch(r"rendering: \d+ of 100 routines(, \d+ s left)?", line) for line in rendering)
    assert re.fullmatch(r"rendering: 12 of 100 routines, \d+ s left", rendering[-1])
    assert set(lines) - set(rendering) <= {rf"opening\nthe store: {seconds} s so far" for seconds in range(3)}
    assert len(lines) > len(rendering)


def test_work_shorter_than_the_interval_prints_nothing() -> None:
    assert work(60).stderr == ""


def test_work_goes_on_when_nobody_reads_stderr() -> None:
    command = [sys.executable, "-c", WORK, "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stderr.close()
        assert run.stdout.read() == "done\n"
    assert run.returncode == 0


@pytest.mark.parametrize(("seconds", "text"), [(40.2, "40 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_results_stay_on_stdout_while_a_terminal_shows_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=True))
    with console.progress("videos") as bar:
        bar.add_task("scoring", total=2)
        console.print_result("v.mp4 9.5")
    said = capsys.readouterr()
    assert said.out == "v.mp4 9.5\n"
    assert "scoring" in said.err
