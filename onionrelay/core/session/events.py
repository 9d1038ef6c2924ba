"""What a session tells its driver (specs/06-sessions.md)."""

from typing import TypeAlias

import msgspec

from onionrelay.wire.frames import CloseCode, RefusalReason, StreamCode


class SessionOpened(msgspec.Struct, frozen=True):
    """Both ends know each other's first frame; `session_id` is 16 bytes of the acceptor's choice."""

    session_id: bytes


class StreamOpened(msgspec.Struct, frozen=True):
    """The peer asks for a stream. Answer with Session.accept or Session.refuse; data may arrive before that."""

    stream: int
    port: int
    metadata: bytes


class StreamAccepted(msgspec.Struct, frozen=True):
    """The peer accepted a stream that was opened here."""

    stream: int


class StreamRefused(msgspec.Struct, frozen=True):
    """The peer refused a stream that was opened here. The stream is over; what was written is thrown away."""

    stream: int
    reason: RefusalReason


class DataArrived(msgspec.Struct, frozen=True):
    """The next bytes of a stream. They count as held here until Session.consumed says that they are not."""

    stream: int
    data: bytes


class StreamFinished(msgspec.Struct, frozen=True):
    """The peer has sent all of its direction."""

    stream: int


class StreamReset(msgspec.Struct, frozen=True):
    """The peer gave its direction up. Data that arrived and were not consumed no longer count."""

    stream: int
    code: StreamCode


class StreamStopped(msgspec.Struct, frozen=True):
    """The peer wants no more data: the `lost` bytes that were queued are thrown away, and none can be written."""

    stream: int
    code: StreamCode
    lost: int


class RoomToWrite(msgspec.Struct, frozen=True):
    """Data, or the end, of a stream left its queue. From Session.take_events, once for each stream."""

    stream: int


class PingAnswered(msgspec.Struct, frozen=True):
    """The PONG for the last Session.ping."""


class SessionClosed(msgspec.Struct, frozen=True):
    """The peer ended the session, and all its streams with it. The driver ends the circuit."""

    code: CloseCode


SessionEvent: TypeAlias = (
    SessionOpened
    | StreamOpened
    | StreamAccepted
    | StreamRefused
    | DataArrived
    | StreamFinished
    | StreamReset
    | StreamStopped
    | RoomToWrite
    | PingAnswered
    | SessionClosed
)
