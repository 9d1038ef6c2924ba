"""Streams end to end: two carriers over a circuit in memory."""

import asyncio
import random
from contextlib import suppress

import pytest

from onionrelay.base.errors import CircuitLost, DestroyReason, StreamRefused
from onionrelay.base.limits import (
    CIRCUIT_IDLE,
    INITIAL_STREAM_WINDOW,
    SESSION_CLOSE_TIMEOUT,
    SESSION_UNUSED,
    SESSION_WINDOW,
    STREAM_SEND_BUFFER,
    STREAM_WINDOW,
    STREAMS_PER_SESSION,
)
from onionrelay.node.streams import SessionMemory
from onionrelay.wire import frames
from onionrelay.wire.frames import CloseCode, Packet, RefusalReason
from tests.node.memory_circuit import LATENCY, Joined, in_virtual_time

MiB = 1024 * 1024


async def echo(incoming):
    async with incoming.accept() as stream:
        while data := await stream.read(65_536):
            stream.write(data)
            await stream.drain()
        stream.write_eof()


async def never_answer(incoming):
    await asyncio.Event().wait()


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


class Offers:
    """A handler that accepts everything and hands the streams to the test."""

    def __init__(self):
        self.streams = asyncio.Queue()
        self.over = asyncio.Event()

    async def __call__(self, incoming):
        self.streams.put_nowait(incoming.accept())
        await self.over.wait()


async def two_ends(pair, offers, **how):
    near = await pair.client.open_stream(80, **how)
    return near, await offers.streams.get()


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


# Refusal


@pytest.mark.parametrize("reason", list(RefusalReason))
@in_virtual_time
async def test_refusal_says_why(reason):
    async def refuse(incoming):
        await asyncio.sleep(1)
        incoming.refuse(reason)

    async with Joined(refuse) as pair:
        with pytest.raises(StreamRefused, match=reason.name):
            await pair.client.open_stream(80)
        assert pair.client.is_open
        assert pair.client.stream_count == 0
        await asyncio.sleep(1)
        assert pair.target.stream_count == 0


@in_virtual_time
async def test_without_handler_no_port_exists():
    async with Joined() as pair:
        with pytest.raises(StreamRefused, match="NO_SUCH_PORT"):
            await pair.client.open_stream(80)
        with pytest.raises(ConnectionRefusedError):
            await pair.target.open_stream(80)


@in_virtual_time
async def test_a_refusal_ends_a_stream_that_did_not_wait():
    async with Joined() as pair:
        stream = await pair.client.open_stream(80, wait=False)
        stream.write(bytes(MiB))
        with pytest.raises(StreamRefused):
            await stream.drain()
        with pytest.raises(StreamRefused):
            await stream.read()
        await stream.aclose()


@in_virtual_time
async def test_a_handler_that_does_not_answer_refuses():
    async def forget(incoming):
        pass

    async def fail(incoming):
        raise ConnectionRefusedError("nobody listens")

    for handler in (forget, fail):
        async with Joined(handler) as pair:
            with pytest.raises(StreamRefused, match="CONNECT_FAILED"):
                await pair.client.open_stream(80)


@in_virtual_time
async def test_a_handler_that_breaks_is_reported_and_its_stream_reset():
    async def broken(incoming):
        await incoming.accept().readexactly(1)
        raise ZeroDivisionError

    async with Joined(broken) as pair:
        stream = await pair.client.open_stream(80)
        stream.write(b"x")
        with pytest.raises(ConnectionResetError, match="service_lost"):
            await stream.read()
        (report,) = pair.errors
        assert isinstance(report["exception"], ZeroDivisionError)
        pair.errors.clear()


@in_virtual_time
async def test_an_answer_is_final():
    async def both(incoming):
        incoming.refuse(RefusalReason.NOT_ALLOWED)
        incoming.refuse(RefusalReason.BUSY)
        with pytest.raises(StreamRefused, match="NOT_ALLOWED"):
            incoming.accept()

    async def twice(incoming):
        incoming.accept().write(b"once")
        incoming.refuse(RefusalReason.BUSY)
        with pytest.raises(RuntimeError):
            incoming.accept()

    async with Joined(both) as pair:
        with pytest.raises(StreamRefused, match="NOT_ALLOWED"):
            await pair.client.open_stream(80)
    async with Joined(twice) as pair:
        stream = await pair.client.open_stream(80)
        assert await stream.read() == b"once"
        await stream.aclose()


