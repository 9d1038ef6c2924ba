"""What a node serves on its ports: handlers in this process, or TCP services behind it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from onionrelay.base.errors import UsageError
from onionrelay.base.limits import SERVICE_CONNECT_TIMEOUT
from onionrelay.node.splice import splice
from onionrelay.node.stream import IncomingStream
from onionrelay.node.streams import StreamHandler
from onionrelay.wire.frames import RefusalReason

Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Service:
    """One port that is served. `close` takes no further connections; those that are open go on."""

    def __init__(self, port: int, handler: StreamHandler, services: "Services") -> None:
        self.port = port
        self.handler = handler
        self._services = services

    def close(self) -> None:
        """Stops serving the port. A second time does nothing, whoever serves the port then."""
        self._services.remove(self)


class Services:
    """The ports of a node."""

    def __init__(self) -> None:
        self._by_port: dict[int, Service] = {}

    def add(self, port: int, handler: StreamHandler) -> Service:
        """Serves `port`. UsageError when it is served already."""
        if not 0 < port <= 0xFFFF:
            raise UsageError(f"{port} is no port: 1 to 65535")
        if port in self._by_port:
            raise UsageError(f"port {port} is served already")
        service = self._by_port[port] = Service(port, handler, self)
        return service

    def remove(self, service: Service) -> None:
        """Offers it no longer."""
        if self._by_port.get(service.port) is service:
            del self._by_port[service.port]

    async def on_stream(self, incoming: IncomingStream) -> None:
        """Hands a stream that a peer asks for to the port's handler."""
        service = self._by_port.get(incoming.port)
        if service is None:
            incoming.refuse(RefusalReason.NO_SUCH_PORT)
        else:
            await service.handler(incoming)

    @staticmethod
    def calling(handler: Handler) -> StreamHandler:
        """A handler as `asyncio.start_server` takes it. The stream is closed when it returns."""

        async def serve(incoming: IncomingStream) -> None:
            stream = incoming.accept()
            await handler(stream.reader, stream.writer)

        return serve


def forward_to(host: str, port: int) -> StreamHandler:
    """Connects to a TCP service first, and only then accepts; a service that is down refuses the stream."""

    async def serve(incoming: IncomingStream) -> None:
        try:
            async with asyncio.timeout(SERVICE_CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            incoming.refuse(RefusalReason.CONNECT_FAILED)
            return
        try:
            async with incoming.accept() as stream:
                await splice((stream.reader, stream.writer), (reader, writer))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return serve
