"""One stream, as an application sees it."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from onionrelay.core.session.session import Session
from onionrelay.node.stream_transport import StreamTransport, refused
from onionrelay.wire.frames import RefusalReason

if TYPE_CHECKING:
    from onionrelay.node.circuit import Circuit


class Stream:
    """One byte stream to a port of the node at the other end.

    `reader` and `writer` are an ordinary asyncio pair. Whatever is under way when the circuit dies raises CircuitLost;
    StreamReset when the peer gave the stream up. Leaving its `async with` sends the rest and closes it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    def over(cls, start: Callable[[asyncio.StreamReaderProtocol], asyncio.Transport]) -> "Stream":
        """A stream over the transport that `start` gives to its protocol."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        return cls(reader, asyncio.StreamWriter(start(protocol), protocol, reader, loop))

    @property
    def circuit(self) -> "Circuit":
        """The circuit it runs over, at the end that opened it."""
        circuit: Circuit = self.writer.get_extra_info("circuit")
        return circuit

    @property
    def port(self) -> int:
        """The port it was opened to."""
        port: int = self.writer.get_extra_info("port")
        return port

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes, at least one; b"" at the end. -1: everything until the end."""
        return await self.reader.read(n)

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes; IncompleteReadError when the stream ends before."""
        return await self.reader.readexactly(n)

    def write(self, data: bytes) -> None:
        """Queue data. `drain` from time to time."""
        self.writer.write(data)

    async def drain(self) -> None:
        """Wait until the queue is short enough to go on."""
        try:
            await self.writer.drain()
        except ConnectionResetError as exc:  # asyncio's own, when the stream ended in the very moment
            raise self._lost or exc from None

    def write_eof(self) -> None:
        """Say that nothing more will be written; reading goes on."""
        self.writer.write_eof()

    async def aclose(self) -> None:
        """Send what is queued and close. An error that ended the stream before is not raised again here."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        """Close now; what is queued is thrown away and the peer sees a reset."""
        self.writer.transport.abort()

    @property
    def _lost(self) -> Exception | None:
        transport = self.writer.transport
        return transport.lost if isinstance(transport, StreamTransport) else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        await self.aclose()


class IncomingStream:
    """A stream the peer asks for. Reach the service behind `port` first, then accept it; or refuse it."""

    def __init__(self, session: Session, transport: StreamTransport, schedule: Callable[[], None]) -> None:
        self.port: int = transport.get_extra_info("port")
        self.metadata: bytes = transport.get_extra_info("metadata")
        self.circuit: Any = transport.get_extra_info("circuit")
        self.transport = transport
        self.stream: Stream | None = None
        self.is_answered = False
        self._session = session
        self._schedule = schedule

    def accept(self) -> Stream:
        """Take it. The stream is closed when the handler ends. Raises what ended it when it is over already."""
        self.stream = Stream.over(self.accept_protocol)
        return self.stream

    def accept_protocol(self, protocol: asyncio.BaseProtocol) -> StreamTransport:
        """Take it for a protocol, which may outlive the handler."""
        if self.is_answered:
            raise self.transport.lost or RuntimeError("the stream was accepted or refused before")
        self.is_answered = True
        self._session.accept(self.transport.stream)
        self._schedule()
        self.transport.start(protocol)
        return self.transport

    def refuse(self, reason: RefusalReason) -> None:
        """Do not take it. No effect on one that was answered, or is over."""
        if not self.is_answered:
            self.end(reason, refused(reason, self.port))

    def end(self, reason: RefusalReason, error: Exception) -> None:
        """Refuse it because of `error`, which a late accept will raise."""
        self.is_answered = True
        self._session.refuse(self.transport.stream, reason)
        self.transport.lose(error)
