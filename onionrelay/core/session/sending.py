"""What one end of a session has to send, and how it becomes packets (specs/06-sessions.md, "Order of sending")."""

from collections import OrderedDict, deque

from onionrelay.base.limits import INITIAL_SESSION_WINDOW, INITIAL_STREAM_WINDOW, LARGE_DATA, SMALL_DATA
from onionrelay.wire.codec import Buffer
from onionrelay.wire.frames import PACKET_NUMBER, StreamData, stream_header

BULK = LARGE_DATA - PACKET_NUMBER - StreamData.HEADER  # stream data that fill a large packet alone: 16,332
TURN = BULK  # what a stream may send in a round; reaching it ends its turn
CHUNK = 16 * 1024  # smaller writes are gathered until they come to this: a chunk costs 200 bytes besides its own


class SendHalf:
    """This end's direction of one stream: a queue of chunks, and how far the peer lets it go."""

    __slots__ = ("_chunks", "_small", "done", "ending", "limit", "queued", "round", "sent", "stream", "turn")

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.queued = 0
        self.sent = 0
        self.limit = INITIAL_STREAM_WINDOW
        self.ending = False  # FIN follows what is queued
        self.done = False  # FIN or RESET has been sent
        self.round = 0
        self.turn = 0  # bytes sent in `round`
        self._chunks: deque[memoryview] = deque()
        self._small = bytearray()  # writes after the last chunk

    @property
    def only_fin(self) -> bool:
        """Whether FIN is all that is left to send."""
        return self.ending and not self.queued and not self.done

    @property
    def allowed(self) -> int:
        """How many queued bytes the peer's stream window lets go."""
        return min(self.queued, self.limit - self.sent)

    def write(self, data: Buffer) -> None:
        """Queue data. Long bytes are kept as they are, everything else is copied."""
        self.queued += len(data)
        if len(data) < CHUNK:
            self._small += data
            if len(self._small) >= CHUNK:
                self._gather()
        else:
            self._gather()
            self._chunks.append(memoryview(data if isinstance(data, bytes) else bytes(data)))

    def _gather(self) -> None:
        if self._small:
            self._chunks.append(memoryview(self._small))
            self._small = bytearray()

    def take(self, size: int) -> list[memoryview]:
        """Remove the next `size` bytes; at most `queued`."""
        self.queued -= size
        self.sent += size
        pieces = []
        while size:
            if not self._chunks:
                self._gather()
            head = self._chunks[0]
            if head.nbytes > size:
                pieces.append(head[:size])
                self._chunks[0] = head[size:]
                break
            pieces.append(self._chunks.popleft())
            size -= head.nbytes
        return pieces

    def give_up(self) -> None:
        """Throw away what is queued; nothing will be sent any more."""
        self._chunks.clear()
        self._small = bytearray()
        self.queued = 0
        self.done = True


class Outgoing:
    """The packets of one direction: control frames first, then the streams in turn.

    `control` holds encoded frames; they leave in order, before any stream data, so a frame about a stream never
    overtakes the one that opened it.
    """

    def __init__(self) -> None:
        self.control: deque[bytes] = deque()
        self.limit = INITIAL_SESSION_WINDOW
        self.sent = 0
        self.queued = 0
        self._has_large = False  # whether the circuit ever had room for a large cell
        self._number = 0
        self._round = 0
        self._moved: list[int] = []
        self._ready: OrderedDict[SendHalf, None] = OrderedDict()

    def write(self, half: SendHalf, data: Buffer) -> None:
        """Queue stream data."""
        half.write(data)
        self.queued += len(data)
        self.settle(half)

    def give_up(self, half: SendHalf) -> None:
        """Throw away what a stream has queued."""
        self.queued -= half.queued
        half.give_up()
        self.settle(half)

    def settle(self, half: SendHalf) -> None:
        """Let a stream take part in the round, or not, after a change of its queue, end or limit."""
        if not half.done and (half.allowed or half.only_fin):
            self._ready.setdefault(half)
        else:
            self._ready.pop(half, None)

    def clear(self) -> None:
        """Forget everything that waits."""
        self.control.clear()
        self._ready.clear()
        self.queued = 0

    def take_moved(self) -> list[int]:
        """The streams that took part in the last packet."""
        moved, self._moved = self._moved, []
        return moved

    @property
    def has_output(self) -> bool:
        """Whether next_packet(large_room=True) would give a packet."""
        return bool(self.control) or any(half.only_fin or self._allowed(half) for half in self._ready)

    def next_packet(self, *, large_room: bool) -> bytes | None:
        """The next packet, or None when nothing may be sent that fits."""
        self._has_large = self._has_large or large_room
        parts: list[bytes | memoryview] = [self._number.to_bytes(PACKET_NUMBER)]
        room = SMALL_DATA - PACKET_NUMBER
        while self.control and len(self.control[0]) <= room:
            room -= len(self.control[0])
            parts.append(self.control.popleft())
        if not self.control:
            self._add_streams(parts, room, large_room=large_room)
        if len(parts) == 1:
            return None
        self._number += 1
        return b"".join(parts)

    def _add_streams(self, parts: list[bytes | memoryview], room: int, *, large_room: bool) -> None:
        first = next(iter(self._ready), None)
        if first is None:
            return
        if not self._is_due(first):  # who has had its turn stands last: they all have
            self._round += 1
        if large_room and self._is_bulk(first):
            self._emit(first, LARGE_DATA - SMALL_DATA + room - StreamData.HEADER, parts)
            self._end_turns([first])
            return
        served = []
        for half in self._ready:
            if room <= StreamData.HEADER:
                break
            # A stream that can fill a large packet waits for room for one: cut into small packets, its data would
            # take up whatever room is left between two large ones, at ten times the work a byte. Others pass it, but
            # only by one turn each.
            if self._is_bulk(half) or not self._is_due(half):
                continue
            size = min(self._allowed(half), room - StreamData.HEADER)
            if size or half.only_fin:
                room -= StreamData.HEADER + size
                self._emit(half, size, parts)
                served.append(half)
        self._end_turns(served)

    def _is_due(self, half: SendHalf) -> bool:
        if half.round != self._round:
            half.round, half.turn = self._round, 0
        return half.turn < TURN

    def _allowed(self, half: SendHalf) -> int:
        return min(half.allowed, self.limit - self.sent)

    def _is_bulk(self, half: SendHalf) -> bool:
        return self._has_large and self._allowed(half) >= BULK

    def _emit(self, half: SendHalf, size: int, parts: list[bytes | memoryview]) -> None:
        offset = half.sent
        pieces = half.take(size)
        half.done = half.only_fin
        parts.append(stream_header(half.stream, offset, size, fin=half.done))
        parts += pieces
        half.turn += size
        self.sent += size
        self.queued -= size
        self._moved.append(half.stream)

    def _end_turns(self, served: list[SendHalf]) -> None:
        for half in served:
            self.settle(half)
            if half.turn >= TURN and half in self._ready:
                self._ready.move_to_end(half)
