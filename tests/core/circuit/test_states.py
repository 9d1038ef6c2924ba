"""Every command in every state, from either side: what it does is decided, and a circuit's fault stays the circuit's."""

import pytest

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import HALF_BUILT_LIFE
from onionrelay.core.circuit import hop as hop_module
from onionrelay.core.circuit import origin as origin_module
from onionrelay.core.effects import CircuitEnded, CircuitRefused
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import CELL_SIZE, LINK_COMMANDS, Cmd, pack_cell, pack_destroy
from tests.core.circuit.raw_client import RawClient
from tests.core.circuit.world import World, closings, header
from tests.seeded import SeededRng

CIRCUIT_COMMANDS = (Cmd.RELAY, Cmd.RELAY_BULK, Cmd.BUILD, Cmd.BUILT, Cmd.BUILD_ACK, Cmd.DESTROY)
FINE = "goes on"  # the state takes it, and nothing comes back
GONE = "ends silently"
DEAD = "stays dead silently"
VIOLATION = "ends with PROTOCOL"
UNKNOWN = "is answered UNKNOWN_CIRCUIT"
PASSED_ON = "is passed on, and the end that cannot read it ends the circuit"


def junk(cmd, circ_id=1):
    """A cell that is well-formed as a cell, with a body that belongs to nobody."""
    if cmd == Cmd.DESTROY:
        return pack_destroy(circ_id, DestroyReason.FINISHED)
    body = b"" if cmd == Cmd.BUILD_ACK else SeededRng(cmd).token(CELL_SIZE[cmd] - 8)
    return pack_cell(circ_id, cmd, body)


# From the client's side

FROM_CLIENT = {
    "unknown": (UNKNOWN, UNKNOWN, FINE, UNKNOWN, UNKNOWN, DEAD),
    "collecting": (VIOLATION, VIOLATION, FINE, VIOLATION, VIOLATION, GONE),
    "dialling": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, GONE),
    "calling": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, GONE),
    "awaiting": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, GONE),
    "open": (PASSED_ON, PASSED_ON, VIOLATION, VIOLATION, VIOLATION, GONE),
    "endpoint": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, GONE),
    "stub": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, GONE),
    "closed": (DEAD, DEAD, DEAD, DEAD, DEAD, DEAD),
}


def in_state(state):
    """A raw client whose circuit at the first relay is in a state."""
    world = World(2).build()
    world.client.act(world.origin.close)
    world.net.run(1)
    raw = RawClient(world)
    out, back = world.links()[1]
    plan = world.plan()
    match state:
        case "collecting":
            raw.send(*raw.seal(plan)[0][:3])
        case "dialling":
            world.relays[0]._dial = lambda wanted: None
            raw.send(*raw.seal(plan)[0])
        case "calling":
            out.adversary = lambda cell: ()
            raw.send(*raw.seal(plan)[0])
        case "awaiting":
            back.adversary = lambda cell: () if header(cell)[1] == Cmd.BUILT else (cell,)
            raw.send(*raw.seal(plan)[0])
        case "open":
            raw.build(plan)
        case "endpoint":
            raw.build(world.net.plan(world.relays[:1], None))
        case "stub":
            world.net.lose(out.sender[1])
            world.relays[1].refuses_links = True
            world.net.run(0.1)
            raw.build(plan)
        case "closed":
            raw.build(plan)
            raw.send(pack_destroy(1, DestroyReason.FINISHED))
    if state not in ("unknown", "closed"):
        (side,) = out_side(world)
        assert side.owner.stage.value == ("open" if state == "endpoint" else state)
    return world, raw


def out_side(world):
    """The first relay's sides on the link from the client."""
    return list(world.links()[0][1].sender[1].sides.values())


