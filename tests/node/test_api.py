"""The library's face, over a network in this process."""

import asyncio
import gc

import pytest

import onionrelay
from onionrelay.base.errors import (
    CircuitFailed,
    CircuitLost,
    ConfigError,
    InvalidId,
    NetworkError,
    NodeNotFound,
    NoNetwork,
    StreamRefused,
    UsageError,
)
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import SESSION_WINDOW, STREAM_SEND_BUFFER, STREAM_WINDOW
from onionrelay.core.directory.table import RelayTable
from onionrelay.crypto.signing import SigningSecret
from onionrelay.net.system import SystemRng
from onionrelay.node import api
from onionrelay.node.home import MemoryHome
from onionrelay.node.network_file import NetworkFile
from onionrelay.testing.overlay import LocalOverlay, until
from onionrelay.testing.seeded_rng import SeededRng
from tests.node.overlays import PATIENCE, PORT, ask, circuits_at, no_circuit_left, relay_ids, still, target_of
from tests.node.parties import stop_reading

MIB = 1024 * 1024
STRANGER = NodeId(SigningSecret.generate(SeededRng("a stranger")).public)


@pytest.fixture
async def target(overlay):
    async with target_of(overlay) as target:
        yield target


@pytest.fixture
async def client(overlay, target):
    async with overlay.node() as client:
        yield client


def sessions(node):
    return list(node._sessions.values())


# Connections


async def test_a_connection_is_an_ordinary_asyncio_pair(target, client):
    reader, writer = await client.open_connection(target.node_id, PORT)
    writer.write(b"hello")
    await writer.drain()
    assert await reader.readexactly(5) == b"hello"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_node_is_named_by_its_id_or_the_ids_text(target, client):
    for name in (target.node_id, str(target.node_id)):
        async with client.connect(name, port=PORT) as stream:
            stream.write(b"x")
            assert await stream.readexactly(1) == b"x"


