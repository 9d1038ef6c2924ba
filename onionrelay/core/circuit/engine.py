"""Every link and circuit of one process: the engine that relays, clients and targets run alike. specs/04b-circuits.md.

Deterministic, without I/O, clock or chance of its own. A driver tells it what happened, by the methods below; after
each call it acts on `take_effects`, flushes the outboxes of `take_dirty`, and sees to it that `on_timeout` is called at
`deadline`. Nothing a peer sends makes a method raise.

A cell passes through in four steps: `feed` splits (forward.py); relay cells go straight to their circuit; `_on_cell`
tells what concerns the link (link/channel.py) from what concerns a circuit (hop.py, origin.py); `_settle` grants credit
for all of it at once.
"""

from onionrelay.base.errors import DestroyReason, LinkRefused, NetworkError, ProtocolViolation, UsageError
from onionrelay.base.limits import MAX_CELLS_PER_CIRCUIT, QUEUE_MEMORY
from onionrelay.base.seams import Rng
from onionrelay.core.circuit.admission import Admission, FinalTable
from onionrelay.core.circuit.build_times import BuildTimes
from onionrelay.core.circuit.forward import read_cells
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.circuit.keyring import KeySet, OnionKeyRing
from onionrelay.core.circuit.origin import Origin
from onionrelay.core.circuit.plan import CircuitPlan, PlannedHop
from onionrelay.core.effects import Effect
from onionrelay.core.link.channel import Channel, Handshake, LinkPurpose
from onionrelay.core.runtime import Runtime
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import LINK_COMMANDS, Cmd, pack_credit, parse_build_ack, parse_destroy
from onionrelay.wire.descriptor import Roles
from onionrelay.wire.link import Feature

__all__ = ["CircuitPlan", "Engine", "FinalTable", "Handshake", "KeySet", "OnionKeyRing", "PlannedHop"]