@in_virtual_time
async def test_data_before_the_answer_wait_for_it():
    async def slow(incoming):
        await asyncio.sleep(10)
        await echo(incoming)

    async with Joined(slow) as pair:
        stream = await pair.client.open_stream(80, wait=False)
        stream.write(bytes(100_000))
        stream.write_eof()
        await asyncio.sleep(5)
        assert pair.target._session.memory == INITIAL_STREAM_WINDOW
        assert await stream.read() == bytes(100_000)
        await stream.aclose()


@in_virtual_time
async def test_more_streams_than_allowed_are_busy():
    async with Joined(never_answer) as pair:
        opening = [asyncio.create_task(pair.client.open_stream(80)) for _ in range(STREAMS_PER_SESSION)]
        await asyncio.sleep(1)
        assert pair.target.stream_count == STREAMS_PER_SESSION
        with pytest.raises(StreamRefused, match="BUSY"):
            await pair.client.open_stream(80)
        for task in opening:
            task.cancel()
        await asyncio.sleep(1)
        assert pair.client.stream_count == pair.target.stream_count == 0


# Ends of streams


@in_virtual_time
async def test_close_sends_what_is_queued_and_the_peer_reads_all_of_it():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        near.write(bytes(5 * MiB))
        closing = asyncio.create_task(near.aclose())
        await asyncio.sleep(60)
        assert not closing.done()
        assert len(await far.read()) == 5 * MiB
        await closing
        with suppress(OSError):
            far.write(b"too late")
            await far.drain()
        await far.aclose()


@in_virtual_time
async def test_writing_to_one_who_closed_fails_and_never_hangs():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        await near.aclose()
        await asyncio.sleep(1)
        assert await far.read() == b""
        far.write(b"nobody hears this")
        with pytest.raises(ConnectionResetError):
            for _ in range(10):
                await far.drain()
        await far.aclose()


@in_virtual_time
async def test_closing_ends_a_writer_that_waits():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        far.write(bytes(10 * MiB))
        draining = asyncio.create_task(far.drain())
        await asyncio.sleep(60)
        assert not draining.done()
        await near.aclose()
        with pytest.raises(ConnectionResetError) as caught:
            await draining
        assert not isinstance(caught.value, CircuitLost)
        await asyncio.sleep(1)
        assert pair.client._session.memory == pair.target._session.memory == 0


@in_virtual_time
async def test_abort_resets_the_stream_at_the_peer():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        near.write(bytes(10 * MiB))
        reading = asyncio.create_task(far.read())
        await asyncio.sleep(0)
        near.abort()
        with pytest.raises(ConnectionResetError):
            await reading
        assert pair.client.is_open
        assert await near.read() == b""
        await asyncio.sleep(1)
        assert pair.client.stream_count == pair.target.stream_count == 0


@in_virtual_time
async def test_an_error_inside_async_with_resets_the_stream():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        with pytest.raises(KeyError):
            async with near:
                raise KeyError
        with pytest.raises(ConnectionResetError):
            await far.read()


# The circuit dies


@in_virtual_time
async def test_circuit_loss_ends_whatever_waits():
    offers = Offers()
    async with Joined(offers) as pair:
        reader, _ = await two_ends(pair, offers)
        exact, _ = await two_ends(pair, offers)
        writer, _ = await two_ends(pair, offers)
        writer.write(bytes(10 * MiB))
        waiting = [
            asyncio.create_task(reader.read()),
            asyncio.create_task(exact.readexactly(5)),
            asyncio.create_task(writer.drain()),
            asyncio.create_task(pair.client.ping()),
        ]
        await asyncio.sleep(0)
        opening = asyncio.create_task(pair.client.open_stream(80))
        await asyncio.sleep(0)
        pair.lose("the guard hung up")
        for result in await asyncio.gather(*waiting, opening, return_exceptions=True):
            assert isinstance(result, CircuitLost)
            assert result.reason == "the guard hung up"
        assert not pair.client.is_open
        for stream in (reader, exact, writer):
            with pytest.raises(CircuitLost):
                await stream.read()
            with pytest.raises(CircuitLost):
                await stream.drain()
            await stream.aclose()
        with pytest.raises(CircuitLost):
            await pair.client.open_stream(80)
        with pytest.raises(CircuitLost):
            await pair.client.ping()
        assert pair.closed == [("client", "the guard hung up"), ("target", "the guard hung up")]


