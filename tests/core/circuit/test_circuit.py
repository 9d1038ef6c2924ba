"""Circuits that work: build, messages to and from every hop, both cell sizes, orderly end."""

import pytest

from onionrelay.base.errors import DestroyReason, UsageError
from onionrelay.base.limits import CIRCUIT_MAX_LIFE, END_QUEUE, LARGE_DATA
from onionrelay.core.effects import CircuitEnded, CircuitOpened, EndpointReached, MessageArrived, RoomToSend
from onionrelay.testing.memory_net import MemoryNet
from onionrelay.wire.cell import Cmd
from onionrelay.wire.relay import RelayCmd
from tests.core.circuit.world import BULK, World, closings, header, keep_sending, received


@pytest.mark.parametrize("relays", [1, 2, 3, 4, 5])
def test_one_round_trip_reaches_the_target(relays):
    world = World(relays)
    began = world.net.now
    world.origin = world.client.open_circuit(world.relays, world.target)
    world.net.run_until(lambda: world.opened)
    links = relays + 1
    handshakes = relays * 2  # every link but the attachment is made on the way, for one more round trip
    assert world.net.now - began == pytest.approx(0.005 * (2 * links + handshakes))
    assert world.end.binding == world.origin.binding
    assert len(world.origin.binding) == 32


def test_a_second_circuit_uses_the_same_links_and_takes_one_round_trip():
    world = World(4).build()
    links, began = len(world.net.pipes), world.net.now
    world.client.open_circuit(world.relays, world.target)
    world.net.run_until(lambda: len(world.client.seen(CircuitOpened)) == 2)
    assert len(world.net.pipes) == links
    assert world.net.now - began == pytest.approx(0.005 * 10)


def test_the_same_cells_pass_on_every_link():
    world = World(3).build()
    taps = []
    for out, back in world.links():
        out.tap, back.tap = [], []
        taps.append((out.tap, back.tap))
    world.build()
    for out, back in taps:
        assert [header(cell)[1] for cell in out] == [Cmd.BUILD] * 7
        assert [header(cell)[1] for cell in back] == [Cmd.BUILD_ACK, Cmd.BUILT]
    ids = {header(out[0])[0] for out, _ in taps}
    assert len(ids) == 4  # nothing that two links have in common
    bodies = {cell[8:] for out, _ in taps for cell in out}
    assert len(bodies) == 28


def test_messages_arrive_in_order_and_whole():
    world = World(4).build()
    sent = [bytes([n % 251]) * (n * 37 % 1080 + 1) for n in range(100)]
    for n, data in enumerate(sent):
        if n % 10 == 9:
            world.call(world.client, RelayCmd.SESS, BULK, large=True)
        world.call(world.client, RelayCmd.SESS, data)
    world.net.run(2)
    assert [data for data in received(world.target) if data != BULK] == sent
    for data in sent:
        world.call(world.target, RelayCmd.SESS, data)
        world.call(world.target, RelayCmd.SESS, BULK, large=True)
        world.net.run(0.1)
    assert received(world.client) == [data for pair in zip(sent, [BULK] * 100, strict=True) for data in pair]
    assert {message.hop for message in world.client.seen(MessageArrived)} == {5}
    assert {message.hop for message in world.target.seen(MessageArrived)} == {0}


def test_every_hop_echoes_to_the_client_alone():
    world = World(4).build().session()
    for hop in (3, 5, 1, 2, 4, 5, 5, 1):
        rid = len(world.client.effects)
        world.call(world.client, RelayCmd.ECHO, bytes([hop]) * 8, hop=hop, rid=rid)
        world.net.run(0.2)
        answer = world.client.seen(MessageArrived)[-1]
        assert (answer.hop, answer.cmd, answer.rid, answer.data) == (hop, RelayCmd.ECHOED, rid, bytes([hop]) * 8)
    assert received(world.target, RelayCmd.ECHO) == []


