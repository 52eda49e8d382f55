"""Read videos in another process: a file that crashes, hangs or bloats its decoder takes nothing else with it.

`Reader.probe` and `Reader.read_frames` do what those of `extractors.video` do. One process serves many videos. It is
started afresh (never forked, nor is the caller's script run in it, nor torch imported), and a new one takes over after
a crash, a stall, too much memory, or a number of videos, and where a decoder has leaked much.

Frames come through a ring of slots in shared memory. The process waits when all are full, so memory stays the same
however slow the consumer is.
"""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from .reader_process import (
    ALIVE,
    ERRORS,
    TIMES_AT_ONCE,
    allocated_bytes,
    array_from_json,
    array_to_json,
    facts_from_json,
    facts_to_json,
    memory_limit_bytes,
)
from .video import Limits, VideoError, VideoFacts

STALL_TIMEOUT_S, START_TIMEOUT_S, EXIT_TIMEOUT_S = 60.0, 60.0, 5.0

VIDEOS_A_PROCESS = 500

RING_BYTES = 32 * 2**20
"""Size of the ring, but for frames of which it would not hold two."""

MOST_SLOTS = 8

LONGEST_MESSAGE, MOST_FRAMES = 2**20, 2**25
"""In bytes; and three days of video at 120 frames a second. An answer with more makes no sense."""

SOURCE = "cofinal.extractors.video"
"""The module whose `probe` and `read_frames` the process runs; tests put one with faults in its place."""

START = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from cofinal.extractors.reader_process import serve; "
START += "serve(sys.argv[1])"


class ReaderError(VideoError):
    """Reading this video ended the process that read it."""


