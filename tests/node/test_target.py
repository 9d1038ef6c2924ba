"""Being reached: attachments, records, and the sessions of callers."""

import asyncio

import pytest

from onionrelay.base.errors import CircuitFailed, CircuitLost, HomeError, TimedOut
from onionrelay.base.limits import ONION_KEY_PERIOD, STREAM_WINDOW
from onionrelay.core.attach import schedule
from onionrelay.core.attach import target as core_target
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.node import target as target_module
from onionrelay.testing.overlay import LocalOverlay, until
from onionrelay.wire.cell import Cmd
from tests.node.overlays import (
    AT_ONCE,
    PATIENCE,
    PORT,
    Clock,
    ask,
    attachments,
    echo,
    no_circuit_left,
    republish,
    still,
    target_of,
)


def links(node):
    """The node's links by purpose."""
    return [port.channel.purpose for port in node._driver._ports.values()]


# Attachments and records


async def test_a_node_that_serves_nothing_is_attached_nowhere(overlay):
    async with overlay.node() as node:
        assert links(node) == []
        assert node.node_id == node.node_id
        with pytest.raises(TimedOut, match=r"becoming reachable took longer than 0\.01 s"):
            await node.wait_reachable(0.01)


async def test_the_first_service_attaches_to_three_final_hops_and_publishes_them(overlay):
    events = []
    async with target_of(overlay, on_event=events.append) as target, overlay.node() as client:
        await target.start_server(echo, PORT + 1)
        assert len(attachments(target)) == 3
        assert links(target).count(LinkPurpose.ATTACHMENT) == 3
        assert [event["event"] for event in events] == ["published"]
        assert events[0]["finals"] == 3
        record = await client._records.find(target.node_id)
        assert {str(final.entry.relay_id) for final in record.finals} == set(attachments(target))
        handles = {final.handle for final in record.finals}
        assert len(handles) == 3  # a name of its own at each
        for relay in overlay.relays.values():
            assert {held.handle for held in relay._finals._by_handle.values()} <= handles
        await ask(client, target)
        await target.wait_reachable(0)


async def test_an_attachment_that_is_lost_is_replaced_and_the_record_with_it(overlay, monkeypatch):
    monkeypatch.setattr(schedule, "PUBLISH_PAUSE", 0.05)
    async with target_of(overlay) as target, overlay.node() as client:
        attached = target._target._attachments
        attached._schedule._earliest = 0.0
        gone = list(attachments(target))[:2]
        for relay_id in gone:
            await overlay.stop(relay_id)
        await until(lambda: len(attachments(target)) == 3 and not set(gone) & set(attachments(target)))
        await until(lambda: attached._published == set(attachments(target).values()) and not attached._publishing)
        record = await client._records.find(target.node_id)
        assert {str(final.entry.relay_id) for final in record.finals} == set(attachments(target))
        await ask(client, target)


async def test_a_final_hop_that_was_restarted_is_attached_to_again(monkeypatch):
    """The target is attached to every relay there is: no other could take its place."""
    monkeypatch.setattr(core_target, "REATTACH_RETRY", 0.1)
    async with LocalOverlay(6, seeds=1) as overlay, overlay.node() as client, overlay.node() as target:
        await target.start_server(echo, PORT)
        attached = target._target._attachments
        attached._count = 6
        await until(lambda: len(attachments(target)) == 6)
        relay_id = str(overlay.relays[3].relay_id)
        handle = attachments(target)[relay_id].handle
        await overlay.restart(relay_id)
        await until(lambda: relay_id in attachments(target) and attachments(target)[relay_id].handle != handle)
        await target.wait_reachable(PATIENCE)
        await client._client.refresh_table()
        await ask(client, target)


async def test_a_target_that_comes_back_within_minutes_outdoes_its_own_record(overlay):
    home = overlay.home("target")
    async with target_of(overlay, home=home) as target:
        for period in target._target._publisher._revisions:
            target._target._publisher._revisions[period] += 50  # as if it had published so often
        await republish(target)
    async with target_of(overlay, home=home) as target, overlay.node() as client:
        await ask(client, target)


async def test_two_processes_of_one_home_cannot_both_be_its_target(overlay):
    home = overlay.home("target")
    async with target_of(overlay, home=home) as one, overlay.node(home=home) as other:
        with pytest.raises(HomeError, match="another process runs the target"):
            await other.start_server(echo, PORT)
        with pytest.raises(HomeError, match="another process runs the target"):
            await other.start_server(echo, PORT)  # the port is not taken by the first try
        assert one.node_id == other.node_id
    async with target_of(overlay, home=home):  # the lock goes with the one that held it
        pass


async def test_a_home_without_room_for_a_key_leaves_nothing_half_done(overlay):
    home = overlay.home("target")
    async with overlay.node(home=home) as node:
        (overlay.folder / "target" / "node.key").mkdir(parents=True)
        for _ in range(2):
            with pytest.raises(HomeError, match=r"node\.key"):
                await node.start_server(echo, PORT)
        (overlay.folder / "target" / "node.key").rmdir()
        await node.start_server(echo, PORT)
        await node.wait_reachable(PATIENCE)


async def test_a_new_onion_key_comes_with_its_period():
    clock = Clock()
    async with LocalOverlay(clock=clock) as overlay, target_of(overlay) as target:
        before = target._target._keys.ring.public
        target._target.keep_up()
        assert target._target._keys.ring.public == before
        clock.shift = ONION_KEY_PERIOD
        target._target.keep_up()
        assert target._target._keys.ring.public != before


