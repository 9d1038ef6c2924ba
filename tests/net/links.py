"""Linked pairs over real loopback sockets, receivers that remember, and a peer that speaks TLS by hand."""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from onionrelay.base.limits import SEND_CHUNK, SEND_QUEUE
from onionrelay.net.link import SPARE
from onionrelay.net.tls import TlsLink, TlsListener, dial_tls
from onionrelay.net.tls_handshake import client_context
from onionrelay.wire.address import Address

PATIENCE = 10.0  # a test that waits longer has failed


class Sink:
    """A receiver that keeps what it is told. `feeds` are the sizes it was offered, `log` may be shared by several."""

    def __init__(self, name: str = "", log: list[str] | None = None) -> None:
        self.outbox = bytearray()
        self.received = bytearray()
        self.feeds: list[int] = []
        self.rooms: list[int] = []
        self.lost: list[str] = []
        self.name = name
        self.log = log if log is not None else []
        self._changed = asyncio.Event()

    def use(self, buffer: bytearray, size: int) -> int:
        self.received += buffer[:size]
        return size

    def feed(self, buffer: bytearray, size: int) -> int:
        assert not self.lost
        assert len(buffer) >= size + SPARE
        self.feeds.append(size)
        self.log.append(self.name)
        used = self.use(buffer, size)
        self._changed.set()
        return used

    def on_room(self) -> None:
        assert not self.lost
        self.rooms.append(len(self.outbox))
        self._changed.set()

    def on_lost(self, why: str) -> None:
        self.lost.append(why)
        self._changed.set()

    async def until(self, held: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not held():
                self._changed.clear()
                await self._changed.wait()

    async def until_lost(self) -> str:
        await self.until(lambda: bool(self.lost))
        await turns(3)  # a second call would come now
        assert len(self.lost) == 1
        return self.lost[0]


async def turns(count: int) -> None:
    """Lets the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(host: str = "127.0.0.1", **settings) -> AsyncIterator[tuple[TlsListener, "asyncio.Queue[TlsLink]"]]:
    """A listener and the links it has accepted; all of them are closed in the end."""
    accepted: asyncio.Queue[TlsLink] = asyncio.Queue()
    links: list[TlsLink] = []

    def on_link(link: TlsLink) -> None:
        links.append(link)
        accepted.put_nowait(link)

    listener = TlsListener([Address(host, 0)], on_link, **settings)
    listener.start()
    try:
        yield listener, accepted
    finally:
        await listener.close()
        for link in links:
            link.close()
        await turns(3)


@asynccontextmanager
async def linked(host: str = "127.0.0.1") -> AsyncIterator[tuple[TlsLink, TlsLink]]:
    """The client's and the server's end of a fresh link, without receivers."""
    async with listening(host) as (listener, accepted):
        client = await dial_tls(listener.addresses[0], timeout=PATIENCE)
        server = await accepted.get()
        try:
            yield client, server
        finally:
            client.close()
            await turns(3)


class HandMadePeer:
    """A TLS client whose every byte on the wire is the test's to see and to change."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    async def send_raw(self, data: bytes, piece: int = 1 << 20) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), piece):
            await loop.sock_sendall(self.sock, data[start : start + piece])

    async def read_raw(self) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        except ConnectionError:
            return b""

    async def shake_hands(self, piece: int = 1 << 20) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.send_raw(self.outgoing.read(), piece)
                data = await self.read_raw()
                if not data:
                    raise ConnectionError("closed in the handshake") from None
                self.incoming.write(data)
        await self.send_raw(self.outgoing.read(), piece)

    def records(self, data: bytes) -> bytes:
        """The TLS records that carry `data`."""
        self.tls.write(data)
        return self.outgoing.read()

    async def read(self) -> bytes:
        """The next application data; empty when the other end has closed."""
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                data = await self.read_raw()
                if not data:
                    return b""
                self.incoming.write(data)
            except ssl.SSLZeroReturnError:
                return b""


@asynccontextmanager
async def raw_connection(address: Address) -> AsyncIterator[socket.socket]:
    """A bare TCP connection."""
    with socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
        yield sock


@asynccontextmanager
async def hand_made(address: Address, context: ssl.SSLContext | None = None) -> AsyncIterator[HandMadePeer]:
    """A hand-made peer before its TLS handshake."""
    async with raw_connection(address) as sock:
        yield HandMadePeer(sock, context or client_context())


async def send_all(sink: Sink, link: TlsLink, data: bytes, step: int = 100_000) -> None:
    """Fills the outbox as a receiver should: to SEND_QUEUE, then waits for room."""
    for start in range(0, len(data), step):
        await sink.until(lambda: len(sink.outbox) < SEND_QUEUE - step or bool(sink.rooms))
        sink.rooms.clear()
        sink.outbox += data[start : start + step]
        link.flush()


async def blocked(sink: Sink, link: TlsLink) -> bytes:
    """Sends until the kernel takes no more and something is left in the outbox; returns all that was queued."""
    queued = bytearray()
    rng = random.Random(5)
    while len(sink.outbox) < SEND_CHUNK:
        part = rng.randbytes(50_000)
        queued += part
        sink.outbox += part
        link.flush()
        await turns(1)
    return bytes(queued)


def open_files() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


@contextmanager
def nothing_left_open():
    """No descriptor is left behind."""
    before = open_files()
    yield
    assert open_files() == before
