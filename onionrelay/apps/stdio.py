"""Standard input and output as byte streams, whatever they are: pipes, sockets, files, terminals, /dev/null.

asyncio's own pipe transports refuse plain files and leave a shared terminal non-blocking. Waiting for readiness on the
loop and then reading what is there needs neither threads nor a changed standard input.
"""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from typing import Self

CHUNK = 64 * 1024  # what a pipe holds


class ReaderGone(Exception):
    """Whoever read our standard output has closed it: its end, not a failure of the network."""


class FileReader:
    """Reads a file descriptor without blocking the loop. Nobody else may read it at the same time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def read(self, n: int = -1) -> bytes:
        """At most `n` bytes (default: a pipe's worth) as soon as there are any; b"" at the end."""
        loop = asyncio.get_running_loop()
        await _ready(self._fd, loop.add_reader, loop.remove_reader)
        try:
            return os.read(self._fd, n if n > 0 else CHUNK)
        except ConnectionResetError:  # standard input can be a socket, whose other end can be killed
            return b""


class FileWriter:
    """Writes a file descriptor: `with FileWriter(fd) as writer`.

    A pipe or socket is made non-blocking meanwhile. Terminals and files are left alone: others share them, and they
    do not keep one waiting for long.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = bytearray()
        self._was_blocking = False

    def __enter__(self) -> Self:
        mode = os.fstat(self._fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self._was_blocking = os.get_blocking(self._fd)
            os.set_blocking(self._fd, False)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def write(self, data: bytes) -> None:
        """Queue `data`; call `drain` before the next one."""
        self._waiting += data

    async def drain(self) -> None:
        """Write all that is queued. Raises ReaderGone when nobody reads any more."""
        loop = asyncio.get_running_loop()
        data = memoryview(bytes(self._waiting))
        self._waiting.clear()
        while data:
            await _ready(self._fd, loop.add_writer, loop.remove_writer)
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                raise ReaderGone from None

    def write_eof(self) -> None:
        """Let the reader see the end; the descriptor stays usable and leads nowhere."""
        self._restore()
        if stat.S_ISSOCK(os.fstat(self._fd).st_mode):
            # The socket can be standard input as well, which goes on: close one direction only.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as half:
                half.shutdown(socket.SHUT_WR)
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, self._fd)
        os.close(nowhere)

    def _restore(self) -> None:
        if self._was_blocking:
            os.set_blocking(self._fd, True)
            self._was_blocking = False


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    ready = asyncio.get_running_loop().create_future()

    def set_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        add(fd, set_ready)
    except PermissionError:  # what epoll says of plain files and /dev/null, which never make one wait
        return
    try:
        await ready
    finally:
        remove(fd)
