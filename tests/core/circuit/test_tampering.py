"""Adversaries on every link of an open circuit: whatever they do to relay cells kills it, and nothing comes after."""

import pytest

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import LARGE_DATA, SMALL_CELL, SMALL_DATA
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.effects import CircuitEnded, EndpointReached, MessageArrived
from onionrelay.wire.cell import Cmd
from onionrelay.wire.relay import MORE, PAYLOAD, RelayCmd, pack_payload
from tests.core.circuit.raw_client import RawClient
from tests.core.circuit.world import BULK, World, closings, header, received
from tests.seeded import SeededRng

LINKS = range(4)  # client - relay 1 - relay 2 - relay 3 - target
MOVES = ("flip", "flip the left half", "drop", "double", "swap", "inject", "replay", "other size", "other body")
RELAY_CELLS = (Cmd.RELAY, Cmd.RELAY_BULK)


class Tamperer:
    """Makes one move at the `at`-th relay cell that passes. `passed`: cells let through unharmed before it."""

    def __init__(self, move, at, rng):
        self.move, self.at, self.rng = move, at, rng
        self.cells = []
        self.passed = 0

    def __call__(self, cell):
        if header(cell)[1] not in RELAY_CELLS:
            return (cell,)
        self.cells.append(cell)
        number = len(self.cells)
        if number < self.at:
            self.passed += 1
            return (cell,)
        if number == self.at:
            return self.act(cell)
        if number == self.at + 1 and self.move == "swap":
            return (cell, self.cells[self.at - 1])
        return (cell,)

    def act(self, cell):
        rng, head = self.rng, cell[:8]
        match self.move:
            case "flip" | "flip the left half":
                changed = bytearray(cell)
                changed[8 + rng.below(16 if "left" in self.move else len(cell) - 8)] ^= 1 << rng.below(8)
                return (bytes(changed),)
            case "drop" | "swap":
                return ()
            case "double":
                self.passed += 1
                return (cell, cell)
            case "inject":
                return (head + rng.token(len(cell) - 8), cell)
            case "replay":
                return (self.cells[0], cell)
            case "other body":
                return (
                    (head + self.cells[0][8:],) if len(self.cells[0]) == len(cell) else (head + bytes(len(cell) - 8),)
                )
            case "other size":
                small = cell[:4] + bytes([Cmd.RELAY, 0, 0, 0]) + cell[8:SMALL_CELL]
                large = cell[:4] + bytes([Cmd.RELAY_BULK, 0, 0, 0]) + cell[8:].ljust(LARGE_DATA + 24, b"\0")
                return (small if len(cell) > SMALL_CELL else large,)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("direction", [0, 1], ids=["outwards", "backwards"])
@pytest.mark.parametrize("link", LINKS)
def test_a_move_kills_the_circuit_and_nothing_comes_after(link, direction, move):
    world = World(3).build().session()
    rng = SeededRng(f"{link}/{direction}/{move}")
    sender, hearer = (world.client, world.target) if direction == 0 else (world.target, world.client)
    tamperer = Tamperer(move, 2 + rng.below(8), rng)
    world.links()[link][direction].adversary = tamperer
    heard_before = len(received(hearer))
    sent = []
    for number in range(20):
        data = BULK if rng.below(2) else bytes([number]) * (1 + rng.below(1000))
        sent.append(data)
        world.call(sender, RelayCmd.SESS, data, large=True)
    world.net.run(1)
    assert received(hearer)[heard_before:] == sent[: tamperer.passed]
    assert world.ended
    assert len(world.target.seen(CircuitEnded)) == 1
    assert world.sides() == []
    for node in world.net.nodes:
        if move in ("double", "inject", "replay"):  # one cell more than the sender had allowance for, perhaps
            assert set(closings(node)) <= {"cells beyond the allowance of a destroyed circuit"}
        else:
            assert closings(node) == []