async def test_what_a_final_hop_must_not_say_costs_it_the_link(overlay):
    async with target_of(overlay) as target:
        channels = list(target._target._channels.values())
        target.on_control(channels[0], Cmd.ATTACH, 1, b"")  # what targets say
        target.on_control(channels[1], Cmd.ATTACH, 2, b"junk")
        target.on_control(channels[2], Cmd.DIR, 1, bytes(6))  # what relays are asked
        await until(lambda: all(channel.closed for channel in channels))


# Sessions


async def test_a_session_leaves_nothing_behind_when_its_caller_ends_it(overlay):
    async with target_of(overlay) as target:
        for _ in range(3):
            async with overlay.node() as client:
                await ask(client, target)
            await until(lambda: not target._target._sessions)
        await no_circuit_left(overlay, target)
        assert not target._target._serving


async def test_a_caller_that_only_looks_costs_no_session(overlay):
    async with target_of(overlay) as target, overlay.node() as client:
        async with client.circuit(target.node_id) as circuit:
            assert await circuit.echo(5) > 0
            assert not target._target._sessions
        await no_circuit_left(overlay, target, client)


async def test_circuits_without_a_session_give_way_the_oldest_first(overlay, monkeypatch):
    monkeypatch.setattr(target_module, "SILENT_CIRCUITS", 2)
    async with target_of(overlay) as target, overlay.node() as client:
        stream = await client._open_stream(target.node_id, PORT, None, None)
        async with client.circuit(target.node_id) as first, client.circuit(target.node_id) as second:
            await first.echo(5)
            async with client.circuit(target.node_id) as third, asyncio.timeout(AT_ONCE):
                await first.wait_lost()
                await second.echo(5)
                await third.echo(5)
        stream.write_eof()
        assert await stream.read() == b""  # one with a session does not count
        await until(lambda: not target._target._silent)


async def test_the_memory_of_all_sessions_is_counted_and_given_back(overlay):
    async def deaf(reader, writer):
        await asyncio.Event().wait()

    async with target_of(overlay, deaf) as target, overlay.node() as client:
        reader, writer = await client.open_connection(target.node_id, PORT)
        writer.write(bytes(300_000))
        await until(lambda: target._target._memory.total > 0)
        writer.transport.abort()
        del reader
        await until(lambda: target._target._memory.total == 0)


# The end


async def test_closing_ends_sessions_attachments_and_handlers(overlay):
    ended = []

    async def stubborn(reader, writer):
        try:
            while True:  # never looks at its stream
                await asyncio.sleep(60)
        finally:
            ended.append("handler")

    async with overlay.node() as client:
        async with target_of(overlay, stubborn) as target:
            one, other = [await client.open_connection(target.node_id, PORT) for _ in range(2)]
            await until(lambda: len(target._target._serving) == 2)
        assert ended == ["handler"] * 2
        assert links(target) == []
        for reader, writer in (one, other):
            with pytest.raises((CircuitLost, ConnectionResetError)):
                while True:
                    assert not await reader.read()
                    writer.write(b"x")
                    await writer.drain()
        await until(lambda: not any(relay._finals._by_handle for relay in overlay.relays.values()))
        with pytest.raises(CircuitFailed, match="no such handle"):
            await ask(client, target._target)


async def test_a_handler_outlives_its_circuit_but_not_the_node(overlay):
    steps = []

    async def careful(reader, writer):
        try:
            try:
                await reader.read()
            except CircuitLost:
                steps.append("lost")
            await asyncio.Event().wait()  # goes on with something else
        finally:
            steps.append("ended")

    async with target_of(overlay, careful) as target:
        async with overlay.node() as client:
            _, writer = await client.open_connection(target.node_id, PORT)
            await until(lambda: target._target._serving)
            client._driver.close_link(next(port.channel for port in client._driver._ports.values()))
            await until(lambda: steps == ["lost"])
            await until(lambda: not target._target._sessions)
            with pytest.raises(CircuitLost):
                await writer.wait_closed()
        assert steps == ["lost"]
    assert steps == ["lost", "ended"]
    assert all("careful" not in str(task) for task in asyncio.all_tasks())


async def test_nobody_gets_in_while_the_target_closes(overlay):
    sent = 0

    async def pour(reader, writer):
        nonlocal sent
        writer.write(bytes(20 * STREAM_WINDOW))
        sent += 1

    async with target_of(overlay, pour) as target, overlay.node() as client, overlay.node() as late:
        await late._records.find(target.node_id)
        _, writer = await client.open_connection(target.node_id, PORT)  # and reads nothing: the session is slow to end
        await still(lambda: sent)
        closing = asyncio.create_task(target._target.aclose())
        await asyncio.sleep(0)
        with pytest.raises((CircuitLost, CircuitFailed)):
            await late.open_connection(target.node_id, PORT)
        assert not closing.done()
        writer.transport.abort()
        await closing
        assert not target._target._sessions


async def test_a_caller_that_comes_while_the_target_closes_is_turned_away(overlay):
    async with target_of(overlay) as target, overlay.node() as client:
        async with client.circuit(target.node_id) as early:
            target._target._is_closing = True
            with pytest.raises((CircuitLost, CircuitFailed)):
                async with client.circuit(target.node_id) as late:
                    await late.echo(5)
                    await late.wait_lost()
                    await late.echo(5)
            target._target._is_closing = False
            early_end = next(iter(target._driver._listeners.values()))
            target._target._is_closing = True
            early_end.on_message(0, 1, 0, b"")  # the first packet of a session
            assert not target._target._sessions
            async with asyncio.timeout(PATIENCE):
                await early.wait_lost()
        await no_circuit_left(overlay, target, client)