class Engine:
    """See the module. `now` is the driver's monotonic clock in seconds, `unix_now` the wall clock's."""

    def __init__(
        self,
        *,
        net_id: bytes,
        rng: Rng,
        now: float,
        testnet: bool,
        finals: FinalTable | None,
        roles: Roles,
        queue_memory: int = QUEUE_MEMORY,
    ) -> None:
        """`finals`: the attachments held here, when `roles` has FINAL. `queue_memory` bounds all queues together."""
        self._runtime = Runtime(net_id=net_id, rng=rng, now=now, queue_memory=queue_memory)
        self._admission = Admission(self._runtime, testnet=testnet, finals=finals, roles=roles)
        self._build_times = BuildTimes()

    @property
    def queued_bytes(self) -> int:
        """What waits in the queues of all circuits; the outboxes of the links not counted."""
        return self._runtime.queued

    @property
    def circuits(self) -> int:
        """How many circuits pass through or end here, the client's own not counted."""
        return self._runtime.circuits

    # Links

    def add_link(
        self, handshake: Handshake, *, is_server: bool, purpose: LinkPurpose, build_keys: KeySet | None, now: float
    ) -> Channel:
        """Takes over a fresh connection. A client's first bytes are in `channel.outbox` on return."""
        self._runtime.now = now
        return Channel(self._runtime, handshake, is_server=is_server, purpose=purpose, build_keys=build_keys)

    def feed(self, channel: Channel, buf: bytearray, size: int, now: float, unix_now: int) -> int:
        """Handles what arrived on a link; returns how many bytes of `buf[:size]` are done with.

        Works in place: the buffer's content is used up, and 16 bytes behind `size` have to exist. The rest, less than
        one cell, must come again in front of what follows.
        """
        if channel.closed:
            return size
        self._runtime.now, self._runtime.unix_now = now, unix_now
        channel.heard()
        try:
            used = read_cells(channel, buf, size, self._on_cell)
        except LinkRefused as refusal:
            channel.write(refusal.answer)
            channel.close(refusal.reason, refused=True)
            used = size
        except ProtocolViolation as violation:
            channel.close(str(violation))
            used = size
        self._settle()
        return used

    def _on_cell(self, channel: Channel, circ_id: int, cmd: int, reserved: int, body: bytes) -> None:
        gen = reserved >> 16
        if reserved and (cmd != Cmd.BUILD or reserved & 0xFFFF):
            raise ProtocolViolation("a reserved header byte is not zero")
        if (circ_id == 0) != (cmd in LINK_COMMANDS):
            raise ProtocolViolation(f"command {cmd} on {'a' if circ_id else 'no'} circuit")
        if cmd in LINK_COMMANDS:
            channel.on_link_cell(cmd, body)
        else:
            self._on_circuit_cell(channel, circ_id, cmd, gen, body)

    def _on_circuit_cell(self, channel: Channel, circ_id: int, cmd: int, gen: int, body: bytes) -> None:
        side = channel.sides.get(circ_id)
        if side is None:
            if cmd == Cmd.BUILD and channel.peer is not None and circ_id not in channel.tombstones:
                self._admission.begin(channel, circ_id, gen, body)
            else:
                channel.on_stray(circ_id, cmd, len(body))
            return
        match cmd:
            case Cmd.BUILD:
                side.owner.on_build(side, gen, body)
            case Cmd.BUILD_ACK:
                parse_build_ack(body)
                side.owner.on_build_ack(side)
            case Cmd.BUILT:
                side.owner.on_built(side, body)
            case Cmd.DESTROY:
                reason = parse_destroy(body)
                side.leave()
                side.owner.on_destroy(side, reason)

    def on_room(self, channel: Channel, now: float) -> None:
        """The transport has sent enough of the channel's outbox: queued cells move up."""
        self._runtime.now = now
        if not channel.closed:
            channel.on_room()
            self._settle()

    def on_link_lost(self, channel: Channel, now: float) -> None:
        """The connection is gone. No LinkClosing follows: the driver knows."""
        self._runtime.now = now
        channel.lost()
        self._settle()

    def send_control(self, channel: Channel, cmd: int, type: int, body: bytes) -> None:  # noqa: A002 - the wire's word
        """Sends a control message; nothing happens on a closed channel."""
        channel.send_control(cmd, type, body)

    def close_link(self, channel: Channel, reason: str) -> None:
        """Ends a link and what runs over it; LinkClosing follows. `reason` is for people, the peer is told nothing."""
        channel.close(reason)

    # Circuits

    def open_circuit(self, channel: Channel, plan: CircuitPlan, now: float, unix_now: int) -> Origin:
        """Starts to build a circuit over a link to its first hop. CircuitOpened or CircuitRefused follows.

        Raises NetworkError when the link is closed or full, or its peer takes no circuits.
        """
        if channel.peer is None:
            raise UsageError("a circuit is opened over a link that is up")
        if channel.closed:
            raise NetworkError("the guard's link is closed")
        if not channel.peer.features & Feature.CIRCUITS:
            raise NetworkError("the guard's link takes no circuits")
        if len(channel.sides) >= channel.circuit_limit:
            raise NetworkError("the guard's link carries as many circuits as it may")
        self._runtime.now, self._runtime.unix_now = now, unix_now
        return Origin(self._runtime, channel, plan, self._build_times)

    def offer_next(self, hop: Hop, channel: Channel, now: float) -> None:
        """Answers NextHopWanted: here is a link to that relay."""
        self._runtime.now = now
        hop.call(channel)

    def refuse_next(self, hop: Hop, status: BuildStatus, now: float) -> None:
        """Answers NextHopWanted: there is no link, and this is what to tell the client."""
        self._runtime.now = now
        hop.refuse(status)

    # Time

    @property
    def deadline(self) -> float | None:
        """When to call `on_timeout`; None: not before something else has happened."""
        return self._runtime.timers.next

    def on_timeout(self, now: float, unix_now: int) -> None:
        """Handles every timer that is due."""
        self._runtime.now, self._runtime.unix_now = now, unix_now
        while (owner := self._runtime.timers.pop_due(now)) is not None:
            owner.on_timeout()
        self._settle()

    # What the driver takes

    def take_effects(self) -> list[Effect]:
        """What happened since the last time, in order."""
        effects, self._runtime.effects = self._runtime.effects, []
        return effects

    def take_dirty(self) -> list[Channel]:
        """The channels whose outbox grew since the last time."""
        dirty = list(self._runtime.dirty)
        self._runtime.dirty.clear()
        return dirty

    # The end of a pass

    def _settle(self) -> None:
        if self._runtime.owing:
            self._grant_credit()
        if self._runtime.is_full:
            self._relieve_memory()

    def _grant_credit(self) -> None:
        """Gives back what has left its queue: for each link in as few CREDIT cells as possible."""
        runtime = self._runtime
        entries: dict[Channel, list[tuple[int, int]]] = {}
        for side in list(runtime.owing):
            channel = side.channel
            if channel.sides.get(side.circ_id) is not side:
                continue
            if side.window.cells > MAX_CELLS_PER_CIRCUIT:
                side.owner.destroy(DestroyReason.RESOURCES, "the circuit has carried as many cells as one may")
            elif amount := side.window.grant(runtime.now, channel.rtt or 0.0):
                entries.setdefault(channel, []).append((side.circ_id, amount))
        runtime.owing.clear()
        for channel, grants in entries.items():
            channel.write(pack_credit(grants))

    def _relieve_memory(self) -> None:
        """Destroys the circuits whose cells have waited longest, until the queues are short enough.

        Age and not size: a circuit whose reader stands still is the attack, a fast one with a large window is not.
        """
        for side in sorted(self._runtime.backlogged, key=lambda side: side.waiting_since):
            if self._runtime.is_relieved:
                break
            side.owner.destroy(DestroyReason.RESOURCES, "the queues of this relay are full")