@pytest.mark.parametrize("state", FROM_CLIENT)
@pytest.mark.parametrize("cmd", CIRCUIT_COMMANDS)
def test_from_the_client(state, cmd):
    world, raw = in_state(state)
    expected = FROM_CLIENT[state][CIRCUIT_COMMANDS.index(cmd)]
    answers = [(cmd, body[0]) for cmd, body in raw.send(junk(cmd))]
    match expected:
        case "goes on":
            assert answers == []
            assert len(out_side(world)) == 1
        case "ends silently" | "stays dead silently":
            assert answers == []
        case "ends with PROTOCOL":
            assert answers == [(Cmd.DESTROY, DestroyReason.PROTOCOL)]
        case "is answered UNKNOWN_CIRCUIT":
            assert answers == [(Cmd.DESTROY, DestroyReason.UNKNOWN_CIRCUIT)]
        case _:
            assert answers == [(Cmd.DESTROY, DestroyReason.NONE)]
    if expected != FINE:
        assert out_side(world) == []
        assert [relay.engine._runtime.half_open for relay in world.relays] == [0, 0]
    assert closings(world.relays[0]) == []
    heal(world)
    assert world.build().opened


def heal(world):
    """Nothing interferes any more, and what was half open is gone."""
    for relay in world.relays:
        relay.refuses_links = False
        relay.__dict__.pop("_dial", None)
    for pipe in world.net.pipes:
        pipe.forth.adversary = None
        pipe.back.adversary = None
    world.net.run(HALF_BUILT_LIFE + 25)


# From the target's side

FROM_TARGET = {
    "calling": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, FINE, "refused"),
    "awaiting": (VIOLATION, VIOLATION, VIOLATION, FINE, VIOLATION, "refused"),
    "open": (PASSED_ON, PASSED_ON, VIOLATION, VIOLATION, VIOLATION, GONE),
    "closed": (DEAD, DEAD, DEAD, DEAD, DEAD, DEAD),
}


@pytest.mark.parametrize("state", FROM_TARGET)
@pytest.mark.parametrize("cmd", CIRCUIT_COMMANDS)
def test_from_the_target(state, cmd):
    world, raw = in_state(state)
    out, back = world.links()[1]
    (circ_id,) = out.sender[1].sides or [next(iter(out.sender[1].tombstones._graves))]
    out.adversary, out.tap = None, []
    before = len(raw.heard)
    back.adversary = None
    back.send(junk(cmd, circ_id))
    world.net.run(0.2)
    to_client = [(header(cell)[1], cell[8]) for cell in raw.heard[before:]]
    to_next = [cell[8] for cell in out.tap if header(cell) == (circ_id, Cmd.DESTROY)]
    expected = FROM_TARGET[state][CIRCUIT_COMMANDS.index(cmd)]
    match expected:
        case "goes on":
            assert to_next == []
            assert [cmd for cmd, _ in to_client] == ([Cmd.BUILT] if cmd == Cmd.BUILT else [])
        case "refused":
            assert [cmd for cmd, _ in to_client] == [Cmd.BUILT]
            assert out_side(world)[0].owner.stage is hop_module.Stage.STUB
        case "ends silently":
            assert to_client == [(Cmd.DESTROY, DestroyReason.NONE)]
        case "stays dead silently":
            assert to_client == to_next == []
        case "ends with PROTOCOL":
            assert to_client == [(Cmd.DESTROY, DestroyReason.NONE)]
            assert to_next == [DestroyReason.PROTOCOL]
        case _:
            assert [cmd for cmd, _ in to_client] == [cmd]
    assert closings(world.relays[0]) == []


# At the client

AT_CLIENT = {
    "calling": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, FINE, GONE),
    "awaiting": (VIOLATION, VIOLATION, VIOLATION, "refused", VIOLATION, GONE),
    "open": (VIOLATION, VIOLATION, VIOLATION, VIOLATION, VIOLATION, GONE),
    "closed": (DEAD, DEAD, DEAD, DEAD, DEAD, DEAD),
}


