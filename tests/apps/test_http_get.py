import asyncio
import hashlib

import pytest

from onionrelay.apps.fileserver import FileServer
from onionrelay.apps.http_get import Download
from onionrelay.base.errors import NetworkError


class Duplex:
    """Reader and writer of a TCP connection in one object, as a stream of onionrelay is."""

    def __init__(self, reader, writer):
        self.read, self.write, self.drain = reader.read, writer.write, writer.drain


async def fetch(handler, path="/file"):
    """What a Download from a server with this handler gives."""

    async def handle(reader, writer):
        await handler(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            download = await Download.begin(Duplex(reader, writer), "host", path)
            return download.size, b"".join([chunk async for chunk in download.chunks()])
        finally:
            writer.close()
            await writer.wait_closed()


def answering(answer):
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return handler


async def test_a_file_from_our_own_server(tmp_path):
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    size, got = await fetch(FileServer(tmp_path).handle)
    assert size == len(data)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert await fetch(FileServer(tmp_path).handle, "/empty") == (0, b"")
    with pytest.raises(NetworkError, match="404"):
        await fetch(FileServer(tmp_path).handle, "/none")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbody of unknown size",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"x" * 1_000_000,
    ],
)
async def test_an_answer_that_is_none_or_ends_early(answer):
    with pytest.raises(NetworkError):
        await fetch(answering(answer))
