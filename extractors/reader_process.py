"""The process that opens video files, so that no file can do harm to the one that runs the backbone.

It is started by `extractors.reader`, takes requests as lines of JSON on its standard input, answers in lines of JSON on
its standard output, and puts frames into shared memory. Arrays travel as base64 of their bytes, so nothing that comes
from here is ever executed.

    request                                                    answers
    {"probe": path, "limits", "by_decoding", "allow_partial"}  {"facts"}, of times only their number, then {"times"} of
                                                               so many frames at once; or {"error", "kind"}
    {"read": facts, "decoder", "wanted", "colours",            {"slot", "height", "width"} for each frame wanted, then
     "limits", "ring"}                                         {"concealed"} or {"error", "kind"}; {"grow": bytes} if a
                                                               frame is too large for a slot, to be answered with a
                                                               {"ring"}
    {"free": slot}

It sends {"alive"} while it works. It ends when its standard input does, that is with its parent, however that died.
"""

import base64
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

from .video import BrokenError, Limits, UnfaithfulError, VideoError, VideoFacts

MEMORY_BYTES = 4 * 2**30
"""Most that reading may allocate, where the system can enforce it (Linux); half of the machine's if that is less."""

TIMES_AT_ONCE = 4096

ALIVE, ALIVE_EVERY_S = b'{"alive": true}\n', 0.1

ERRORS = {"broken": BrokenError, "unfaithful": UnfaithfulError, "video": VideoError}


def serve(source: str) -> None:
    """Answer requests until standard input ends.

    Args:
        source: The module whose `probe` and `read_frames` are used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    requests: Queue[dict[str, Any]] = Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    # the segment is the parent's; from Python 3.13 on this is `SharedMemory(track=False)`
    resource_tracker.register = lambda name, rtype: None
    process = _ReaderProcess(import_module(source), requests, answers)
    _limit_memory()
    process.send({"ready": os.getpid()})
    while True:
        process.answer(requests.get())


def _listen(requests: "Queue[dict[str, Any]]") -> None:
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)  # the parent is gone; the main thread may hang in a decoder


class _ReaderProcess:
    def __init__(self, video: Any, requests: "Queue[dict[str, Any]]", answers: BinaryIO) -> None:
        self._video, self._requests, self._answers = video, requests, answers
        self._last_alive = 0.0
        self._memory: SharedMemory | None = None

    def send(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()

    def answer(self, request: dict[str, Any]) -> None:
        if "free" in request:  # of a reading that ended before it was freed
            return
        try:
            (self._probe if "probe" in request else self._read)(request)
        except VideoError as error:
            kind = next(kind for kind, error_class in ERRORS.items() if isinstance(error, error_class))
            self.send({"error": str(error), "kind": kind})
        except MemoryError:
            self.send({"kind": "memory"})
        except Exception as error:
            self.send({"error": f"{type(error).__name__}: {error}", "kind": "fault"})

    def _probe(self, request: dict[str, Any]) -> None:
        facts = self._video.probe(
            Path(request["probe"]),
            Limits(**request["limits"]),
            by_decoding=request["by_decoding"],
            allow_partial=request["allow_partial"],
            alive=self._alive,
        )
        self.send({"facts": facts_to_json(facts)})
        for start in range(0, len(facts.times), TIMES_AT_ONCE):  # long messages would leave holes in the heaps
            self.send({"times": array_to_json(facts.times[start : start + TIMES_AT_ONCE])})

    def _read(self, request: dict[str, Any]) -> None:
        ring = self._open_ring(request["ring"])
        free = list(range(ring["slots"]))
        facts = facts_from_json(request["read"])
        is_wanted = np.unpackbits(array_from_json(request["wanted"], np.uint8), count=len(facts.times)).astype(bool)
        concealed_s: list[float] = []  # few, or the video is hardly worth watching
        for _, frame in self._video.read_frames(
            facts,
            request["decoder"],
            wanted=is_wanted,
            colours=request["colours"],
            limits=Limits(**request["limits"]),
            alive=self._alive,
            concealed=concealed_s.append,
        ):
            if frame.nbytes > ring["slot_bytes"]:
                self.send({"grow": frame.nbytes})
                ring = self._open_ring(self._wait("ring"))
                free = list(range(ring["slots"]))
            slot = free.pop() if free else self._wait("free")
            assert self._memory is not None
            target = np.ndarray(frame.shape, np.uint8, self._memory.buf, slot * ring["slot_bytes"])
            np.copyto(target, frame, casting="no")
            del target  # or the segment could not be closed
            self.send({"slot": slot, "height": frame.shape[0], "width": frame.shape[1]})
        self.send({"concealed": len(concealed_s), "first_s": min(concealed_s, default=0.0)})

    def _wait(self, key: str) -> Any:
        """What the parent sends under this key; slots that it frees meanwhile are those of a ring that is given up."""
        while key not in (request := self._requests.get()):
            pass
        return request[key]

    def _alive(self) -> None:
        now = time.monotonic()
        if now - self._last_alive > ALIVE_EVERY_S:
            self._last_alive = now
            self._answers.write(ALIVE)
            self._answers.flush()

    def _open_ring(self, ring: dict[str, Any]) -> dict[str, Any]:
        if self._memory is None or self._memory.name != ring["name"]:
            if self._memory:
                self._memory.close()
            self._memory = SharedMemory(ring["name"])
        return ring


def _limit_memory() -> None:
    """Let this process allocate so much and no more: what asks for more is told that there is none."""
    used = allocated_bytes(os.getpid())
    if not used:
        return
    import resource

    limit = used + memory_limit_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def allocated_bytes(pid: int) -> int:
    """How much a process has allocated; 0 where nobody says so (they do on Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in status if line.startswith("VmData:")), 0)


def memory_limit_bytes() -> int:
    """How much this machine allows a reader to allocate, if it is Linux."""
    if not hasattr(os, "sysconf"):
        return MEMORY_BYTES
    return min(MEMORY_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def array_to_json(array: np.ndarray) -> str:
    """The array's bytes as text."""
    return base64.b64encode(array.tobytes()).decode()


def array_from_json(text: str, dtype: type[np.generic]) -> np.ndarray:
    """A one-dimensional array of its bytes as text."""
    return np.frombuffer(base64.b64decode(text), dtype)


def facts_to_json(facts: VideoFacts) -> dict[str, Any]:
    """A file's facts, for the other process; of the frames' times only their number."""
    return vars(facts) | {"path": str(facts.path), "times": len(facts.times)}


def facts_from_json(facts: dict[str, Any]) -> VideoFacts:
    """The facts again, with times that are NaN and take no memory."""
    return VideoFacts(**facts | {"path": Path(facts["path"]), "times": np.broadcast_to(np.nan, facts["times"])})
