"""One process holds a lock; the lock names it and ends with it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cofinal.data import lock as lock_module
from cofinal.data.lock import Lock, LockedError

HOLDER = """
import sys, time
from pathlib import Path
from cofinal.data.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_another_process_is_named_and_its_lock_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):  # a refusal changes nothing
            with pytest.raises(LockedError, match=rf"process {holder.pid} on \S+, since 20\d\d-\d\d-\d\d \d\d:\d\d"):
                Lock(path).acquire()
        holder.send_signal(signal.SIGKILL)
    assert Lock(path).acquire()


def test_a_lock_excludes_its_own_process_too(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    first.acquire()
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        second.acquire()
    first.release()
    assert (tmp_path / ".lock").read_bytes() == b""
    second.acquire()
    second.release()
    second.release()


def test_a_holder_whose_name_is_not_written_yet(tmp_path: Path) -> None:
    first = Lock(tmp_path / ".lock")
    first.acquire()
    for content in (b"", b"{", b"[]", b"{}"):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(LockedError, match="another process"):
            Lock(tmp_path / ".lock").acquire()


def test_a_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module, "_lock", refuse)
    assert Lock(tmp_path / ".lock").acquire() is False
