"""Streams end to end, two carriers over a circuit in memory: how they carry data."""

import asyncio
import random

import pytest

from onionrelay.base.limits import (
    SESSION_WINDOW,
    STREAM_SEND_BUFFER,
    STREAM_WINDOW,
)
from tests.node.memory_circuit import LATENCY, Joined, MiB, Offers, echo, in_virtual_time, two_ends


async def send(stream, data, rng):
    while data:
        size = rng.choice((1, 100, 5000, 20_000, 300_000))
        stream.write(data[:size])
        data = data[size:]
        if rng.random() < 0.5:
            await stream.drain()
        if rng.random() < 0.1:
            await asyncio.sleep(rng.random() / 10)
    stream.write_eof()


async def receive(stream, rng):
    received = bytearray()
    while data := await stream.read(rng.choice((1000, 10_000, 1_000_000))):
        received += data
        if rng.random() < 0.05:
            await asyncio.sleep(rng.random() / 10)
    return bytes(received)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bulk", [True, False])
@in_virtual_time
async def test_transfers_both_ways_at_once_are_exact(seed, bulk):
    rng = random.Random(f"both ways {seed}")
    offers = Offers()
    async with Joined(offers, bulk=bulk, window=rng.choice((20_000, 200_000, 4 * MiB))) as pair:
        near, far = await two_ends(pair, offers)
        up, down = rng.randbytes(3 * MiB), rng.randbytes(2 * MiB)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(near, up, rng))
            tasks.create_task(send(far, down, rng))
            at_far = tasks.create_task(receive(far, rng))
            at_near = tasks.create_task(receive(near, rng))
        assert at_far.result() == up
        assert at_near.result() == down
        await near.aclose()
        await far.aclose()
        await asyncio.sleep(1)
        assert pair.client.stream_count == pair.target.stream_count == 0


@in_virtual_time
async def test_a_stream_knows_its_circuit_and_port():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers, metadata=b"hello")
        assert (near.circuit, near.port) == ("the circuit", 80)
        assert (far.circuit, far.port) == ("the other end", 80)
        assert far.writer.get_extra_info("metadata") == b"hello"
        assert near.writer.get_extra_info("peername") is None


@in_virtual_time
async def test_opening_takes_one_round_trip_and_without_waiting_none():
    loop = asyncio.get_running_loop()
    async with Joined(echo) as pair:
        begun = loop.time()
        async with await pair.client.open_stream(80) as stream:
            assert loop.time() - begun == pytest.approx(2 * LATENCY)
            assert stream.port == 80
        begun = loop.time()
        async with await pair.client.open_stream(80, wait=False) as stream:
            stream.write(b"in the same packet")
            assert loop.time() == begun
            assert await stream.readexactly(18) == b"in the same packet"
            assert loop.time() - begun == pytest.approx(2 * LATENCY)


@in_virtual_time
async def test_half_close():
    async with Joined(echo) as pair:
        stream = await pair.client.open_stream(80)
        stream.write(b"question")
        stream.write_eof()
        assert await stream.read() == b"question"
        with pytest.raises(RuntimeError):
            stream.write(b"more")
        await stream.aclose()


@in_virtual_time
async def test_what_is_written_in_one_round_shares_packets():
    async with Joined(echo) as pair:
        stream = await pair.client.open_stream(80)
        before = len(pair.client_end.sent)
        for _ in range(1000):
            stream.write(b"x" * 100)
        assert len(await stream.readexactly(100_000)) == 100_000
        assert len([packet for packet in pair.client_end.sent[before:] if len(packet) > 1080]) == 6
        stream.abort()


@in_virtual_time
async def test_a_slow_reader_stops_the_writer_and_bounds_memory():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        written = 0

        async def write_forever():
            nonlocal written
            while True:
                near.write(bytes(10_000))
                written += 10_000
                await near.drain()

        writing = asyncio.create_task(write_forever())
        await asyncio.sleep(3600)
        held = pair.target._session.memory
        assert held <= STREAM_WINDOW
        assert pair.client._session.memory <= STREAM_SEND_BUFFER + 10_000
        buffers = 2 * 65_536 + 16_384 + STREAM_SEND_BUFFER + 10_000  # the StreamReader, and the writer's queue
        assert STREAM_WINDOW < written <= STREAM_WINDOW + buffers
        for _ in range(20):
            await far.readexactly(MiB)
        assert written >= 20 * MiB
        writing.cancel()


@in_virtual_time
async def test_streams_that_nobody_reads_do_not_stop_the_others():
    offers = Offers()
    async with Joined(offers) as pair:
        stuck = [await two_ends(pair, offers) for _ in range(5)]
        for near, _ in stuck:
            near.write(bytes(8 * MiB))
        await asyncio.sleep(60)
        assert pair.target._session.memory < SESSION_WINDOW
        near, far = await two_ends(pair, offers)
        near.write(bytes(3 * MiB))
        near.write_eof()
        assert len(await far.read()) == 3 * MiB


@in_virtual_time
async def test_many_streams_share_a_slow_circuit_fairly():
    offers = Offers()
    async with Joined(offers, window=64 * 1024) as pair:
        streams = [await two_ends(pair, offers) for _ in range(40)]
        received = [0] * len(streams)

        async def count(index, far):
            while data := await far.read(65_536):
                received[index] += len(data)

        async def fill(near):
            while True:
                near.write(bytes(30_000))
                await near.drain()

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(fill(near)) for near, _ in streams]
            running += [tasks.create_task(count(index, far)) for index, (_, far) in enumerate(streams)]
            await asyncio.sleep(60)
            assert min(received) > 500_000
            assert max(received) < 1.2 * min(received)
            for task in running:
                task.cancel()


@in_virtual_time
async def test_both_ends_may_open_streams():
    async with Joined(echo, client_on_stream=echo) as pair:
        near = await pair.client.open_stream(1)
        far = await pair.target.open_stream(2)
        for stream in (near, far):
            stream.write(b"ping")
            assert await stream.readexactly(4) == b"ping"
            await stream.aclose()


@in_virtual_time
async def test_a_protocol_instead_of_a_stream():
    class Client(asyncio.Protocol):
        def __init__(self):
            self.calls = []
            self.over = asyncio.get_running_loop().create_future()

        def connection_made(self, transport):
            transport.write(b"hello")
            self.calls.append("made")

        def data_received(self, data):
            self.calls.append(data)

        def eof_received(self):
            self.calls.append("eof")

        def connection_lost(self, exc):
            self.over.set_result(exc)

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data.upper())
            self.transport.close()

    async def serve(incoming):
        incoming.accept_protocol(Server())

    async with Joined(serve) as pair:
        transport, protocol = await pair.client.create_connection(Client, 7)
        assert await protocol.over is None
        assert protocol.calls == ["made", b"HELLO", "eof"]
        assert transport.is_closing()
        assert transport.get_extra_info("port") == 7
