"""One link's cell traffic, after TLS and before any socket. specs/02-wire.md, specs/04b-circuits.md.

A channel handles what concerns the link itself: the handshake, control messages, credit entries, PING and PONG, cells
of unknown circuits. What concerns one circuit is its sides' matter; `Engine` tells the two apart.

It raises ProtocolViolation, MalformedMessage or LinkRefused for what the peer did; the engine then closes it.
"""

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from onionrelay.base.errors import DestroyReason, ProtocolViolation
from onionrelay.base.limits import (
    BUILD_ACK_BASE,
    BUILD_ACK_MIN,
    CIRCUITS_PER_CLIENT_LINK,
    CIRCUITS_PER_LINK,
    HALF_BUILT_LIFE,
    INITIAL_ALLOWANCE,
    LINK_HANDSHAKE_TIMEOUT,
    SEND_QUEUE,
)
from onionrelay.core.effects import ControlArrived, LinkClosing, LinkUp
from onionrelay.core.link.keepalive import KeepAlive
from onionrelay.core.link.tombstones import Tombstones
from onionrelay.core.link.turns import Turns
from onionrelay.core.runtime import Runtime
from onionrelay.wire.cell import SERVER_CIRCUIT, Cmd, pack_destroy, pack_ping, parse_credit, parse_ping
from onionrelay.wire.control import Assembler, ControlMessage, control_limit, fragment

if TYPE_CHECKING:
    from onionrelay.core.circuit.keyring import KeySet
    from onionrelay.core.circuit.side import CircuitSide
    from onionrelay.core.link.handshake import Peer
    from onionrelay.core.token_bucket import TokenBucket


class LinkPurpose(Enum):
    """What this end uses a link for."""

    GUARD = "guard"  # a client's circuits begin here
    ATTACHMENT = "attachment"  # a target holds it open, and circuits arrive on it
    RELAY = "relay"  # dialled to pass circuits on
    DIRECTORY = "directory"
    ACCEPTED = "accepted"  # the peer knows


class Handshake(Protocol):
    """Either side of the link handshake (core/link/handshake.py)."""

    @property
    def peer(self) -> "Peer | None":
        """Set once the handshake is complete."""
        ...

    def start(self) -> bytes:
        """The first cells; none at the server."""
        ...

    def on_message(self, cmd: int, type: int, body: bytes, unix_now: int) -> bytes:  # noqa: A002 - the wire's word
        """Takes a message of the peer; the cells to answer with."""
        ...


