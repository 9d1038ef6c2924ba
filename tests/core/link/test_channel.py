"""What concerns a link itself: handshake, keep-alive, control messages, and what closes it. Real engines in memory."""

import pytest

from onionrelay.base.errors import DestroyReason, NetworkError
from onionrelay.base.limits import LINK_HANDSHAKE_TIMEOUT, MAX_CONTROL_MESSAGE, PING_INTERVAL, SEND_QUEUE_HARD
from onionrelay.core.effects import ControlArrived, LinkClosing, LinkUp
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.testing.memory_net import MemoryNet
from onionrelay.wire.cell import Cmd, pack_cell, pack_credit, pack_ping
from onionrelay.wire.control import fragment
from tests.core.circuit.world import closings, header
from tests.seeded import SeededRng


class Pair:
    """A relay and someone with a link to it."""

    def __init__(self, purpose=LinkPurpose.GUARD, *, up=True, on_link=None):
        self.net = MemoryNet(1)
        self.net.on_link = on_link
        self.relay = self.net.relay("relay")
        self.other = self.net.relay("other") if purpose is LinkPurpose.RELAY else self.net.client("other")
        self.pipe = self.net.link(self.other, self.relay, purpose)
        self.near, self.far = self.pipe.forth.sender[1], self.pipe.back.sender[1]
        if up:
            self.net.run(1)

    def inject(self, *cells, seconds=0.1):
        """Sends cells to the relay; what comes back."""
        self.pipe.back.tap = []
        self.pipe.forth.send(b"".join(cells))
        self.net.run(seconds)
        return self.pipe.back.tap


@pytest.mark.parametrize("purpose", list(LinkPurpose)[:4])
def test_both_ends_learn_who_the_other_is(purpose):
    pair = Pair(purpose)
    assert pair.near.peer.relay_id == pair.relay.relay_id
    assert pair.far.peer.relay_id == (pair.other.relay_id if purpose is LinkPurpose.RELAY else None)
    assert pair.near.peer.transcript == pair.far.peer.transcript
    assert pair.far.is_client_link == (purpose is not LinkPurpose.RELAY)
    assert not pair.near.is_client_link
    assert [effect.channel for effect in pair.relay.seen(LinkUp)] == [pair.far]
    assert "up" in repr(pair.far)


def test_the_round_trip_is_known_at_once():
    pair = Pair()
    assert pair.near.rtt == pytest.approx(0.01)
    assert pair.far.rtt == pytest.approx(0.01)


@pytest.mark.parametrize("cmd", [cmd for cmd in range(16) if cmd not in (Cmd.PADDING, Cmd.HELLO, Cmd.AUTH)])
def test_nothing_but_the_handshake_before_the_handshake(cmd):
    pair = Pair(up=False)
    circuit_cmds = (Cmd.RELAY, Cmd.RELAY_BULK, Cmd.BUILD, Cmd.BUILT, Cmd.BUILD_ACK, Cmd.DESTROY)
    body = bytes(16_376) if cmd == Cmd.RELAY_BULK else b""
    pair.pipe.back.deliver(pack_cell(9 if cmd in circuit_cmds else 0, cmd, body))
    pair.pipe.back.deliver(b"ignored from now on")
    pair.net.run(1)
    assert closings(pair.other) == ["a cell before the link handshake was complete"]
    assert pair.other.seen(LinkUp) == []


@pytest.mark.parametrize("cmd", [Cmd.HELLO, Cmd.AUTH])
def test_no_handshake_after_the_handshake(cmd):
    pair = Pair()
    pair.inject(fragment(cmd, 1, b""))
    assert closings(pair.relay) == ["a handshake message after the handshake"]


@pytest.mark.parametrize("silent", ["forth", "back"])
def test_a_handshake_that_is_not_completed_is_given_up(silent):
    pair = Pair(up=False, on_link=lambda pipe: setattr(getattr(pipe, silent), "adversary", lambda cell: ()))
    pair.net.run(LINK_HANDSHAKE_TIMEOUT - 0.1)
    assert closings(pair.other) == []
    pair.net.run(0.2)
    assert closings(pair.other) == ["the link handshake was not completed in time"]


