"""Streams end to end: refused, closed, aborted, given up, and what happens to them when the circuit dies."""

import asyncio
from contextlib import suppress

import pytest

from onionrelay.base.errors import CircuitLost, DestroyReason, StreamRefused, StreamReset
from onionrelay.base.limits import (
    INITIAL_STREAM_WINDOW,
    STREAMS_PER_SESSION,
)
from onionrelay.wire import frames
from onionrelay.wire.frames import Packet, RefusalReason
from tests.node.memory_circuit import Joined, MiB, Offers, echo, in_virtual_time, never_answer, two_ends

SENTENCES = {
    RefusalReason.NO_SUCH_PORT: "serves nothing on port 80$",
    RefusalReason.CONNECT_FAILED: "service on port 80 does not answer$",
    RefusalReason.NOT_ALLOWED: "does not allow this$",
    RefusalReason.BUSY: "is busy$",
}

# Refusal


@pytest.mark.parametrize("reason", list(RefusalReason))
@in_virtual_time
async def test_refusal_says_why(reason):
    async def refuse(incoming):
        await asyncio.sleep(1)
        incoming.refuse(reason)

    async with Joined(refuse) as pair:
        with pytest.raises(StreamRefused, match=rf"^the node\b.*\b{SENTENCES[reason]}") as caught:
            await pair.client.open_stream(80)
        assert caught.value.reason == reason.name
        assert pair.client.is_open
        assert pair.client.stream_count == 0
        await asyncio.sleep(1)
        assert pair.target.stream_count == 0


@in_virtual_time
async def test_without_handler_no_port_exists():
    async with Joined() as pair:
        with pytest.raises(StreamRefused, match="serves nothing on port 80"):
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
            with pytest.raises(StreamRefused, match="port 80 does not answer"):
                await pair.client.open_stream(80)


@in_virtual_time
async def test_a_handler_that_breaks_is_reported_and_its_stream_reset():
    async def broken(incoming):
        await incoming.accept().readexactly(1)
        raise ZeroDivisionError

    async with Joined(broken) as pair:
        stream = await pair.client.open_stream(80)
        stream.write(b"x")
        with pytest.raises(StreamReset, match="broke off or was stopped"):
            await stream.read()
        (report,) = pair.errors
        assert isinstance(report["exception"], ZeroDivisionError)
        pair.errors.clear()


@in_virtual_time
async def test_an_answer_is_final():
    async def both(incoming):
        incoming.refuse(RefusalReason.NOT_ALLOWED)
        incoming.refuse(RefusalReason.BUSY)
        with pytest.raises(StreamRefused, match="does not allow this"):
            incoming.accept()

    async def twice(incoming):
        incoming.accept().write(b"once")
        incoming.refuse(RefusalReason.BUSY)
        with pytest.raises(RuntimeError):
            incoming.accept()

    async with Joined(both) as pair:
        with pytest.raises(StreamRefused, match="does not allow this"):
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
        with pytest.raises(StreamRefused, match="256 streams"):
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
        with pytest.raises(StreamReset) as caught:
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
