"""serve-scores as a process of its own, for tests."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen
    url: str
    said: list[str]
    """Lines of its stderr."""

    def kill(self) -> None:
        """End it as kill -9 does."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


@contextmanager
def serving(head: Path, data: Path, *options: object) -> Iterator[Server]:
    """Start serve-scores on a free port, and kill it at the end."""
    command = [sys.executable, "-c", "from cofinal.pipeline.cli import serve_scores_command as serve; serve()"]
    arguments = ["--head", head, "--data", data, "--port", 0, *options]
    # a shell starts background processes, and so perhaps these tests, with SIGINT ignored
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"open (http://\S+/)", line):
                Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
                yield Server(process, found[1], said)
                break
        else:
            raise AssertionError("".join(said))
    finally:
        process.kill()
        process.wait()
