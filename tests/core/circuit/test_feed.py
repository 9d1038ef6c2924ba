"""However the transport cuts its bytes up, the engine does the same with them."""

import pytest

from onionrelay.base.limits import LARGE_CELL
from onionrelay.core.effects import MessageArrived
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.testing.memory_link import SPARE, split
from onionrelay.testing.memory_net import MemoryNet
from onionrelay.wire.cell import Cmd, parse_credit
from onionrelay.wire.relay import RelayCmd
from tests.core.circuit.world import BULK, header
from tests.seeded import SeededRng


def conversation():
    """What a client says to its guard, from HELLO on: circuits, echoes, queries, large cells, an end."""
    net = MemoryNet(3)
    relay = net.relay("relay")
    client = net.client("client")
    said = []
    net.on_link = lambda pipe: setattr(pipe.forth, "tap", said)
    origins = [client.open_circuit([relay]) for _ in range(3)]
    net.run(1)
    for rid, origin in enumerate(origins * 3):
        client.act(lambda origin=origin, rid=rid: origin.send(RelayCmd.ECHO, bytes(8), rid=rid))
        client.act(lambda origin=origin, rid=rid: origin.send(RelayCmd.DHT_QUERY, bytes(3000), rid=rid))
    client.act(lambda: origins[0].send(RelayCmd.DIR_GET, bytes(60_000), rid=9))
    net.run(1)
    client.act(origins[1].close)
    client.act(lambda: origins[2].send(RelayCmd.SESS, BULK, large=True))  # a relay takes no session: it destroys
    net.run(1)
    return b"".join(said)


def replay(data, cuts):
    """A fresh relay with the same seed hears the same bytes in other pieces. What it did: effects, cells, credit."""
    net = MemoryNet(3)
    relay = net.relay("relay")
    client = net.client("client")
    net.on_link = lambda pipe: setattr(pipe.forth, "cut", True)
    channel = net.link(client, relay, LinkPurpose.GUARD).back.sender[1]
    rest = b""
    start = 0
    for end in [*cuts, len(data)]:
        piece = rest + data[start:end]
        buf = bytearray(piece) + bytes(SPARE)
        used = relay.engine.feed(channel, buf, len(piece), net.now, net.unix_now)
        assert 0 <= used <= len(piece)
        assert len(buf) == len(piece) + SPARE
        assert buf[len(piece) :] == bytes(SPARE)
        rest, start = piece[used:], end
    assert rest == b""
    cells = split(bytes(channel.outbox))
    credit = {}
    for cell in cells:
        if header(cell)[1] == Cmd.CREDIT:
            for circ_id, amount in parse_credit(cell[8:]):
                credit[circ_id] = credit.get(circ_id, 0) + amount
    messages = [(m.hop, m.cmd, m.rid, m.data) for m in relay.engine.take_effects() if isinstance(m, MessageArrived)]
    return messages, [cell for cell in cells if header(cell)[1] != Cmd.CREDIT], credit


def assert_same(one, other):
    """The same messages and answers; credit is granted at the end of a pass, so up to a batch of it may be missing."""
    assert one[:2] == other[:2]
    assert one[2].keys() == other[2].keys()
    assert all(abs(amount - other[2][circ_id]) < LARGE_CELL for circ_id, amount in one[2].items())


@pytest.fixture(scope="module")
def said():
    return conversation()


def test_byte_by_byte_is_the_same_as_at_once(said):
    messages, cells, credit = replay(said, [])
    assert len(messages) == 10
    assert [header(cell)[1] for cell in cells].count(Cmd.DESTROY) == 1
    assert len(credit) == 1
    assert_same(replay(said, range(1, len(said))), (messages, cells, credit))


@pytest.mark.parametrize("seed", range(10))
def test_any_pieces_are_the_same_as_at_once(said, seed):
    rng = SeededRng(seed)
    cuts = sorted(rng.below(len(said)) for _ in range(rng.below(60)))
    assert_same(replay(said, cuts), replay(said, []))


def test_a_cell_that_is_not_whole_waits():
    net = MemoryNet(1)
    relay, client = net.relay("relay"), net.client("client")
    channel = net.link(client, relay, LinkPurpose.GUARD).back.sender[1]
    net.run(1)
    cell = bytes([0, 0, 0, 0, Cmd.PING, 0, 0, 0]) + bytes(1104)
    for size in (0, 1, 7, 8, 1111):
        assert relay.engine.feed(channel, bytearray(cell[:size] + bytes(16)), size, net.now, net.unix_now) == 0
    assert channel.outbox == b""
    assert relay.engine.feed(channel, bytearray(cell + cell[:5] + bytes(16)), 1117, net.now, net.unix_now) == 1112
    assert header(bytes(channel.outbox))[1] == Cmd.PONG
