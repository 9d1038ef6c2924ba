"""Joins a Session with the end of its circuit, and its streams with asyncio (specs/06-sessions.md)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar, assert_never

from onionrelay.base.errors import CircuitLost, DestroyReason, NetworkError, ProtocolViolation, StreamRefused
from onionrelay.base.limits import (
    CIRCUIT_IDLE,
    SESSION_CLOSE_TIMEOUT,
    SESSION_MEMORY,
    SESSION_UNUSED,
    SMALL_DATA,
    STREAMS_PER_SESSION,
)
from onionrelay.base.seams import Rng
from onionrelay.core.circuit.end import CircuitEnd
from onionrelay.core.session import events
from onionrelay.core.session.events import SessionEvent
from onionrelay.core.session.session import Session
from onionrelay.node.stream import IncomingStream, Stream
from onionrelay.node.stream_transport import StreamTransport, was_reset
from onionrelay.node.tasks import Tasks
from onionrelay.wire.frames import CloseCode, RefusalReason, StreamCode
from onionrelay.wire.relay import RelayCmd

P = TypeVar("P", bound=asyncio.BaseProtocol)


StreamHandler: TypeAlias = Callable[[IncomingStream], Awaitable[None]]
"""Serves one incoming stream, in a task of the carrier. Ending without an answer refuses it: CONNECT_FAILED."""


class SessionMemory:
    """What all sessions of a process hold. Over `limit` the one that holds most is closed (RESOURCES)."""

    def __init__(self, limit: int = SESSION_MEMORY) -> None:
        self.limit = limit
        self.total = 0
        self._held: dict[SessionCarrier, int] = {}

    def update(self, carrier: "SessionCarrier", held: int) -> None:
        """A session holds `held` bytes now."""
        self.total += held - self._held.get(carrier, 0)
        self._held[carrier] = held
        if self.total > self.limit:
            largest = max(self._held, key=lambda one: self._held[one])
            largest.close(CloseCode.RESOURCES)

    def forget(self, carrier: "SessionCarrier") -> None:
        """A session is over."""
        self.total -= self._held.pop(carrier, 0)


class SessionCarrier:
    """One end of a session: pumps its packets through the end of a circuit, and its streams into asyncio.

    The owner of the circuit calls on_packet, on_room and on_lost; they never raise.
    """

    def __init__(
        self,
        end: CircuitEnd,
        *,
        is_opener: bool,
        rng: Rng,
        circuit: object = None,
        on_stream: StreamHandler | None = None,
        memory: SessionMemory | None = None,
        flush: Callable[[], None] = lambda: None,
        on_closed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`circuit`: what streams give as theirs. `on_stream`: without it, streams from the peer are refused.

        `flush` is called after messages were sent on `end`, or it was closed. `on_closed` is called once, with the
        reason, when the circuit is of no more use: it was lost, or closed from here.
        """
        self._end = end
        self._circuit = circuit
        self._on_stream = on_stream
        self._memory = memory
        self._flush = flush
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._session = Session(is_opener=is_opener, rng=rng)
        self._transports: dict[int, StreamTransport] = {}
        self._incoming: dict[int, tuple[IncomingStream, asyncio.Task[None]]] = {}
        self._opening: dict[int, asyncio.Future[None]] = {}
        self._pings: list[asyncio.Future[None]] = []
        self._handlers = Tasks()
        self._pumping: asyncio.Handle | None = None
        self._no_streams = asyncio.Event()
        self._no_streams.set()
        self._gone = asyncio.Event()
        self._over: str | None = None  # why no stream can exist any more
        self._draining = False
        self._timer = self._loop.call_later(SESSION_UNUSED, self.close, CloseCode.UNUSED)
        self._schedule()

    @property
    def is_open(self) -> bool:
        """Whether streams can be opened."""
        return self._over is None and not self._draining

    @property
    def stream_count(self) -> int:
        """Streams whose transport is alive."""
        return len(self._transports)

    # What the application wants

    async def open_stream(self, port: int, metadata: bytes = b"", *, wait: bool = True) -> Stream:
        """A stream to a port of the peer. With `wait`, once the peer has accepted it: StreamRefused otherwise.

        Without, up to 16 KiB go with the request itself, and a refusal ends the stream like any other error. Raises
        CircuitLost when the session is over. `metadata`, up to 1,024 bytes, is for the peer's handler.
        """
        stream = Stream.over(lambda protocol: self._open(protocol, port, metadata))
        if wait:
            await self._accepted(stream.writer.transport)
        return stream

    async def create_connection(
        self, factory: Callable[[], P], port: int, metadata: bytes = b"", *, wait: bool = True
    ) -> tuple[StreamTransport, P]:
        """The same for a protocol, as loop.create_connection does it. It is connected before the peer has accepted."""
        protocol = factory()
        transport = self._open(protocol, port, metadata)
        if wait:
            await self._accepted(transport)
        return transport, protocol

    def _open(self, protocol: asyncio.BaseProtocol, port: int, metadata: bytes) -> StreamTransport:
        if not self.is_open:
            raise CircuitLost(self._over or "the session is being closed")
        if not self._session.can_open:
            raise StreamRefused(f"{STREAMS_PER_SESSION} streams to the node are open already", RefusalReason.BUSY.name)
        transport = self._add(self._session.open_stream(port, metadata), port, metadata)
        transport.start(protocol)
        self._schedule()
        return transport

    async def _accepted(self, transport: asyncio.WriteTransport) -> None:
        stream: int = transport.get_extra_info("stream")
        answer = self._opening[stream] = self._loop.create_future()
        try:
            await answer
        except asyncio.CancelledError:
            transport.abort()
            raise
        finally:
            del self._opening[stream]

    async def ping(self) -> float:
        """Seconds to the peer's session and back. Raises CircuitLost."""
        if self._over is not None:
            raise CircuitLost(self._over)
        asked = self._loop.time()
        answer = self._loop.create_future()
        self._pings.append(answer)
        self._session.ping()
        self._schedule()
        await answer
        return self._loop.time() - asked

    async def aclose(self, code: CloseCode = CloseCode.FINISHED) -> None:
        """Close the streams, tell the peer, and wait until it has ended the circuit.

        A stream whose handler still runs has more to say: it is reset, so that the peer does not take what it has got
        for all, and the handler is cancelled. Takes at most twice SESSION_CLOSE_TIMEOUT: for the other streams to send
        what they have, and for the peer.
        """
        self._draining = True
        for stream in tuple(self._incoming):
            self._interrupt(stream, CircuitLost("the session is being closed"))
        for transport in tuple(self._transports.values()):
            transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SESSION_CLOSE_TIMEOUT):
                await self._no_streams.wait()
        self.close(code)
        await self._gone.wait()
        await self._handlers.aclose()

    def abort_streams(self) -> None:
        """Give all streams up: what is queued is thrown away, and the peer sees resets."""
        for transport in tuple(self._transports.values()):
            transport.abort()

    def close(self, code: CloseCode) -> None:
        """End all streams now and tell the peer, who then ends the circuit; if it does not, it ends from here."""
        if self._over is None:
            self._session.close(code)
            self._end_streams(f"the session was closed at this end ({code.name.lower()})")
            self._timer = self._loop.call_later(SESSION_CLOSE_TIMEOUT, self._end_circuit, DestroyReason.FINISHED)
            self._pump()

    # What the circuit tells

    def on_packet(self, data: bytes) -> None:
        """A SESS message arrived."""
        if self._gone.is_set():
            return
        try:
            happened = self._session.on_packet(data)
        except ProtocolViolation as violation:
            self._end_streams(f"the peer broke the session protocol: {violation}")
            self._end_circuit(violation.reason)
            return
        for event in happened:
            self._apply(event)
        self._account()
        self._schedule()

    def on_room(self) -> None:
        """The circuit has room again."""
        self._pump()

    def on_lost(self, why: str) -> None:
        """The circuit ended."""
        self._end_streams(why)
        self._leave()

    def _apply(self, event: SessionEvent) -> None:
        match event:
            case events.SessionOpened():
                pass
            case events.PingAnswered():
                self._on_pong()
            case events.SessionClosed(code):
                self._end_streams(f"the peer closed the session ({code.name.lower()})")
                self._end_circuit(DestroyReason.FINISHED)
            case events.StreamOpened():
                self._on_asked(event)
            case events.StreamAccepted(stream):
                self._answer(stream, None)
            case _:
                if (transport := self._transports.get(event.stream)) is not None:
                    self._tell(transport, event)

    def _tell(
        self,
        transport: StreamTransport,
        event: events.DataArrived
        | events.StreamFinished
        | events.RoomToWrite
        | events.StreamReset
        | events.StreamStopped
        | events.StreamRefused,
    ) -> None:
        match event:
            case events.DataArrived(_, data):
                transport.on_data(data)
            case events.StreamFinished():
                transport.on_eof()
            case events.RoomToWrite():
                transport.on_sent()
            case events.StreamReset(stream, code):
                self._withdraw(stream, was_reset(code))
                transport.on_reset(code)
            case events.StreamStopped(_, code):
                transport.on_stopped(code)
            case events.StreamRefused(_, reason):
                transport.on_refused(reason)
            case _:
                assert_never(event)

    def _on_pong(self) -> None:
        waiting, self._pings = self._pings, []
        for answer in waiting:
            if not answer.done():
                answer.set_result(None)

    # Streams the peer asks for

    def _on_asked(self, event: events.StreamOpened) -> None:
        if self._on_stream is None or self._draining:
            self._session.refuse(event.stream, RefusalReason.BUSY if self._draining else RefusalReason.NO_SUCH_PORT)
            return
        transport = self._add(event.stream, event.port, event.metadata)
        incoming = IncomingStream(self._session, transport, self._schedule)
        handler = self._handlers.spawn(self._serve(self._on_stream, incoming), may_raise=(NetworkError, OSError))
        self._incoming[event.stream] = incoming, handler

    async def _serve(self, on_stream: StreamHandler, incoming: IncomingStream) -> None:
        try:
            await on_stream(incoming)
        except BaseException:
            incoming.refuse(RefusalReason.CONNECT_FAILED)
            if incoming.stream is not None:
                incoming.transport.lose(None, StreamCode.SERVICE_LOST)
            raise
        finally:
            self._incoming.pop(incoming.transport.stream, None)
            incoming.refuse(RefusalReason.CONNECT_FAILED)
            if incoming.stream is not None:
                incoming.transport.close()

    def _withdraw(self, stream: int, error: Exception) -> None:
        """Stop reaching for a service nobody waits for any more."""
        incoming, handler = self._incoming.get(stream, (None, None))
        if incoming is not None and handler is not None and not incoming.is_answered:
            incoming.end(RefusalReason.CONNECT_FAILED, error)
            handler.cancel()

    def _interrupt(self, stream: int, error: Exception) -> None:
        """Cut a stream off whose handler still runs, unless the handler has closed it and only waits for the rest."""
        self._withdraw(stream, error)
        incoming, handler = self._incoming[stream]
        if not incoming.transport.is_closing():
            handler.cancel()
            incoming.transport.lose(error, StreamCode.SERVICE_LOST)

    # The streams as a whole

    def _add(self, stream: int, port: int, metadata: bytes) -> StreamTransport:
        extra = {"circuit": self._circuit, "port": port, "metadata": metadata}
        transport = StreamTransport(self._session, stream, extra, schedule=self._schedule, forget=self._forget)
        self._transports[stream] = transport
        self._no_streams.clear()
        self._timer.cancel()
        return transport

    def _forget(self, stream: int) -> None:
        transport = self._transports.pop(stream)
        self._answer(stream, transport.lost or ConnectionAbortedError("the stream was closed"))
        if not self._transports:
            self._no_streams.set()
            if self._over is None:
                self._timer = self._loop.call_later(CIRCUIT_IDLE, self.close, CloseCode.UNUSED)

    def _answer(self, stream: int, error: Exception | None) -> None:
        answer = self._opening.get(stream)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def _end_streams(self, why: str) -> None:
        if self._over is not None:
            return
        self._over = why
        self._timer.cancel()
        for stream in tuple(self._incoming):
            self._withdraw(stream, CircuitLost(why))
        for transport in tuple(self._transports.values()):
            transport.on_circuit_lost(why)
        for answer in self._pings:
            if not answer.done():
                answer.set_exception(CircuitLost(why))
        self._session.close(CloseCode.FINISHED)  # frees what it holds; its owners have let go of it
        if self._memory is not None:
            self._memory.forget(self)

    def _end_circuit(self, reason: DestroyReason) -> None:
        self._end.close(reason)
        self._flush()
        self._leave()

    def _leave(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._timer.cancel()
            self._on_closed(self._over or "the circuit is gone")

    # Packets

    def _schedule(self) -> None:
        """Send what there is in the loop's next round, so that what is written until then shares packets."""
        if self._pumping is None and not self._gone.is_set():
            self._pumping = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
            self._pumping = None
        if self._gone.is_set():
            return
        sent = False
        while self._end.can_send():
            packet = self._session.next_packet(large_room=self._end.can_send(large=True))
            if packet is None:
                break
            self._end.send(RelayCmd.SESS, packet, large=len(packet) > SMALL_DATA)
            sent = True
        if sent:
            self._flush()
            for event in self._session.take_events():
                self._apply(event)
        self._account()

    def _account(self) -> None:
        if self._memory is not None and self._over is None:
            self._memory.update(self, self._session.memory)