@in_virtual_time
async def test_circuit_loss_reaches_handlers_and_cancels_those_that_did_not_answer():
    ended = []

    async def serve(incoming):
        try:
            if incoming.port == 1:
                await asyncio.Event().wait()
            await incoming.accept().read()
        except BaseException as exc:
            ended.append((incoming.port, type(exc)))
            raise

    async with Joined(serve) as pair:
        streams = [await pair.client.open_stream(2), await pair.client.open_stream(1, wait=False)]
        await asyncio.sleep(1)
        pair.lose()
        await asyncio.sleep(0.01)
        assert sorted(ended) == [(1, asyncio.CancelledError), (2, CircuitLost)]
        for stream in streams:
            await stream.aclose()


@in_virtual_time
async def test_what_was_received_to_its_end_survives_the_circuit():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        far.write(bytes(MiB))
        far.write_eof()
        await asyncio.sleep(5)
        pair.lose()
        await asyncio.sleep(1)
        assert len(await near.read()) == MiB
        near.write(b"late")
        with pytest.raises(CircuitLost):
            for _ in range(10):
                await near.drain()
        await near.aclose()


@in_virtual_time
async def test_such_a_stream_can_also_simply_be_closed():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        far.write(b"all there is")
        far.write_eof()
        await asyncio.sleep(5)
        pair.lose()
        await asyncio.sleep(1)
        assert pair.client.stream_count == 1
        assert await near.read() == b"all there is"
        near.writer.close()
        await near.writer.wait_closed()
        assert pair.client.stream_count == 0


@in_virtual_time
async def test_a_violation_destroys_the_circuit():
    offers = Offers()
    async with Joined(offers) as pair:
        near, _ = await two_ends(pair, offers)
        pair.client.on_packet(Packet(99, (frames.Ping(1),)).encode())
        assert pair.client_end.closed_with is DestroyReason.PROTOCOL
        with pytest.raises(CircuitLost, match="broke the session protocol"):
            await near.read()
        pair.client.on_packet(b"more")
        pair.client.on_room()
        assert [who for who, _ in pair.closed] == ["client"]


# Cancellation


@in_virtual_time
async def test_cancelling_an_opening_withdraws_the_request():
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(incoming):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Joined(slow) as pair:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pair.client.open_stream(80)
        await begun.wait()
        await cancelled.wait()
        await asyncio.sleep(1)
        assert pair.client.stream_count == pair.target.stream_count == 0
        assert pair.client._session.stream_count == pair.target._session.stream_count == 0


@in_virtual_time
async def test_a_late_accept_says_what_happened():
    caught = []

    async def stubborn(incoming):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            incoming.accept()
        except ConnectionResetError as exc:
            caught.append(exc)

    async with Joined(stubborn) as pair:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pair.client.open_stream(80)
        await asyncio.sleep(1)
        assert len(caught) == 1


