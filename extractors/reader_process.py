"""The process that opens video files, so that no file can harm the process that runs the backbone.

`extractors.reader` starts it. It reads requests as lines of JSON from its standard input, writes answers as lines of
JSON to its standard output, and puts frames into shared memory. Arrays are sent as base64, so the parent never executes
anything that comes from here.

    request                                                    answers
    {"probe": path, "limits", "by_decoding", "allow_partial",  {"facts"} with the number of times in their place, then
     "allow_gaps", "fps"}                                      {"times"} of `TIMES_AT_ONCE` frames each; or {"error",
                                                               "kind"}
    {"read": facts, "decoder", "wanted", "seek_times",         {"slot", "height", "width"} for each wanted frame, then
     "colours", "deinterlace", "memory_bytes", "limits",       {"concealed", "first_s"}; or {"error", "kind"}.
     "ring"}                                                   {"grow": bytes} if a frame is too large for a slot; the
                                                               parent then sends a larger {"ring"}
    {"free": slot}

It sends {"heartbeat"} while it works. It ends with its standard input, so it ends with its parent even if that is
killed.
"""

import base64
import gc
import json
import os
import signal
import sys
import threading
import time
from importlib import import_module
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO

import numpy as np

from .memory import process_limit_bytes
from .video import BrokenError, Limits, UnfaithfulError, VideoError, VideoFacts

TIMES_AT_ONCE = 4096

HEARTBEAT, HEARTBEAT_EVERY_S = b'{"heartbeat": true}\n', 0.1

ERRORS = {"broken": BrokenError, "unfaithful": UnfaithfulError, "video": VideoError}


def serve(source: str) -> None:
    """Answer requests until standard input ends.

    Args:
        source: the module whose `probe` and `read_frames` are used.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        # terminals and job systems send it to both processes; the parent handles it
        signal.signal(stop, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that a library's prints do not mix with the answers
    requests: Queue[dict[str, Any]] = Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    # the parent frees the shared memory, so Python must not track it here; from 3.13 on `SharedMemory(track=False)`
    resource_tracker.register = lambda name, rtype: None
    process = _ReaderProcess(import_module(source), requests, answers)
    _limit_memory()
    process.send({"ready": os.getpid()})
    while True:
        process.answer(requests.get())


def _listen(requests: "Queue[dict[str, Any]]") -> None:
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)  # the parent is gone; `sys.exit` would wait for the main thread, which may hang in a decoder


class _ReaderProcess:
    """Answers requests with the functions of the module `source`."""

    def __init__(self, source: Any, requests: "Queue[dict[str, Any]]", answers: BinaryIO) -> None:
        self._source, self._requests, self._answers = source, requests, answers
        self._last_heartbeat = 0.0
        self._memory: SharedMemory | None = None

    def send(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()

    def answer(self, request: dict[str, Any]) -> None:
        if "free" in request:  # a late message of a reading that ended with an error
            return
        try:
            (self._probe if "probe" in request else self._read)(request)
        except VideoError as error:
            # `ERRORS` lists VideoError last, because it is the base class of the others
            kind = next(kind for kind, error_class in ERRORS.items() if isinstance(error, error_class))
            self.send({"error": str(error), "kind": kind})
        except MemoryError:
            self.send({"kind": "memory"})
        except Exception as error:
            self.send({"error": f"{type(error).__name__}: {error}", "kind": "fault"})

    def _probe(self, request: dict[str, Any]) -> None:
        gc.collect()  # frees the frames that `video.orientation` has kept alive
        facts = self._source.probe(
            Path(request["probe"]),
            Limits(**request["limits"]),
            by_decoding=request["by_decoding"],
            allow_partial=request["allow_partial"],
            allow_gaps=request["allow_gaps"],
            fps=request["fps"],
            heartbeat=self._heartbeat,
        )
        self.send({"facts": facts_to_json(facts)})
        for start in range(0, len(facts.times), TIMES_AT_ONCE):  # long messages would fragment both heaps
            self.send({"times": array_to_json(facts.times[start : start + TIMES_AT_ONCE])})

    def _read(self, request: dict[str, Any]) -> None:
        ring = self._open_ring(request["ring"])
        free = list(range(ring["slots"]))
        facts = facts_from_json(request["read"])
        is_wanted = np.unpackbits(array_from_json(request["wanted"], np.uint8), count=len(facts.times)).astype(bool)
        concealed_s: list[float] = []
        for _, frame in self._source.read_frames(
            facts,
            request["decoder"],
            wanted=is_wanted,
            seek_times=array_from_json(request["seek_times"], np.float64) if request["seek_times"] else None,
            colours=request["colours"],
            deinterlace=request["deinterlace"],
            memory_bytes=request["memory_bytes"],
            limits=Limits(**request["limits"]),
            heartbeat=self._heartbeat,
            on_concealed=concealed_s.append,
        ):
            if frame.nbytes > ring["slot_bytes"]:
                self.send({"grow": frame.nbytes})
                ring = self._open_ring(self._wait("ring"))
                free = list(range(ring["slots"]))
            slot = free.pop() if free else self._wait("free")
            assert self._memory is not None
            target = np.ndarray(frame.shape, np.uint8, self._memory.buf, slot * ring["slot_bytes"])
            np.copyto(target, frame, casting="no")
            del target  # shared memory cannot be closed while an array refers to it
            self.send({"slot": slot, "height": frame.shape[0], "width": frame.shape[1]})
        self.send({"concealed": len(concealed_s), "first_s": min(concealed_s, default=0.0)})

    def _wait(self, key: str) -> Any:
        """The value that the parent sends under this key."""
        # while a new ring is awaited, this skips the slots that are freed in the old one
        while key not in (request := self._requests.get()):
            pass
        return request[key]

    def _heartbeat(self) -> None:
        now = time.monotonic()
        if now - self._last_heartbeat > HEARTBEAT_EVERY_S:
            self._last_heartbeat = now
            self._answers.write(HEARTBEAT)
            self._answers.flush()

    def _open_ring(self, ring: dict[str, Any]) -> dict[str, Any]:
        """Open the shared memory of a ring unless it is open, and return the ring."""
        if self._memory is None or self._memory.name != ring["name"]:
            if self._memory:
                self._memory.close()
            self._memory = SharedMemory(ring["name"])
        return ring


def _limit_memory() -> None:
    """Limit what this process may allocate, where the system can: an allocation beyond fails with a MemoryError."""
    allocated = allocated_bytes(os.getpid())
    if not allocated:
        return
    import resource  # does not exist on Windows

    limit = allocated + process_limit_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def allocated_bytes(pid: int) -> int:
    """How much memory a process has allocated; 0 if unknown, on systems other than Linux."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in status if line.startswith("VmData:")), 0)


def array_to_json(array: np.ndarray) -> str:
    """The array's bytes as base64."""
    return base64.b64encode(array.tobytes()).decode()


def array_from_json(text: str, dtype: type[np.generic]) -> np.ndarray:
    """A one-dimensional array from its bytes as base64."""
    return np.frombuffer(base64.b64decode(text), dtype)


def facts_to_json(facts: VideoFacts) -> dict[str, Any]:
    """A file's facts for the other process, with the number of frames in place of their times."""
    return vars(facts) | {"path": str(facts.path), "times": len(facts.times)}


def facts_from_json(facts: dict[str, Any]) -> VideoFacts:
    """The inverse of `facts_to_json`; the times are NaN, in an array that takes no memory."""
    return VideoFacts(**facts | {"path": Path(facts["path"]), "times": np.broadcast_to(np.nan, facts["times"])})
