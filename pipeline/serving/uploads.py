"""Request bodies: streamed to disk, or read into memory, and never more than is allowed."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from ...data.files import temporary_in


class TooLargeError(ValueError):
    """The body is larger than allowed."""


async def read_body(stream: AsyncIterator[bytes], limit: int) -> bytes:
    """Return a small body.

    Raises:
        TooLargeError: it has more bytes than the limit.
    """
    body = b""
    async for piece in stream:
        body += piece
        if len(body) > limit:
            raise TooLargeError
    return body


async def receive_file(stream: AsyncIterator[bytes], folder: Path, limit: int) -> Path:
    """Write a body to a temporary file in a folder; when this returns, it is on disk.

    Args:
        stream: the body, piece by piece.
        folder: where the file goes. Nothing stays there if the upload does not end.
        limit: the most bytes.

    Raises:
        TooLargeError: the body has more bytes than the limit.
        OSError: the disk is full, or fails.
    """
    path = temporary_in(folder)
    size = 0
    try:
        with path.open("xb") as file:
            async for piece in stream:
                size += len(piece)
                if size > limit:
                    raise TooLargeError
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(_to_disk, file)
    except BaseException:  # also a client that goes away
        path.unlink(missing_ok=True)
        raise
    return path


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
