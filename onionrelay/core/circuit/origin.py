"""A circuit at the client that builds it. specs/04b-circuits.md, "At the client".

::

    CALLING    BUILD sent, no ACK yet        AWAITING   the first hop opened its record
    OPEN       every hop answered well       CLOSED

The client alone knows the whole path: it takes the layers off in turn to see which hop a cell is from, and reads in the
sealed answers which hop a failed build failed at.
"""

from dataclasses import replace
from enum import Enum

from onionrelay.base.errors import DestroyReason, MalformedMessage, ProtocolViolation, UsageError
from onionrelay.base.limits import CELL_HEADER, RECORD_PLAINTEXT, TAG
from onionrelay.core.circuit.build_times import BuildTimes
from onionrelay.core.circuit.end import payloads, write_cell
from onionrelay.core.circuit.forward import small_only
from onionrelay.core.circuit.plan import CircuitPlan
from onionrelay.core.circuit.side import CircuitSide
from onionrelay.core.effects import CircuitEnded, CircuitOpened, CircuitRefused, MessageArrived, RoomToSend
from onionrelay.core.link.channel import Channel
from onionrelay.core.runtime import Runtime
from onionrelay.crypto.build import CircuitKeys, CircuitSealer
from onionrelay.crypto.layer import LayerForDec
from onionrelay.crypto.ticket import build_ticket
from onionrelay.wire.build import BuildStatus, ReplyBody, Role
from onionrelay.wire.relay import MessageAssembler, RelayCmd, RelayPayload, parse_payload


class Stage(Enum):
    """See the module."""

    CALLING = "calling"
    AWAITING = "awaiting"
    OPEN = "open"
    CLOSED = "closed"


ANSWER_TO = {
    RelayCmd.ECHO: RelayCmd.ECHOED,
    RelayCmd.DHT_QUERY: RelayCmd.DHT_ANSWER,
    RelayCmd.DIR_GET: RelayCmd.DIR_DATA,
}
"""The relay commands that ask, and what answers each: once, with the same request id, from the hop that was asked."""


class HopLayers:
    """What the client shares with one hop."""

    __slots__ = ("assembler", "backward", "forward")

    def __init__(self, keys: CircuitKeys) -> None:
        self.forward = LayerForDec(keys.forward)
        self.backward = LayerForDec(keys.backward)
        self.assembler = MessageAssembler()


