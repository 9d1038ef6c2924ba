"""When a node can be used, and what becomes of its connections when it is left."""

import asyncio

import pytest

import onionrelay
from onionrelay.base.errors import NetworkError, StreamReset, UsageError
from tests.node.overlays import PATIENCE, PORT, ask, attachments, echo, target_of


async def use(node, target):
    """Everything that a node can be asked for, one after the other."""
    for call in (
        lambda: node.open_connection(target.node_id, PORT),
        lambda: node.connect(target.node_id, port=PORT).__aenter__(),
        lambda: node.circuit(target.node_id).__aenter__(),
        lambda: node.start_server(echo, PORT),
        lambda: node.add_service(PORT, "127.0.0.1", 9),
        lambda: node.wait_reachable(0),
    ):
        with pytest.raises(UsageError, match="use it inside `async with`"):
            await call()
    for name in ("node_id", "anonymity"):
        with pytest.raises(UsageError, match="use it inside `async with`"):
            getattr(node, name)


async def test_a_node_is_used_within_its_block_only(overlay):
    node = overlay.node()
    async with target_of(overlay) as target:
        await use(node, target)
        async with node:
            await ask(node, target)
        await use(node, target)
        assert not node._driver._ports


async def test_a_node_is_entered_once(overlay):
    node = overlay.node()
    for _ in range(2):
        async with node:
            with pytest.raises(UsageError, match="entered once"):
                await node.__aenter__()
            assert node.anonymity
        with pytest.raises(UsageError, match="entered once"):
            await node.__aenter__()
        node = overlay.node()


async def test_a_node_that_could_not_start_may_try_again(overlay):
    home = overlay.folder / "home"
    home.write_text("a file, and no folder")
    node = overlay.node(home=home)
    with pytest.raises(onionrelay.HomeError):
        await node.__aenter__()
    home.unlink()
    async with node:
        assert node.anonymity


async def test_a_node_left_by_an_exception_resets_its_connections(overlay):
    ends = asyncio.Queue()

    async def receive(reader, writer):
        try:
            ends.put_nowait(await reader.read())
        except StreamReset as error:
            ends.put_nowait(error.reason)
            raise

    async with target_of(overlay, receive) as target:
        for error in (KeyError, None):
            node = await overlay.node().__aenter__()
            _, writer = await node.open_connection(target.node_id, PORT)
            writer.write(b"half of it")
            await node.__aexit__(error, error and error(), None)
            async with asyncio.timeout(PATIENCE):
                assert await ends.get() == ("CANCELLED" if error else b"half of it")


async def test_a_target_that_stops_cuts_its_callers_off_and_lets_nothing_look_complete(overlay):
    async def half(reader, writer):
        writer.write(b"half of it")
        await asyncio.Event().wait()

    async with overlay.node() as client:
        async with target_of(overlay, half) as target:
            reader, _ = await client.open_connection(target.node_id, PORT)
            assert await reader.readexactly(10) == b"half of it"
        with pytest.raises(NetworkError):
            await reader.read()


async def test_a_node_that_has_lost_its_final_hops_is_not_reachable_until_it_has_new_ones(overlay):
    events = []
    async with target_of(overlay, on_event=events.append) as target:
        target._target._attachments._schedule._earliest = 0.0
        for channel in tuple(target._target._channels.values()):
            target._driver.close_link(channel)
        while attachments(target):
            await asyncio.sleep(0)
        assert [event["event"] for event in events] == ["published", "unreachable"]
        await target.wait_reachable(PATIENCE)
        assert [event["event"] for event in events[2:]] == ["published", "reachable"]
        assert events[-1]["node_id"] == str(target.node_id)


async def test_an_application_that_breaks_on_an_event_is_reported_and_costs_nothing(overlay):
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    def broken(event):
        raise ZeroDivisionError

    async with target_of(overlay, on_event=broken) as target:
        assert target._target._attachments._publishing is None
    assert [(each["message"], type(each["exception"])) for each in reports] == [
        ("on_event failed at 'published'", ZeroDivisionError)
    ]


async def test_a_publication_that_breaks_is_reported_and_another_one_follows(overlay):
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with overlay.node() as target:
        put, broken = target._records.put, []

        async def break_once(*args):
            if not broken:
                broken.append(True)
                raise ZeroDivisionError
            return await put(*args)

        target._records.put = break_once
        await target.start_server(echo, PORT)
        attached = target._target._attachments
        while not (broken and attached._publishing is None):
            await asyncio.sleep(0.001)
        assert [type(each["exception"]) for each in reports] == [ZeroDivisionError]


def test_whatever_is_offered_is_there_and_a_misspelt_name_is_not():
    for name in onionrelay.__all__:
        assert getattr(onionrelay, name) is not None
    assert set(onionrelay.__all__) <= set(dir(onionrelay))
    assert {"Stream", "Circuit", "HopInfo", "HopTiming", "Service", "Attempt", "StreamReset"} <= set(onionrelay.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nodes'"):
        _ = onionrelay.Nodes