class Channel:
    """See the module. `build_keys`: the keys a BUILD arriving here is tried with; None: with none.

    `outbox` is the transport's to send from; `congested` says that it is full, so that relay cells wait in their
    circuits' queues until `on_room`.
    """

    def __init__(
        self,
        runtime: Runtime,
        handshake: Handshake,
        *,
        is_server: bool,
        purpose: LinkPurpose,
        build_keys: "KeySet | None",
    ) -> None:
        self.outbox = bytearray()
        self.congested = False
        self.is_server = is_server
        self.purpose = purpose
        self.build_keys = build_keys
        self.peer: Peer | None = None
        self.closed = False
        self.sides: dict[int, CircuitSide] = {}
        self.turns: Turns[CircuitSide] = Turns()
        self.tombstones = Tombstones()
        self.max_circuits: int | None = None  # what the peer asked for, where it may: a target in its ATTACH
        self.half_open = 0
        self.build_bucket: TokenBucket | None = None  # set at the first BUILD of a client
        self._runtime = runtime
        self._handshake = handshake
        self._assemblers: dict[int, Assembler] = {}
        self._keepalive = KeepAlive(runtime.now, behind_nat=purpose is LinkPurpose.ATTACHMENT)
        runtime.wake(self, LINK_HANDSHAKE_TIMEOUT)
        self.write(handshake.start())

    def __repr__(self) -> str:
        state = "closed" if self.closed else "up" if self.peer else "in handshake"
        return f"Channel({self.purpose.value}, {state}, {len(self.sides)} circuits)"

    @property
    def is_client_link(self) -> bool:
        """The peer dialled and did not say who it is: a client, or a target that attaches."""
        return self.is_server and self.peer is not None and self.peer.relay_id is None

    @property
    def rtt(self) -> float | None:
        """The link's round trip in seconds; None until the first PONG."""
        return self._keepalive.round_trip

    @property
    def ack_wait(self) -> float:
        """How long a hop at the other end may take to acknowledge a build."""
        return min(HALF_BUILT_LIFE, max(BUILD_ACK_MIN, BUILD_ACK_BASE + 4 * (self.rtt or 0.0)))

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent: the outbox and all circuits' queues."""
        return len(self.outbox) + sum(side.queued for side in self.sides.values())

    @property
    def circuit_limit(self) -> int:
        """How many circuits the link may carry."""
        limit = CIRCUITS_PER_CLIENT_LINK if self.is_client_link else CIRCUITS_PER_LINK
        return limit if self.max_circuits is None else min(limit, self.max_circuits)

    # Sending

    def write(self, cells: bytes) -> None:
        """Appends whole cells that need no credit."""
        if cells and not self.closed:
            self.outbox += cells
            self._runtime.dirty[self] = None

    def send_control(self, cmd: int, type: int, body: bytes) -> None:  # noqa: A002 - the wire's word
        """Sends one control message, in one piece."""
        self.write(fragment(cmd, type, body))

    def refuse(self, circ_id: int, reason: DestroyReason) -> None:
        """Answers a circuit that was not taken; its further cells find a tombstone."""
        self.tombstones.bury(circ_id, INITIAL_ALLOWANCE, self._runtime.now)
        self.write(pack_destroy(circ_id, reason))

    def move(self) -> None:
        """Moves queued cells into the outbox, in turns, while it has room."""
        while not self.congested and (side := self.turns.next()) is not None:
            side.send_first()
            self.congested = len(self.outbox) >= SEND_QUEUE

    def on_room(self) -> None:
        """The transport drained the outbox to below half of SEND_QUEUE."""
        self.congested = False
        self.move()

    # Receiving

    def heard(self) -> None:
        """Bytes arrived."""
        self._keepalive.heard(self._runtime.now)

    def on_link_cell(self, cmd: int, body: bytes) -> None:
        """Handles a cell of circ_id 0."""
        if self.peer is None and cmd not in (Cmd.HELLO, Cmd.AUTH, Cmd.PADDING):
            raise ProtocolViolation("a cell before the link handshake was complete")
        match cmd:
            case Cmd.PADDING:
                pass
            case Cmd.CREDIT:
                self._on_credit(body)
            case Cmd.PING:
                self.write(pack_ping(Cmd.PONG, parse_ping(body)))
            case Cmd.PONG:
                self._keepalive.pong(parse_ping(body), self._runtime.now)
                self._runtime.timers.set(self, self._keepalive.deadline)
            case _:
                self._on_fragment(cmd, body)

    def _on_credit(self, body: bytes) -> None:
        for circ_id, amount in parse_credit(body):
            side = self.sides.get(circ_id)
            if side is not None:  # else it crossed with a DESTROY
                side.on_credit(amount)
        self.move()

    def _on_fragment(self, cmd: int, body: bytes) -> None:
        assembler = self._assemblers.get(cmd)
        if assembler is None:
            assembler = self._assemblers[cmd] = Assembler(control_limit(cmd))
        message = assembler.feed(body)
        if message is None:
            return
        del self._assemblers[cmd]
        if cmd in (Cmd.HELLO, Cmd.AUTH):
            self._on_handshake(cmd, message)
        else:
            self._runtime.effects.append(ControlArrived(self, cmd, message.type, message.body))

    def _on_handshake(self, cmd: int, message: ControlMessage) -> None:
        if self.peer is not None:
            raise ProtocolViolation("a handshake message after the handshake")
        runtime, handshake = self._runtime, self._handshake
        self.write(handshake.on_message(cmd, message.type, message.body, runtime.unix_now))
        if handshake.peer is not None:
            self.peer = handshake.peer
            runtime.effects.append(LinkUp(self, handshake.peer))
            self._ping()

    def on_stray(self, circ_id: int, cmd: int, size: int) -> None:
        """Handles a cell of a circuit that this link does not have."""
        if self.peer is None:
            raise ProtocolViolation("a cell before the link handshake was complete")
        if not circ_id:
            raise ProtocolViolation("a relay cell on no circuit")
        if circ_id in self.tombstones:
            if cmd in (Cmd.RELAY, Cmd.RELAY_BULK):
                self.tombstones.charge(circ_id, size)
            return
        self.tombstones.stray(self._runtime.now)
        if cmd != Cmd.DESTROY:
            self.write(pack_destroy(circ_id, DestroyReason.UNKNOWN_CIRCUIT))

    # Circuit ids

    def new_circ_id(self) -> int:
        """A random id for a circuit opened from this end."""
        mine = SERVER_CIRCUIT if self.is_server else 0
        while True:
            circ_id = int.from_bytes(self._runtime.rng.token(4)) & ~SERVER_CIRCUIT | mine
            if circ_id & ~SERVER_CIRCUIT and circ_id not in self.sides and circ_id not in self.tombstones:
                return circ_id

    def is_peers(self, circ_id: int) -> bool:
        """Whether the peer is the one to open a circuit of this id."""
        return bool(circ_id & SERVER_CIRCUIT) != self.is_server

    # Time, and the end

    def on_timeout(self) -> None:
        """The handshake took too long, or the keep-alive has something to do."""
        now = self._runtime.now
        if self.peer is None:
            self.close("the link handshake was not completed in time")
        elif self._keepalive.is_dead(now):
            self.close("the peer has fallen silent")
        else:
            self.tombstones.forget(now)
            self._ping()

    def _ping(self) -> None:
        now = self._runtime.now
        if self._keepalive.wants_ping(now):
            token = int.from_bytes(self._runtime.rng.token(8))
            self._keepalive.ping(token, now)
            self.write(pack_ping(Cmd.PING, token))
        self._runtime.timers.set(self, self._keepalive.deadline)

    def close(self, why: str, *, refused: bool = False) -> None:
        """Gives the link up from this end: its circuits end, and the driver is asked to close it."""
        if not self.closed:
            self._runtime.effects.append(LinkClosing(self, why, refused))
            self.lost()

    def lost(self) -> None:
        """The link is gone: every circuit learns that it has lost this side."""
        if self.closed:
            return
        self.closed = True
        self._runtime.timers.cancel(self)
        self._assemblers.clear()
        sides = list(self.sides.values())
        self.sides.clear()
        for side in sides:
            side.let_go()
            side.owner.on_link_lost(side)
