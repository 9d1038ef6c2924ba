import asyncio
import random
import socket
import ssl

import pytest

from onionrelay.base.limits import (
    LARGE_CELL,
    READ_BUFFER,
    READS_PER_WAKEUP,
    SEND_QUEUE,
    SEND_QUEUE_HARD,
    SMALL_CELL,
)
from onionrelay.net.link import SPARE
from onionrelay.net.tls import TlsLink
from tests.net.links import Sink, blocked, hand_made, linked, listening, send_all, turns

MEGABYTE = 1 << 20


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_ends_of_a_link(host):
    async with linked(host) as (client, server):
        assert (client.is_server, server.is_server) == (False, True)
        assert client.leaf_digest == server.leaf_digest
        assert (client.remote.host, server.remote.host) == (host, host)
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        for link, sender, receiver, data in ((client, a, b, b"there"), (server, b, a, b"and back")):
            sender.outbox += data
            link.flush()
            await receiver.until(lambda receiver=receiver, data=data: receiver.received == data)
            assert sender.outbox == b""


async def test_what_waits_in_the_outbox_goes_when_a_receiver_is_attached():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        a.outbox += b"first words"
        client.attach(a)
        assert a.outbox == b""
        server.attach(b)
        await b.until(lambda: b.received == b"first words")


async def test_nagle_is_off_at_both_ends():
    async with linked() as ends:
        for end in ends:
            assert end._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("unit", [1, SMALL_CELL, LARGE_CELL, 100_003])
async def test_bytes_arrive_whole_and_in_order_whatever_a_receiver_consumes(unit):
    """It consumes whole units, so almost every call leaves a part that must come again."""

    class Units(Sink):
        def use(self, buffer: bytearray, size: int) -> int:
            return super().use(buffer, size - size % unit)

    data = random.Random(1).randbytes(30 * 100_003)
    data = data[: len(data) - len(data) % unit]
    async with linked() as (client, server):
        a, b = Sink(), Units()
        client.attach(a)
        server.attach(b)
        await send_all(a, client, data)
        await b.until(lambda: len(b.received) == len(data))
        assert b.received == data
        assert max(b.feeds) <= READ_BUFFER


async def test_input_is_handled_many_records_at_a_time():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        data = await blocked(a, client)
        server.attach(b)
        await b.until(lambda: len(b.received) == len(data))
        assert max(b.feeds) == READ_BUFFER
        assert len(b.feeds) < len(data) / LARGE_CELL


async def test_one_byte_at_a_time():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        await peer.shake_hands(piece=1)
        server, sink = await accepted.get(), Sink()
        server.attach(sink)
        data = bytes(range(256)) * 2
        await peer.send_raw(peer.records(data), piece=1)
        for byte in data:
            await peer.send_raw(peer.records(bytes([byte])))
        await sink.until(lambda: len(sink.received) == 2 * len(data))
        assert sink.received == data * 2


async def test_a_receiver_works_in_place_and_finds_its_work_again():
    """What it wrote into bytes it has not consumed stays, and so does what was behind the spare bytes it used."""

    class InPlace(Sink):
        def use(self, buffer: bytearray, size: int) -> int:
            buffer[size : size + SPARE] = b"#" * SPARE
            if size < 10:
                for i in range(size):
                    buffer[i] = buffer[i] | 0x20
                return 0
            return super().use(buffer, size)

    async with linked() as (client, server):
        a, b = Sink(), InPlace()
        client.attach(a)
        server.attach(b)
        for part in (b"ABC", b"DEF", b"GHIJKL"):
            a.outbox += part
            client.flush()
            count = len(b.feeds)
            await b.until(lambda count=count: len(b.feeds) > count)
        assert b.received == b"abcdefGHIJKL"


