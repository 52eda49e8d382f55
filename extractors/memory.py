"""How much memory reading may take."""

import os
from contextlib import suppress
from pathlib import Path

PROCESS_BYTES = 4 * 2**30
"""Limit of what a reading process may allocate, where the system enforces it; half of the machine's memory if less."""

DECODER_BYTES = 2**30
"""Most that decord may decode at once, unless more is asked for; 250 frames of 1280 x 720 are 659 MiB."""

UNKNOWN_BYTES = 4 * 2**30
"""Taken as free where the system does not say it."""

FREE_SHARE = 4
"""All decoders together may take the free memory divided by this."""


def process_limit_bytes() -> int:
    """How much a reading process may allocate on this machine."""
    if not hasattr(os, "sysconf"):
        return PROCESS_BYTES
    return min(PROCESS_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def most_decoder_bytes() -> int:
    """How much of a reading process's memory decord may be allowed: the rest is for everything else."""
    return process_limit_bytes() // 2


def suitable_decoder_bytes(num_readers: int = 1) -> int:
    """How much decord may decode at once in each of several reading processes, by the memory that is free now."""
    return min(DECODER_BYTES, free_bytes() // FREE_SHARE // num_readers, most_decoder_bytes())


def free_bytes() -> int:
    """How much memory programs can still have: what the machine has left, or the limit of this process's container."""
    known = [UNKNOWN_BYTES]
    with suppress(OSError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        known = [1024 * int(lines["MemAvailable"].split()[0])]
    with suppress(OSError, ValueError):  # no control groups of version 2, or no limit ("max")
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known)
