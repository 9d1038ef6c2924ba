"""The streams of one session: their ids, their states, and how many there may be (specs/06-sessions.md, "Streams")."""

from onionrelay.base.errors import ProtocolViolation, UsageError
from onionrelay.base.limits import STREAMS_PER_SESSION
from onionrelay.core.session.receiving import ReceiveHalf
from onionrelay.core.session.sending import SendHalf

STREAMS_KNOWN = 3 * STREAMS_PER_SESSION  # ours, the peer's, and the peer's that ended while bytes of them are held here


class StreamState:
    """Both directions of one stream.

    It is over for the protocol when both are done, and forgotten when besides no byte of it is held any more.
    """

    __slots__ = ("accepted", "is_over", "ours", "receive", "send", "stop_waits", "stream")

    def __init__(self, stream: int, *, ours: bool) -> None:
        self.stream = stream
        self.ours = ours
        self.accepted = False
        self.is_over = False
        self.stop_waits = False  # the peer sent STOP for a stream it asks for
        self.send = SendHalf(stream)
        self.receive = ReceiveHalf()

    @property
    def is_asked(self) -> bool:
        """Whether the peer asks for it and has no answer yet."""
        return not (self.ours or self.accepted)


class StreamTable:
    """All streams that are not forgotten. The opener of the session counts 1, 3, 5, the other end 2, 4, 6."""

    def __init__(self, *, is_opener: bool) -> None:
        self._streams: dict[int, StreamState] = {}
        self._next_own, self._next_peer = (1, 2) if is_opener else (2, 1)
        self._open_own = 0
        self._open_peer = 0

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def may_add_own(self) -> bool:
        """Whether this end may open one more."""
        return self._open_own < STREAMS_PER_SESSION

    @property
    def is_full(self) -> bool:
        """Whether ended streams that nobody reads take so much room that new ones are refused."""
        return len(self._streams) > STREAMS_KNOWN

    def add_own(self) -> StreamState:
        """A stream opened here."""
        state = self._streams[self._next_own] = StreamState(self._next_own, ours=True)
        self._next_own += 2
        self._open_own += 1
        return state

    def add_peer(self, stream: int) -> StreamState:
        """A stream the peer opened; raises ProtocolViolation unless it is the next, and not one too many."""
        if stream != self._next_peer:
            raise ProtocolViolation(f"stream {stream} opened where {self._next_peer} is next")
        if self._open_peer >= STREAMS_PER_SESSION:
            raise ProtocolViolation("too many streams")
        state = self._streams[stream] = StreamState(stream, ours=False)
        self._next_peer += 2
        self._open_peer += 1
        return state

    def mine(self, stream: int) -> StreamState | None:
        """The stream a caller names; None when it is forgotten. UsageError when it never was."""
        if not self._ever_was(stream):
            raise UsageError(f"there is no stream {stream}")
        return self._streams.get(stream)

    def named(self, stream: int) -> StreamState | None:
        """The stream a frame names; None when it is forgotten. ProtocolViolation when it never was."""
        if not self._ever_was(stream):
            raise ProtocolViolation(f"a frame for stream {stream}, which was not opened")
        return self._streams.get(stream)

    def _ever_was(self, stream: int) -> bool:
        own = stream % 2 == self._next_own % 2
        return 0 < stream < (self._next_own if own else self._next_peer)

    def settle(self, state: StreamState) -> None:
        """Count and keep a stream no longer than needed; after any change that may end it."""
        if not (state.send.done and state.receive.done):
            return
        if not state.is_over:
            state.is_over = True
            self._open_own -= state.ours
            self._open_peer -= not state.ours
        if not state.receive.held:
            self._streams.pop(state.stream, None)

    def clear(self) -> None:
        """Forget all streams."""
        self._streams.clear()
