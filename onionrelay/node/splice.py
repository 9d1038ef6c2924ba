"""Joins two pairs of byte streams: what one side says, the other hears."""

import asyncio
import contextlib
from typing import Protocol

CHUNK = 256 * 1024


class ByteReader(Protocol):
    """What `splice` reads from: an asyncio.StreamReader, or anything like it."""

    async def read(self, n: int = -1, /) -> bytes:
        """Up to `n` bytes; b"" at the end."""
        ...


class ByteWriter(Protocol):
    """What `splice` writes to: an asyncio.StreamWriter, or anything like it."""

    def write(self, data: bytes, /) -> None:
        """Queues `data`."""
        ...

    async def drain(self) -> None:
        """Waits until the queue is short enough to go on."""
        ...

    def write_eof(self) -> None:
        """Says that nothing more will be written."""
        ...


async def copy(reader: ByteReader, writer: ByteWriter) -> int:
    """Copies until the reader's end, passes the end on, and returns how many bytes went over."""
    copied = 0
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
        copied += len(data)
    # The other side may have hung up already; then there is nobody left to tell.
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
    return copied


async def splice(
    one: tuple[ByteReader, ByteWriter],
    other: tuple[ByteReader, ByteWriter],
) -> tuple[int, int]:
    """Copies both ways until both directions have ended; each may end long before the other.

    An error in one direction cancels the other and is raised as it came (not as a group). Closing the
    writers is the caller's.
    """
    tasks = (
        asyncio.ensure_future(copy(one[0], other[1])),
        asyncio.ensure_future(copy(other[0], one[1])),
    )
    try:
        forth, back = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return forth, back