def test_another_network_is_refused_and_told_so():
    def rename(cell):
        return (cell[:14] + bytes(8) + cell[22:],) if header(cell)[1] == Cmd.HELLO else (cell,)

    pair = Pair(up=False, on_link=lambda pipe: setattr(pipe.forth, "adversary", rename))
    pair.net.run(1)
    assert closings(pair.relay) == ["the two ends belong to different networks"]
    assert closings(pair.other) == ["the two ends belong to different networks"]


def test_a_ping_is_answered_and_padding_ignored():
    pair = Pair()
    answers = pair.inject(pack_cell(0, Cmd.PADDING, SeededRng(1).token(1104)), pack_ping(Cmd.PING, 42))
    assert answers == [pack_ping(Cmd.PONG, 42)]
    assert closings(pair.relay) == []


def test_a_pong_nobody_asked_for_closes_the_link():
    pair = Pair()
    pair.inject(pack_ping(Cmd.PONG, 42))
    assert closings(pair.relay) == ["a PONG that answers no PING"]


def test_pings_keep_an_idle_link_alive_and_an_attachment_more_often():
    for purpose, interval in ((LinkPurpose.ATTACHMENT, 15), (LinkPurpose.RELAY, 60)):
        pair = Pair(purpose)
        pair.pipe.forth.tap = []
        pair.net.run(600)
        pings = [cell for cell in pair.pipe.forth.tap if header(cell)[1] == Cmd.PING]
        assert len(pings) == 600 // interval
        assert len({cell[8:16] for cell in pings}) == len(pings)
        assert closings(pair.relay) == closings(pair.other) == []


@pytest.mark.parametrize(("purpose", "noticed"), [(LinkPurpose.ATTACHMENT, 45), (LinkPurpose.GUARD, 90)])
def test_a_peer_that_falls_silent_is_noticed(purpose, noticed):
    pair = Pair(purpose)
    pair.pipe.back.adversary = lambda cell: ()
    pair.net.run(noticed - 2)
    assert closings(pair.other) == []
    pair.net.run(2)
    assert closings(pair.other) == ["the peer has fallen silent"]


@pytest.mark.parametrize("cmd", [Cmd.ATTACH, Cmd.DHT, Cmd.DIR, Cmd.REACH])
@pytest.mark.parametrize("size", [0, 1, 1098, 1099, 5000, MAX_CONTROL_MESSAGE])
def test_control_messages_arrive_whole(cmd, size):
    pair = Pair()
    body = SeededRng(size).token(size)
    pair.other.act(lambda: pair.other.engine.send_control(pair.near, cmd, 3, body))
    pair.net.run(1)
    (arrived,) = pair.relay.seen(ControlArrived)
    assert (arrived.channel, arrived.cmd, arrived.type, arrived.body) == (pair.far, cmd, 3, body)
    assert not pair.far._assemblers  # which would hold the message


def test_messages_of_different_commands_may_be_interleaved():
    pair = Pair()
    one, two = fragment(Cmd.DHT, 1, b"a" * 2000), fragment(Cmd.DIR, 2, b"b" * 2000)
    mixed = [cells[at : at + 1112] for at in range(0, len(one), 1112) for cells in (one, two)]
    pair.inject(*mixed)
    assert [(message.cmd, len(message.body)) for message in pair.relay.seen(ControlArrived)] == [
        (Cmd.DHT, 2000),
        (Cmd.DIR, 2000),
    ]


@pytest.mark.parametrize(
    "cell",
    [
        pack_cell(0, Cmd.DHT, (1).to_bytes(2) + (MAX_CONTROL_MESSAGE + 1).to_bytes(4)),
        pack_cell(0, Cmd.HELLO, (1).to_bytes(2) + (4097).to_bytes(4)),
        pack_cell(0, Cmd.DIR, (1).to_bytes(2) + (3).to_bytes(4) + b"123\1"),
        pack_cell(0, Cmd.CREDIT),
        pack_cell(0, Cmd.CREDIT, bytes(4) + b"\0\0\0\1"),
        pack_cell(0, Cmd.PING, bytes(8) + b"\1"),
        pack_credit([(1, 1)])[:-1] + b"\1",
    ],
)
def test_malformed_link_cells_close_the_link(cell):
    pair = Pair()
    pair.inject(cell)
    assert len(closings(pair.relay)) == 1
    assert pair.far.closed


