"""extract-features as a process that kills itself at a chosen moment of its writing; test_interruptions.py runs it.

    python dying_run.py SIGNAL MOMENT:N ARGUMENT...

Moments: `write` (half of what is written to a new or growing file has reached it), `fsync` and `replace` (just before
one), `replaced` (just after one). The N-th of that kind raises the signal.
"""

import io
import os
import signal
import sys

from cofinal.pipeline.cli import extract_features_command

counts: dict[str, int] = {}


def reached(moment: str) -> None:
    """Count a moment, and raise the signal if it is the chosen one."""
    counts[moment] = counts.get(moment, 0) + 1
    if f"{moment}:{counts[moment]}" == chosen:
        os.kill(os.getpid(), chosen_signal)


class TornFile:
    """A file whose chosen write stops half-way."""

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


if __name__ == "__main__":
    chosen_signal, chosen = signal.Signals[sys.argv[1]], sys.argv[2]
    io.open, os.fsync, os.replace = _open, _fsync, _replace  # what pathlib and data.files call
    sys.argv = ["extract-features", *sys.argv[3:]]
    extract_features_command()
