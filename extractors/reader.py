"""Read videos in another process, so that a file that crashes, hangs or bloats its decoder harms only this process.

`Reader.probe` and `Reader.read_frames` do the same as the functions of `extractors.probing` and `extractors.decoders`.
One process reads many videos. It starts as a new Python interpreter: it is not forked, does not run the caller's script
and does not import torch. A new process replaces it after a crash, a stall, too much memory, `VIDEOS_A_PROCESS` videos,
or a large memory leak.

Frames come through a ring of slots in shared memory. The process waits while all slots are full, so that memory stays
constant however slow the consumer is.
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

from .memory import most_decoder_bytes, process_limit_bytes, suitable_decoder_bytes
from .reader_process import (
    ERRORS,
    HEARTBEAT,
    TIMES_AT_ONCE,
    allocated_bytes,
    array_from_json,
    array_to_json,
    facts_from_json,
    facts_to_json,
)
from .video import Limits, VideoError, VideoFacts

STALL_TIMEOUT_S, START_TIMEOUT_S, EXIT_TIMEOUT_S = 60.0, 60.0, 5.0

VIDEOS_A_PROCESS = 500

RING_BYTES = 32 * 2**20
"""Size of the ring; for frames so large that it would not hold two, the size of two frames."""

MAX_SLOTS = 8

MAX_MESSAGE_BYTES = 2**20
"""An answer with more is invalid."""

MAX_FRAMES = 2**25
"""Three days of video at 120 frames per second; an answer with more is invalid."""

SOURCE = "cofinal.extractors.decoders"
"""The module whose `probe` and `read_frames` the process runs; tests replace it by one with faults."""

START = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from cofinal.extractors.reader_process import serve; "
START += "serve(sys.argv[1])"


class ReaderError(VideoError):
    """Reading this video ended the reading process, or had to be stopped."""


class Reader:
    """Reads videos, one at a time. Close it after use, or use it in a `with` statement.

    Args:
        limits: how large and long a video may be.
        stall_timeout_s: seconds without a frame (without a packet during a scan) after which a video is given up.
        decoder_bytes: how much decord may decode at once; None for what suits one reader on this machine.

    Raises:
        ValueError: the timeout is not positive, or the decoder's memory is too large.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        *,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        decoder_bytes: int | None = None,
    ) -> None:
        if not stall_timeout_s > 0:
            raise ValueError(f"stall-timeout must be more than 0 seconds, not {stall_timeout_s:g}")
        self.decoder_bytes = suitable_decoder_bytes() if decoder_bytes is None else decoder_bytes
        if not 0 <= self.decoder_bytes <= most_decoder_bytes():
            raise ValueError(
                f"decoder-memory must be from 0 to {most_decoder_bytes() / 2**20:.0f} MiB, half of what a process that "
                f"reads videos may allocate, not {self.decoder_bytes / 2**20:.0f}"
            )
        self.limits = limits
        self.stall_timeout_s = stall_timeout_s
        self.concealed = (0, 0.0)
        """For the last video: the number of frames in which FFmpeg concealed damage, and the time of the first in s."""
        self._probed: tuple[object, VideoFacts] | None = None  # the last video that is cut
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
        """Process id of the reading process, if it runs."""
        return self._process.popen.pid if self._process else None

    def probe(
        self,
        path: str | Path,
        *,
        by_decoding: bool = False,
        allow_partial: bool = False,
        allow_gaps: bool = False,
        fps: float | None = None,
        is_cut: bool = False,
    ) -> VideoFacts:
        """The same as `extractors.decoders.probe`.

        With `is_cut` the facts are kept for the next call, which may be for another segment of the same video.

        Raises:
            ReaderError: the file crashed, stalled or bloated the process.
            VideoError: as in `extractors.decoders.probe`.
        """
        path = Path(path)
        request = (path, _modified(path), by_decoding, allow_partial, allow_gaps, fps) if is_cut else None
        if is_cut and self._probed is not None and self._probed[0] == request:
            return self._probed[1]
        self._num_videos += 1
        # a leak would be counted against the memory limit of later videos
        is_leaking = self._process is not None and self._process.leaked_bytes() > process_limit_bytes() // 4
        if self._num_videos > VIDEOS_A_PROCESS or is_leaking:
            self._end_process()
        with self._busy():
            self._send(
                path,
                {
                    "probe": str(path),
                    "by_decoding": by_decoding,
                    "allow_partial": allow_partial,
                    "allow_gaps": allow_gaps,
                    "fps": fps,
                    "limits": asdict(self.limits),
                },
            )
            message = self._receive(path)
            with self._checking_answer(path):
                facts = facts_from_json(message["facts"])
                _require(min(len(facts.times), facts.width, facts.height) > 0 and len(facts.times) <= MAX_FRAMES)
            times = np.empty(len(facts.times))
            for start in range(0, len(times), TIMES_AT_ONCE):
                message = self._receive(path)
                with self._checking_answer(path):
                    times[start : start + TIMES_AT_ONCE] = array_from_json(message["times"], np.float64)
            with self._checking_answer(path):
                _require(bool(np.isfinite(times).all()))
        facts = replace(facts, times=times)
        # once more, because a file may have taken over the process that has checked them
        self.limits.check_size(path, facts.width, facts.height)
        self.limits.check_duration(path, facts.duration_s)
        self._probed = (request, facts) if is_cut else None
        return facts

    def read_frames(
        self,
        facts: VideoFacts,
        decoder: str,
        *,
        wanted: np.ndarray,
        seek_times: np.ndarray | None = None,
        colours: str = "tagged",
        deinterlace: bool = False,
    ) -> Iterator[np.ndarray]:
        """Read the wanted frames of a video.

        Args:
            facts: from `probe`.
            decoder: "decord" or "pyav".
            wanted: ascending indices of frames.
            seek_times: seconds at which the frames from the first wanted one to the last one are shown; these only are
                then read, from the key frame before them.
            colours: one of `extractors.decoders.COLOURS`.
            deinterlace: interpolate the frames of an interlaced video.

        Yields:
            (H, W, 3) uint8 RGB, in memory that is freed or reused when the next frame is asked for.

        Raises:
            ReaderError: the file crashed, stalled or bloated the process.
            VideoError: as in `extractors.decoders.read_frames`.
            ValueError: the system has too little shared memory.
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
                    "seek_times": None if seek_times is None else array_to_json(seek_times),
                    "colours": colours,
                    "deinterlace": deinterlace,
                    "memory_bytes": self.decoder_bytes,
                    "limits": asdict(self.limits),
                    "ring": ring,
                },
            )
            for _ in range(len(wanted)):
                message = self._receive(path)
                if "grow" in message:
                    with self._checking_answer(path):
                        _require(0 < message["grow"] <= 3 * self.limits.max_pixels)
                    ring = self._ring_for(path, message["grow"])  # frames may grow within a video, as in a broadcast
                    self._send(path, {"ring": ring})
                    message = self._receive(path)
                with self._checking_answer(path):
                    frame = self._frame(message, ring)
                yield frame
                self._send(path, {"free": message["slot"]})
            message = self._receive(path)
            with self._checking_answer(path):
                self.concealed = int(message["concealed"]), float(message["first_s"])

    def abandon(self) -> None:
        """Stop the current reading, from any thread; the thread that waits for its frames gets an error."""
        if self._is_reading and self._process:
            self._process.popen.kill()  # its output ends, which wakes `_receive`

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """End the process if reading stops midway: its late answers would be taken for those to later requests."""
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
        with suppress(BrokenPipeError):  # the process has died; `_receive` finds out why
            self._process.send(message)

    def _receive(self, path: Path) -> dict[str, Any]:
        """Wait for the next answer; an error in it is raised here."""
        assert self._process is not None, "a request was sent"
        try:
            line = self._process.receive(self.stall_timeout_s)
        except Empty:
            self._end_process()
            raise ReaderError(
                f"{path} is given up: no frame came for {self.stall_timeout_s:g} s (--stall-timeout)"
            ) from None
        if not line:
            raise ReaderError(f"{path} crashed the process that read it ({self._end_process()})")
        with self._checking_answer(path):
            message = json.loads(line)
            _require(isinstance(message, dict))
        if "kind" not in message:
            return message
        if message["kind"] in ERRORS:
            self._is_reading = False  # the process is ready for the next request
            raise ERRORS[message["kind"]](message["error"])
        self._end_process()
        if message["kind"] == "memory":
            raise ReaderError(f"{path} takes more than {process_limit_bytes() / 2**20:.0f} MiB of memory to read")
        raise ReaderError(f"{path} cannot be read ({message.get('error')})")

    @contextmanager
    def _checking_answer(self, path: Path) -> Iterator[None]:
        """Turn an error from an invalid answer into a ReaderError and end the process."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._end_process()
            raise ReaderError(f"{path} made the process that read it send invalid answers") from error

    def _frame(self, message: dict[str, Any], ring: dict[str, Any]) -> np.ndarray:
        """The frame in the slot that an answer names."""
        assert self._ring is not None
        slot, shape = message["slot"], (message["height"], message["width"], 3)
        _require(0 <= slot < ring["slots"] and min(shape) > 0 and shape[0] * shape[1] * 3 <= ring["slot_bytes"])
        return np.ndarray(shape, np.uint8, self._ring.buf, slot * ring["slot_bytes"])

    def _ring_for(self, path: Path, frame_bytes: int) -> dict[str, Any]:
        """The ring's name and slots for frames of this size; the ring is replaced if it has the wrong size."""
        size = max(RING_BYTES, 2 * frame_bytes)
        if self._ring is None or self._ring_bytes != size:
            self._free_ring()
            shm = Path("/dev/shm")
            # Linux grants more than there is and kills the process that writes to it
            if shm.is_dir() and (free_bytes := shutil.disk_usage(shm).free) < size:
                raise ValueError(
                    f"{path} needs {size / 2**20:.0f} MiB of shared memory, and {shm} has {free_bytes / 2**20:.0f} MiB "
                    "left: enlarge it (in a container with --shm-size)"
                )
            try:
                self._ring, self._ring_bytes = SharedMemory(create=True, size=size), size
            except OSError as error:
                raise ValueError(
                    f"{path} needs {size / 2**20:.0f} MiB of shared memory, and the system gives none "
                    f"({error.strerror}): raise its limits (that of the file size with ulimit -f)"
                ) from error
        return {
            "name": self._ring.name,
            "slots": min(MAX_SLOTS, size // frame_bytes),
            "slot_bytes": frame_bytes,
        }

    def _free_ring(self) -> None:
        if self._ring:
            self._ring.unlink()
            self._ring.close()
        self._ring = None

    def _end_process(self) -> str:
        """End the process and return how it ended."""
        how = self._process.end() if self._process else ""
        self._process, self._num_videos, self._is_reading = None, 0, False
        return how


def _modified(path: Path) -> int | None:
    """When a file was last changed, in ns; None if it cannot be looked at."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def _require(is_valid: bool) -> None:
    """Raise the ValueError that `Reader._checking_answer` expects."""
    if not is_valid:
        raise ValueError


class _Process:
    """The reading process, with its input and output."""

    def __init__(self, source: str) -> None:
        # -P: the current folder is not searched for modules, unless it is on the caller's `sys.path`, which START sets
        # import ignores what is not a string, such as a `Path`
        folders = json.dumps([folder for folder in sys.path if isinstance(folder, str)])
        command = [sys.executable, "-P", "-c", START, source, folders]
        pipe, devnull = subprocess.PIPE, subprocess.DEVNULL
        self.popen = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=devnull)
        # a thread reads the output, because a pipe cannot be read with a timeout on every system
        self._lines: Queue[bytes] = Queue(2 * MAX_SLOTS)
        self._at_end = False
        self._thread = threading.Thread(target=self._listen, name="reader-answers", daemon=True)
        self._thread.start()
        try:
            is_ready = b"ready" in self.receive(START_TIMEOUT_S)
        except Empty:
            is_ready = False
        if not is_ready:
            raise RuntimeError(f"the process that reads videos cannot be started ({self.end()}): {' '.join(command)}")
        self._bytes_at_start = allocated_bytes(self.popen.pid)

    def leaked_bytes(self) -> int:
        """How much more the process has allocated than at its start; asked between two videos."""
        return allocated_bytes(self.popen.pid) - self._bytes_at_start

    def send(self, message: dict[str, Any]) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(message).encode() + b"\n")
        self.popen.stdin.flush()

    def receive(self, timeout_s: float) -> bytes:
        """The next line of the process's output, other than a heartbeat; empty after the process has ended.

        Raises:
            Empty: neither a line nor a heartbeat came in time.
        """
        while (line := self._lines.get(timeout=timeout_s)) == HEARTBEAT:
            pass
        self._at_end = not line
        return line

    def end(self) -> str:
        """Kill the process if it lives, and return how it ended."""
        with suppress(subprocess.TimeoutExpired):
            # after the end of its output it is about to exit by itself, with the code that a message shows
            self.popen.wait(EXIT_TIMEOUT_S if self._at_end else 0)
        self.popen.kill()
        deadline = time.monotonic() + EXIT_TIMEOUT_S  # a process can be stuck in the kernel, as on a dead network drive
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(EXIT_TIMEOUT_S)
        while self._thread.is_alive() and time.monotonic() < deadline:  # empty the queue, or the thread cannot end
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
            while line := answers.readline(MAX_MESSAGE_BYTES):
                self._lines.put(line)
        self._lines.put(b"")
