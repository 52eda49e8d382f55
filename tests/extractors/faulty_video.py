"""`probe` and `read_frames` with faults, to replace those of `extractors.decoders` in the reading process.

The file name names the fault: `<fault>_at_<n>.mp4` has it before the n-th frame, `<fault>_in_probe.mp4` during `probe`.
Other files are read without faults.
"""

import ctypes
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cofinal.extractors import decoders
from cofinal.extractors.reader_process import memory_limit_bytes
from cofinal.extractors.video import VideoError, VideoFacts

KEPT = []


def _fault(path: Path) -> None:
    match path.stem.split("_")[0]:
        case "crash":
            ctypes.string_at(0)
        case "flaky":  # the first two times
            with path.with_suffix(".tries").open("ab") as tries:
                tries.write(b".")
                num_tries = tries.tell()
            if num_tries <= 2:
                ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "leak":
            kept = []
            while True:
                kept.append(np.ones(2**26, np.uint8))
        case "keep":
            KEPT.append(np.empty(memory_limit_bytes() // 3, np.uint8))
        case "raise":
            raise RuntimeError("a fault\nin two lines")
        case "garbage":
            os.write(3, b"not a valid answer\n" * 100)
        case "modules":
            raise VideoError(f"torch={any(name.split('.')[0] == 'torch' for name in sys.modules)}")


def probe(path: Path, *arguments: object, **options: object) -> VideoFacts:
    if path.stem.endswith("_in_probe"):
        _fault(path)
    return decoders.probe(path, *arguments, **options)


def read_frames(facts: VideoFacts, *arguments: object, **options: object) -> Iterator[tuple[float, np.ndarray]]:
    at = re.search(r"_at_(\d+)", facts.path.stem)
    if facts.path.stem.startswith("crash_decord") and arguments[0] == "decord":
        ctypes.string_at(0)
    for index, (time_s, frame) in enumerate(decoders.read_frames(facts, *arguments, **options)):
        if facts.path.stem == "count":
            with facts.path.with_suffix(".count").open("ab") as count:
                count.write(b".")
        if at and index == int(at[1]):
            _fault(facts.path)
            match facts.path.stem.split("_")[0]:
                case "float":
                    frame = frame.astype(np.float32)
                case "flat":
                    frame = frame.ravel()
                case "huge":
                    frame = np.broadcast_to(np.uint8(0), (2**15, 2**15, 3))
                case "fewer":
                    return
        yield time_s, frame
