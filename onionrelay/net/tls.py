"""Links over TLS 1.3 and TCP: dialling and accepting them. specs/10-tls-links.md.

link = await dial_tls(Address("192.0.2.1", 443), timeout=DIAL_TIMEOUT)
link.attach(receiver)

listener = TlsListener([Address("0.0.0.0", 443)], on_link)
listener.start()            # listener.addresses: the real ports
...
await listener.close()      # links that were handed out stay open
"""

import asyncio
import errno
import hashlib
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial

from onionrelay.base.errors import ConfigError, NetworkError, TimedOut
from onionrelay.base.limits import (
    ACCEPT_PAUSE,
    ACCEPTS_PER_WAKEUP,
    HALF_OPEN_LINKS,
    LINK_HANDSHAKE_TIMEOUT,
    LISTEN_BACKLOG,
)
from onionrelay.net.certificate import Certificate
from onionrelay.net.tls_handshake import client_context, server_context, shake_hands
from onionrelay.net.tls_link import TlsLink, describe
from onionrelay.wire.address import Address

__all__ = ["TlsLink", "TlsListener", "dial_tls"]

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


async def dial_tls(address: Address, *, timeout: float) -> TlsLink:  # noqa: ASYNC109 - the limit covers TCP and TLS
    """Connects to a relay's address and completes TLS, within `timeout` seconds; whose relay it is stays unproved.

    Raises NetworkError, or its TimedOut. May be cancelled; leaves nothing open when it does not return.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _dial(address)
    except TimeoutError:
        raise TimedOut(f"the dial to {address}", timeout) from None


async def _dial(address: Address) -> TlsLink:
    loop = asyncio.get_running_loop()
    sock: socket.socket | None = None
    try:
        sock = socket.socket(_family(address), socket.SOCK_STREAM)
        sock.setblocking(False)
        await loop.sock_connect(sock, (address.host, address.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = tls = _dialling_context().wrap_socket(sock, do_handshake_on_connect=False, suppress_ragged_eofs=False)
        await shake_hands(tls)
        leaf = tls.getpeercert(binary_form=True)
        assert leaf is not None  # noqa: S101 - a TLS server always shows one
        digest = hashlib.sha256(leaf).digest()
        return TlsLink(tls, remote=address, leaf_digest=digest, is_server=False)
    except BaseException as error:
        if sock is not None:
            sock.close()
        match error:
            case NetworkError():  # an OSError, too
                raise NetworkError(f"cannot use {address}: {error}") from None
            case OSError():
                raise NetworkError(f"cannot reach {address}: {describe(error)}") from error
        raise


@cache
def _dialling_context() -> ssl.SSLContext:
    return client_context()


class TlsListener:
    """Accepts links on some addresses, all with one fresh certificate.

    `on_link` is called with every link whose TLS handshake is complete, `admits` with the address of everyone who
    connects, before any work is done for him: False closes the connection. At most HALF_OPEN_LINKS handshakes run at
    once; when another would begin, the oldest ends, for the one that has had most time is the least likely to finish.
    """

    def __init__(
        self,
        addresses: Iterable[Address],
        on_link: Callable[[TlsLink], None],
        *,
        admits: Callable[[Address], bool] = lambda _: True,
    ) -> None:
        self.certificate = Certificate.generate()
        self._wanted = tuple(addresses)
        self._on_link = on_link
        self._admits = admits
        self._context = server_context(self.certificate)
        self._sockets: list[socket.socket] = []
        self._half_open: dict[asyncio.Task[None], None] = {}  # oldest first
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the real ports; empty before `start` and after `close`."""
        return tuple(_address(sock.getsockname()) for sock in self._sockets)

    def start(self) -> None:
        """Binds all addresses and begins to accept. ConfigError when one cannot be had; then none is kept."""
        self._loop = asyncio.get_running_loop()
        try:
            for address in self._wanted:
                self._sockets.append(_bind(address))
        except ConfigError:
            self._close_sockets()
            raise
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, self._loop, sock)

    async def close(self) -> None:
        """Stops accepting and ends the handshakes under way. Links that were handed out are their owners'."""
        self._close_sockets()
        tasks = list(self._half_open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _close_sockets(self) -> None:
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        for sock in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _accept(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKEUP):
            try:
                sock, name = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause(loop, listening)
                    return
                continue  # this one connection is gone, or the firewall's
            sock.setblocking(False)
            remote = _address(name)
            if self._admits(remote):
                self._begin(loop, sock, remote)
            else:
                sock.close()

    def _pause(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        """Out of descriptors: accepting again at once would spin, for the connection stays in the backlog."""
        loop.remove_reader(listening.fileno())
        self._pauses[listening] = loop.call_later(ACCEPT_PAUSE, self._resume, loop, listening)

    def _resume(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        del self._pauses[listening]
        loop.add_reader(listening.fileno(), self._accept, loop, listening)

    def _begin(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, remote: Address) -> None:
        if len(self._half_open) >= HALF_OPEN_LINKS:
            oldest = next(iter(self._half_open))
            del self._half_open[oldest]
            oldest.cancel()
        task = loop.create_task(self._open(sock, remote))
        self._half_open[task] = None
        task.add_done_callback(partial(self._opened, sock))

    def _opened(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._half_open.pop(task, None)
        sock.close()  # an empty shell by now, unless the task was cancelled before it ran
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "on_link failed", "exception": error, "task": task})

    async def _open(self, raw: socket.socket, remote: Address) -> None:
        """One accepted connection up to the end of its TLS handshake. What the peer does wrong only closes it."""
        sock = raw
        try:
            async with asyncio.timeout(LINK_HANDSHAKE_TIMEOUT):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock = tls = self._context.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
                )
                await shake_hands(tls)
            link = TlsLink(tls, remote=remote, leaf_digest=self.certificate.digest, is_server=True)
        except OSError:  # TimeoutError and NetworkError among them
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        try:
            self._on_link(link)
        except BaseException:
            link.close()
            raise


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    return Address(name[0].partition("%")[0], name[1])


def _bind(address: Address) -> socket.socket:
    """A listening, non-blocking socket; ConfigError says what to do about an address that cannot be had."""
    sock: socket.socket | None = None
    try:
        sock = socket.socket(_family(address), socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((address.host, address.port))
        sock.listen(LISTEN_BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigError(f"cannot listen on {address}: {_why_not(error, address)}") from error
    return sock


def _why_not(error: OSError, address: Address) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program uses this port"
        case errno.EACCES | errno.EPERM:
            return f"not permitted; ports below 1024, such as {address.port}, usually need special rights"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
    return describe(error)
