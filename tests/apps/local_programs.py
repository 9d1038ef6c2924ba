"""Programs of this machine that connect through `socks` and `forward`, by hand; and what they find at the other end."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct

from onionrelay.apps.local_listener import LocalListener, parse_bind
from onionrelay.apps.output import Output
from onionrelay.apps.passages import Passages, Reports
from onionrelay.apps.proxy import Proxy

PATIENCE = 10
ECHO, FLOOD, BREAK, DEAD, MUTE, ASKED = 7, 19, 20, 9, 21, 22
BLOB = os.urandom(1_000_000)


class Served:
    """A target's ports: an echo, a blob (FLOOD), a break in the middle of one, a dead service, one that never answers.

    ASKED takes connections and keeps them in `connections`: (reader, writer).
    """

    def __init__(self, overlay, target, node):
        self.overlay = overlay
        self.target = target
        self.node = node
        self.connections = asyncio.Queue()

    async def start(self):
        await self.target.start_server(echo, ECHO)
        await self.target.start_server(flood, FLOOD)
        await self.target.start_server(break_off, BREAK)
        await self.target.start_server(self._asked, ASKED)
        await self.target.add_service(DEAD, "127.0.0.1", 1)
        await self.target._serve(MUTE, lambda _: asyncio.Event().wait())
        await self.target.wait_reachable(PATIENCE)

    async def _asked(self, reader, writer):
        await self.connections.put((reader, writer))
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    @property
    def name(self):
        return f"{self.target.node_id}.onionrelay"


async def echo(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def flood(_, writer):
    writer.write(BLOB)
    await writer.drain()


async def break_off(_, writer):
    writer.write(b"a part")
    await writer.drain()
    raise ConnectionResetError("the service has crashed")


@contextlib.asynccontextmanager
async def listening(make, *, as_json=True, bind="0"):
    """A listener that serves by what `make(reports)` gives; yields its port."""
    reports = Reports(Output(as_json=as_json))
    async with (
        LocalListener(parse_bind(bind, remote=False), crowded=reports.crowded) as listener,
        listener.serving(make(reports)),
    ):
        yield listener.address.port


def proxying(node, **settings):
    """A proxy through `node`; yields its port."""
    return listening(lambda reports: Proxy(Passages(node, reports), reports).serve, **settings)


def events(capsys, name=None):
    """What was told since the last time, as events."""
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [event for event in told if name in (None, event["event"])]


class Refused(Exception):
    """A proxy said no; `code` is its reply or status, `text` what it said besides."""

    def __init__(self, code, text=""):
        super().__init__(code, text)
        self.code = code
        self.text = text


def _address(host):
    for family, kind in ((socket.AF_INET, 1), (socket.AF_INET6, 4)):
        with contextlib.suppress(OSError):
            return bytes([kind]) + socket.inet_pton(family, host)
    return bytes([3, len(host)]) + host.encode("latin-1")


async def socks(proxy, host, port, words=None, early=b""):
    """Connects over SOCKS5, saying all at once. Raises Refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
    hello = b"\x05\x01\x00"
    if words:
        user, password = words
        hello = b"\x05\x01\x02\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password
    writer.write(hello + b"\x05\x01\x00" + _address(host) + port.to_bytes(2) + early)
    chosen = await reader.readexactly(4 if words else 2)
    assert chosen == (b"\x05\x02\x01\x00" if words else b"\x05\x00")
    reply = await reader.readexactly(10)
    assert reply[:1] + reply[2:] == b"\x05\x00\x01" + bytes(6)
    if reply[1]:
        assert await reader.read() == b""
        writer.close()
        raise Refused(reply[1])
    return reader, writer


async def http(proxy, host, port, words=None, early=b""):
    """Connects over HTTP CONNECT. Raises Refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
    header = f"Proxy-Authorization: Basic {base64.b64encode(b':'.join(words)).decode()}\r\n" if words else ""
    host = f"[{host}]" if ":" in host else host
    writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{header}\r\n".encode("latin-1") + early)
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if status != 200:
        text = (await reader.read()).decode()
        writer.close()
        raise Refused(status, text)
    return reader, writer


async def get(connection, host, path):
    """Fetches over a connection: the body of a 200."""
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    body = await reader.read()
    writer.close()
    return body


async def converse(connection, text=b"hello"):
    """Says something to an echo, hears it, ends its own direction, and hears the other's end."""
    reader, writer = connection
    async with asyncio.timeout(PATIENCE):
        writer.write(text)
        assert await reader.readexactly(len(text)) == text
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def break_connection(writer):
    """Closes it as a program that is killed does: with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