async def test_links_do_not_mix_their_unfinished_input():
    class Pairs(Sink):
        def use(self, buffer: bytearray, size: int) -> int:
            return super().use(buffer, size - size % 2)

    async with linked() as (c1, s1), linked() as (c2, s2):
        senders, receivers = (Sink(), Sink()), (Pairs(), Pairs())
        for link, sink in zip((c1, c2, s1, s2), (*senders, *receivers), strict=True):
            link.attach(sink)
        for _ in range(10):
            for letter, link, sender in ((b"x", c1, senders[0]), (b"yyy", c2, senders[1])):
                sender.outbox += letter
                link.flush()
            await turns(3)
        await receivers[0].until(lambda: receivers[0].received == b"x" * 10)
        await receivers[1].until(lambda: receivers[1].received == b"y" * 30)


async def test_a_busy_link_lets_others_have_their_turn():
    async def count_rounds() -> None:
        while True:
            log.append("|")
            await turns(1)

    async with linked() as (c1, s1), linked() as (c2, s2):
        senders, log = (Sink(), Sink()), []
        receivers = (Sink("1", log), Sink("2", log))
        sizes = []
        for link, sender in ((c1, senders[0]), (c2, senders[1])):
            link.attach(sender)
            sizes.append(len(await blocked(sender, link)))
        counting = asyncio.create_task(count_rounds())
        s1.attach(receivers[0])
        s2.attach(receivers[1])
        for receiver, size in zip(receivers, sizes, strict=True):
            await receiver.until(lambda receiver=receiver, size=size: len(receiver.received) == size)
        counting.cancel()
        rounds = "".join(log).split("|")
        assert max(part.count("1") for part in rounds) == READS_PER_WAKEUP
        assert max(part.count("2") for part in rounds) == READS_PER_WAKEUP
        assert any({"1", "2"} <= set(part) for part in rounds)


# Back-pressure


async def test_a_peer_that_does_not_read_ends_the_link_at_the_hard_limit():
    async with linked() as (client, _server):
        sink = Sink()
        client.attach(sink)
        largest = 0
        while not sink.lost:
            sink.outbox += bytes(40_000)
            client.flush()
            largest = max(largest, len(sink.outbox))
            await turns(1)
        assert "does not read" in await sink.until_lost()
        assert SEND_QUEUE_HARD < largest <= SEND_QUEUE_HARD + 40_000


async def test_a_slow_reader_gets_everything_and_room_is_told_once():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        queued = bytearray(await blocked(a, client))
        # A send is pending: what is appended now, at odd sizes, must not disturb its repetition.
        rng = random.Random(2)
        while len(a.outbox) < SEND_QUEUE + 1:
            part = rng.randbytes(rng.randrange(1, 30_000))
            queued += part
            a.outbox += part
            client.flush()
            await turns(1)
        assert a.rooms == []
        server.attach(b)
        await b.until(lambda: len(b.received) == len(queued))
        assert b.received == queued
        a.outbox += b"a little more"
        client.flush()
        await turns(3)
        assert len(a.rooms) == 1
        assert a.rooms[0] < SEND_QUEUE // 2