def test_echoes_and_bulk_interleave_in_both_directions():
    world = World(3, seconds=0.05).build().session()
    keep_sending(world.client, world.origin)
    for rid in range(30):
        world.call(world.client, RelayCmd.ECHO, bytes(8), hop=rid % 4 + 1, rid=rid)
        world.call(world.target, RelayCmd.SESS, BULK, large=True)
        world.net.run(0.02)
    world.client.on_effect = None
    world.net.run(1)
    assert len(received(world.client, RelayCmd.ECHOED)) == 30
    assert received(world.client)[1:] == [BULK] * 30
    assert set(received(world.target)[1:]) == {BULK}


def test_a_relay_can_be_the_end_and_answers_queries():
    net = MemoryNet(1)
    relays = [net.relay(f"relay{i}") for i in range(3)]
    client = net.client("client")
    origin = client.open_circuit(relays)
    net.run(1)
    hop = relays[-1].seen(EndpointReached)[0].hop
    client.act(lambda: origin.send(RelayCmd.DHT_QUERY, b"q" * 5000, rid=7))
    net.run(1)
    asked = relays[-1].seen(MessageArrived)[0]
    assert (asked.end, asked.cmd, asked.rid, asked.data) == (hop, RelayCmd.DHT_QUERY, 7, b"q" * 5000)
    relays[-1].act(lambda: hop.send(RelayCmd.DHT_ANSWER, b"a" * 65_536, rid=7))
    net.run(1)
    assert client.seen(MessageArrived)[0].data == b"a" * 65_536


def test_both_ends_can_close_and_only_the_other_is_told():
    for closer, other in (("client", "target"), ("target", "client")):
        world = World(3).build().session()
        end = world.origin if closer == "client" else world.end
        node = getattr(world, closer)
        node.act(end.close)
        node.act(end.close)
        world.net.run(1)
        assert node.seen(CircuitEnded) == []
        assert len(getattr(world, other).seen(CircuitEnded)) == 1
        assert world.sides() == []
        assert not end.can_send()
        node.act(lambda end=end: end.send(RelayCmd.SESS, b"nothing happens"))


def test_destroy_is_passed_on_without_its_reason():
    world = World(3).build().session()
    taps = []
    for out, _ in world.links():
        out.tap = []
        taps.append(out.tap)
    world.client.act(lambda: world.origin.close(DestroyReason.SHUTDOWN))
    world.net.run(1)
    reasons = [[cell[8] for cell in tap if header(cell)[1] == Cmd.DESTROY] for tap in taps]
    assert reasons == [[DestroyReason.SHUTDOWN], [DestroyReason.NONE], [DestroyReason.NONE], [DestroyReason.NONE]]


def test_destroy_overtakes_what_is_queued():
    world = World(3).build().session()
    out, _ = world.links()[1]
    out.stalled = True
    keep_sending(world.client, world.origin)
    world.net.run(1)
    assert world.relays[0].engine.queued_bytes > 0
    world.client.on_effect = None
    world.client.act(world.origin.close)
    world.net.run(1)
    assert world.relays[0].engine.queued_bytes == 0
    assert header(bytes(out.sender[1].outbox[-1112:]))[1] == Cmd.DESTROY


def test_what_was_queued_for_a_lost_link_is_forgotten():
    world = World(3).build().session()
    out, _ = world.links()[1]
    out.stalled = True
    keep_sending(world.client, world.origin)
    world.net.run(1)
    world.client.on_effect = None
    world.net.lose(out.sender[1])
    world.net.run(1)
    assert [node.engine.queued_bytes for node in world.net.nodes] == [0] * 5
    assert not any(node.engine._runtime.backlogged for node in world.net.nodes)


