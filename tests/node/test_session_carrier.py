"""Sessions end to end: liveness, idleness, closing, and the memory of all of them."""

import asyncio

import pytest

from onionrelay.base.errors import CircuitLost, DestroyReason, StreamRefused, StreamReset
from onionrelay.base.limits import (
    CIRCUIT_IDLE,
    SESSION_CLOSE_TIMEOUT,
    SESSION_UNUSED,
)
from onionrelay.node.streams import SessionMemory
from onionrelay.wire.frames import CloseCode
from tests.node.memory_circuit import LATENCY, Joined, MiB, Offers, echo, in_virtual_time, two_ends


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
        with pytest.raises(StreamReset, match="broke off or was stopped"):
            await opened.read()
        assert "closed" in pair.closed[0][1]


@in_virtual_time
async def test_what_a_handler_has_not_finished_when_the_session_is_closed_does_not_look_complete():
    ended = []

    async def serve(incoming):
        stream = incoming.accept()
        stream.write(b"the first half")
        try:
            ended.append(await stream.read())
        finally:
            ended.append("cancelled")

    async with Joined(serve) as pair:
        stream = await pair.client.open_stream(80)
        assert await stream.readexactly(14) == b"the first half"
        stream.write(b"not all")
        await pair.target.aclose()
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.reason == "SERVICE_LOST"
        assert ended == ["cancelled"]


@pytest.mark.parametrize("returns", [True, False])
@in_virtual_time
async def test_what_a_handler_has_finished_arrives_whole_although_the_session_is_closed(returns):
    async def serve(incoming):
        stream = incoming.accept()
        stream.write(bytes(MiB))
        if not returns:
            await stream.aclose()  # which waits until all has been sent

    async with Joined(serve) as pair:
        stream = await pair.client.open_stream(80)
        reading = asyncio.create_task(stream.read())
        await pair.target.aclose()
        assert len(await reading) == MiB
        await stream.aclose()


@in_virtual_time
async def test_streams_that_are_given_up_together_are_reset():
    offers = Offers()
    async with Joined(offers) as pair:
        near, far = await two_ends(pair, offers)
        near.write(b"half of it")
        pair.client.abort_streams()
        closing = asyncio.create_task(pair.client.aclose())
        with pytest.raises(StreamReset) as caught:
            await far.read()
        assert caught.value.reason == "CANCELLED"
        await closing


@in_virtual_time
async def test_new_streams_are_busy_while_the_session_is_closing():
    offers = Offers()
    async with Joined(offers) as pair:
        _, far = await two_ends(pair, offers)
        far.write(bytes(20 * MiB))  # nobody reads it, so closing takes its time
        far.writer.close()
        closing = asyncio.create_task(pair.target.aclose())
        await asyncio.sleep(1)
        with pytest.raises(StreamRefused, match="the node is busy"):
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