@pytest.mark.parametrize("link", LINKS[1:])
@pytest.mark.parametrize("move", MOVES)
def test_an_echo_from_a_hop_beyond_the_adversary_is_not_heard_either(link, move):
    world = World(3).build().session()
    rng = SeededRng(f"{link}/{move}")
    world.links()[link][1].adversary = Tamperer(move, 2, rng)
    for rid in range(5):
        world.call(world.client, RelayCmd.ECHO, bytes(8), hop=link + 1, rid=rid)
    world.net.run(1)
    assert len(received(world.client, RelayCmd.ECHOED)) <= 2
    assert world.ended


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("seed", range(20))
def test_colluders_around_an_honest_relay_cannot_tag_and_untag(direction, seed):
    """Relay 1 XORs a pattern in, relay 3 takes it out again; relay 2 between them is honest."""
    world = World(3).build().session()
    rng = SeededRng(seed)
    at, bit = 8 + rng.below(1104), 1 << rng.below(8)

    def mark(cell):
        if header(cell)[1] not in RELAY_CELLS:
            return (cell,)
        changed = bytearray(cell)
        changed[at] ^= bit
        return (bytes(changed),)

    sender, hearer = (world.client, world.target) if direction == 0 else (world.target, world.client)
    for link in (1, 2):
        world.links()[link][direction].adversary = mark
    before = len(received(hearer))
    world.call(sender, RelayCmd.SESS, b"marked")
    world.net.run(1)
    assert len(received(hearer)) == before
    assert world.ended


def test_what_a_relay_sees_of_one_message_looks_like_no_other():
    """The same message twice: on no link do two cells have as much as a block in common."""
    world = World(3).build().session()
    taps = []
    for out, _ in world.links():
        out.tap = []
        taps.append(out.tap)
    for _ in range(2):
        world.call(world.client, RelayCmd.SESS, b"the same")
    world.net.run(1)
    blocks = [cell[at : at + 16] for tap in taps for cell in tap if cell[4] == Cmd.RELAY for at in range(8, 1112, 16)]
    assert len(blocks) == len(set(blocks)) == 8 * 69


# Authentic cells that no honest end sends

FAULTS = {
    "an unknown command": pack_payload(0, 0, b""),
    "an unassigned command": pack_payload(6, 0, b""),
    "a command of a later version": pack_payload(RelayCmd.LIVE_QUERY, 0, b""),
    "DROP that was not negotiated": pack_payload(RelayCmd.DROP, 0, b""),
    "an answer": pack_payload(RelayCmd.ECHOED, 0, bytes(8)),
    "padding that is not zero": pack_payload(RelayCmd.ECHO, 0, bytes(8))[:-1] + b"\1",
    "reserved bytes that are not zero": PAYLOAD.pack(RelayCmd.ECHO, 0, 0, 8, 1) + bytes(SMALL_DATA),
    "an unknown flag": PAYLOAD.pack(RelayCmd.ECHO, 4, 0, 8, 0) + bytes(SMALL_DATA),
    "data that overrun": PAYLOAD.pack(RelayCmd.ECHO, 0, 0, SMALL_DATA + 1, 0) + bytes(SMALL_DATA),
    "MORE that is not full": PAYLOAD.pack(RelayCmd.DHT_QUERY, MORE, 0, 8, 0) + bytes(SMALL_DATA),
    "ECHO of 7 bytes": pack_payload(RelayCmd.ECHO, 0, bytes(7)),
    "ECHO of 9 bytes": pack_payload(RelayCmd.ECHO, 0, bytes(9)),
}
NOT_FOR = {
    "a transit relay": (RelayCmd.SESS, RelayCmd.DHT_QUERY, RelayCmd.DIR_GET, RelayCmd.EXTEND, RelayCmd.END_CIRCUIT),
    "the last relay": (RelayCmd.SESS, RelayCmd.EXTEND, RelayCmd.DHT_ANSWER, RelayCmd.DIR_DATA, RelayCmd.END_CIRCUIT),
    "a target": (RelayCmd.DHT_QUERY, RelayCmd.DIR_GET, RelayCmd.EXTEND, RelayCmd.END_CIRCUIT),
}
CASES = [(place, name) for place in NOT_FOR for name in FAULTS] + [
    (place, cmd) for place, cmds in NOT_FOR.items() for cmd in cmds
]


@pytest.mark.parametrize(("place", "fault"), CASES)
def test_a_message_that_has_no_place_destroys_the_circuit(place, fault):
    world = World(2).build()
    raw = RawClient(world)
    target = world.target if place == "a target" else None
    _, layers = raw.build(world.net.plan(world.relays, target))
    hop = 1 if place == "a transit relay" else len(layers)
    payload = FAULTS[fault] if isinstance(fault, str) else pack_payload(fault, 0, bytes(2))
    answer = raw.send(raw.cell(layers, hop, payload))
    reason = DestroyReason.PROTOCOL if hop == 1 else DestroyReason.NONE
    assert [(cmd, body[0]) for cmd, body in answer] == [(Cmd.DESTROY, reason)]
    assert [relay.engine.circuits for relay in world.relays] == [1, 1]
    for node in world.net.nodes:
        assert closings(node) == []
        assert node.seen(MessageArrived) == []