async def test_no_word_of_room_when_the_outbox_was_never_half_full():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        for _ in range(20):
            a.outbox += bytes(SEND_QUEUE // 2)
            client.flush()
            await b.until(lambda: not a.outbox)
        assert a.rooms == []


async def test_room_is_told_later_even_when_one_flush_sends_it_all():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        a.outbox += bytes(SEND_QUEUE // 2 + 1)
        client.flush()
        assert a.rooms == []  # nothing that a receiver calls may call it back
        await a.until(lambda: bool(a.rooms))
        assert len(a.rooms) == 1


async def test_no_word_of_room_that_is_gone_again():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        a.outbox += bytes(SEND_QUEUE)
        client.flush()
        a.outbox += bytes(SEND_QUEUE)  # before the word has come
        await turns(2)
        assert a.rooms == []
        client.flush()
        await a.until(lambda: bool(a.rooms))
        assert a.rooms == [0]


async def test_a_link_in_both_directions_at_once():
    data = random.Random(3).randbytes(3 * MEGABYTE)
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_all(a, client, data))
            tasks.create_task(send_all(b, server, data))
        await a.until(lambda: len(a.received) == len(data))
        await b.until(lambda: len(b.received) == len(data))
        assert a.received == b.received == data


async def test_an_echo_under_pressure():
    """Every feed answers on the same link, from within the call."""

    class Echo(Sink):
        link: TlsLink

        def use(self, buffer: bytearray, size: int) -> int:
            self.outbox += buffer[:size]
            self.link.flush()
            return size

    data = random.Random(4).randbytes(2 * MEGABYTE)
    async with linked() as (client, server):
        a, b = Sink(), Echo()
        b.link = server
        client.attach(a)
        server.attach(b)
        await send_all(a, client, data)
        await a.until(lambda: len(a.received) == len(data))
        assert a.received == data


class Moody:
    """A TLS socket in the middle of a key update: the first read first asks to write, or the first write to read."""

    def __init__(self, sock: ssl.SSLSocket, *, asks: str) -> None:
        self.sock = sock
        self.asks = asks
        self.held = b""

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def recv_into(self, view, size):
        if self.asks == "read first" or not (self.asks or self.held):
            count = self.sock.recv_into(view, size)
            self.asks = ""
            return count
        if self.asks == "write first":
            self.held = self.sock.recv(size)  # the selector sees no more of it
            self.asks = ""
            raise ssl.SSLWantWriteError
        count, self.held = len(self.held), b""
        view[:count] = b"w" * count
        return count

    def send(self, data):
        if self.asks == "read first":
            raise ssl.SSLWantReadError
        return self.sock.send(data)


async def test_a_read_that_must_write_first():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        server._sock = Moody(server._sock, asks="write first")
        client.attach(a)
        server.attach(b)
        a.outbox += b"w" * 10
        client.flush()
        await b.until(lambda: b.received == b"w" * 10)
        assert not server._writer_on


async def test_a_write_that_must_read_first():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        server._sock = moody = Moody(server._sock, asks="read first")
        client.attach(a)
        server.attach(b)
        b.outbox += b"waits for a read"
        server.flush()
        await turns(5)
        assert moody.asks == "read first"
        assert a.received == b""
        assert not server._writer_on
        a.outbox += b"here"
        client.flush()
        await a.until(lambda: a.received == b"waits for a read")


async def test_a_send_is_repeated_exactly_as_it_was():
    """OpenSSL's rule for a write that could not finish; the outbox grows in between."""

    class Strict:
        def __init__(self, sock: ssl.SSLSocket) -> None:
            self.sock = sock
            self.offers: list[bytes] = []

        def __getattr__(self, name):
            return getattr(self.sock, name)

        def send(self, data):
            self.offers.append(bytes(data))
            if len(self.offers) < 4:
                raise ssl.SSLWantWriteError
            return self.sock.send(data)

    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client._sock = strict = Strict(client._sock)
        client.attach(a)
        server.attach(b)
        a.outbox += b"first"
        client.flush()
        for _ in range(4):
            a.outbox += b"more"
            client.flush()
        await b.until(lambda: b.received == b"first" + b"more" * 4)
        assert strict.offers == [b"first"] * 4 + [b"more" * 4]


async def test_what_openssl_has_taken_from_the_socket_is_not_forgotten():
    """The last record crosses the end of a turn's last buffer, and the selector sees an empty socket."""
    first = LARGE_CELL - 100
    data = random.Random(6).randbytes(first + READS_PER_WAKEUP * READ_BUFFER)
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        for part in (data[:first], data[first:]):
            a.outbox += part
            client.flush()
        while a.outbox:
            await turns(1)
        server.attach(b)
        await b.until(lambda: len(b.received) == len(data))
        assert b.received == data