@in_virtual_time
async def test_a_cancelled_read_or_drain_loses_nothing():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await far.readexactly(10 * MiB)
        near.write(bytes(range(256)) * (10 * MiB // 256))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await near.drain()
        assert await far.readexactly(10 * MiB) == bytes(range(256)) * (10 * MiB // 256)
        await near.drain()


# The session


@in_virtual_time
async def test_ping():
    async with Joined() as pair:
        assert await pair.client.ping() == pytest.approx(2 * LATENCY)
        assert await pair.target.ping() == pytest.approx(2 * LATENCY)
        both = await asyncio.gather(pair.client.ping(), pair.client.ping())
        assert both == pytest.approx([2 * LATENCY] * 2)


@in_virtual_time
async def test_a_ping_may_be_given_up():
    async with Joined() as pair:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LATENCY):
                await pair.client.ping()
        assert await pair.client.ping() == pytest.approx(LATENCY)  # joins the one under way
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LATENCY):
                await pair.client.ping()
        pair.lose()


@in_virtual_time
async def test_ping_from_a_target_waits_for_the_session():
    async with Joined() as pair:
        assert await pair.target.ping() == pytest.approx(3 * LATENCY)


@in_virtual_time
async def test_an_unused_session_is_closed():
    loop = asyncio.get_running_loop()
    async with Joined() as pair:
        await asyncio.sleep(SESSION_UNUSED - 1)
        assert pair.client.is_open
        await asyncio.sleep(1 + SESSION_CLOSE_TIMEOUT + 1)
        assert not pair.client.is_open
        assert [who for who, _ in pair.closed] == ["client", "target"] or len(pair.closed) == 2
        assert "unused" in pair.closed[0][1]
        assert loop.time() > SESSION_UNUSED


@in_virtual_time
async def test_a_used_session_is_closed_when_idle_for_long_and_never_while_a_stream_is_open():
    async with Joined(echo) as pair:
        stream = await pair.client.open_stream(80)
        await asyncio.sleep(24 * 3600)
        assert pair.client.is_open
        stream.write(b"still here")
        assert await stream.readexactly(10) == b"still here"
        await stream.aclose()
        await asyncio.sleep(CIRCUIT_IDLE - 10)
        assert pair.client.is_open
        await asyncio.sleep(30)
        assert not pair.client.is_open
        assert len(pair.closed) == 2


@in_virtual_time
async def test_aclose_delivers_everything_then_ends_the_circuit_in_a_round_trip():
    loop = asyncio.get_running_loop()
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        near.write(bytes(MiB))
        reading = asyncio.create_task(far.read())
        begun = loop.time()
        await pair.client.aclose()
        assert loop.time() - begun < 1
        assert len(await reading) == MiB
        assert pair.target_end.closed_with is DestroyReason.FINISHED
        assert not pair.target.is_open
        with pytest.raises(CircuitLost):
            await pair.client.open_stream(80)
        await pair.client.aclose()


@in_virtual_time
async def test_aclose_waits_neither_for_a_reader_nor_for_a_peer_for_ever():
    loop = asyncio.get_running_loop()
    offers = Offers()
    async with Joined(offers) as pair:
        near, _ = await two_ends(pair, offers)
        near.write(bytes(10 * MiB))
        pair.target.on_packet = lambda data: None  # the peer's machine hangs
        begun = loop.time()
        await pair.client.aclose(CloseCode.SHUTDOWN)
        assert loop.time() - begun == pytest.approx(2 * SESSION_CLOSE_TIMEOUT, abs=0.5)
        assert pair.client_end.closed_with is DestroyReason.FINISHED
        assert pair.closed[0][0] == "client"


@in_virtual_time
async def test_aclose_refuses_who_waits_and_ends_handlers():
    ended = []

    async def serve(incoming):
        try:
            if incoming.port == 1:
                incoming.accept()
            await asyncio.Event().wait()
        finally:
            ended.append(incoming.port)

    async with Joined(serve) as pair:
        opened = await pair.client.open_stream(1)
        opening = asyncio.create_task(pair.client.open_stream(2))
        await asyncio.sleep(1)
        await pair.target.aclose()
        assert sorted(ended) == [1, 2]
        with pytest.raises(StreamRefused):
            await opening
        assert await opened.read() == b""
        assert "closed" in pair.closed[0][1]


@in_virtual_time
async def test_new_streams_are_busy_while_the_session_is_closing():
    offers = Offers()
    async with Joined(offers) as pair:
        _, far = await two_ends(pair, offers)
        far.write(bytes(20 * MiB))  # nobody reads it, so closing takes its time
        closing = asyncio.create_task(pair.target.aclose())
        await asyncio.sleep(1)
        with pytest.raises(StreamRefused, match="BUSY"):
            await pair.client.open_stream(80)
        await closing


@in_virtual_time
async def test_memory_of_all_sessions_is_bounded_and_the_largest_is_closed():
    memory = SessionMemory(limit=3 * MiB)
    offers = [Offers() for _ in range(3)]
    async with (
        Joined(offers[0], memory=memory) as first,
        Joined(offers[1], memory=memory) as second,
        Joined(offers[2], memory=memory) as third,
    ):
        streams = [await two_ends(pair, offer) for pair, offer in zip((first, second, third), offers, strict=True)]
        streams[0][0].write(bytes(MiB))
        streams[1][0].write(bytes(2 * MiB))
        await asyncio.sleep(5)
        assert second.target.is_open
        assert memory.total <= memory.limit
        streams[2][0].write(bytes(MiB))
        await asyncio.sleep(5)
        assert (first.target.is_open, second.target.is_open, third.target.is_open) == (True, False, True)
        assert memory.total <= memory.limit
        assert "resources" in second.closed[0][1]
        with pytest.raises(CircuitLost, match="resources"):
            await streams[1][0].read()
        streams[0][0].write_eof()
        assert len(await streams[0][1].read()) == MiB
    assert memory.total == 0


@in_virtual_time
async def test_memory_counts_what_is_queued_and_what_nobody_reads():
    memory = SessionMemory()
    offers = Offers()
    async with Joined(offers, memory=memory) as pair:
        near, far = await two_ends(pair, offers)
        near.write(bytes(MiB))
        far.write(bytes(5 * MiB))
        await asyncio.sleep(5)
        assert memory.total == pair.target._session.memory > 3 * MiB
        reading = asyncio.create_task(near.read())
        await far.readexactly(MiB)
        await asyncio.sleep(5)
        assert memory.total == 0
        reading.cancel()