async def test_a_stream_knows_its_circuit(target, client):
    circuit = await ask(client, target)
    assert [hop.role for hop in circuit.hops] == ["guard", "vanguard", "middle", "final", "target"]
    assert circuit.hops[-1].relay_id is None
    assert circuit.hops[-1].address is None
    assert [time.position for time in await circuit.ping(samples=1)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("hops", [3, 4, 5])
async def test_a_circuit_has_as_many_relays_as_were_asked_for(overlay, target, client, hops):
    circuit = await ask(client, target, hops=hops)
    assert len(set(relay_ids(circuit))) == hops
    assert [hop.role for hop in circuit.hops][-2:] == ["final", "target"]
    assert ("vanguard" in {hop.role for hop in circuit.hops}) == (hops > 3)
    async with overlay.node(hops=hops) as other:
        assert len(relay_ids(await ask(other, target))) == hops


async def test_connections_to_one_node_share_a_circuit(overlay, target, client):
    circuits = {id(await ask(client, target)) for _ in range(3)}
    one, other = await asyncio.gather(ask(client, target), ask(client, target))
    assert circuits == {id(one)} == {id(other)}
    assert sum(circuits_at(overlay).values()) == 4  # one for each relay of the path
    assert await ask(client, target, hops=3) is not one


async def test_many_connections_at_once_are_one_circuit(overlay, target, client):
    texts = [f"stream {number}".encode() * 100 for number in range(50)]
    circuits = await asyncio.gather(*(ask(client, target, text) for text in texts))
    assert len({id(circuit) for circuit in circuits}) == 1
    assert len(sessions(client)) == 1


async def test_connections_that_are_kept_apart_share_nothing(target, client):
    circuits = [await ask(client, target, isolation=name) for name in (None, "a", "b", "a")]
    assert len({id(circuit) for circuit in circuits}) == 3
    assert circuits[1] is circuits[3]


async def test_a_circuit_of_its_own_ends_with_its_block(overlay, target, client):
    async with client.circuit(target.node_id) as circuit:
        assert circuit.is_open
        assert await circuit.echo(5) > 0
        assert circuit is not await ask(client, target)
    assert not circuit.is_open
    for session in sessions(client):
        await session.aclose()
    await no_circuit_left(overlay, client, target)


async def test_a_new_circuit_is_built_when_the_old_one_is_lost(overlay, target, client):
    circuit = await ask(client, target)
    await overlay.stop(relay_ids(circuit)[2])
    await circuit.wait_lost()
    assert await ask(client, target) is not circuit


async def test_a_tcp_service_behind_a_node(overlay):
    async def shout(reader, writer):
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server, overlay.node() as target, overlay.node() as client:
        service = await target.add_service(PORT, "127.0.0.1", server.sockets[0].getsockname()[1])
        await target.wait_reachable(PATIENCE)
        reader, writer = await client.open_connection(target.node_id, PORT)
        writer.write(b"quiet")
        writer.write_eof()
        assert await reader.read() == b"QUIET"
        writer.close()
        server.close()
        await server.wait_closed()
        with pytest.raises(StreamRefused, match="service on port 80 does not answer"):
            await client.open_connection(target.node_id, PORT)
        service.close()
        with pytest.raises(StreamRefused, match="serves nothing on port 80"):
            await client.open_connection(target.node_id, PORT)


async def test_a_node_may_call_itself(target):
    await ask(target, target)


async def test_a_refused_stream_leaves_the_circuit_for_others(target, client):
    circuit = await ask(client, target)
    with pytest.raises(StreamRefused) as refusal:
        await client.open_connection(target.node_id, PORT + 1)
    assert refusal.value.reason == "NO_SUCH_PORT"
    assert await ask(client, target) is circuit


async def test_the_error_of_a_circuit_is_not_lost_in_the_search_for_a_newer_record(overlay, target, client):
    await client._records.find(target.node_id)
    for relay in overlay.relays.values():
        relay._store._by_distance.clear()
    await target._target.aclose()
    with pytest.raises(CircuitFailed) as failure:
        await client.open_connection(target.node_id, PORT)
    assert {attempt.status for attempt in failure.value.attempts} == {"no such handle"}


# What is asked for wrongly


@pytest.fixture
def outside():
    """A node that was never entered: what cannot be meant is told before anything is tried."""
    invite = MemoryHome().init_relay(["tls://127.0.0.1:9"], [], SystemRng())
    return onionrelay.Node(NetworkFile.create("test", (invite,), testnet=True, rng=SystemRng()))


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_a_port_that_is_none(outside, port):
    with pytest.raises(UsageError, match="is no port"):
        await outside.open_connection(STRANGER, port)


@pytest.mark.parametrize("hops", [0, 2, 6])
async def test_a_number_of_hops_that_is_not_offered(outside, hops):
    with pytest.raises(UsageError, match="3 to 5 relays"):
        await outside.open_connection(STRANGER, PORT, hops=hops)
    with pytest.raises(UsageError, match="3 to 5 relays"):
        async with outside.circuit(STRANGER, hops=hops):
            pytest.fail("such a circuit")
    with pytest.raises(UsageError, match="3 to 5 relays"):
        onionrelay.Node(outside.network, hops=hops)


@pytest.mark.parametrize("text", ["", "onr1", "onrr1qqqq", "example.org"])
async def test_an_id_that_is_none(outside, text):
    with pytest.raises(InvalidId):
        await outside.open_connection(text, PORT)


def test_a_level_of_anonymity_that_does_not_exist(outside):
    with pytest.raises(UsageError, match="'perfect' is no anonymity level: tiny, reduced, full"):
        onionrelay.Node(outside.network, min_anonymity="perfect")


def test_a_network_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(NoNetwork, match="there is no network file"):
        onionrelay.Node(tmp_path / "network.toml")
    monkeypatch.delenv("ONIONRELAY_NETWORK", raising=False)
    with pytest.raises(NoNetwork, match="there is no network in"):
        onionrelay.Node(home=tmp_path)
    (tmp_path / "network.toml").write_text("name = 1")
    with pytest.raises(ConfigError):
        onionrelay.Node(tmp_path / "network.toml")


async def test_a_network_is_named_by_its_file_its_variable_or_the_home_that_joined_it(overlay, monkeypatch):
    path = overlay.folder / "net.toml"
    overlay.network.write(path)
    home = overlay.home("client")
    monkeypatch.delenv("ONIONRELAY_NETWORK", raising=False)
    home.join(overlay.network)
    found = [onionrelay.Node(str(path)), onionrelay.Node(home=home.where)]
    monkeypatch.setenv("ONIONRELAY_NETWORK", str(path))
    found.append(onionrelay.Node())
    assert [node.network for node in found] == [overlay.network] * 3


async def test_a_node_that_nobody_knows(overlay, client):
    for attempt in (client.open_connection(STRANGER, PORT), client.circuit(STRANGER).__aenter__()):
        with pytest.raises(NodeNotFound, match="is it running, and is the id right"):
            await attempt
    await no_circuit_left(overlay, client)


# Cancellation


async def test_a_connection_that_is_given_up_leaves_no_half_built_circuit(overlay, target):
    """Given up after so many rounds of the loop: while it looks the record up, builds, or waits for the stream."""
    given_up = 0
    for turns in (1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 100):
        async with overlay.node() as client:
            connecting = asyncio.create_task(client.open_connection(target.node_id, PORT))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up += connecting.cancel()
            (result,) = await asyncio.gather(connecting, return_exceptions=True)
            if isinstance(result, tuple):
                result[1].transport.abort()
            assert not client._driver._opening
            for session in sessions(client):  # a circuit that was complete is kept for the next one
                await session.aclose()
            await no_circuit_left(overlay, client, target)
    assert given_up > 5


async def test_one_who_gives_up_does_not_take_the_circuit_from_the_others(overlay, target, client):
    connecting = [asyncio.create_task(ask(client, target)) for _ in range(5)]
    await asyncio.sleep(0)
    connecting[0].cancel()
    results = await asyncio.gather(*connecting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert len({id(circuit) for circuit in results[1:]}) == 1


async def test_a_circuit_that_is_given_up_while_it_is_built(overlay, target, client):
    await client._records.find(target.node_id)
    for channel in target._target._channels.values():
        stop_reading(target._driver._ports[channel])
    building = asyncio.create_task(client.circuit(target.node_id).__aenter__())
    await until(lambda: sum(circuits_at(overlay).values()) == 4)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    await no_circuit_left(overlay, client)


# Slow readers


async def test_a_slow_reader_slows_the_sender_down(overlay):
    """A target that sends for ever to a client that does not read: what waits on the way is bounded everywhere."""
    sent = 0

    async def pour(reader, writer):
        nonlocal sent
        while True:
            writer.write(bytes(64 * 1024))
            sent += 64 * 1024
            await writer.drain()

    async with target_of(overlay, pour) as target, overlay.node() as client:
        stream = await client._open_stream(target.node_id, PORT, None, None)
        await still(lambda: sent)
        assert sent < STREAM_WINDOW + 4 * STREAM_SEND_BUFFER
        assert target._target._memory.total <= 2 * STREAM_SEND_BUFFER + MIB
        assert sessions(client)[0]._session.memory <= SESSION_WINDOW
        for member in (client, target, *overlay.relays.values()):
            assert member._driver.engine.queued_bytes < MIB
        before = sent
        received = 0
        while received < 3 * MIB:
            received += len(await stream.read(MIB))
        assert sent > before + 2 * MIB
        stream.abort()


async def test_a_slow_service_slows_the_caller_down(overlay):
    go_on = asyncio.Event()

    async def sip(reader, writer):
        await go_on.wait()
        while await reader.read(MIB):
            pass

    async with target_of(overlay, sip) as target, overlay.node() as client:
        stream = await client._open_stream(target.node_id, PORT, None, None)
        sent = 0

        async def pour():
            nonlocal sent
            while sent < 8 * MIB:
                stream.write(bytes(64 * 1024))
                sent += 64 * 1024
                await stream.drain()

        pouring = asyncio.create_task(pour())
        await still(lambda: sent)
        assert 0 < sent < STREAM_WINDOW + 4 * STREAM_SEND_BUFFER
        assert target._target._memory.total <= SESSION_WINDOW
        for member in (client, target, *overlay.relays.values()):
            assert member._driver.engine.queued_bytes < MIB
        go_on.set()
        await pouring
        await stream.aclose()


# The end


async def test_closing_with_open_streams_leaves_no_task_no_socket_and_no_warning(overlay):
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    before = asyncio.all_tasks()
    async with target_of(overlay) as target, overlay.node() as client:
        pairs = [await client.open_connection(target.node_id, PORT) for _ in range(3)]
        for _, writer in pairs:
            writer.write(b"on the way")
    assert asyncio.all_tasks() == before
    assert not client._driver._ports
    assert not target._driver._ports
    await no_circuit_left(overlay, client, target)
    for reader, _ in pairs:
        with pytest.raises((CircuitLost, asyncio.IncompleteReadError)):
            await reader.readexactly(1000)
    del pairs, reader, writer
    gc.collect()
    assert errors == []
    for relay in overlay.relays.values():  # of all links only those to other relays are left
        await until(lambda relay=relay: not any(port.channel.is_client_link for port in relay._driver._ports.values()))


async def test_closing_while_others_connect_is_an_error_of_theirs_and_no_cancellation(overlay, target):
    node = await overlay.node().__aenter__()
    working = [
        asyncio.create_task(node.open_connection(target.node_id, PORT)),
        asyncio.create_task(node.circuit(target.node_id).__aenter__()),
        asyncio.create_task(node._records.find(target.node_id)),
    ]
    for _ in range(4):
        await asyncio.sleep(0)
    await node.__aexit__(None, None, None)
    for work in working:
        with pytest.raises(NetworkError):
            await work
    assert not node._driver._ports


async def test_a_start_that_fails_leaves_nothing(overlay, target):
    """The home turns out to be none: what was begun before that is taken back."""
    before = asyncio.all_tasks()
    (overlay.folder / "home").write_text("a file, and no folder")
    node = overlay.node(home=overlay.folder / "home")
    with pytest.raises(onionrelay.HomeError, match="cannot read"):
        await node.__aenter__()
    assert asyncio.all_tasks() == before
    assert not node._driver._ports


# Upkeep


async def test_a_node_that_only_calls_learns_of_new_relays_too(overlay, target, monkeypatch):
    monkeypatch.setattr(api, "TABLE_REFRESH", 0.05)
    async with overlay.node() as client:
        before = client._client.table.get(overlay.relays[7].relay_id)
        relay = await overlay.restart(7)
        await until(lambda: client._client.table.get(relay.relay_id).raw == relay.descriptor)
        assert before.raw != relay.descriptor


async def test_seeds_that_are_away_do_not_end_the_upkeep(monkeypatch):
    monkeypatch.setattr(api, "TABLE_REFRESH", 0.02)
    async with LocalOverlay(5, seeds=1) as overlay, overlay.node() as client:
        await overlay.stop(0)
        client._client.table = RelayTable(client._policy)  # it has nothing to fall back on
        version = client._client._refreshed
        await until(lambda: client._client._refreshed > version)
        seed = await overlay.start(0)
        await until(lambda: client._client.table.get(seed.relay_id) is not None)


async def test_a_target_does_its_own_upkeep_with_the_table(overlay, target, monkeypatch):
    done = []
    monkeypatch.setattr(api, "TABLE_REFRESH", 0.02)
    async with overlay.node() as node:
        node._target.keep_up = lambda: done.append("keep up")
        await until(lambda: done)
