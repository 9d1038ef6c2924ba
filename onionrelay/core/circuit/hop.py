"""A circuit at a relay or target, from the first BUILD cell to DESTROY. specs/04b-circuits.md, "At a hop".

::

    COLLECTING  BUILD cells come in           DIALLING   the driver fetches a link to the next relay
    CALLING     BUILD sent on, no ACK yet     AWAITING   the next hop opened its record; the rest of the path answers
    OPEN        relay cells pass              STUB       the path broke behind this hop: open up to here, for 10 s
    CLOSED

Which of these a build reaches, admission.py decides; the hop carries it out. Whatever a peer sends in a state where it
has no place destroys the circuit.
"""

from enum import Enum, IntEnum
from typing import Protocol

from onionrelay.base.errors import DestroyReason, ProtocolViolation, UsageError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import (
    BUILD,
    BUILT_WAIT,
    CELL_HEADER,
    HALF_BUILT_LIFE,
    QUESTION_LIFE,
    TAG,
)
from onionrelay.core.circuit.end import payloads, write_cell
from onionrelay.core.circuit.forward import small_only, towards_client, towards_target
from onionrelay.core.circuit.side import CircuitSide, Receive
from onionrelay.core.effects import CircuitEnded, EndpointReached, MessageArrived, NextHopWanted, RoomToSend
from onionrelay.core.link.channel import Channel
from onionrelay.core.runtime import Runtime
from onionrelay.crypto.build import OpenedBuild
from onionrelay.crypto.layer import LayerForEnc
from onionrelay.wire.address import Endpoint
from onionrelay.wire.build import BuildRecord, BuildStatus, ReplyBody
from onionrelay.wire.cell import MAX_GEN, Cmd
from onionrelay.wire.link import Feature
from onionrelay.wire.relay import MessageAssembler, RelayCmd, RelayPayload, parse_payload


class Stage(Enum):
    """See the module."""

    COLLECTING = "collecting"
    DIALLING = "dialling"
    CALLING = "calling"
    AWAITING = "awaiting"
    OPEN = "open"
    STUB = "stub"
    CLOSED = "closed"


HALF_OPEN = frozenset({Stage.COLLECTING, Stage.DIALLING, Stage.CALLING, Stage.AWAITING})


class Ends(IntEnum):
    """Whether, and as what, a circuit ends at a hop."""

    NOT_HERE = 0
    AT_RELAY = 1
    AT_NODE = 2


HEARS = {
    Ends.NOT_HERE: frozenset({RelayCmd.ECHO}),
    Ends.AT_RELAY: frozenset({RelayCmd.ECHO, RelayCmd.DHT_QUERY, RelayCmd.DIR_GET}),
    Ends.AT_NODE: frozenset({RelayCmd.ECHO, RelayCmd.SESS}),
}
"""The relay commands that a hop takes from the client; any other destroys the circuit."""


class Examiner(Protocol):
    """Who decides what becomes of a whole BUILD message (admission.py)."""

    def examine(self, hop: "Hop", message: bytes) -> None:
        """Opens it and calls one of the hop's methods."""
        ...