@pytest.mark.parametrize("built", [True, False])
def test_a_circuit_that_is_gone_has_no_timer(built):
    world = World(3).build()
    world.client.act(world.origin.close)
    world.net.run(1)
    timers = [len(node.engine._runtime.timers) for node in world.net.nodes]
    world.origin = world.client.open_circuit(world.relays, world.target)
    world.net.run(1 if built else 0.012)
    assert [len(node.engine._runtime.timers) for node in world.net.nodes] != timers
    world.client.act(world.origin.close)
    world.net.run(1)
    assert [len(node.engine._runtime.timers) for node in world.net.nodes] == timers


@pytest.mark.parametrize("broken", range(4))
def test_a_lost_link_ends_the_circuit_at_both_ends(broken):
    world = World(3).build().session()
    world.net.lose(world.links()[broken][0].sender[1])
    world.net.run(1)
    assert world.ended
    assert len(world.target.seen(CircuitEnded)) == 1
    assert world.sides() == []
    assert all(relay.engine.circuits == 0 for relay in world.relays)


def test_a_circuit_ends_with_its_lifetime():
    world = World(3).build(lifetime=100)
    world.net.run(98.5)
    assert not world.ended
    world.net.run(2)
    assert world.ended
    assert world.sides() == []


def test_no_circuit_outlives_six_hours():
    world = World(3).build(lifetime=CIRCUIT_MAX_LIFE)
    world.net.run(CIRCUIT_MAX_LIFE + 1)
    assert world.ended


def test_large_cells_only_where_the_records_allow_them():
    world = World(3).build(bulk=False)
    assert world.origin.can_send()
    assert not world.origin.can_send(large=True)
    assert not world.end.can_send(large=True)
    with pytest.raises(UsageError):
        world.origin.send(RelayCmd.SESS, BULK, large=True)


def test_a_large_cell_is_used_for_a_packet_that_needs_one():
    world = World(1).build()
    out, _ = world.links()[0]
    out.tap = []
    world.call(world.client, RelayCmd.SESS, b"small enough", large=True)
    world.call(world.client, RelayCmd.SESS, bytes(LARGE_DATA), large=True)
    assert [header(cell)[1] for cell in out.tap] == [Cmd.RELAY, Cmd.RELAY_BULK]


def test_an_end_is_told_once_when_it_may_send_again():
    world = World(2).build()
    while world.origin.can_send():
        world.call(world.client, RelayCmd.SESS, bytes(1000))
    assert world.client.seen(RoomToSend) == []
    world.net.run(1)
    assert [effect.end for effect in world.client.seen(RoomToSend)] == [world.origin]
    assert world.origin.can_send()


def test_an_end_is_told_while_half_of_its_queue_is_left():
    world = World(2).build()
    while world.origin.can_send():
        world.call(world.client, RelayCmd.SESS, bytes(1000))
    while not world.client.seen(RoomToSend):
        world.net.step()
    assert 0 < world.client.engine.queued_bytes <= END_QUEUE // 2


def test_what_the_caller_may_not_ask():
    world = World(2).build()
    for hop in (0, 4, -1):
        with pytest.raises(UsageError):
            world.origin.send(RelayCmd.ECHO, bytes(8), hop=hop)
    world.origin.send(RelayCmd.ECHO, bytes(8), hop=1, rid=1)
    with pytest.raises(UsageError):
        world.origin.send(RelayCmd.ECHO, bytes(8), hop=1, rid=1)
    with pytest.raises(UsageError):
        world.end.send(RelayCmd.SESS, b"", hop=1)
    channel = world.net.link(world.client, world.relays[0], world.links()[0][0].sender[1].purpose).forth.sender[1]
    with pytest.raises(UsageError):
        world.client.engine.open_circuit(channel, world.origin.plan, 0.0, 0)
    assert closings(world.client) == []


def test_secrets_do_not_show():
    world = World(2).build()
    for thing in (world.origin, world.end, world.origin.plan, world.links()[0][0].sender[1]):
        text = repr(thing)
        assert world.origin.binding.hex() not in text
        assert "k_ticket" not in text
        assert len(text) < 5000