def test_a_link_is_closed_once_and_takes_nothing_more():
    pair = Pair()
    pair.relay.act(lambda: pair.relay.engine.close_link(pair.far, "enough"))
    pair.relay.act(lambda: pair.relay.engine.close_link(pair.far, "again"))
    assert closings(pair.relay) == ["enough"]
    before = bytes(pair.far.outbox)
    buf = bytearray(pack_ping(Cmd.PING, 1) + bytes(16))
    assert pair.relay.engine.feed(pair.far, buf, 1112, pair.net.now, pair.net.unix_now) == 1112
    pair.relay.engine.send_control(pair.far, Cmd.DIR, 1, b"")
    pair.relay.engine.on_room(pair.far, pair.net.now)
    pair.relay.engine.on_link_lost(pair.far, pair.net.now)
    assert bytes(pair.far.outbox) == before
    assert len(pair.relay.seen(LinkClosing)) == 1
    assert pair.relay.engine.take_effects() == []


def test_a_lost_link_is_not_reported_as_closing():
    pair = Pair()
    pair.net.lose(pair.near)
    pair.net.run(1)
    assert pair.near.closed
    assert pair.far.closed
    assert closings(pair.relay) == closings(pair.other) == []


def test_a_closed_link_sets_no_timers():
    pair = Pair()
    pair.net.lose(pair.near)
    pair.net.run(1)
    assert pair.relay.engine.deadline is None
    assert pair.other.engine.deadline is None


def test_a_peer_that_provokes_answers_and_does_not_read_them_loses_the_link():
    pair = Pair()
    pair.pipe.back.stalled = True
    for _ in range(SEND_QUEUE_HARD // 1112 // 50 + 2):
        pair.inject(pack_ping(Cmd.PING, 1) * 50, seconds=0.01)
    assert pair.far.closed
    assert len(pair.far.outbox) < SEND_QUEUE_HARD + 60_000


def test_circuit_ids_say_who_opened_the_circuit():
    pair = Pair()
    assert all(pair.near.new_circ_id() >> 31 == 0 for _ in range(20))
    assert all(pair.far.new_circ_id() >> 31 == 1 for _ in range(20))
    assert pair.far.is_peers(1)
    assert not pair.far.is_peers(1 << 31 | 1)
    assert pair.near.is_peers(1 << 31 | 1)


def test_a_circuit_is_not_opened_to_a_peer_that_takes_none():
    pair = Pair()
    plan = pair.net.plan([pair.relay], None)
    object.__setattr__(pair.near, "peer", type(pair.near.peer)(**{**fields(pair.near.peer), "features": 0}))
    with pytest.raises(NetworkError):
        pair.other.engine.open_circuit(pair.near, plan, pair.net.now, pair.net.unix_now)


@pytest.mark.parametrize("obstacle", ["full", "closed"])
def test_a_circuit_is_not_opened_over_a_link_that_has_no_place_for_it(obstacle):
    pair = Pair()
    plan = pair.net.plan([pair.relay], None)
    if obstacle == "full":
        pair.near.max_circuits = 0
    else:
        pair.other.act(lambda: pair.other.engine.close_link(pair.near, "done"))
    with pytest.raises(NetworkError):
        pair.other.engine.open_circuit(pair.near, plan, pair.net.now, pair.net.unix_now)


def test_tombstones_do_not_outlive_their_time_on_an_idle_link():
    pair = Pair()
    for circ_id in range(1, 50):
        pair.far.refuse(circ_id, DestroyReason.BUSY)
    pair.net.run(2 * PING_INTERVAL)
    assert not pair.far.tombstones._graves


def fields(peer):
    return {name: getattr(peer, name) for name in peer.__slots__}


def test_what_is_waiting_is_counted():
    pair = Pair()
    assert pair.near.queued_bytes == 0
    pair.pipe.forth.stalled = True
    pair.other.act(lambda: pair.other.engine.send_control(pair.near, Cmd.DIR, 1, bytes(3000)))
    assert pair.near.queued_bytes == 3 * 1112


def test_pings_go_on_after_an_hour():
    pair = Pair(LinkPurpose.RELAY)
    pair.net.run(3600)
    pair.pipe.forth.tap = []
    pair.net.run(PING_INTERVAL)
    assert [header(cell)[1] for cell in pair.pipe.forth.tap] == [Cmd.PING, Cmd.PONG]