def test_a_message_inside_another_destroys_the_circuit():
    world = World(2).build()
    raw = RawClient(world)
    _, layers = raw.build(world.net.plan(world.relays, None))
    begun = pack_payload(RelayCmd.DHT_QUERY, 1, bytes(SMALL_DATA), more=True)
    other = pack_payload(RelayCmd.DHT_QUERY, 2, b"")
    assert raw.send(raw.cell(layers, 2, begun)) == []
    assert [cmd for cmd, _ in raw.send(raw.cell(layers, 2, other))] == [Cmd.DESTROY]


def test_a_message_without_end_destroys_the_circuit():
    world = World(2).build()
    raw = RawClient(world)
    _, layers = raw.build(world.net.plan(world.relays, None))
    begun = pack_payload(RelayCmd.DHT_QUERY, 1, bytes(SMALL_DATA), more=True)
    answers = [raw.send(raw.cell(layers, 2, begun)) for _ in range(61)]
    assert [[cmd for cmd, _ in answer if cmd != Cmd.CREDIT] for answer in answers] == [[]] * 60 + [[Cmd.DESTROY]]


# What the client does not take from a hop


def hop_at(world, relay):
    """The hop of the world's circuit at one of its relays, counted from 1."""
    owners = {side.owner for side in world.links()[relay - 1][1].sender[1].sides.values()}
    (hop,) = (owner for owner in owners if isinstance(owner, Hop))
    return world.relays[relay - 1], hop


@pytest.mark.parametrize(
    ("relay", "cmd", "data"),
    [
        (1, RelayCmd.SESS, b"from a relay in the middle"),
        (3, RelayCmd.SESS, b"from the final hop"),
        (1, RelayCmd.ECHOED, bytes(8)),
        (3, RelayCmd.ECHOED, bytes(8)),
        (2, RelayCmd.ECHO, bytes(8)),
        (2, RelayCmd.DHT_ANSWER, b""),
        (1, RelayCmd.EXTENDED, b""),
    ],
)
def test_a_relay_says_only_what_it_was_asked(relay, cmd, data):
    world = World(3).build().session()
    before = len(world.client.seen(MessageArrived))
    node, hop = hop_at(world, relay)
    node.act(lambda: hop.send(cmd, data))
    world.net.run(1)
    assert world.ended
    assert len(world.client.seen(MessageArrived)) == before


def test_an_answer_counts_once_and_from_the_hop_that_was_asked():
    world = World(3).build().session()
    world.call(world.client, RelayCmd.ECHO, bytes(8), hop=2, rid=9)
    node, hop = hop_at(world, 3)
    node.act(lambda: hop.send(RelayCmd.ECHOED, bytes(8), rid=9))
    world.net.run(0.001)
    assert not world.ended
    world.net.run(1)
    assert world.ended

    world = World(3).build().session()
    world.call(world.client, RelayCmd.ECHO, bytes(8), hop=2, rid=9)
    world.net.run(1)
    assert not world.ended
    node, hop = hop_at(world, 2)
    node.act(lambda: hop.send(RelayCmd.ECHOED, bytes(8), rid=9))
    world.net.run(1)
    assert world.ended


def test_a_target_waits_until_it_is_spoken_to():
    world = World(3).build()
    world.call(world.target, RelayCmd.SESS, b"unasked")
    world.net.run(1)
    assert world.ended
    assert world.client.seen(MessageArrived) == []
    assert len(world.target.seen(EndpointReached)) == 1


@pytest.mark.parametrize("link", [0, 1, 3])
def test_a_large_cell_where_the_records_forbid_it_destroys_the_circuit(link):
    world = World(3).build(bulk=False).session()
    for direction in (0, 1):
        world = World(3).build(bulk=False).session()
        way = world.links()[link][direction]
        (circ_id,) = way.sender[1].sides
        way.send(circ_id.to_bytes(4) + bytes([Cmd.RELAY_BULK, 0, 0, 0]) + bytes(16_376))
        world.net.run(1)
        assert world.ended
        assert all(closings(node) == [] for node in world.net.nodes)
        if (link, direction) == (0, 1):
            assert world.client.seen(CircuitEnded)[0].why == "a large cell on a circuit that forbids them"
