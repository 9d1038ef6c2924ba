"""The links of a `MemoryNet`: two directions each, that a test may listen to and rule."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onionrelay.base.limits import SEND_QUEUE, SEND_QUEUE_HARD
from onionrelay.core.link.channel import Channel
from onionrelay.wire.cell import CELL_SIZE

if TYPE_CHECKING:
    from onionrelay.testing.memory_net import MemoryNet, MemoryNode

SPARE = 16  # bytes behind its input that an engine may use

Adversary = Callable[[bytes], Iterable[bytes]]
"""What becomes of one whole cell on its way: itself, nothing, something else, or several cells."""


class Direction:
    """One half of a link: cells from `sender` to `receiver`, each a (node, channel) pair.

    `tap`: a list that every cell is appended to as it was sent. `seconds`: how long cells take. While `stalled`,
    nothing leaves the sender's outbox.
    """

    def __init__(self, net: "MemoryNet", sender: tuple["MemoryNode", Channel], seconds: float) -> None:
        self.sender = sender
        self.receiver: tuple[MemoryNode, Channel]
        self.seconds = seconds
        self.tap: list[bytes] | None = None
        self.adversary: Adversary | None = None
        self.stalled = False
        self.cut = False
        self._net = net
        self._unread = b""

    def flush(self) -> None:
        """Takes what is in the sender's outbox, as a transport would."""
        node, channel = self.sender
        if len(channel.outbox) > SEND_QUEUE_HARD:
            self._net.lose(channel)
        if self.cut or self.stalled or not channel.outbox:
            return
        was_above = len(channel.outbox) > SEND_QUEUE // 2
        data = bytes(channel.outbox)
        channel.outbox.clear()
        self.send(data)
        if was_above:
            self._net.at(0.0, lambda: node.act(lambda: node.engine.on_room(channel, self._net.now)))

    def send(self, cells: bytes) -> None:
        """Carries whole cells to the receiver; a test may call it to inject some."""
        arriving = b"".join(out for cell in split(cells) for out in self._rule(cell))
        if arriving:
            self._net.at(self.seconds, lambda: self.deliver(arriving))

    def _rule(self, cell: bytes) -> Iterable[bytes]:
        if self.tap is not None:
            self.tap.append(cell)
        return self.adversary(cell) if self.adversary else (cell,)

    def deliver(self, data: bytes) -> None:
        """Hands bytes to the receiving engine now."""
        if self.cut:
            return
        node, channel = self.receiver
        data = self._unread + data
        buf = bytearray(data) + bytes(SPARE)
        used = node.act(lambda: node.engine.feed(channel, buf, len(data), self._net.now, self._net.unix_now))
        self._unread = data[used:]


@dataclass(frozen=True, slots=True)
class Pipe:
    """A link. `forth` runs from the dialling end, `back` towards it."""

    forth: Direction
    back: Direction


def split(cells: bytes) -> list[bytes]:
    """Bytes that are whole cells, as cells."""
    parts = []
    at = 0
    while at < len(cells):
        size = CELL_SIZE[cells[at + 4]]
        parts.append(cells[at : at + size])
        at += size
    return parts