class Hop:
    """See the module. A `CircuitEnd` where the circuit ends."""

    def __init__(self, runtime: Runtime, examiner: Examiner, channel: Channel, circ_id: int, gen: int) -> None:
        self.stage = Stage.COLLECTING
        self.ends = Ends.NOT_HERE
        self.up = CircuitSide(runtime, channel, circ_id, self)
        self.down: CircuitSide | None = None
        self._runtime = runtime
        self._examiner = examiner
        self._gen = gen
        self._message = bytearray()
        self._opened: OpenedBuild | None = None
        self._lifetime = 0
        self._bulk = False
        self._binding = b""
        self._backward: LayerForEnc | None = None  # set while relay cells may pass
        self._assembler = MessageAssembler()
        runtime.circuits += 1
        runtime.half_open += 1
        channel.half_open += 1
        runtime.wake(self, HALF_BUILT_LIFE)

    def __repr__(self) -> str:
        return f"Hop({self.stage.value})"

    def _enter(self, stage: Stage) -> None:
        if self.stage in HALF_OPEN and stage not in HALF_OPEN:
            self._runtime.half_open -= 1
            self.up.channel.half_open -= 1
        if stage is Stage.CLOSED:
            self._runtime.circuits -= 1
            self._runtime.node_ends -= self.ends is Ends.AT_NODE
        self.stage = stage

    # The build, on its way out

    def on_build(self, side: CircuitSide, gen: int, body: bytes) -> None:
        """One of the seven cells of BUILD."""
        if self.stage is not Stage.COLLECTING or gen != self._gen or gen > MAX_GEN:
            self.destroy(DestroyReason.PROTOCOL, "a BUILD cell out of place", at=side)
            return
        self._message += body
        if len(self._message) == BUILD:
            message, self._message = bytes(self._message), bytearray()
            self._examiner.examine(self, message)

    def accept(self, opened: OpenedBuild) -> None:
        """The record is authentic and fresh: the previous hop may stop waiting for this one."""
        self._opened = opened
        self._binding = opened.keys.binding
        self.up.send(Cmd.BUILD_ACK)

    def obey(self, record: BuildRecord) -> None:
        """Takes over what the record says of the circuit as a whole."""
        self._lifetime = record.lifetime
        self._bulk = record.bulk

    def dial(self, relay_id: RelayId, endpoint: Endpoint) -> None:
        """Asks the driver for a link to the next relay."""
        self._enter(Stage.DIALLING)
        self._runtime.wake(self, HALF_BUILT_LIFE)
        self._runtime.effects.append(NextHopWanted(self, relay_id, endpoint))

    def call(self, channel: Channel) -> None:
        """Sends what is left of the message on over a link to the next hop."""
        peer = channel.peer
        if self.stage not in (Stage.COLLECTING, Stage.DIALLING) or self._opened is None:
            return  # the circuit has ended while the link was fetched
        if channel.closed or peer is None or not peer.features & Feature.CIRCUITS:
            self.refuse(BuildStatus.NEXT_UNREACHABLE)
        elif len(channel.sides) >= channel.circuit_limit:
            self.refuse(BuildStatus.OVERLOADED)
        else:
            self._enter(Stage.CALLING)
            self.down = CircuitSide(self._runtime, channel, channel.new_circ_id(), self)
            self.down.send_build(self._opened.onward, self._gen)
            self._runtime.wake(self, channel.ack_wait)

    def on_build_ack(self, side: CircuitSide) -> None:
        """The next hop has opened its record."""
        if side is not self.down or self.stage is not Stage.CALLING:
            self.destroy(DestroyReason.PROTOCOL, "a BUILD_ACK out of place", at=side)
            return
        self._enter(Stage.AWAITING)
        self._runtime.wake(self, BUILT_WAIT)

    # The answer, on its way back

    def on_built(self, side: CircuitSide, reply: bytes) -> None:
        """The hops behind this one have answered, well or not: their answers are sealed to the client."""
        if side is not self.down or self.stage is not Stage.AWAITING:
            self.destroy(DestroyReason.PROTOCOL, "a BUILT out of place", at=side)
            return
        self._answer(ReplyBody(BuildStatus.OK), reply, self.down)

    def end_here(self, ends: Ends) -> None:
        """The circuit ends at this hop."""
        self.ends = ends
        self._runtime.node_ends += ends is Ends.AT_NODE
        self._answer(ReplyBody(BuildStatus.OK))
        if ends is Ends.AT_RELAY:
            self._runtime.wake(self, min(self._lifetime, QUESTION_LIFE))
        self._runtime.effects.append(EndpointReached(self))

    def refuse(self, status: BuildStatus, detail: int = 0) -> None:
        """The circuit gets no further than here, and the client is told why."""
        if self.stage not in HALF_OPEN or self._opened is None:
            return
        if self.down is not None:
            self.down.destroy(DestroyReason.NONE)
            self.down = None
        self._answer(ReplyBody(status, detail))
        self._enter(Stage.STUB)
        self._runtime.wake(self, HALF_BUILT_LIFE)

    def _answer(self, body: ReplyBody, reply: bytes | None = None, down: CircuitSide | None = None) -> None:
        """Seals this hop's answer before those of the hops behind it, and lets relay cells pass, or come to here."""
        opened, self._opened = self._opened, None
        if opened is None:
            raise UsageError("a hop answers the build it has accepted, once")
        self.up.send(Cmd.BUILT, opened.reply(body.encode(), reply))
        up, owing = self.up, self._runtime.owing
        self._backward = backward = LayerForEnc(opened.keys.backward)
        forward = LayerForEnc(opened.keys.forward)
        onward = down.pass_on if down else self._nowhere
        up.receive = self._checked(towards_target(up, owing, forward, self._deliver, onward), up)
        if down is not None:
            down.receive = self._checked(towards_client(down, owing, backward, up.pass_on), down)
        self._enter(Stage.OPEN)
        self._runtime.wake(self, self._lifetime)

    def _checked(self, receive: Receive, side: CircuitSide) -> Receive:
        """The receiver for a side, with a check of the cell size where the client has forbidden large ones."""
        if self._bulk:
            return receive
        return small_only(receive, lambda: self.destroy(DestroyReason.PROTOCOL, "a large cell", at=side))

    # Open

    def _nowhere(self, buf: bytearray, at: int, size: int, source: CircuitSide) -> None:  # noqa: ARG002 - a PassOn
        self.destroy(DestroyReason.PROTOCOL, "a cell that no layer recognises", at=source)

    def _deliver(self, buf: bytearray, at: int, size: int) -> None:
        """A cell for this hop: its layer is off, its payload plain."""
        try:
            message = self._assembler.feed(parse_payload(memoryview(buf)[at + CELL_HEADER + TAG : at + size]))
            if message is not None:
                self._hear(message)
        except ProtocolViolation as violation:
            self.destroy(violation.reason, str(violation), at=self.up)

    def _hear(self, message: RelayPayload) -> None:
        if message.cmd not in HEARS[self.ends]:
            raise ProtocolViolation(f"relay command {message.cmd} has no place at this hop")
        if message.cmd == RelayCmd.ECHO:
            if len(message.data) != 8:
                raise ProtocolViolation("an ECHO carries 8 bytes")
            self.send(RelayCmd.ECHOED, message.data, rid=message.rid)
        else:
            self._runtime.effects.append(MessageArrived(self, 0, message.cmd, message.rid, message.data))

    @property
    def binding(self) -> bytes:
        """See `CircuitEnd`."""
        return self._binding

    def can_send(self, large: bool = False) -> bool:
        """See `CircuitEnd`."""
        return self._backward is not None and (self._bulk or not large) and self.up.has_room()

    def send(self, cmd: int, data: bytes, *, hop: int | None = None, rid: int = 0, large: bool = False) -> None:
        """See `CircuitEnd`; there is nobody but the client to send to."""
        if hop:
            raise UsageError("a hop speaks to the client only")
        for payload in payloads(cmd, rid, data, large=large and self._bulk):
            self._send_cell(payload)

    def _send_cell(self, payload: bytes) -> None:
        layer, buf = self._backward, self._runtime.scratch
        if layer is None:
            return
        size = write_cell(buf, payload)
        layer.mark(buf, 0)
        layer.enc(buf, 0, size)
        layer.update()
        self.up.pass_on(buf, 0, size, None)

    def on_room(self) -> None:
        """See `CircuitOwner`."""
        self._runtime.effects.append(RoomToSend(self))

    # The end

    def on_destroy(self, side: CircuitSide, reason: DestroyReason) -> None:
        """The peer on one side ended the circuit."""
        if side is self.down and self.stage in HALF_OPEN:
            self.down = None
            self.refuse(BuildStatus.NEXT_REFUSED)
        else:
            self._close(DestroyReason.NONE, f"the client's side ended it ({reason.name.lower()})")

    def on_link_lost(self, side: CircuitSide) -> None:
        """One of the links is gone."""
        if side is self.down and self.stage in HALF_OPEN:
            self.down = None
            self.refuse(BuildStatus.NEXT_UNREACHABLE)
        else:
            self._close(DestroyReason.LINK_LOST, "a link of the circuit was lost")

    def on_timeout(self) -> None:
        """What the stage was waiting for has not come."""
        match self.stage:
            case Stage.DIALLING:
                self.refuse(BuildStatus.NEXT_UNREACHABLE)
            case Stage.CALLING:
                self.refuse(BuildStatus.NEXT_SILENT)
            case _:
                self.destroy(DestroyReason.TIMEOUT, "its time was up")

    def close(self, reason: DestroyReason = DestroyReason.FINISHED) -> None:
        """See `CircuitEnd`."""
        self._close(reason, None)

    def destroy(self, reason: DestroyReason, why: str, at: CircuitSide | None = None) -> None:
        """Ends the circuit from here; only the side at fault is told the reason."""
        self._close(reason, why, at)

    def _close(self, reason: DestroyReason, why: str | None, at: CircuitSide | None = None) -> None:
        if self.stage is Stage.CLOSED:
            return
        was_an_end = self.stage is Stage.OPEN and self.ends is not Ends.NOT_HERE
        self._enter(Stage.CLOSED)
        self._runtime.timers.cancel(self)
        self._opened = self._backward = None
        self._message.clear()
        for side in (self.up, self.down):
            if side is not None:
                side.destroy(reason if at in (None, side) else DestroyReason.NONE)
        if was_an_end and why is not None:
            self._runtime.effects.append(CircuitEnded(self, why))
