"""A circuit on one of its links: its id there, the credit of both directions, and what waits to be sent.

A relay's hop has two sides, a client's or target's end one. `pass_on` is the last step of the forwarding path, which
forward.py shows as a whole.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import (
    BUILD,
    END_QUEUE,
    END_QUEUE_HARD,
    INITIAL_ALLOWANCE,
    SEND_QUEUE,
    SMALL_BODY,
)
from onionrelay.core.link.credit import ReceiveWindow, raised
from onionrelay.core.runtime import Runtime
from onionrelay.wire.cell import Cmd, pack_cell, pack_destroy

if TYPE_CHECKING:
    from onionrelay.core.link.channel import Channel


class CircuitOwner(Protocol):
    """What a circuit is at this engine: a `Hop` or an `Origin`. Each method is told the side it happened on."""

    def on_build(self, side: "CircuitSide", gen: int, body: bytes) -> None:
        """One cell of a BUILD message."""
        ...

    def on_build_ack(self, side: "CircuitSide") -> None:
        """The next hop opened its record."""
        ...

    def on_built(self, side: "CircuitSide", reply: bytes) -> None:
        """The answers of the hops behind this side."""
        ...

    def on_destroy(self, side: "CircuitSide", reason: DestroyReason) -> None:
        """The peer ended the circuit. The side is taken off its link already."""
        ...

    def on_link_lost(self, side: "CircuitSide") -> None:
        """The link is gone, and the side with it."""
        ...

    def on_room(self) -> None:
        """The queue of cells that this end originated has become short."""
        ...

    def destroy(self, reason: DestroyReason, why: str, at: "CircuitSide | None" = None) -> None:
        """Ends the circuit from here. `at`: the side whose peer gave the reason to; None: nobody's."""
        ...


Receive = Callable[[bytearray, int, int], None]
"""Takes the relay cell of `size` bytes (third) that begins at `at` (second), in place."""


class CircuitSide:
    """See the module. `receive` is where relay cells arriving on this side go; the owner sets it when it opens."""

    __slots__ = (
        "_runtime",
        "allowance",
        "channel",
        "circ_id",
        "enlisted",
        "own",
        "owner",
        "queue",
        "queued",
        "receive",
        "turn",
        "wants_room",
        "window",
        "wire_id",
    )

    def __init__(self, runtime: Runtime, channel: "Channel", circ_id: int, owner: CircuitOwner) -> None:
        self._runtime = runtime
        self.channel = channel
        self.circ_id = circ_id
        self.wire_id = bytearray(circ_id.to_bytes(4))  # not bytes: those are copied once more when written to a buffer
        self.owner = owner
        self.receive: Receive = self._too_early
        self.window = ReceiveWindow(runtime.now)
        self.allowance = INITIAL_ALLOWANCE
        self.queue: deque[tuple[bytes, CircuitSide | None, float]] = deque()
        self.queued = 0
        self.own = 0  # the part of `queued` that began at this end
        self.wants_room = False
        self.enlisted = False  # this and `turn` belong to the channel's Turns
        self.turn = 0
        channel.sides[circ_id] = self

    # Relay cells

    def pass_on(self, buf: bytearray, at: int, size: int, source: "CircuitSide | None") -> None:
        """Sends the relay cell at `at` on over this link: into the outbox if link and peer have room, else a queue.

        `source`: the side it arrived on, whose peer gets the credit back when the cell leaves; None: it began here.
        """
        buf[at : at + 4] = self.wire_id
        channel = self.channel
        if channel.congested or self.queue or self.allowance < size:
            self._enqueue(bytes(memoryview(buf)[at : at + size]), source)
            return
        self.allowance -= size
        outbox = channel.outbox
        outbox += memoryview(buf)[at : at + size]
        if len(outbox) >= SEND_QUEUE:
            channel.congested = True
        self._runtime.dirty[channel] = None

    def _too_early(self, buf: bytearray, at: int, size: int) -> None:  # noqa: ARG002 - a Receive
        self.owner.destroy(DestroyReason.PROTOCOL, "a relay cell before the circuit was open", at=self)

    def _enqueue(self, cell: bytes, source: "CircuitSide | None") -> None:
        runtime = self._runtime
        self.queue.append((cell, source, runtime.now))
        self.queued += len(cell)
        runtime.queued += len(cell)
        runtime.backlogged[self] = None
        if source is not None:
            source.window.hold(len(cell))
        else:
            self.own += len(cell)
            if self.own > END_QUEUE_HARD:
                self.owner.destroy(DestroyReason.RESOURCES, "the other end does not take what it asks for")
                return
        if self.ready:
            self.channel.turns.enlist(self)

    @property
    def ready(self) -> bool:
        """Whether the first queued cell may go as far as the peer's credit is concerned."""
        return bool(self.queue) and len(self.queue[0][0]) <= self.allowance

    def send_first(self) -> None:
        """Moves the first queued cell to the outbox. Only when `ready`."""
        cell, source, _ = self.queue.popleft()
        size = len(cell)
        self.allowance -= size
        self.turn -= size
        self._unqueue(size)
        self.channel.write(cell)
        if source is not None:
            source.window.release(size)
            self._runtime.owing[source] = None
        else:
            self.own -= size
        if self.wants_room and self.own <= END_QUEUE // 2:
            self.wants_room = False
            self.owner.on_room()

    def _unqueue(self, size: int) -> None:
        self.queued -= size
        self._runtime.queued -= size
        if not self.queue:
            self._runtime.backlogged.pop(self, None)

    @property
    def waiting_since(self) -> float:
        """When the oldest queued cell arrived."""
        return self.queue[0][2]

    def has_room(self) -> bool:
        """Whether an end may originate a cell now. After a no, the owner's `on_room` is called in time."""
        if self.own < END_QUEUE:
            return True
        self.wants_room = True
        return False

    def on_credit(self, amount: int) -> None:
        """The peer allows more; the channel then moves what may go."""
        self.allowance = raised(self.allowance, amount)
        if self.ready:
            self.channel.turns.enlist(self)

    # The life of the circuit on this link

    def send(self, cmd: int, body: bytes = b"") -> None:
        """Sends one cell that needs no credit."""
        self.channel.write(pack_cell(self.circ_id, cmd, body))

    def send_build(self, message: bytes, gen: int) -> None:
        """Sends a BUILD message in its seven cells."""
        for start in range(0, BUILD, SMALL_BODY):
            self.channel.write(pack_cell(self.circ_id, Cmd.BUILD, message[start : start + SMALL_BODY], gen))

    def destroy(self, reason: DestroyReason) -> None:
        """Tells the peer that the circuit is gone, ahead of all that is queued, and takes it off the link."""
        if self.channel.sides.get(self.circ_id) is self:
            self.leave()
            self.channel.write(pack_destroy(self.circ_id, reason))

    def leave(self) -> None:
        """Takes the circuit off its link and drops its queue; cells still under way to here find a tombstone."""
        self.let_go()
        del self.channel.sides[self.circ_id]
        self.channel.tombstones.bury(self.circ_id, self.window.left, self._runtime.now)

    def let_go(self) -> None:
        """Forgets what waits to be sent, and the receiver, which holds the keys of the layers."""
        self.receive = self._too_early
        self.own = 0
        self.queue.clear()
        self._unqueue(self.queued)
