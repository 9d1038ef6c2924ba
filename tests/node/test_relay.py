"""A relay: circuits of others, attachments, questions, and what falls due."""

import asyncio
import dataclasses

import pytest

from onionrelay.base.errors import CircuitFailed, CircuitLost, ConfigError, HomeError, NetworkError, ProtocolViolation
from onionrelay.base.ids import HandleKey
from onionrelay.base.limits import (
    DESCRIPTOR_REPUBLISH,
    MAX_CONTROL_MESSAGE,
    ONION_KEY_PERIOD,
    PUTS_PER_CIRCUIT,
    SEND_QUEUE,
    SIGNING_CERT_RENEW,
    VOUCHER_LIFE,
)
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.core.path.choose import choose_storer_path
from onionrelay.core.path.itinerary import plan_circuit
from onionrelay.crypto.signing import SigningSecret
from onionrelay.net.system import SystemRng
from onionrelay.node import links as links_module
from onionrelay.node import relay as relay_module
from onionrelay.node.circuit import Circuit
from onionrelay.node.client import describe
from onionrelay.node.home import Home, MemoryHome
from onionrelay.node.localnet import free_ports
from onionrelay.node.network_file import NetworkFile
from onionrelay.node.relay import RelayNode
from onionrelay.testing.overlay import LocalOverlay, until
from onionrelay.wire.address import Address, Endpoint, Transport
from onionrelay.wire.attach import Attach, AttachAccepted, AttachRefused, Detach, VoucherRequest
from onionrelay.wire.cell import Cmd
from onionrelay.wire.directory import DhtGet, DhtPut, DhtReceipt, DirGet, DirPut, StoreResult, to_control
from onionrelay.wire.relay import RelayCmd
from tests.node.overlays import (
    AT_ONCE,
    PATIENCE,
    PORT,
    Clock,
    ask,
    attachments,
    no_circuit_left,
    some_storer,
    target_of,
)
from tests.node.parties import mute_listener


def new_home(tmp_path, name="relay"):
    home = Home(tmp_path / name)
    (port,) = free_ports(1)
    return home, home.init_relay([f"tls://127.0.0.1:{port}"], [], SystemRng())


def network_of(*invites):
    return NetworkFile.create("test", invites, testnet=True, rng=SystemRng())


async def path_of(node, hops=4):
    """A path to some relay, drawn as for a circuit."""
    client = node._client
    return choose_storer_path(
        client.table, some_storer(node), client.guards, client.rng, client.policy, unix_now=node._clock(), hops=hops
    )


async def build(node, path, plan=None):
    client = node._client
    channel = await client._links.get(path.guard.relay_id, path.guard.endpoint)
    plan = plan or plan_circuit(path, window=client._window(), lifetime=600)
    return await Circuit.open(client.driver, channel, plan, describe(path, with_target=False), path.anonymity)


# Start and end


async def test_a_relay_alone_in_its_network_serves_its_own_table(tmp_path):
    home, invite = new_home(tmp_path)
    async with RelayNode(home, network_of(invite)) as relay:
        assert relay.invite == invite
        assert [str(address) for address in relay.addresses] == [str(invite.endpoint.addresses[0])]
        assert [entry.relay_id for entry in relay.table] == [relay.relay_id]
        waiting = asyncio.create_task(relay.wait_stopped())
        relay.stop()
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_home_is_one_relay(tmp_path):
    home, invite = new_home(tmp_path)
    async with RelayNode(home, network_of(invite)):
        with pytest.raises(HomeError, match="another process runs the relay"):
            async with RelayNode(home, network_of(invite)):
                pytest.fail("two relays of one home")


async def test_a_port_that_is_taken_is_told_and_nothing_is_left_behind(tmp_path):
    home, invite = new_home(tmp_path)
    other = Home(tmp_path / "other")
    other.init_relay([f"tls://{invite.endpoint.addresses[0]}"], [], SystemRng())
    async with RelayNode(home, network_of(invite)):
        with pytest.raises(ConfigError, match="another program uses this port"):
            async with RelayNode(other, network_of(invite)):
                pytest.fail("two relays at one address")
    async with RelayNode(other, network_of(invite)):  # its home is not held
        pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_outside_of_test_networks_a_relay_needs_a_public_address(tmp_path):
    home, _ = new_home(tmp_path)
    public = MemoryHome().init_relay(["tls://9.9.9.9:443"], [], SystemRng())
    network = NetworkFile.create("public", (public,), testnet=False, rng=SystemRng())
    with pytest.raises(ConfigError, match="no public address"):
        RelayNode(home, network)


