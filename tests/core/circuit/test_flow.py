"""Credit, queues and memory: nobody can make a relay hold more than it agreed to, and nobody starves another."""

import pytest

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import (
    END_QUEUE,
    END_QUEUE_HARD,
    INITIAL_ALLOWANCE,
    LARGE_CELL,
    MAX_ALLOWANCE,
    SEND_QUEUE,
    SMALL_CELL,
    TOMBSTONE,
    UNKNOWN_CIRCUIT_LIMIT,
)
from onionrelay.core import runtime
from onionrelay.core.circuit import engine
from onionrelay.core.effects import CircuitEnded, MessageArrived
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import Cmd, pack_cell, pack_credit, parse_credit
from onionrelay.wire.relay import RelayCmd
from tests.core.circuit.raw_client import RawClient
from tests.core.circuit.world import BULK, World, closings, header, keep_sending, received


def side_on(way):
    """The one circuit side at the sending end of a direction."""
    (side,) = way.sender[1].sides.values()
    return side


def largest_queues(world, seconds, step=0.05):
    """The most that waited in the circuit queues of each relay while this much time passed."""
    most = [0] * len(world.relays)
    for _ in range(int(seconds / step)):
        world.net.run(step)
        most = [max(m, relay.engine.queued_bytes) for m, relay in zip(most, world.relays, strict=True)]
    return most


def test_windows_grow_while_they_limit_and_bulk_is_fast():
    world = World(3, seconds=0.1).build().session()
    keep_sending(world.client, world.origin)
    world.net.run(3)
    assert all(side_on(back).window.size == MAX_ALLOWANCE for _, back in world.links())
    assert all(side_on(out).window.size == INITIAL_ALLOWANCE for out, _ in world.links())
    before = len(received(world.target))
    world.net.run(1)
    assert (len(received(world.target)) - before) * len(BULK) > 0.9 * MAX_ALLOWANCE / 0.2


def test_a_window_does_not_grow_for_a_trickle():
    world = World(3).build().session()
    for _ in range(200):
        world.call(world.client, RelayCmd.SESS, BULK, large=True)
        world.net.run(0.05)
    assert len(received(world.target)) == 201
    assert all(side_on(back).window.size == INITIAL_ALLOWANCE for _, back in world.links())


@pytest.mark.parametrize("link", range(4))
def test_memory_is_bounded_when_a_link_does_not_drain(link):
    """The transport of one link stands still; the sender is stopped and no relay holds more than a window."""
    world = World(3, seconds=0.05).build().session()
    keep_sending(world.client, world.origin)
    world.net.run(1)
    out, _ = world.links()[link]
    out.stalled = True
    most = largest_queues(world, 1)
    assert all(queued <= MAX_ALLOWANCE for queued in most)
    assert len(out.sender[1].outbox) <= SEND_QUEUE + LARGE_CELL
    assert side_on(world.links()[0][0]).queued <= END_QUEUE + LARGE_CELL
    world.client.on_effect = None
    sent = len(received(world.target))
    world.net.run(1)
    assert len(received(world.target)) == sent
    out.stalled = False
    world.net.flush(out.sender[1])
    world.net.run(1)
    assert len(received(world.target)) > sent
    assert not world.ended


@pytest.mark.parametrize("link", range(1, 4))
def test_a_peer_that_gives_no_credit_gets_its_window_and_no_more(link):
    world = World(3).build().session()
    _, back = world.links()[link]
    back.adversary = lambda cell: () if header(cell)[1] == Cmd.CREDIT else (cell,)
    used = side_on(world.links()[link][0]).allowance
    keep_sending(world.client, world.origin)
    most = largest_queues(world, 3)
    assert side_on(world.links()[link][0]).allowance < LARGE_CELL
    assert max(most) <= MAX_ALLOWANCE
    assert sum(len(data) for data in received(world.target)) <= used


def test_an_over_sender_loses_its_link():
    world = World(2).build()
    raw = RawClient(world)
    raw.build(world.plan())
    cells = INITIAL_ALLOWANCE // SMALL_CELL
    raw.send(*[pack_cell(1, Cmd.RELAY, bytes(1104))] * (cells + 1), seconds=0.02)
    assert closings(world.relays[0]) == ["cells beyond the allowance of their circuit"]
    assert world.ended


