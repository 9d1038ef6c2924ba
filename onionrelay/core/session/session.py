"""One session at one end of a circuit: streams between client and target (specs/06-sessions.md).

Deterministic, no input or output. The driver says what arrived (on_packet) and pulls what is to be sent (next_packet)
while the circuit has room. A call about a stream that has ended does nothing, since the end may have crossed it; a
stream that never was is the caller's mistake (UsageError).
"""

from typing import assert_never

from onionrelay.base.errors import DestroyReason, ProtocolViolation, UsageError
from onionrelay.base.limits import SESSION_CONTROL_FRAMES, SESSION_WINDOW, STREAM_METADATA, STREAM_SEND_BUFFER
from onionrelay.base.seams import Rng
from onionrelay.core.session import events
from onionrelay.core.session.events import SessionEvent
from onionrelay.core.session.receiving import Incoming
from onionrelay.core.session.sending import Outgoing
from onionrelay.core.session.streams import StreamState, StreamTable
from onionrelay.wire import frames
from onionrelay.wire.frames import CloseCode, Frame, Packet, RefusalReason, StreamCode


class Session:
    """The state of one end.

    `is_opener`: the client, which speaks first. `closed`: the code of CLOSE, from either end.
    """

    def __init__(self, *, is_opener: bool, rng: Rng) -> None:
        self._is_opener = is_opener
        self._rng = rng
        self._in = Incoming()
        self._out = Outgoing()
        self._streams = StreamTable(is_opener=is_opener)
        self._packets = 0
        self._peer_began = False
        self._closed_by_peer = False
        self._events: list[SessionEvent] = []
        self._pings = 0
        self._ping_waits = False
        self.closed: CloseCode | None = None
        if is_opener:
            self._begin(frames.OpenSession(rng.token(frames.NONCE)))

    def _begin(self, first: frames.OpenSession | frames.SessionOpened) -> None:
        self._out.control.appendleft(first.encode())
        self._widen_session()

    @property
    def _may_send(self) -> bool:
        """The acceptor has nothing to say before the opener spoke, unless that it will not have the session."""
        return self._is_opener or self._peer_began or self.closed is not None

    @property
    def can_open(self) -> bool:
        """Whether open_stream would work now."""
        return self._may_send and self.closed is None and self._streams.may_add_own

    @property
    def stream_count(self) -> int:
        """Streams that are not forgotten: open, or ended with bytes held here."""
        return len(self._streams)

    @property
    def memory(self) -> int:
        """Bytes held for all streams: arrived and not consumed, or queued and not sent."""
        return self._in.held + self._out.queued

    def open_stream(self, port: int, metadata: bytes = b"") -> int:
        """Ask for a stream to a port of the peer; its id. Data may be written at once: a first window goes unasked."""
        if not self.can_open:
            raise UsageError("no stream can be opened in this session now")
        if not 0 <= port <= 0xFFFF or len(metadata) > STREAM_METADATA:
            raise UsageError(f"port {port} or {len(metadata)} bytes of metadata do not fit STREAM_OPEN")
        state = self._streams.add_own()
        self._out.control.append(frames.StreamOpen(state.stream, port, metadata).encode())
        self._widen(state, at_once=True)
        return state.stream

    def accept(self, stream: int) -> None:
        """Take a stream the peer asks for: data may be written, and more than the first window may arrive."""
        state = self._streams.mine(stream)
        if state is not None and state.is_asked and not state.receive.discarding:
            state.accepted = True
            self._widen(state, at_once=True)
            if state.stop_waits:
                self._reset(state, StreamCode.STOPPED)

    def refuse(self, stream: int, reason: RefusalReason) -> None:
        """Refuse a stream the peer asks for. What arrives of it is thrown away."""
        state = self._streams.mine(stream)
        if state is not None and state.is_asked:
            self._refuse(state, reason)

    def write(self, stream: int, data: bytes | bytearray | memoryview) -> int:
        """Queue all of `data`; how many bytes the stream has queued now. See `room`. Anything but bytes is copied."""
        state = self._answered(stream)
        if state is None or state.send.done or state.send.ending:
            raise UsageError(f"stream {stream} is not open for writing")
        self._out.write(state.send, data)
        return state.send.queued

    def queued(self, stream: int) -> int:
        """The bytes that a stream has queued and not sent."""
        state = self._streams.mine(stream)
        return state.send.queued if state else 0

    def room(self, stream: int) -> int:
        """How many more bytes the stream should queue; negative when it has too many. Streams share SESSION_WINDOW."""
        shared = (SESSION_WINDOW - self._out.queued) // 2
        return min(STREAM_SEND_BUFFER - self.queued(stream), shared)

    def finish(self, stream: int) -> None:
        """End this end's direction after what is queued."""
        state = self._answered(stream)
        if state is not None and not state.send.done:
            state.send.ending = True
            self._out.settle(state.send)

    def has_sent_all(self, stream: int) -> bool:
        """Whether the end of this end's direction, orderly or not, has been sent."""
        state = self._streams.mine(stream)
        return state is None or state.send.done

    def reset(self, stream: int, code: StreamCode) -> None:
        """Give this end's direction up; what is queued is thrown away."""
        state = self._answered(stream)
        if state is not None and not state.send.done:
            self._reset(state, code)

    def stop(self, stream: int, code: StreamCode) -> None:
        """Throw away what has arrived and what will arrive; the peer is asked to send no more."""
        state = self._streams.mine(stream)
        if state is not None and not state.receive.discarding:
            if state.is_asked:
                raise UsageError(f"stream {stream} is to be accepted or refused first")
            if not state.receive.done:
                self._out.control.append(frames.Stop(stream, code).encode())
            self._discard(state)

    def consumed(self, stream: int, size: int) -> None:
        """`size` bytes of DataArrived are not held here any more; the peer may send as many again."""
        state = self._streams.mine(stream)
        if state is not None:
            self._consume(state, min(size, state.receive.held))

    def ping(self) -> None:
        """Ask for a PingAnswered; while one is under way, for nothing more."""
        if self.closed is None and not self._ping_waits:
            self._ping_waits = True
            self._pings += 1
            self._out.control.append(frames.Ping(self._pings).encode())

    def close(self, code: CloseCode) -> None:
        """End the session and all its streams at once. One last packet remains to be sent; it says so."""
        if self.closed is None:
            self._end(code)
            self._out.control.append(frames.Close(code).encode())

    @property
    def has_output(self) -> bool:
        """Whether next_packet(large_room=True) would give a packet."""
        return self._may_send and self._out.has_output

    def next_packet(self, *, large_room: bool) -> bytes | None:
        """The next packet, or None. At most 1,080 bytes for a small cell, or 16,352 for a large one.

        `large_room`: the circuit has room for a large cell now. Once it had, streams that can fill one wait until it
        has again. take_events afterwards says which streams got on.
        """
        packet = self._out.next_packet(large_room=large_room) if self._may_send else None
        for stream in self._out.take_moved():
            self._events.append(events.RoomToWrite(stream))
            if state := self._streams.mine(stream):
                self._streams.settle(state)
        return packet

    def take_events(self) -> list[SessionEvent]:
        """What happened since the last call: RoomToWrite."""
        taken, self._events = self._events, []
        return taken

    def on_packet(self, data: bytes | memoryview) -> list[SessionEvent]:
        """Take a SESS message. After a ProtocolViolation the circuit is destroyed, and the session not used again."""
        packet = Packet.decode(data)
        if packet.number != self._packets:
            raise ProtocolViolation(f"session packet {packet.number} where {self._packets} is next")
        self._packets += 1
        if self.closed is not None and not self._closed_by_peer:
            return []  # under way before the peer saw our CLOSE
        for frame in packet.frames:
            self._on_frame(frame)
        if len(self._out.control) > SESSION_CONTROL_FRAMES:
            raise ProtocolViolation("the peer provokes answers and does not take them", DestroyReason.RESOURCES)
        return self.take_events()

    def _on_frame(self, frame: Frame) -> None:
        if self._closed_by_peer:
            raise ProtocolViolation("a frame after CLOSE")
        if not self._peer_began and not isinstance(frame, frames.Close):
            self._on_first(frame)
            return
        match frame:
            case frames.StreamData():
                self._on_data(frame)
            case frames.MaxStreamData(stream, limit):
                self._on_max_stream_data(stream, limit)
            case frames.MaxData(limit):
                self._on_max_data(limit)
            case frames.StreamOpen():
                self._on_stream_open(frame)
            case frames.StreamRefused(stream, reason):
                self._on_refused(stream, reason)
            case frames.Reset():
                self._on_reset(frame)
            case frames.Stop(stream, code):
                self._on_stop(stream, code)
            case frames.Ping(token):
                self._out.control.append(frames.Pong(token).encode())
            case frames.Pong(token):
                self._on_pong(token)
            case frames.Close(close_code):
                self._closed_by_peer = True
                self._end(close_code)
                self._events.append(events.SessionClosed(close_code))
            case frames.OpenSession() | frames.SessionOpened():
                raise ProtocolViolation("the session is opened twice")
            case _:
                assert_never(frame)

    def _on_first(self, frame: Frame) -> None:
        match frame:
            case frames.OpenSession() if not self._is_opener:
                session_id = self._rng.token(frames.SESSION_ID)
                self._begin(frames.SessionOpened(session_id))
            case frames.SessionOpened(session_id, features) if self._is_opener:
                if features:
                    raise ProtocolViolation("SESSION_OPENED takes a feature that was not offered")
            case _:
                raise ProtocolViolation(f"{type(frame).__name__} before the session is open")
        self._peer_began = True
        self._events.append(events.SessionOpened(session_id))

    def _on_data(self, frame: frames.StreamData) -> None:
        state = self._streams.named(frame.stream)
        if state is None:
            raise ProtocolViolation("stream data after the end of the stream")
        self._check_accepted(state)
        self._in.arrive(state.receive, frame.offset, len(frame.data), fin=frame.fin)
        if not state.receive.discarding:
            if frame.data:
                self._events.append(events.DataArrived(frame.stream, frame.data))
            if frame.fin:
                self._events.append(events.StreamFinished(frame.stream))
        self._widen_session()
        self._streams.settle(state)

    def _on_max_stream_data(self, stream: int, limit: int) -> None:
        state = self._streams.named(stream)
        if state is None:
            return  # it crossed the end of the stream
        if limit < state.send.limit:
            raise ProtocolViolation("MAX_STREAM_DATA takes back what it gave")
        state.send.limit = limit
        if state.ours and not state.accepted:
            state.accepted = True
            self._events.append(events.StreamAccepted(stream))
        self._out.settle(state.send)

    def _on_max_data(self, limit: int) -> None:
        if limit < self._out.limit:
            raise ProtocolViolation("MAX_DATA takes back what it gave")
        self._out.limit = limit

    def _on_stream_open(self, frame: frames.StreamOpen) -> None:
        state = self._streams.add_peer(frame.stream)
        self._in.settle(state.receive)
        if self._streams.is_full:
            self._refuse(state, RefusalReason.BUSY)
        else:
            self._events.append(events.StreamOpened(frame.stream, frame.port, frame.metadata))

    def _on_refused(self, stream: int, reason: RefusalReason) -> None:
        state = self._streams.named(stream)
        if state is None or not state.ours or state.accepted or state.receive.done:
            raise ProtocolViolation("STREAM_REFUSED for a stream that waits for no answer")
        if not (state.receive.discarding and state.send.done):
            self._events.append(events.StreamRefused(stream, reason))
        if not state.send.done:
            self._reset(state, StreamCode.REFUSED)
        self._end_receiving(state)

    def _on_reset(self, frame: frames.Reset) -> None:
        state = self._streams.named(frame.stream)
        if state is None or state.receive.done:
            raise ProtocolViolation("RESET after the end of the stream")
        self._check_accepted(state)
        if frame.final_size != state.receive.received:
            raise ProtocolViolation(f"RESET at {frame.final_size} after {state.receive.received} bytes")
        if not state.receive.discarding:
            self._events.append(events.StreamReset(frame.stream, frame.code))
        self._end_receiving(state)

    def _on_stop(self, stream: int, code: StreamCode) -> None:
        state = self._streams.named(stream)
        if state is None or state.send.done or state.stop_waits:
            return  # it crossed our FIN or RESET, or says it again
        self._check_accepted(state)
        self._events.append(events.StreamStopped(stream, code, state.send.queued))
        if state.is_asked:
            state.stop_waits = True  # our first frame about it accepts or refuses it
        else:
            self._reset(state, StreamCode.STOPPED)

    def _on_pong(self, token: int) -> None:
        if not self._ping_waits or token != self._pings:
            raise ProtocolViolation("a PONG that was not asked for")
        self._ping_waits = False
        self._events.append(events.PingAnswered())

    def _answered(self, stream: int) -> StreamState | None:
        state = self._streams.mine(stream)
        if state is not None and state.is_asked and not state.send.done:
            raise UsageError(f"stream {stream} is to be accepted or refused first")
        return state

    @staticmethod
    def _check_accepted(state: StreamState) -> None:
        """The peer's first frame about a stream that we opened accepts or refuses it."""
        if state.ours and not state.accepted:
            raise ProtocolViolation("the peer uses a stream that it has not accepted")

    def _refuse(self, state: StreamState, reason: RefusalReason) -> None:
        if not state.send.done:
            self._out.give_up(state.send)
            self._out.control.append(frames.StreamRefused(state.stream, reason).encode())
        self._discard(state)

    def _reset(self, state: StreamState, code: StreamCode) -> None:
        self._out.give_up(state.send)
        self._out.control.append(frames.Reset(state.stream, code, state.send.sent).encode())
        self._streams.settle(state)

    def _discard(self, state: StreamState) -> None:
        state.receive.discarding = True
        self._consume(state, state.receive.held)

    def _end_receiving(self, state: StreamState) -> None:
        state.receive.done = True
        self._consume(state, state.receive.held)

    def _consume(self, state: StreamState, size: int) -> None:
        self._in.consume(state.receive, size)
        if not (state.receive.done or state.receive.discarding or state.is_asked):
            self._widen(state)
        self._widen_session()
        self._streams.settle(state)

    def _widen(self, state: StreamState, *, at_once: bool = False) -> None:
        limit = self._in.widen(state.receive, at_once=at_once)
        if limit is not None:
            self._out.control.append(frames.MaxStreamData(state.stream, limit).encode())

    def _widen_session(self) -> None:
        limit = self._in.widen_session()
        if limit is not None:
            self._out.control.append(frames.MaxData(limit).encode())

    def _end(self, code: CloseCode) -> None:
        self.closed = code
        self._streams.clear()
        self._in = Incoming()
        self._out.clear()