async def test_a_relay_keeps_its_id_over_restarts(tmp_path):
    home, invite = new_home(tmp_path)
    for _ in range(2):
        async with RelayNode(home, network_of(invite)) as relay:
            assert relay.relay_id == invite.relay_id


async def test_stopping_ends_circuits_links_and_tasks(overlay):
    async with target_of(overlay) as target, overlay.node() as client:
        stream = await client._open_stream(target.node_id, PORT, None, None)
        for index in tuple(overlay.relays):
            relay = overlay.relays[index]
            await overlay.stop(index)
            assert not relay._driver._ports
            assert not relay._driver.engine.circuits
            assert not relay._tasks._running
            assert not relay.addresses
        with pytest.raises(CircuitLost):
            await stream.read()


# Circuits


@pytest.mark.parametrize(
    ("position", "client_hears", "target_hears"),
    [
        (1, "the link to the first hop was lost", "the client's side ended it (none)"),
        (2, "the first hop ended it (link lost)", "the client's side ended it (none)"),
        (3, "a hop behind the first ended it", "the client's side ended it (link lost)"),
        (4, "a hop behind the first ended it", "a link of the circuit was lost"),
    ],
)
async def test_a_relay_that_dies_ends_the_streams_at_both_ends_at_once(overlay, position, client_hears, target_hears):
    lost = asyncio.get_running_loop().create_future()

    async def handler(reader, writer):
        try:
            while await reader.read(100):
                writer.write(b"go on")
        except CircuitLost as error:
            lost.set_result(error)

    async with target_of(overlay, handler) as target, overlay.node() as client:
        stream = await client._open_stream(target.node_id, PORT, None, None)
        stream.write(b"x" * 1000)
        assert await stream.read(100)
        await overlay.stop(stream.circuit.hops[position - 1].relay_id)
        async with asyncio.timeout(AT_ONCE):
            with pytest.raises(CircuitLost) as here:
                while True:
                    await stream.read(100)
            there = await lost
        assert (str(here.value), str(there).replace("_", " ")) == (client_hears, target_hears)
        assert await stream.circuit.wait_lost() == client_hears
        with pytest.raises(CircuitLost):
            stream.write(b"y")
            await stream.drain()
        await no_circuit_left(overlay, client, target)


async def test_a_next_hop_that_is_not_there(overlay):
    async with overlay.node() as node:
        path = await path_of(node)
        await overlay.stop(path.relays[2].relay_id)
        with pytest.raises(CircuitFailed) as failure:
            await build(node, path)
        (attempt,) = failure.value.attempts
        assert (attempt.hop, attempt.status) == (2, "next unreachable")
        await no_circuit_left(overlay, node)


async def test_a_circuit_whose_client_is_gone_while_the_next_hop_is_dialled(overlay):
    async with overlay.node() as node:
        path = await path_of(node)
        gone = []
        guard = overlay.relays[overlay.index(path.guard.relay_id)]
        find = guard._links.find
        guard._links.find = gone.append  # finds nothing, so that it dials anew
        building = asyncio.create_task(build(node, path))
        await until(lambda: gone)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        guard._links.find = find
        await no_circuit_left(overlay, node)


async def test_a_false_address_in_one_build_does_not_hurt_the_others(overlay):
    async with mute_listener() as (mute, links), overlay.node() as liar, overlay.node() as honest:
        path = await path_of(honest)
        _, lying = await mislead(overlay, liar, mute, path)
        await until(lambda: links)  # the guard waits for an answer there
        async with asyncio.timeout(AT_ONCE):
            (await build(honest, path)).close()
        lying.cancel()
        await asyncio.gather(lying, return_exceptions=True)
        await no_circuit_left(overlay, liar, honest)


async def mislead(overlay, node, mute, path=None):
    """Begins to build a circuit whose guard has to dial a listener that says nothing; returns the guard, too."""
    path = path or await path_of(node)
    guard = overlay.relays[overlay.index(path.guard.relay_id)]
    while channel := guard._links.find(path.relays[1].relay_id):
        guard._driver.close_link(channel)
        await guard._driver.wait_down(channel)
    plan = plan_circuit(path, window=node._client._window(), lifetime=600)
    record = dataclasses.replace(plan.hops[0].record, endpoint=Endpoint.at(Transport.TLS, mute.addresses[0]))
    lie = dataclasses.replace(plan, hops=(dataclasses.replace(plan.hops[0], record=record), *plan.hops[1:]))
    return guard, asyncio.create_task(build(node, path, lie))


