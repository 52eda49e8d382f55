"""An independent check of when a file's frames are shown: decode until an error, and return the times."""

import av
import av.error
import numpy as np


def decodable_times(path: str) -> tuple[np.ndarray, bool]:
    """Seconds at which the decodable frames of a file are shown, and whether decoding failed after the first frame.

    Broken packets before the first frame are skipped.
    """
    times: list[float | None] = []
    try:
        container = av.open(path, metadata_errors="ignore")
    except av.error.FFmpegError:
        return np.empty(0), True
    with container:
        stream = container.streams.best("video")
        if stream is None:
            return np.empty(0), True
        stream.thread_count = 1
        packets = container.demux(stream)
        is_broken = False
        while not is_broken:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                times += [frame.time for frame in packet.decode()]
            except av.error.FFmpegError:
                is_broken = bool(times)
        if None in times:
            rate = stream.average_rate or stream.guessed_rate
            return np.arange(len(times)) / float(rate or 1), is_broken
        return np.sort(np.array(times, float)), is_broken