class Reader:
    """Reads videos, one at a time; to be closed, or used in a `with` statement.

    Args:
        limits: How large and long a video may be.
        stall_timeout_s: How long no frame (nor, in a scan, packet) may come until a video is given up.

    Raises:
        ValueError: The timeout is not positive.
    """

    def __init__(self, limits: Limits = Limits(), *, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        if not stall_timeout_s > 0:
            raise ValueError(f"stall-timeout must be more than 0 seconds, not {stall_timeout_s:g}.")
        self.limits = limits
        self.stall_timeout_s = stall_timeout_s
        self.concealed = (0, 0.0)
        """Of the video last read, in how many frames FFmpeg made up what is damaged, and seconds to the first one."""
        self._process: _Process | None = None
        self._num_videos = 0
        self._is_reading = False
        self._ring: SharedMemory | None = None
        self._ring_bytes = 0

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the process that reads, if one is running."""
        return self._process.popen.pid if self._process else None

    def probe(self, path: str | Path, *, by_decoding: bool = False, allow_partial: bool = False) -> VideoFacts:
        """What `extractors.video.probe` says of a file.

        Raises:
            ReaderError: It crashed, stalled or bloated the process.
            VideoError: As `extractors.video.probe`.
        """
        path = Path(path)
        self._num_videos += 1
        leaked = self._process is not None and self._process.leaked_bytes() > memory_limit_bytes() // 4
        if self._num_videos > VIDEOS_A_PROCESS or leaked:
            self._end_process()
        request = {"probe": str(path), "by_decoding": by_decoding, "allow_partial": allow_partial}
        with self._busy():
            self._send(path, request | {"limits": asdict(self.limits)})
            message = self._receive(path)
            with self._garbage_is_an_error(path):
                facts = facts_from_json(message["facts"])
                _must_be(min(len(facts.times), facts.width, facts.height) > 0 and len(facts.times) <= MOST_FRAMES)
            times = np.empty(len(facts.times))
            for start in range(0, len(times), TIMES_AT_ONCE):
                message = self._receive(path)
                with self._garbage_is_an_error(path):
                    times[start : start + TIMES_AT_ONCE] = array_from_json(message["times"], np.float64)
            with self._garbage_is_an_error(path):
                _must_be(bool(np.isfinite(times).all()))
        facts = replace(facts, times=times)
        self.limits.check_size(path, facts.width, facts.height)
        self.limits.check_duration(path, facts.duration_s)
        return facts

    def read_frames(
        self, facts: VideoFacts, decoder: str, *, wanted: np.ndarray, colours: str = "tagged"
    ) -> Iterator[np.ndarray]:
        """The frames wanted of a video.

        Args:
            facts: From `probe`.
            decoder: "decord" or "pyav".
            wanted: Ascending indices of frames.
            colours: One of `extractors.video.COLOURS`.

        Yields:
            (H, W, 3) uint8 RGB, in memory that is freed or used again once the next one is asked for.

        Raises:
            ReaderError: The file crashed, stalled or bloated the process.
            VideoError: As `extractors.video.read_frames`.
            ValueError: The system has too little shared memory.
        """
        path = facts.path
        ring = self._ring_for(path, facts.height * facts.width * 3)
        is_wanted = np.zeros(len(facts.times), bool)
        is_wanted[wanted] = True
        with self._busy():
            self._send(
                path,
                {
                    "read": facts_to_json(facts),
                    "decoder": decoder,
                    "wanted": array_to_json(np.packbits(is_wanted)),
                    "colours": colours,
                    "limits": asdict(self.limits),
                    "ring": ring,
                },
            )
            for _ in range(len(wanted)):
                message = self._receive(path)
                if "grow" in message:
                    with self._garbage_is_an_error(path):
                        _must_be(0 < message["grow"] <= 3 * self.limits.max_pixels)
                    ring = self._ring_for(path, message["grow"])
                    self._send(path, {"ring": ring})
                    message = self._receive(path)
                with self._garbage_is_an_error(path):
                    frame = self._frame(message, ring)
                yield frame
                self._send(path, {"free": message["slot"]})
            message = self._receive(path)
            with self._garbage_is_an_error(path):
                self.concealed = int(message["concealed"]), float(message["first_s"])

    def abandon(self) -> None:
        """End a reading that is under way, from any thread: whoever waits for its frames is woken by an error."""
        if self._is_reading and self._process:
            self._process.popen.kill()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """End the process if it is left in the middle of its work: its answers would be taken for those to come."""
        self._is_reading = True
        try:
            yield
            self._is_reading = False
        finally:
            if self._is_reading:
                self._end_process()

    def close(self) -> None:
        """End the process and free the shared memory."""
        self._end_process()
        self._free_ring()

    def _send(self, path: Path, message: dict[str, Any]) -> None:
        if self._process is None:
            self._process = _Process(SOURCE)
        with suppress(BrokenPipeError):  # it died, and why is found out when its answer is waited for
            self._process.send(message)

    def _receive(self, path: Path) -> dict[str, Any]:
        assert self._process is not None, "something was sent to it"
        try:
            line = self._process.receive(self.stall_timeout_s)
        except Empty:
            self._end_process()
            raise ReaderError(
                f"{path} is given up: nothing came out of it for {self.stall_timeout_s:g} s (--stall-timeout)."
            ) from None
        if not line:
            raise ReaderError(f"{path} crashed the process that read it ({self._end_process()}).")
        with self._garbage_is_an_error(path):
            message = json.loads(line)
            _must_be(isinstance(message, dict))
        if "kind" not in message:
            return message
        if message["kind"] in ERRORS:
            self._is_reading = False
            raise ERRORS[message["kind"]](message["error"])
        self._end_process()
        if message["kind"] == "memory":
            raise ReaderError(f"{path} takes more than {memory_limit_bytes() / 2**20:.0f} MiB of memory to read.")
        raise ReaderError(f"{path} cannot be read ({message.get('error')}).")

    @contextmanager
    def _garbage_is_an_error(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._end_process()
            raise ReaderError(f"{path} made the process that read it give answers without sense.") from error

    def _frame(self, message: dict[str, Any], ring: dict[str, Any]) -> np.ndarray:
        assert self._ring is not None
        slot, shape = message["slot"], (message["height"], message["width"], 3)
        _must_be(0 <= slot < ring["slots"] and min(shape) > 0 and shape[0] * shape[1] * 3 <= ring["slot_bytes"])
        return np.ndarray(shape, np.uint8, self._ring.buf, slot * ring["slot_bytes"])

    def _ring_for(self, path: Path, frame_bytes: int) -> dict[str, Any]:
        """The ring's name and slots for frames of this size."""
        size = max(RING_BYTES, 2 * frame_bytes)
        if self._ring is None or self._ring_bytes != size:
            self._free_ring()
            place = Path("/dev/shm")
            if place.is_dir() and (free := shutil.disk_usage(place).free) < size:
                raise ValueError(
                    f"{path} needs {size / 2**20:.0f} MiB of shared memory, and {place} has {free / 2**20:.0f} MiB "
                    "left: enlarge it (of a container, with --shm-size)."
                )
            try:
                self._ring, self._ring_bytes = SharedMemory(create=True, size=size), size
            except OSError as error:
                raise ValueError(
                    f"{path} needs {size / 2**20:.0f} MiB of shared memory, and the system gives none "
                    f"({error.strerror}): raise its limits (of the size of files, with ulimit -f)."
                ) from error
        return {
            "name": self._ring.name,
            "slots": min(MOST_SLOTS, size // frame_bytes),
            "slot_bytes": frame_bytes,
        }

    def _free_ring(self) -> None:
        if self._ring:
            self._ring.unlink()
            self._ring.close()
        self._ring = None

    def _end_process(self) -> str:
        """How the process ended, after it was made to."""
        how = self._process.end() if self._process else ""
        self._process, self._num_videos, self._is_reading = None, 0, False
        return how


def _must_be(condition: bool) -> None:
    if not condition:
        raise ValueError


class _Process:
    """The other process: messages to it, lines from it."""

    def __init__(self, source: str) -> None:
        # -P: what lies in the current folder is not imported unless the caller imports it, too
        command = [sys.executable, "-P", "-c", START, source, json.dumps(sys.path)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self.popen = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
        self._lines: Queue[bytes] = Queue(2 * MOST_SLOTS)
        self._at_end = False
        self._thread = threading.Thread(target=self._listen, name="reader-answers", daemon=True)
        self._thread.start()
        try:
            ready = b"ready" in self.receive(START_TIMEOUT_S)
        except Empty:
            ready = False
        if not ready:
            raise RuntimeError(f"The process that reads videos cannot be started ({self.end()}): {' '.join(command)}")
        self._bytes_at_start = allocated_bytes(self.popen.pid)

    def leaked_bytes(self) -> int:
        """How much more it has allocated, between two videos, than when it was new."""
        return allocated_bytes(self.popen.pid) - self._bytes_at_start

    def send(self, message: dict[str, Any]) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(message).encode() + b"\n")
        self.popen.stdin.flush()

    def receive(self, timeout_s: float) -> bytes:
        """Its next line; empty at its end.

        Raises:
            Empty: It gave no sign of life for so long.
        """
        while (line := self._lines.get(timeout=timeout_s)) == ALIVE:
            pass
        self._at_end = not line
        return line

    def end(self) -> str:
        """Kill it if it lives, and say how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(EXIT_TIMEOUT_S if self._at_end else 0)
        self.popen.kill()
        deadline = time.monotonic() + EXIT_TIMEOUT_S  # it may be stuck in the kernel, say on a dead network drive
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(EXIT_TIMEOUT_S)
        while self._thread.is_alive() and time.monotonic() < deadline:
            with suppress(Empty):
                self._lines.get(timeout=0.01)
        assert self.popen.stdin is not None
        with suppress(OSError):
            self.popen.stdin.close()
        code = self.popen.returncode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"

    def _listen(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as answers:
            while line := answers.readline(LONGEST_MESSAGE):
                self._lines.put(line)
        self._lines.put(b"")
