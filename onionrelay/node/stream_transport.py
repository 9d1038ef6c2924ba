"""An asyncio transport over one stream of a session, so that whatever speaks to asyncio speaks through circuits.

It behaves like a TCP connection: half-close, back-pressure both ways (the peer's window opens as the protocol takes
the bytes), connection_lost exactly once. It knows the Session and nothing of circuits; its carrier tells it what
happens to the stream.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from onionrelay.base.errors import CircuitLost, StreamRefused, StreamReset
from onionrelay.base.limits import STREAM_SEND_BUFFER
from onionrelay.core.session.session import Session
from onionrelay.wire.frames import RefusalReason, StreamCode

CHUNK = 64 * 1024  # what is handed to the protocol at once after a pause, which it may then begin anew
LOW_WATER_DIVISOR = 4

REFUSALS = {
    RefusalReason.NO_SUCH_PORT: "the node serves nothing on port {port}",
    RefusalReason.CONNECT_FAILED: "the node's service on port {port} does not answer",
    RefusalReason.NOT_ALLOWED: "the node does not allow this",
    RefusalReason.BUSY: "the node is busy",
}
RESETS = {
    StreamCode.CANCELLED: "the other end gave the stream up",
    StreamCode.REFUSED: "the stream was refused",
    StreamCode.STOPPED: "the other end was asked to send no more",
    StreamCode.SERVICE_LOST: "the service at the other end broke off or was stopped",
    StreamCode.RESOURCES: "the other end has too little memory for the stream",
}


def refused(reason: RefusalReason, port: int) -> StreamRefused:
    """What the one who asked for a stream to `port` is told."""
    return StreamRefused(REFUSALS[reason].format(port=port), reason.name)


def was_reset(code: StreamCode) -> StreamReset:
    """What the one whose stream the peer gave up is told."""
    return StreamReset(RESETS[code], code.name)


class StreamTransport(asyncio.Transport):
    """One stream. `start` gives it a protocol; until then what arrives waits.

    `schedule`: there may be something to send. `forget`: called last, with the stream's id.
    get_extra_info knows 'circuit', 'stream', 'port' and 'metadata'.
    """

    _start_tls_compatible = True  # what loop.start_tls asks of a transport; see _feed

    def __init__(
        self,
        session: Session,
        stream: int,
        extra: dict[str, Any],
        *,
        schedule: Callable[[], None],
        forget: Callable[[int], None],
    ) -> None:
        super().__init__({**extra, "stream": stream})
        self.stream = stream
        self.lost: Exception | None = None  # what connection_lost was told
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._schedule = schedule
        self._forget = forget
        self._protocol: asyncio.BaseProtocol | None = None
        self._is_over = False  # connection_lost has been called, or will be next
        self._closing = False
        self._arrived = bytearray()
        self._eof_arrived = False
        self._eof_told = False
        self._reading_paused = False
        self._eof_written = False
        self._unsent = False
        self._writing_paused = False
        self._write_error: Exception | None = None  # nothing can be sent any more, but there is still something to read
        self._low, self._high = STREAM_SEND_BUFFER // LOW_WATER_DIVISOR, STREAM_SEND_BUFFER

    def __repr__(self) -> str:
        state = "over" if self._is_over else "closing" if self._closing else "open"
        return f"<StreamTransport stream {self.stream} {state}>"

    # Life

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        """Connect a protocol. What has arrived follows in the loop's next round."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._loop.call_soon(self._flow)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what arrives from now on to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol; only once started."""
        if self._protocol is None:
            raise RuntimeError("the stream has no protocol yet")
        return self._protocol

    def is_closing(self) -> bool:
        """Whether close or abort was called, or the stream ended."""
        return self._closing

    def close(self) -> None:
        """Send what is queued, then end. Nothing more is read: the peer is asked to send no more."""
        if self._closing:
            return
        self._closing = True
        self._arrived.clear()
        self._session.stop(self.stream, StreamCode.CANCELLED)
        self._session.finish(self.stream)
        self._schedule()
        if self._session.has_sent_all(self.stream):
            self.lose(None)

    def abort(self) -> None:
        """End now. What is queued is thrown away, and the peer sees a reset."""
        self.lose(None)

    def lose(self, error: Exception | None, code: StreamCode = StreamCode.CANCELLED) -> None:
        """End now, with `error` for the protocol and `code` for the peer. Does nothing the second time."""
        if self._is_over:
            return
        self._is_over = self._closing = True
        self.lost = error
        self._arrived.clear()
        self._session.reset(self.stream, code)
        self._session.stop(self.stream, code)
        self._schedule()
        self._loop.call_soon(self._tell_lost)

    def _tell_lost(self) -> None:
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(self.lost)
        finally:
            self._protocol = None
            self._forget(self.stream)

    # Reading

    def pause_reading(self) -> None:
        """Hand nothing more to the protocol. The peer may fill the stream's window, then it has to wait."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Hand over what has arrived, beginning in the loop's next round."""
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._flow)

    def is_reading(self) -> bool:
        """Whether what arrives is handed over."""
        return not (self._reading_paused or self._closing)

    def on_data(self, data: bytes) -> None:
        """Data arrived."""
        if self._arrived or not self._may_tell:
            self._arrived += data
        else:
            self._feed(data)

    def on_eof(self) -> None:
        """The peer has sent all."""
        self._eof_arrived = True
        self._flow()

    @property
    def _may_tell(self) -> bool:
        return self._protocol is not None and not (self._reading_paused or self._closing)

    def _flow(self) -> None:
        while self._arrived and self._may_tell:
            with memoryview(self._arrived) as view, view[:CHUNK] as chunk:
                data = bytes(chunk)
            del self._arrived[:CHUNK]
            self._feed(data)
        if self._eof_arrived and not (self._eof_told or self._arrived) and self._may_tell:
            self._eof_told = True
            keep_open = self._tell(self.get_protocol().eof_received)  # type: ignore[attr-defined]
            if not keep_open:
                self.close()

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):  # TLS over the stream is one
            self._tell(self._fill, protocol, data)
        else:
            self._tell(protocol.data_received, data)  # type: ignore[union-attr]
        self._session.consumed(self.stream, len(data))
        self._schedule()

    @staticmethod
    def _fill(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
        left = memoryview(data)
        while left:
            buffer = memoryview(protocol.get_buffer(len(left)))
            size = min(len(buffer), len(left))
            buffer[:size] = left[:size]
            protocol.buffer_updated(size)
            left = left[size:]

    def _tell(self, call: Callable[..., Any], *args: object) -> Any:
        """Call the protocol; its mistakes end its stream, as with asyncio's own transports."""
        try:
            return call(*args)
        except Exception as exc:  # noqa: BLE001 - the protocol is the application's, and may raise anything
            context = {"message": "a protocol failed", "exception": exc, "transport": self, "protocol": self._protocol}
            self._loop.call_exception_handler(context)
            self.lose(exc)
            return None

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue data; see set_write_buffer_limits. Once the stream cannot send, the first write ends it."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"bytes-like data expected, not {type(data).__name__}")
        if self._eof_written:
            raise RuntimeError("write after write_eof")
        if self._closing or not len(data):
            return
        if self._write_error is not None:
            self.lose(self._write_error)
            return
        queued = self._session.write(self.stream, data)
        self._unsent = True
        self._schedule()
        if not self._writing_paused and (queued > self._high or self._session.room(self.stream) < 0):
            self._writing_paused = True
            self._tell(self.get_protocol().pause_writing)

    def writelines(self, list_of_data: Any) -> None:
        """Write each of them."""
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """End this direction after what is queued; the other one goes on."""
        if self._closing or self._eof_written:
            return
        self._eof_written = True
        self._session.finish(self.stream)
        self._schedule()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is told to pause. All streams of a session share a buffer, so it may be told earlier."""
        if high is None:
            high = STREAM_SEND_BUFFER if low is None else LOW_WATER_DIVISOR * low
        if low is None:
            low = high // LOW_WATER_DIVISOR
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be >= low ({low}) must be >= 0")
        self._low, self._high = low, high

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high one."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Bytes queued and not sent."""
        return self._session.queued(self.stream)

    def on_sent(self) -> None:
        """Something of the stream left its queue."""
        queued = self._session.queued(self.stream)
        self._unsent = queued > 0
        if self._writing_paused and (not queued or (queued <= self._low and self._session.room(self.stream) > 0)):
            self._writing_paused = False
            self._tell(self.get_protocol().resume_writing)
        if self._closing and self._session.has_sent_all(self.stream):
            self.lose(None)

    # What ends it

    def on_reset(self, code: StreamCode) -> None:
        """The peer gave up sending."""
        self.lose(was_reset(code))

    def on_stopped(self, code: StreamCode) -> None:
        """The peer wants no more. What it has sent before is still read; the next write is told, as TCP does it."""
        self._cannot_send(StreamReset(f"the other end reads no more: {RESETS[code]}", code.name))

    def on_refused(self, reason: RefusalReason) -> None:
        """The peer refused the stream."""
        self.lose(refused(reason, self.get_extra_info("port")))

    def on_circuit_lost(self, why: str) -> None:
        """The session ended. A stream that has been received to its end can still be read."""
        if self._eof_arrived:
            self._cannot_send(CircuitLost(why))
        else:
            self.lose(CircuitLost(why))

    def _cannot_send(self, error: Exception) -> None:
        if self._unsent:
            self.lose(error)
        elif self._closing:
            self.lose(None)
        else:
            self._write_error = error
