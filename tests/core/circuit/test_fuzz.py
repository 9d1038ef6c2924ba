"""Hostile bytes at every door of an engine: nothing escapes as an exception, and its books stay right.

Seeded; 20,000 cases. A case is a run of cells, valid, half valid and senseless, changed here and there, cut in pieces,
and fed to a link in whatever state the last case left it.
"""

from collections import Counter

from onionrelay.base.limits import LARGE_DATA, SMALL_CELL, SMALL_DATA
from onionrelay.core.circuit.hop import HALF_OPEN
from onionrelay.core.circuit.origin import HopLayers
from onionrelay.core.effects import CircuitOpened, EndpointReached, LinkClosing, MessageArrived, NextHopWanted
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.testing.memory_link import SPARE, split
from onionrelay.testing.memory_net import MemoryNet
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import CELL_SIZE, LINK_COMMANDS, Cmd, pack_credit
from onionrelay.wire.relay import RelayCmd, pack_payload
from tests.core.circuit.raw_client import RawClient
from tests.core.circuit.world import header

CASES = 20_000
FRESH_BUILDS = 2_000
FAIR = [cmd for cmd in range(16) if cmd not in (Cmd.HELLO, Cmd.AUTH, Cmd.PONG)]


class Fuzz:
    """Relay `victim` between hostile neighbours, and a client with a hostile guard."""

    def __init__(self, seed):
        self.net = MemoryNet(seed)
        self.rng = self.net.client("dice").rng
        self.victim, self.far = self.net.relay("victim"), self.net.relay("far")
        self.client = self.net.client("client")
        self.victim._dial = self.answer
        self.builds = 0
        self.doors = [self.door_of_relay, self.door_of_relay, self.door_behind, self.door_of_client]
        self.plans = [
            self.net.plan([self.victim], None),
            self.net.plan([self.victim, self.far], None),
            self.net.plan([self.victim], None, bulk=False),
            self.net.plan([self.victim], None, window=1),
        ]
        self.layers = {}

    # The links, made anew when the last case closed them

    def up(self, dialler, listener, purpose):
        channel = self.net.channel(dialler, listener, purpose)
        if channel.peer is None:
            self.net.run(0.1)
        return self.net.between(dialler, listener)

    def door_of_relay(self):
        pipe = self.up(self.client, self.victim, LinkPurpose.GUARD)
        return self.victim, pipe.back.sender[1]

    def door_behind(self):
        pipe = self.up(self.victim, self.far, LinkPurpose.RELAY)
        return self.victim, pipe.forth.sender[1]

    def door_of_client(self):
        pipe = self.up(self.client, self.victim, LinkPurpose.GUARD)
        channel = pipe.forth.sender[1]
        if len(channel.sides) < 3 and channel.peer and not channel.closed:
            net, engine = self.net, self.client.engine
            self.client.act(lambda: engine.open_circuit(channel, self.plans[0], net.now, net.unix_now))
            if self.rng.below(2):
                net.run(0.05)
        return self.client, channel

    def answer(self, wanted: NextHopWanted):
        """The driver: a link, a refusal, or nothing."""
        match self.rng.below(3):
            case 0:
                channel = self.net.channel(self.victim, self.far, LinkPurpose.RELAY)
                self.victim.engine.offer_next(wanted.hop, channel, self.net.now)
            case 1:
                self.victim.engine.refuse_next(wanted.hop, BuildStatus.NEXT_UNREACHABLE, self.net.now)

    # What is sent

    def circ_id(self, channel):
        known = list(channel.sides)
        choices = [*known, *known, 0, 1, 2, 3, 1 << 31, 1 << 31 | 1, self.rng.below(1 << 32)]
        return choices[self.rng.below(len(choices))]

    def body(self, channel, cmd, size):
        rng = self.rng
        if cmd == Cmd.CREDIT and rng.below(2):
            entries = [(self.circ_id(channel) or 1, rng.below(1 << 23) + 1) for _ in range(rng.below(5) + 1)]
            return pack_credit(entries)[8:]
        match rng.below(3):
            case 0:
                return bytes(size)
            case 1:
                return rng.token(rng.below(24) + 1).ljust(size, b"\0")
            case _:
                return rng.token(size)

    def cell(self, channel):
        """Any cell; nine of ten times one that has its place on a link, or none would live for long."""
        rng = self.rng
        fair = rng.below(10)
        cmd = FAIR[rng.below(len(FAIR))] if fair else rng.below(16) if rng.below(10) else rng.below(256)
        size = CELL_SIZE[cmd] or SMALL_CELL
        gen = rng.below(3) if cmd == Cmd.BUILD and fair else 0 if rng.below(50) else rng.below(256)
        circ_id = self.circ_id(channel)
        if fair:
            circ_id = 0 if cmd in LINK_COMMANDS else circ_id or 1
            if cmd == Cmd.BUILD and circ_id not in channel.sides:
                circ_id = (circ_id & 0x7FFFFFFF or 1) | (0 if channel.is_server else 1 << 31)
        body = self.body(channel, cmd, size - 8)
        if fair and cmd in LINK_COMMANDS:
            body = self.fair_body(channel, cmd, body)
        return circ_id.to_bytes(4) + bytes([cmd, gen, 0, 0]) + body

    def fair_body(self, channel, cmd, body):
        match cmd:
            case Cmd.PING:
                return body[:8].ljust(1104, b"\0")
            case Cmd.CREDIT:
                return pack_credit([(self.circ_id(channel) or 1, self.rng.below(1 << 23) + 1)])[8:]
            case Cmd.ATTACH | Cmd.DHT | Cmd.DIR | Cmd.REACH:
                size = self.rng.below(1500)
                return (bytes([0, 1]) + size.to_bytes(4) + bytes(1098)) if size < 1098 else bytes(1104)
            case _:
                return body

    def build(self, channel):
        """A build that opens, under an id of the peer's own; the layers are kept for `message`."""
        self.builds += 1
        circ_id = self.rng.below(1 << 30) + 1
        if not channel.is_server:
            circ_id |= 1 << 31
        raw = RawClient.__new__(RawClient)
        raw.world, raw.rng, raw.circ_id = self, self.rng, circ_id
        plan = self.plans[self.rng.below(len(self.plans))]
        cells, sealer = raw.seal(plan)
        self.layers[circ_id] = raw, sealer, []
        return b"".join(circ_id.to_bytes(4) + cell[4:] for cell in cells)

    def message(self, channel):
        """A cell that its hop can read, with a payload that may be senseless."""
        known = [circ_id for circ_id in self.layers if circ_id in channel.sides and self.layers[circ_id][2]]
        if not known:
            return b""
        circ_id = known[self.rng.below(len(known))]
        raw, _, layers = self.layers[circ_id]
        large = not self.rng.below(8)
        room = LARGE_DATA if large else SMALL_DATA
        cmd = (RelayCmd.ECHO, RelayCmd.DHT_QUERY, RelayCmd.DIR_GET, self.rng.below(20))[self.rng.below(4)]
        data = bytes(8) if self.rng.below(4) else self.rng.token(self.rng.below(40))
        payload = bytearray(pack_payload(cmd, self.rng.below(4), data, room=room))
        if not self.rng.below(4):
            payload[self.rng.below(8)] ^= 1 << self.rng.below(8)
        hop = self.rng.below(len(layers)) + 1
        return circ_id.to_bytes(4) + raw.cell(layers, hop, bytes(payload))[4:]

    def case(self, channel):
        rng = self.rng
        parts = []
        for _ in range(rng.below(5) + 1):
            kind = rng.below(10)
            if kind == 0 and self.builds < FRESH_BUILDS:
                parts.append(self.build(channel))
            elif kind < 4:
                parts.append(self.message(channel))
            else:
                parts.append(self.cell(channel))
        data = bytearray(b"".join(parts))
        if data and not rng.below(8):
            data[rng.below(len(data))] ^= 1 << rng.below(8)
        if data and not rng.below(20):
            del data[rng.below(len(data)) :]
        return bytes(data)

    # One case

    def run_case(self):
        node, channel = self.doors[self.rng.below(len(self.doors))]()
        data = self.case(channel)
        start, rest = 0, b""
        while start < len(data):
            end = len(data) if self.rng.below(3) else start + self.rng.below(len(data) - start) + 1
            piece = rest + data[start:end]
            used = node.engine.feed(
                channel, bytearray(piece) + bytes(SPARE), len(piece), self.net.now, self.net.unix_now
            )
            assert 0 <= used <= len(piece)
            rest, start = piece[used:], end
        self.read_answers(channel)
        node.settle()
        self.check(node)
        if rest and not channel.closed:  # the next case begins with a fresh cell
            self.net.lose(channel)
        if not self.rng.below(4):
            self.net.run(self.rng.uniform(0, 0.5))
        elif not self.rng.below(200):
            self.net.run(self.rng.uniform(0, 70))

    def read_answers(self, channel):
        """Takes the layers of builds that were answered, and throws all output away."""
        for cell in split(bytes(channel.outbox)):
            circ_id, cmd = header(cell)
            if cmd == Cmd.BUILT and circ_id in self.layers and not self.layers[circ_id][2]:
                _raw, sealer, layers = self.layers[circ_id]
                layers += [HopLayers(answer.keys) for answer in sealer.open_reply(cell[8:]).hops]
        self.layers = {circ_id: kept for circ_id, kept in self.layers.items() if circ_id in channel.sides}
        channel.outbox.clear()

    def check(self, node):
        """The engine's sums are those of its circuits."""
        runtime = node.engine._runtime
        self.net.pipes = [pipe for pipe in self.net.pipes if not all(end.closed for _, end in ends(pipe))]
        channels = {end for pipe in self.net.pipes for host, end in ends(pipe) if host is node}
        sides = [side for channel in channels for side in channel.sides.values()]
        assert runtime.queued == sum(side.queued for side in sides)
        assert set(runtime.backlogged) == {side for side in sides if side.queue}
        assert all(side.queued == sum(len(cell) for cell, _, _ in side.queue) for side in sides)
        assert not runtime.owing
        hops = {side.owner for side in sides if hasattr(side.owner, "up")}
        assert runtime.half_open == len([hop for hop in hops if hop.stage in HALF_OPEN])
        assert runtime.circuits == len(hops)


def ends(pipe):
    return pipe.forth.sender, pipe.back.sender


def test_nothing_a_peer_sends_makes_the_engine_raise():
    fuzz = Fuzz(20_260)
    for _ in range(CASES):
        fuzz.run_case()
    why = Counter(closing.why for node in fuzz.net.nodes for closing in node.seen(LinkClosing))
    assert fuzz.builds == FRESH_BUILDS
    assert len(why) > 20
    assert len(fuzz.victim.seen(EndpointReached)) > 200
    assert len(fuzz.victim.seen(MessageArrived)) > 20
    assert len(fuzz.client.seen(CircuitOpened)) > 200
