"""A video in pieces: a player asks for ranges of bytes, and gets one range of bounded size at a time."""

import re
from collections.abc import Iterator
from pathlib import Path

from starlette.responses import Response, StreamingResponse

LONGEST_RANGE = 4 * 2**20
"""Bytes of one answer to a range request; players then ask for the next ones."""
PIECE = 256 * 1024
RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
}
"""By suffix; what a browser does not play has another."""


def send_video(path: Path, header: str | None) -> Response:
    """Return the answer to a request for a video.

    Args:
        path: the video's file.
        header: the request's Range. A single range is answered with at most `LONGEST_RANGE` bytes, several ranges with
            the first part of the file as if none were given.
    """
    size = path.stat().st_size
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    kind = TYPES.get(path.suffix, "application/octet-stream")
    found = RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        headers["Content-Length"] = str(size)
        return StreamingResponse(_read(path, 0, size), headers=headers, media_type=kind)
    if found[1] == "":  # the last bytes
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    last = min(last, first + LONGEST_RANGE - 1)
    headers |= {"Content-Range": f"bytes {first}-{last}/{size}", "Content-Length": str(last - first + 1)}
    return StreamingResponse(_read(path, first, last + 1 - first), 206, headers, kind)


def _read(path: Path, first: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(first)
        while length > 0 and (piece := file.read(min(PIECE, length))):
            length -= len(piece)
            yield piece
