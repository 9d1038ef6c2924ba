"""A TCP port of this machine on which programs are served: how it is written, bound, shared and given back."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from typing import Self, TypeAlias

from onionrelay.base.errors import ConfigError, UsageError
from onionrelay.base.limits import LISTEN_BACKLOG, LOCAL_CONNECTIONS
from onionrelay.node.tasks import Tasks
from onionrelay.wire.address import Address

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection, in a task of the listener, which closes the connection afterwards."""

LOOPBACK = "127.0.0.1"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, and no time to linger


def parse_bind(text: str, *, remote: bool) -> Address:
    """`[bind:]port`, of this machine's own loopback unless `remote`; IPv6 in brackets, port 0 for any. UsageError."""
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536):
        raise UsageError(f"{text!r} names no port to listen on: write 9190, 127.0.0.1:9190 or [::1]:9190; 0 takes any")
    address = Address.parse(f"{LOOPBACK if not colon or host == 'localhost' else host}:{port}")
    if not remote and not ip_address(address.host).is_loopback:
        raise UsageError(
            f"{address} can be reached by others, who would act under this node's name and see where it goes: "
            "add --allow-remote if that is meant, or leave the address out"
        )
    return address


class LocalListener:
    """`async with LocalListener(address) as listener:` has the port, and lets everybody wait until `serving`.

    Entering raises ConfigError when the port cannot be had. `crowded` is called for each connection that is closed at
    once, because as many as there may be are open.
    """

    def __init__(self, address: Address, *, crowded: Callable[[], None] = lambda: None) -> None:
        self._wanted = address
        self._crowded = crowded
        self._tasks = Tasks()
        self._open = 0
        self._is_over = False
        self._serve: Serve
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        try:
            family = socket.AF_INET6 if self._wanted.is_ipv6 else socket.AF_INET
            sock = socket.create_server((self._wanted.host, self._wanted.port), family=family, backlog=LISTEN_BACKLOG)
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ConfigError(f"cannot listen on {self._wanted}: {why}") from error
        self._server = await asyncio.start_server(self._accept, sock=sock, backlog=LISTEN_BACKLOG, start_serving=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def address(self) -> Address:
        """Where it listens: the chosen port, if any would do."""
        host, port, *_ = self._server.sockets[0].getsockname()
        return Address.of(host, port)

    @contextlib.asynccontextmanager
    async def serving(self, serve: Serve) -> AsyncIterator[None]:
        """Accepts connections until the block ends; then it ends those that are open."""
        self._serve = serve
        await self._server.start_serving()
        try:
            yield
        finally:
            self._is_over = True
            self._server.close()
            await self._tasks.aclose()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:  # it was being accepted when the listener closed
            reset(writer)
            return
        if self._open >= LOCAL_CONNECTIONS:
            self._crowded()
            reset(writer)
            return
        self._open += 1
        self._tasks.spawn(self._attend(reader, writer))

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
            await close(writer)
        except BaseException:
            reset(writer)
            raise
        finally:
            self._open -= 1


async def close(writer: asyncio.StreamWriter) -> None:
    """Sends what is queued and closes; a program that has hung up before is no error any more."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Breaks a connection off, so that the program takes what it got for a part and not for the whole."""
    with contextlib.suppress(OSError, AttributeError):  # there is no socket any more
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