async def test_a_dial_ends_with_the_time_of_its_circuit(overlay, monkeypatch):
    monkeypatch.setattr(relay_module, "HALF_BUILT_LIFE", 0.1)
    async with mute_listener() as (mute, _), overlay.node() as node:
        guard, building = await mislead(overlay, node, mute)
        async with asyncio.timeout(AT_ONCE):
            with pytest.raises(CircuitFailed) as failure:
                await building
        assert failure.value.attempts[0].status == "next unreachable"
        await until(lambda: not guard._dials)


async def test_no_more_is_dialled_at_once_than_the_limit(overlay, monkeypatch):
    monkeypatch.setattr(relay_module, "DIALS_AT_ONCE", 0)
    async with mute_listener() as (mute, links), overlay.node() as node:
        guard, building = await mislead(overlay, node, mute)
        with pytest.raises(CircuitFailed) as failure:
            await building
        assert failure.value.attempts[0].status == "overloaded"
        assert not links
        assert not guard._dials


# Questions through circuits


async def test_one_circuit_carries_a_few_records_and_no_more(overlay):
    async with overlay.node() as node:
        circuit = await build(node, await path_of(node))
        for _ in range(PUTS_PER_CIRCUIT):
            assert await circuit.ask(DhtPut(bytes(32), b"junk")) == DhtReceipt(StoreResult.INVALID)
            assert await circuit.ask(DhtGet(bytes(32)))
        with pytest.raises(CircuitLost):
            await circuit.ask(DhtPut(bytes(32), b"junk"))
        await no_circuit_left(overlay, node)


async def test_a_circuit_does_not_carry_descriptors_to_a_relay(overlay):
    async with overlay.node() as node:
        path = await path_of(node)
        circuit = await build(node, path)
        relay = overlay.relays[overlay.index(path.last.relay_id)]
        version = relay.table.version
        with pytest.raises(CircuitLost):
            await circuit.ask(DirPut(overlay.relays[0].descriptor))
        assert relay.table.version == version
        await no_circuit_left(overlay, node)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"\x02\x01\x00\x00\x00"])
async def test_a_question_that_cannot_be_read_ends_the_circuit(overlay, junk):
    async with overlay.node() as node:
        circuit = await build(node, await path_of(node))
        circuit.origin.send(RelayCmd.DIR_GET, junk, rid=1)
        node._driver.settle()
        async with asyncio.timeout(PATIENCE):
            await circuit.wait_lost()
        await no_circuit_left(overlay, node)


# Control messages on links


@pytest.fixture
async def attached(overlay):
    """A link as a target dials it, and what comes over it."""
    async with overlay.node() as node:
        heard = []
        node.on_control = lambda channel, cmd, kind, body: heard.append((cmd, kind, body))
        entry = node._client.table.get(overlay.relays[0].relay_id)
        channel = await node._driver.dial(
            entry.endpoint.addresses[0],
            lambda digest: node._client.handshake(entry.relay_id, digest),
            LinkPurpose.ATTACHMENT,
        )

        async def say(message):
            heard.clear()
            node._driver.send_control(channel, Cmd.ATTACH, message.TYPE, message.encode())
            await until(lambda: heard or channel.closed)
            return heard[0] if heard else None

        yield overlay.relays[0], node, channel, say


def attach(relay, channel, rng, **changes):
    secret = SigningSecret.generate(rng)
    fields = {
        "ttl": 40_000,
        "max_circuits": 7,
        "builds_per_minute": 0,
        "pow_effort": 0,
        "k_ticket": bytes(32),
    } | changes
    unsigned = Attach(handle=HandleKey(secret.public), signature=bytes(64), **fields)
    signature = secret.sign("attach", unsigned.signed_part(relay.relay_id, channel.peer.transcript))
    return Attach(handle=HandleKey(secret.public), signature=signature, **fields)


