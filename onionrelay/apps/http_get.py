"""Fetches one file over HTTP/1.1 from a stream: enough for the demo and the benchmarks, which know the server."""

from collections.abc import AsyncIterator
from typing import Protocol

from onionrelay.base.errors import NetworkError
from onionrelay.base.limits import FILE_CHUNK, HTTP_HEAD


class ByteStream(Protocol):
    """A stream both ways, such as `onionrelay.Node.connect` gives."""

    async def read(self, n: int = -1, /) -> bytes:
        """Up to `n` bytes; b"" at the end."""
        ...

    def write(self, data: bytes, /) -> None:
        """Queue `data`."""
        ...

    async def drain(self) -> None:
        """Wait until the queue is short enough."""
        ...


class Download:
    """The answer to one GET. `size` is known from the start; iterate over `chunks` for the body."""

    def __init__(self, stream: ByteStream, size: int, begun: bytes) -> None:
        """Use `begin`."""
        self.size = size
        self._stream = stream
        self._begun = begun

    @classmethod
    async def begin(cls, stream: ByteStream, host: str, path: str) -> "Download":
        """Ask for `path` and read the answer's head. Raises NetworkError for anything but a file of known size."""
        stream.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
        await stream.drain()
        received = b""
        while b"\r\n\r\n" not in received:
            data = await stream.read(FILE_CHUNK)
            if not data or len(received) > HTTP_HEAD:
                raise NetworkError("the server's answer is no HTTP")
            received += data
        head, _, begun = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if first.split(" ")[1:2] != ["200"] or not headers.get("content-length", "").isdigit():
            raise NetworkError(f"the server answered {first!r}")
        return cls(stream, int(headers["content-length"]), begun)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. Raises NetworkError when the stream ends before its announced end."""
        left, data = self.size, self._begun
        while left:
            if data:
                left -= len(data)
                yield data
            data = await self._stream.read(min(FILE_CHUNK, left)) if left else b""
            if left and not data:
                raise NetworkError(f"the stream ended {left} bytes before the file did")