class Origin:
    """See the module. A `CircuitEnd`."""

    def __init__(self, runtime: Runtime, channel: Channel, plan: CircuitPlan, times: BuildTimes) -> None:
        self.plan = plan
        self.stage = Stage.CALLING
        self._runtime = runtime
        self._times = times
        self._started = runtime.now
        self._give_up = runtime.now + times.timeout
        self._layers: list[HopLayers] = []
        self._binding = b""
        self._asked: set[tuple[int, int, int]] = set()  # hop, command of the answer, rid
        self._in_session = False
        self._bulk = plan.hops[0].record.bulk
        self._sealer: CircuitSealer | None = CircuitSealer(
            runtime.net_id, [(hop.identity, hop.onion) for hop in plan.hops], runtime.rng
        )
        message = self._seal(self._sealer)
        self._side = CircuitSide(runtime, channel, channel.new_circ_id(), self)
        self._side.send_build(message, gen=0)
        runtime.timers.set(self, min(runtime.now + channel.ack_wait, self._give_up))

    def __repr__(self) -> str:
        return f"Origin({self.stage.value}, {len(self.plan.hops)} hops)"

    # The build

    def _seal(self, sealer: CircuitSealer) -> bytes:
        plaintexts = []
        for index, hop in enumerate(self.plan.hops):
            record = hop.record
            if record.role is Role.HANDLE:
                record = replace(record, ticket=build_ticket(self.plan.k_ticket, sealer.ephemeral(index)))
            plaintexts.append(record.encode(self._runtime.rng.token(RECORD_PLAINTEXT)))
        return sealer.seal(plaintexts)

    def on_build(self, side: CircuitSide, gen: int, body: bytes) -> None:  # noqa: ARG002 - a CircuitOwner
        """Nobody builds towards the client on its own circuit."""
        self.destroy(DestroyReason.PROTOCOL, "the first hop sent a BUILD cell", at=side)

    def on_build_ack(self, side: CircuitSide) -> None:
        """The first hop has opened its record."""
        if self.stage is not Stage.CALLING:
            self.destroy(DestroyReason.PROTOCOL, "the first hop sent a BUILD_ACK out of place", at=side)
            return
        self.stage = Stage.AWAITING
        self._runtime.timers.set(self, self._give_up)

    def on_built(self, side: CircuitSide, reply: bytes) -> None:
        """The answers of all hops that were reached."""
        sealer = self._sealer
        if self.stage is not Stage.AWAITING or sealer is None:
            self.destroy(DestroyReason.PROTOCOL, "the first hop sent a BUILT out of place", at=side)
            return
        self._times.add(self._runtime.now - self._started)
        answer = sealer.open_reply(reply)
        if answer.garbled:
            self._refused(0, None, f"the answer is garbled behind hop {len(answer.hops)}")
            return
        try:
            status = ReplyBody.decode(answer.hops[-1].body).status
        except MalformedMessage as fault:
            self._refused(len(answer.hops), None, str(fault))
            return
        if status is not BuildStatus.OK:
            self._refused(len(answer.hops), status, status.name.lower().replace("_", " "))
        else:
            self._open([hop.keys for hop in answer.hops])

    def _open(self, keys: list[CircuitKeys]) -> None:
        self._sealer = None
        self._layers = [HopLayers(hop) for hop in keys]
        self._binding = keys[-1].binding
        self._side.receive = self._receive if self._bulk else small_only(self._receive, self._on_large_cell)
        self.stage = Stage.OPEN
        self._runtime.wake(self, self.plan.lifetime)
        self._runtime.effects.append(CircuitOpened(self))

    def _refused(self, hop: int, status: BuildStatus | None, why: str) -> None:
        self._end(DestroyReason.FINISHED)
        self._runtime.effects.append(CircuitRefused(self, hop, status, why))

    # Open

    @property
    def binding(self) -> bytes:
        """See `CircuitEnd`."""
        return self._binding

    def can_send(self, large: bool = False) -> bool:
        """See `CircuitEnd`."""
        return self.stage is Stage.OPEN and (self._bulk or not large) and self._side.has_room()

    def send(self, cmd: int, data: bytes, *, hop: int | None = None, rid: int = 0, large: bool = False) -> None:
        """See `CircuitEnd`."""
        if self.stage is not Stage.OPEN:
            return
        hop = len(self._layers) if hop is None else hop
        if not 1 <= hop <= len(self._layers):
            raise UsageError(f"the circuit has {len(self._layers)} hops, and no hop {hop}")
        self._expect_answer(cmd, hop, rid)
        for payload in payloads(cmd, rid, data, large=large and self._bulk):
            if self.stage is Stage.OPEN:
                self._send_cell(hop, payload)

    def _expect_answer(self, cmd: int, hop: int, rid: int) -> None:
        answer = ANSWER_TO.get(cmd)
        if answer is not None:
            if (hop, answer, rid) in self._asked:
                raise UsageError(f"request {rid} to hop {hop} is under way")
            self._asked.add((hop, answer, rid))
        self._in_session |= cmd == RelayCmd.SESS

    def _send_cell(self, hop: int, payload: bytes) -> None:
        buf = self._runtime.scratch
        size = write_cell(buf, payload)
        layers = self._layers[hop - 1 :: -1]
        end = layers[0].forward
        end.mark(buf, 0)
        for layer in layers:
            layer.forward.dec(buf, 0, size)
        end.update()
        self._side.pass_on(buf, 0, size, None)

    def _receive(self, buf: bytearray, at: int, size: int) -> None:
        side = self._side
        if side.window.take(size):
            self._runtime.owing[side] = None
        for hop, layers in enumerate(self._layers, 1):
            layers.backward.dec(buf, at, size)
            if layers.backward.is_mine(buf, at):
                layers.backward.update()
                self._deliver(hop, layers, memoryview(buf)[at + CELL_HEADER + TAG : at + size])
                return
        self.destroy(DestroyReason.PROTOCOL, "a cell that no layer recognises", at=side)

    def _on_large_cell(self) -> None:
        self.destroy(DestroyReason.PROTOCOL, "a large cell on a circuit that forbids them", at=self._side)

    def _deliver(self, hop: int, layers: HopLayers, payload: memoryview) -> None:
        try:
            message = layers.assembler.feed(parse_payload(payload))
            if message is not None:
                self._check_expected(hop, message)
                self._runtime.effects.append(MessageArrived(self, hop, message.cmd, message.rid, message.data))
        except ProtocolViolation as violation:
            self.destroy(violation.reason, f"hop {hop}: {violation}", at=self._side)

    def _check_expected(self, hop: int, message: RelayPayload) -> None:
        if message.cmd == RelayCmd.SESS:
            expected = self._in_session and hop == len(self._layers)
        else:
            expected = (hop, message.cmd, message.rid) in self._asked
            self._asked.discard((hop, message.cmd, message.rid))
        if not expected:
            raise ProtocolViolation(f"relay command {message.cmd} that nobody asked for")

    def on_room(self) -> None:
        """See `CircuitOwner`."""
        self._runtime.effects.append(RoomToSend(self))

    # The end

    def on_destroy(self, side: CircuitSide, reason: DestroyReason) -> None:  # noqa: ARG002 - a CircuitOwner
        """The first hop ended the circuit, or passes on that one behind it did."""
        if reason is DestroyReason.NONE:
            self._lost(0, "a hop behind the first ended it")
        elif reason is DestroyReason.BUSY and self.stage in (Stage.CALLING, Stage.AWAITING):
            self._refused(1, BuildStatus.OVERLOADED, "the first hop is busy")
        else:
            self._lost(1, f"the first hop ended it ({reason.name.lower().replace('_', ' ')})")

    def on_link_lost(self, side: CircuitSide) -> None:  # noqa: ARG002 - a CircuitOwner
        """The link to the first hop is gone."""
        self._lost(1, "the link to the first hop was lost")

    def on_timeout(self) -> None:
        """No answer in time, or the end of the circuit's life."""
        if self.stage is Stage.CALLING and self._runtime.now < self._give_up:
            self._lost(1, "the first hop is silent")
        elif self.stage is Stage.OPEN:
            self._lost(0, "its lifetime is over")
        else:
            self._times.add(self._runtime.now - self._started)
            self._lost(0, "no answer in time")

    def close(self, reason: DestroyReason = DestroyReason.FINISHED) -> None:
        """See `CircuitEnd`."""
        self._end(reason)

    def destroy(self, reason: DestroyReason, why: str, at: CircuitSide | None = None) -> None:
        """Ends the circuit from here."""
        self._lost(1 if at is not None else 0, why, reason)

    def _lost(self, hop: int, why: str, reason: DestroyReason = DestroyReason.FINISHED) -> None:
        was = self.stage
        self._end(reason)
        if was is Stage.OPEN:
            self._runtime.effects.append(CircuitEnded(self, why))
        elif was is not Stage.CLOSED:
            self._runtime.effects.append(CircuitRefused(self, hop, None, why))

    def _end(self, reason: DestroyReason) -> None:
        self.stage = Stage.CLOSED
        self._runtime.timers.cancel(self)
        self._sealer = None
        self._layers = []
        self._side.destroy(reason)