@pytest.mark.parametrize("state", AT_CLIENT)
@pytest.mark.parametrize("cmd", CIRCUIT_COMMANDS)
def test_at_the_client(state, cmd):
    world = World(1)
    world.net.channel(world.client, world.relays[0], LinkPurpose.GUARD)
    world.net.run(1)
    out, back = world.links()[0]
    held = {"calling": (Cmd.BUILD_ACK, Cmd.BUILT), "awaiting": (Cmd.BUILT,)}.get(state, ())
    back.adversary = lambda cell: () if header(cell)[1] in held else (cell,)
    out.tap = []
    world.build()
    ((circ_id, _), *_) = [header(cell) for cell in out.tap if header(cell)[1] == Cmd.BUILD]
    if state == "closed":
        world.client.act(world.origin.close)
    assert world.origin.stage is origin_module.Stage(state)
    out.tap, back.adversary = [], None
    back.send(junk(cmd, circ_id))
    world.net.run(0.2)
    told = [cell[8] for cell in out.tap if header(cell) == (circ_id, Cmd.DESTROY)]
    over = world.client.seen(CircuitEnded) + world.client.seen(CircuitRefused)
    match AT_CLIENT[state][CIRCUIT_COMMANDS.index(cmd)]:
        case "goes on":
            assert told == over == []
        case "stays dead silently":
            assert told == over == []
        case "ends silently":
            assert told == []
            assert len(over) == 1
        case "refused":  # a garbled answer
            assert told == [DestroyReason.FINISHED]
            assert world.refused == (0, None, "the answer is garbled behind hop 0")
        case _:
            assert told == [DestroyReason.PROTOCOL]
            assert len(over) == 1
            if state != "open":
                assert world.refused[0] == 1
    assert closings(world.client) == []


# What closes the link

OPEN_LINK = [(cmd, 5) for cmd in LINK_COMMANDS] + [(cmd, 0) for cmd in CIRCUIT_COMMANDS]


@pytest.mark.parametrize(("cmd", "circ_id"), OPEN_LINK)
def test_a_command_where_it_does_not_belong_closes_the_link(cmd, circ_id):
    world = World(1).build()
    world.links()[0][0].send(junk(cmd, circ_id))
    world.net.run(0.1)
    assert len(closings(world.relays[0])) == 1
    assert world.ended


@pytest.mark.parametrize("cmd", range(16))
@pytest.mark.parametrize("byte", [5, 6, 7])
def test_a_reserved_header_byte_closes_the_link(cmd, byte):
    world = World(1).build()
    (circ_id,) = world.links()[0][0].sender[1].sides
    cell = bytearray(junk(cmd, 0 if cmd in LINK_COMMANDS else circ_id))
    cell[byte] = 1
    world.links()[0][0].send(bytes(cell))
    world.net.run(0.1)
    if (cmd, byte) == (Cmd.BUILD, 5):
        assert closings(world.relays[0]) == []  # its place is that of gen
    else:
        assert closings(world.relays[0]) == ["a reserved header byte is not zero"]
    assert world.ended


def test_an_unknown_command_closes_the_link_before_its_cell_is_whole():
    world = World(1).build()
    direction = world.links()[0][0]
    for cmd in (16, 99, 255):
        world = World(1).build()
        direction = world.links()[0][0]
        direction.deliver(bytes([0, 0, 0, 9, cmd, 0, 0, 0]))
        world.net.run(0.1)
        assert closings(world.relays[0]) == [f"unknown cell command {cmd}"]


def test_a_stub_after_a_refusal_is_not_refused_again():
    world, raw = in_state("calling")
    world.net.run(2)
    assert out_side(world)[0].owner.stage is hop_module.Stage.STUB
    hop = out_side(world)[0].owner
    world.relays[0].act(lambda: world.relays[0].engine.refuse_next(hop, BuildStatus.POLICY, world.net.now))
    assert [header(cell)[1] for cell in raw.heard] == [Cmd.BUILD_ACK, Cmd.BUILT]