async def test_a_target_attaches_renews_and_detaches(attached):
    relay, node, channel, say = attached
    cmd, kind, body = await say(attach(relay, channel, node._rng))
    assert (cmd, kind) == (Cmd.ATTACH, AttachAccepted.TYPE)
    voucher = AttachAccepted.decode(body).voucher
    (held,) = relay._finals._by_handle.values()
    assert held.channel.circuit_limit == 7  # no more circuits than the target wants
    assert voucher.not_after - voucher.not_before == VOUCHER_LIFE
    _, kind, _ = await say(VoucherRequest())
    assert kind == AttachAccepted.TYPE
    _, kind, _ = await say(attach(relay, channel, node._rng))  # one handle a link
    assert kind == AttachRefused.TYPE
    assert await say(Detach()) is None
    assert not relay._finals._by_handle
    assert held.channel.closed


async def test_a_voucher_without_an_attachment_is_refused(attached):
    *_, say = attached
    _, kind, _ = await say(VoucherRequest())
    assert kind == AttachRefused.TYPE


async def test_an_attachment_that_its_handle_did_not_sign_ends_the_link(attached):
    relay, node, channel, say = attached
    good = attach(relay, channel, node._rng)
    assert await say(dataclasses.replace(good, ttl=good.ttl + 1)) is None
    assert not relay._finals._by_handle


async def test_relays_do_not_attach(overlay):
    relay, other = overlay.relays[0], overlay.relays[1]
    channel = other._links.find(relay.relay_id)
    message, tried = attach(relay, channel, SystemRng()), []
    relay._finals.on_attach = lambda *details, **_: tried.append(details)
    other._driver.send_control(channel, Cmd.ATTACH, message.TYPE, message.encode())
    await until(lambda: channel.closed)
    assert not tried


@pytest.mark.parametrize("question", [DhtGet(bytes(32))])
async def test_records_are_asked_for_through_circuits_only(overlay, question):
    relay, other = overlay.relays[0], overlay.relays[1]
    channel = other._links.find(relay.relay_id)
    with pytest.raises(NetworkError, match="closed"):
        await other._requests.ask(channel, question)


async def test_a_client_may_ask_for_the_table_over_its_link(overlay):
    async with overlay.node() as node:
        entry = node._client.table.get(overlay.relays[4].relay_id)
        channel = await node._client._links.get(entry.relay_id, entry.endpoint)
        page = await node._client._requests.ask(channel, DirGet(0))
        assert len(page.descriptors) == 8


async def test_a_client_that_asks_for_the_table_again_and_again_loses_its_link(overlay, monkeypatch):
    monkeypatch.setattr(relay_module, "DIR_GET_BURST", 2)
    async with overlay.node() as node:
        relay = overlay.relays[4]
        relay._page_buckets.clear()
        entry = node._client.table.get(relay.relay_id)
        channel = await node._client._links.get(entry.relay_id, entry.endpoint)
        for _ in range(2):
            assert await node._client._requests.ask(channel, DirGet(0))
        with pytest.raises(NetworkError, match="closed"):
            await node._client._requests.ask(channel, DirGet(0))
        await until(lambda: not relay._page_buckets)


async def test_who_does_not_read_gets_no_more_of_the_table(overlay):
    async with overlay.node() as node:
        relay = overlay.relays[4]
        entry = node._client.table.get(relay.relay_id)
        channel = await node._client._links.get(entry.relay_id, entry.endpoint)
        port = next(port for port in relay._driver._ports.values() if port.channel.is_client_link)
        relay._require_patience(port.channel)
        port.channel.outbox += bytes(SEND_QUEUE + MAX_CONTROL_MESSAGE + 1)
        with pytest.raises(ProtocolViolation, match="faster than it is read"):
            relay._require_patience(port.channel)
        port.channel.outbox.clear()
        assert not channel.closed


async def test_a_message_that_cannot_be_read_ends_the_link(overlay):
    async with overlay.node() as node:
        entry = node._client.table.get(overlay.relays[4].relay_id)
        channel = await node._client._links.get(entry.relay_id, entry.endpoint)
        cmd, kind, _ = to_control(DirGet(0), 1)
        node._driver.send_control(channel, cmd, kind, b"junk")
        await until(lambda: channel.closed)


# What falls due


@pytest.fixture
async def aging(monkeypatch):
    """A network whose relays look at the clock all the time, and that clock."""
    monkeypatch.setattr(relay_module, "RELAY_UPKEEP", 0.02)
    clock = Clock()
    async with LocalOverlay(4, seeds=2, clock=clock) as overlay:
        yield overlay, clock