def test_an_over_sending_relay_loses_its_link_too():
    world = World(2).build()
    world.links()[2][0].stalled = True  # nothing leaves, so nothing is given back
    (circ_id,) = world.links()[1][0].sender[1].sides
    cell = pack_cell(circ_id, Cmd.RELAY, bytes(1104))
    world.links()[1][0].send(cell * (INITIAL_ALLOWANCE // SMALL_CELL + 1))
    world.net.run(1)
    assert closings(world.relays[1]) == ["cells beyond the allowance of their circuit"]
    assert closings(world.relays[0]) == []
    assert world.ended


def test_credit_beyond_the_maximum_or_for_nobody_is_ignored():
    world = World(2).build().session()
    side = side_on(world.links()[1][0])
    before = side.allowance
    _, back = world.links()[1]
    back.send(pack_credit([(side.circ_id, MAX_ALLOWANCE), (12345, 1000), (side.circ_id, 7)]))
    world.net.run(0.1)
    assert side.allowance == before + 7
    assert closings(world.relays[0]) == []
    world.call(world.client, RelayCmd.SESS, b"still there")
    world.net.run(0.1)
    assert received(world.target)[-1] == b"still there"


def test_one_credit_cell_serves_many_circuits():
    world = World(1)
    origins = [world.build().origin for _ in range(12)]
    out, back = world.links()[0]
    back.tap = []
    out.stalled = True
    for origin in origins:
        for _ in range(2):
            world.client.act(lambda origin=origin: origin.send(RelayCmd.SESS, BULK, large=True))
    out.stalled = False
    world.net.flush(out.sender[1])
    world.net.run(0.1)
    granted = [parse_credit(cell[8:]) for cell in back.tap if header(cell)[1] == Cmd.CREDIT]
    assert [len(entries) for entries in granted] == [12]
    assert {amount for _, amount in granted[0]} == {2 * LARGE_CELL}


def test_a_quiet_circuit_does_not_wait_behind_a_busy_one():
    """Bulk fills relay 1's link; a message of another circuit over the same link passes its queue."""
    world = World(2, seconds=0.05).build().session()
    bulk, bulk_end = world.origin, world.end
    world.build().session()
    out, _ = world.links()[1]
    keep_sending(world.client, bulk)
    world.net.run(1)
    out.stalled = True
    world.net.run(1)
    queued = world.relays[0].engine.queued_bytes
    assert queued > 1024 * 1024
    world.call(world.client, RelayCmd.SESS, b"keystroke")
    world.net.run(0.1)
    count = len(world.target.effects)
    out.stalled = False
    world.net.flush(out.sender[1])
    world.net.run(0.5)
    arrived = [effect for effect in world.target.effects[count:] if isinstance(effect, MessageArrived)]
    place = next(number for number, effect in enumerate(arrived) if effect.data == b"keystroke")
    before = sum(len(effect.data) for effect in arrived[:place])
    assert before <= SEND_QUEUE + 2 * LARGE_CELL  # what the transport had already, and not the queue
    assert all(effect.end is bulk_end for effect in arrived[:place])


def test_circuits_that_share_a_full_link_get_equal_shares():
    world = World(1, seconds=0.05).build()
    origins = [world.build().origin for _ in range(4)]
    counts = dict.fromkeys(origins, 0)

    def pump(effect=None):
        for origin in origins:
            while origin.can_send(large=True):
                origin.send(RelayCmd.SESS, BULK, large=True)
                counts[origin] += 1

    world.client.on_effect = pump
    world.client.act(pump)
    world.net.run(1)
    shares = sorted(counts.values())
    assert shares[0] > 100
    assert shares[-1] - shares[0] <= shares[0] * 0.1


def test_a_flood_of_echoes_whose_answers_nobody_takes_destroys_the_circuit():
    world = World(1).build()
    raw = RawClient(world)
    _, layers = raw.build(world.net.plan(world.relays, None))
    answers = []
    echoes = 0
    while Cmd.DESTROY not in answers and echoes < 1000:
        answers += [cmd for cmd, _ in raw.send(raw.message(layers, 1, RelayCmd.ECHO, bytes(8)), seconds=0.02)]
        echoes += 1
    assert answers.count(Cmd.RELAY) == INITIAL_ALLOWANCE // SMALL_CELL
    assert echoes == INITIAL_ALLOWANCE // SMALL_CELL + END_QUEUE_HARD // SMALL_CELL + 1
    assert raw.heard[-1][8] == DestroyReason.RESOURCES
    assert world.relays[0].engine.queued_bytes == 0
    assert closings(world.relays[0]) == []


def test_full_queues_kill_the_circuit_that_has_waited_longest():
    world = World(1)
    relay = world.relays[0]
    relay.engine._runtime.queue_memory = 400_000
    circuits = []
    for _ in range(4):
        world.build().session()
        circuits.append((world.origin, world.end))
    world.links()[1][0].stalled = True
    for origin, _ in circuits:
        for _ in range(18):  # the allowance of the target, the window of the relay, and some wait at the client
            world.client.act(lambda origin=origin: origin.send(RelayCmd.SESS, BULK, large=True))
        world.net.run(0.3)
    ended = [effect.end for effect in world.client.seen(CircuitEnded)]
    assert ended == [origin for origin, _ in circuits][:2]
    assert relay.engine.queued_bytes == 2 * INITIAL_ALLOWANCE
    assert closings(relay) == []


def test_full_queues_refuse_builds(monkeypatch):
    monkeypatch.setattr(runtime, "QUEUE_FULL", 2.0)
    world = World(1).build().session()
    world.links()[1][0].stalled = True
    for _ in range(20):
        world.call(world.client, RelayCmd.SESS, BULK, large=True)
        world.net.run(0.02)
    relay = world.relays[0]
    assert relay.engine.queued_bytes == INITIAL_ALLOWANCE
    relay.engine._runtime.queue_memory = int(relay.engine.queued_bytes / 0.94)
    assert not relay.engine._runtime.refuses_circuits
    relay.engine._runtime.queue_memory = int(relay.engine.queued_bytes / 0.96)
    world.build()
    assert world.refused == (1, BuildStatus.OVERLOADED, "the first hop is busy")


def test_a_circuit_carries_only_so_many_cells(monkeypatch):
    monkeypatch.setattr(engine, "MAX_CELLS_PER_CIRCUIT", 100)
    world = World(2).build().session()
    for _ in range(150):
        world.call(world.client, RelayCmd.SESS, bytes(100))
        world.net.run(0.02)
    assert world.ended
    assert 100 <= len(received(world.target)) < 120


# Circuits that are gone, and circuits that never were


def test_cells_still_under_way_find_a_tombstone_and_no_more_than_that():
    world = World(2).build().session()
    out, back = world.links()[1]
    (circ_id,) = out.sender[1].sides
    window = side_on(back).window
    world.target.act(world.end.close)
    world.net.run(1)
    cell = pack_cell(circ_id, Cmd.RELAY, bytes(1104))
    back.tap = []
    for _ in range(window.left // SMALL_CELL):
        out.send(cell)
    world.net.run(0.1)
    assert back.tap == []
    out.send(cell)
    world.net.run(0.1)
    assert closings(world.relays[1]) == ["cells beyond the allowance of a destroyed circuit"]


def test_a_tombstone_does_not_last():
    world = World(2).build().session()
    out, back = world.links()[1]
    (circ_id,) = out.sender[1].sides
    world.target.act(world.end.close)
    world.net.run(TOMBSTONE + 1)
    world.build()  # old tombstones are cleared as new ones are set
    world.client.act(world.origin.close)
    world.net.run(1)
    back.tap = []
    out.send(pack_cell(circ_id, Cmd.RELAY, bytes(1104)))
    world.net.run(0.1)
    assert [cell[8] for cell in back.tap] == [DestroyReason.UNKNOWN_CIRCUIT]


def test_cells_of_unknown_circuits_are_answered_up_to_a_limit():
    world = World(1).build()
    out, back = world.links()[0]
    back.tap = []
    for circ_id in range(1, UNKNOWN_CIRCUIT_LIMIT + 1):
        out.send(pack_cell(circ_id, Cmd.RELAY, bytes(1104)))
    world.net.run(0.1)
    assert [header(cell) for cell in back.tap] == [(n, Cmd.DESTROY) for n in range(1, UNKNOWN_CIRCUIT_LIMIT + 1)]
    out.send(pack_cell(500, Cmd.RELAY, bytes(1104)))
    world.net.run(0.1)
    assert closings(world.relays[0]) == ["too many cells of unknown circuits"]


def test_a_destroy_for_an_unknown_circuit_is_not_answered():
    world = World(1).build()
    out, back = world.links()[0]
    back.tap = []
    out.send(pack_cell(77, Cmd.DESTROY, b"\1"))
    world.net.run(0.1)
    assert back.tap == []
