"""extract-features in a process that kills itself at a chosen moment of writing; test_interruptions.py runs it.

    python dying_run.py SIGNAL MOMENT:N ARGUMENT...

MOMENT is `write` (in the middle of writing to a new or growing file), `fsync` or `replace` (just before such a call),
`replaced` (just after), or `NAME read`, where a video of that name is about to be read. The N-th moment of that kind
raises the signal.
"""

import io
import os
import signal
import sys
from pathlib import Path

from cofinal.extractors import reading_threads
from cofinal.pipeline.cli import extract_features_command

counts: dict[str, int] = {}


def reached(moment: str) -> None:
    """Count a moment, and send the signal if it is the chosen one."""
    counts[moment] = counts.get(moment, 0) + 1
    if f"{moment}:{counts[moment]}" == chosen:
        os.kill(os.getpid(), chosen_signal)


class TornFile:
    """A file that counts a moment in the middle of every write."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        half = len(content) // 2
        self.file.write(content[:half])
        self.file.flush()
        reached("write")
        return half + self.file.write(content[half:])


def _open(file, mode="r", *args, _open=io.open, **kwargs):
    opened = _open(file, mode, *args, **kwargs)
    return TornFile(opened) if "x" in mode or "a" in mode else opened


def _fsync(descriptor, _fsync=os.fsync):
    reached("fsync")
    _fsync(descriptor)


def _replace(source, target, _replace=os.replace):
    reached("replace")
    _replace(source, target)
    reached("replaced")


def _read_video(task, *arguments, _read_video=reading_threads.read_video):
    reached(f"{Path(task.video.path).stem} read")
    return _read_video(task, *arguments)


if __name__ == "__main__":
    chosen_signal, chosen = signal.Signals[sys.argv[1]], sys.argv[2]
    io.open, os.fsync, os.replace = _open, _fsync, _replace  # what pathlib and data.files call
    reading_threads.read_video = _read_video
    sys.argv = ["extract-features", *sys.argv[3:]]
    extract_features_command()