async def test_a_descriptor_is_published_anew_before_it_ends(aging):
    overlay, clock = aging
    before = overlay.relays[3].table.get(overlay.relays[3].relay_id)
    clock.shift = DESCRIPTOR_REPUBLISH
    await until(lambda: overlay.relays[3].table.get(before.relay_id).descriptor.expires > before.descriptor.expires)
    await overlay.until_known()


async def test_new_onion_keys_are_published_with_their_period(aging):
    overlay, clock = aging
    relay = overlay.relays[3]
    before = relay._ring.public
    clock.shift = ONION_KEY_PERIOD
    await until(lambda: relay.table.get(relay.relay_id).onion not in (None, before))
    await overlay.until_known()
    assert all(one.table.get(relay.relay_id).onion == relay._ring.public for one in overlay.relays.values())


async def test_a_new_signing_key_is_published_at_once(aging):
    """Vouchers are signed with it from now on, and who checks them knows only what the descriptor names."""
    overlay, clock = aging
    relay = overlay.relays[3]
    before = relay._identity.signing_cert
    clock.shift = SIGNING_CERT_RENEW + 600
    await until(lambda: relay._identity.signing_cert != before)
    assert relay._finals.signing is relay._identity.signing_secret
    await until(lambda: relay.table.get(relay.relay_id).descriptor.signing_cert == relay._identity.signing_cert)
    await overlay.until_known()


async def test_an_upkeep_that_fails_is_tried_again(aging, monkeypatch):
    overlay, clock = aging
    relay = overlay.relays[3]
    before, full = relay._identity, []

    def no_space(rng, unix_now):
        full.append(unix_now)
        raise HomeError("cannot write signing.key: no space left on device")

    monkeypatch.setattr(relay.home, "relay_identity", no_space)
    clock.shift = SIGNING_CERT_RENEW + 600
    await until(lambda: len(full) > 1)
    assert relay._identity is before
    monkeypatch.undo()
    relay_module.RELAY_UPKEEP = 0.02
    try:
        await until(lambda: relay._identity is not before)
    finally:
        monkeypatch.undo()


async def test_attachments_end_with_their_time(aging):
    overlay, clock = aging
    async with target_of(overlay) as target:
        (relay_id, *_) = attachments(target)
        relay = overlay.relays[overlay.index(relay_id)]
        (held,) = relay._finals._by_handle.values()
        clock.shift = held.until - clock() + 1
        await until(lambda: held.channel.closed)
        assert not relay._finals._by_handle


async def test_relays_that_have_gone_are_forgotten(aging):
    overlay, clock = aging
    gone = overlay.relays[3].relay_id
    await overlay.stop(3)
    clock.shift = 27 * 3600
    await until(lambda: all(relay.table.get(gone) is None for relay in overlay.relays.values()))
    await until(lambda: all(len(relay.table) == 3 for relay in overlay.relays.values()))  # those that go on say so


async def test_links_that_carry_nothing_are_closed_but_those_to_seeds(aging, monkeypatch):
    overlay, _ = aging
    relay, other, seed = overlay.relays[3], overlay.relays[2], overlay.relays[0]
    channel = await relay._links.get(other.relay_id, other.invite.endpoint)
    held = relay._links.find(seed.relay_id)
    monkeypatch.setattr(links_module, "LINK_UNUSED", 0.05)
    await until(lambda: channel.closed)
    assert relay._links.find(seed.relay_id) is held


# In a network


async def test_links_of_one_neighbourhood_are_limited_outside_of_test_networks(overlay, monkeypatch):
    relay = overlay.relays[0]
    monkeypatch.setattr(relay_module, "LINKS_PER_ADDRESS_GROUP", 3)
    assert relay._admits(Address("127.0.0.1", 1))
    monkeypatch.setattr(type(relay.network), "testnet", False)
    assert not relay._admits(Address("127.0.0.1", 1))
    assert relay._admits(Address("192.0.2.1", 1))


async def test_a_circuit_through_relays_that_never_met(overlay):
    """The relays of a path dial each other as it is built."""
    async with target_of(overlay) as target, overlay.node() as client:
        circuit = await ask(client, target)
        for one, other in zip(circuit.hops, circuit.hops[1:-1], strict=False):
            relay = overlay.relays[overlay.index(one.relay_id)]
            assert relay._links.find(overlay.relays[overlay.index(other.relay_id)].relay_id)
