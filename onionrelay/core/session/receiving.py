"""How much the peer may send: the windows of a session and of its streams (specs/06-sessions.md, "Windows")."""

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import INITIAL_SESSION_WINDOW, INITIAL_STREAM_WINDOW, SESSION_WINDOW, STREAM_WINDOW

GRANT_DIVISOR = 4  # a new limit is announced when it is a quarter of the free window ahead of the last one


class ReceiveHalf:
    """The peer's direction of one stream, in bytes since its beginning."""

    __slots__ = ("consumed", "discarding", "done", "granted", "promised", "received")

    def __init__(self) -> None:
        self.received = 0
        self.consumed = 0
        self.granted = INITIAL_STREAM_WINDOW
        self.promised = 0  # the part of Incoming.promised that is this stream's
        self.discarding = False  # STOP or STREAM_REFUSED was sent: whatever comes counts as consumed
        self.done = False  # FIN, RESET or STREAM_REFUSED has arrived

    @property
    def held(self) -> int:
        """Bytes that arrived and are not consumed."""
        return self.received - self.consumed


class Incoming:
    """The windows of one direction.

    What a stream may still send, or has sent without its being consumed, is promised memory. A stream is promised at
    most half of what the others leave of SESSION_WINDOW. So n busy streams come to have an (n + 1)th of it each, and
    when some of them are not read any more, the others go on.
    """

    def __init__(self) -> None:
        self.received = 0
        self.consumed = 0
        self.granted = INITIAL_SESSION_WINDOW
        self.promised = 0

    @property
    def held(self) -> int:
        """Bytes of all streams that arrived and are not consumed."""
        return self.received - self.consumed

    def arrive(self, half: ReceiveHalf, offset: int, size: int, *, fin: bool) -> None:
        """Account for data; raises ProtocolViolation when they may not come."""
        if half.done:
            raise ProtocolViolation("stream data after the end of the stream")
        if offset != half.received:
            raise ProtocolViolation(f"stream data at {offset} where {half.received} is next")
        if offset + size > half.granted:
            raise ProtocolViolation("stream data beyond the stream's window")
        if self.received + size > self.granted:
            raise ProtocolViolation("stream data beyond the session's window")
        half.received += size
        self.received += size
        half.done = fin
        if half.discarding:
            self.consume(half, size)
        elif fin:
            self.settle(half)

    def consume(self, half: ReceiveHalf, size: int) -> None:
        """Account for bytes that are not held here any more."""
        half.consumed += size
        self.consumed += size
        self.settle(half)

    def settle(self, half: ReceiveHalf) -> None:
        """Bring `promised` up to date after a change of a stream."""
        most = half.received if half.done else half.granted
        promised = 0 if half.discarding else most - half.consumed
        self.promised += promised - half.promised
        half.promised = promised

    def widen(self, half: ReceiveHalf, *, at_once: bool = False) -> int | None:
        """The stream's new limit if it is worth a frame; with `at_once`, in any case."""
        free = SESSION_WINDOW - (self.promised - half.promised)
        window = max(INITIAL_STREAM_WINDOW, min(free // 2, STREAM_WINDOW))
        limit = half.consumed + window
        if limit - half.granted < window // GRANT_DIVISOR and not at_once:
            return None
        half.granted = limit
        self.settle(half)
        return limit

    def widen_session(self) -> int | None:
        """The session's new limit if it is worth a frame: the more is held, the sooner."""
        limit = self.consumed + SESSION_WINDOW
        if limit - self.granted < max(1, (SESSION_WINDOW - self.held) // GRANT_DIVISOR):
            return None
        self.granted = limit
        return limit
