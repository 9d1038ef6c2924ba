"""The network as one node sees it: table, guards, paths that fail and others that do not."""

import asyncio

import pytest

from onionrelay.base.errors import Attempt, CircuitFailed, HomeError, NetworkError, NoNetwork, NoPath
from onionrelay.core.circuit import admission
from onionrelay.core.circuit.engine import Engine
from onionrelay.core.directory.clock import network_window
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.choose import choose_storer_path
from onionrelay.core.path.groups import Side
from onionrelay.core.path.guards import Guards
from onionrelay.core.path.policy import Anonymity, PathPolicy
from onionrelay.net.system import SystemRng
from onionrelay.node import client as client_module
from onionrelay.node import requests as requests_module
from onionrelay.node.api import Node
from onionrelay.node.client import Client
from onionrelay.node.driver import Driver
from onionrelay.node.home import MemoryHome
from onionrelay.node.localnet import free_ports
from onionrelay.node.network_file import NetworkFile
from onionrelay.testing.overlay import LocalOverlay, until
from onionrelay.wire.descriptor import Roles
from tests.core.relays import NOW, grown_table
from tests.node.overlays import Clock, ask, no_circuit_left, relay_ids, some_storer, target_of
from tests.node.parties import mute_listener, stop_reading


def guard_of(circuit):
    return circuit.hops[0].relay_id


def guard_port(node):
    """The node's end of its link to a guard that is up."""
    return next(port for port in node._driver._ports.values() if port.channel.purpose.value == "guard")


async def to_some_storer(node, *, but=()):
    """A circuit to a relay, and its end."""
    circuit = await node._client.open_to_storer(some_storer(node, but=but))
    circuit.close()
    return circuit


# The relay table


async def test_the_table_comes_from_the_seeds(overlay):
    async with overlay.node() as node:
        assert {entry.relay_id for entry in node._client.table} == {one.relay_id for one in overlay.relays.values()}
        assert node.anonymity == ("testnet", 8)
        assert not node._driver._ports  # nothing else is needed from the seeds


async def test_one_seed_that_answers_is_enough(overlay):
    await overlay.stop(0)
    await overlay.stop(1)
    async with overlay.node() as node:
        assert len(node._client.table) == 8


async def test_no_seed_answers(overlay):
    for seed in range(3):
        await overlay.stop(seed)
    with pytest.raises(NoNetwork, match="no seed of the network 'overlay' answers") as failure:
        async with overlay.node():
            pytest.fail("a node of no network")
    for seed in overlay.network.seeds:
        assert f"cannot reach {seed.endpoint.addresses[0]}" in str(failure.value)


async def test_seeds_that_answer_nothing_are_given_up(overlay, monkeypatch):
    monkeypatch.setattr(client_module, "TABLE_FETCH", 0.1)
    monkeypatch.setattr(requests_module, "ANSWER_TIMEOUT", 5.0)
    for seed in range(3):
        monkeypatch.setattr(overlay.relays[seed], "on_control", lambda *_: None)
    with pytest.raises(NoNetwork, match=r"the relay table took longer than 0\.1 s"):
        async with overlay.node():
            pytest.fail("a node of no network")


async def test_seeds_of_another_network(overlay):
    network = NetworkFile.create("other", overlay.network.seeds, testnet=True, rng=SystemRng())
    with pytest.raises(NoNetwork, match="different networks"):
        async with Node(network):
            pytest.fail("a node of no network")


async def test_a_table_that_is_remembered_does_without_seeds():
    async with LocalOverlay(9, seeds=1) as overlay:
        home = overlay.home("client")
        async with overlay.node(home=home):
            pass
        seed = str(overlay.relays[0].relay_id)
        await overlay.stop(seed)
        async with overlay.node(home=home) as node:
            assert len(node._client.table) == 9
            await to_some_storer(node, but={seed})


@pytest.mark.parametrize(
    "saved", [b"no table", b'{"at": 0, "skews": {}}\nno table', b'{"at": 0, "skews": {"onrr1": 0}}\n', b"\xff\n"]
)
async def test_a_table_that_is_damaged_is_fetched_anew(overlay, saved):
    home = overlay.home("client")
    home.save_table(overlay.network.net_id, saved)
    async with overlay.node(home=home) as node:
        assert len(node._client.table) == 8


async def test_seeds_are_not_asked_again_within_minutes():
    """They would see the client's address at every start."""
    clock = Clock()
    async with LocalOverlay(clock=clock) as overlay:
        home = overlay.home("client")
        starts = []
        for clock.shift in (0, 300, 590, 610, 620, 300):
            async with overlay.node(home=home) as node:
                starts.append(node._client._fetched is not None)
                assert len(node._client.table) == 8
                assert node._client._window() == network_window(node._client._windows)  # and not by our own clock
                await to_some_storer(node)
        assert starts == [True, False, False, True, False, True]


async def test_a_remembered_table_is_fetched_anew_once_a_circuit_fails(overlay):
    home = overlay.home("client")
    async with overlay.node(home=home):
        pass
    async with overlay.node(home=home) as node:
        assert node._client._fetched is None
        storer = some_storer(node)
        await overlay.restart(storer.relay_id)
        await node._client.open_to_storer(storer)  # by the old keys first
        assert node._client._fetched is not None


async def test_a_clock_that_is_far_off_is_told_at_the_start(overlay):
    for minutes, way in ((40, "ahead of"), (-40, "behind")):
        clock = Clock()
        clock.shift = minutes * 60
        with pytest.raises(NetworkError, match=f"clock is 3[0-9] minutes {way}|clock is 40 minutes {way}"):
            async with overlay.node(clock=clock):
                pytest.fail("a node with a wrong clock")


async def test_a_clock_that_is_a_little_off_does_not_show_and_does_not_matter(overlay):
    clock = Clock()
    clock.shift = 18 * 60
    async with overlay.node(clock=clock) as node:
        await to_some_storer(node)
        relay = overlay.relays[0]
        assert abs(node._client._window() - relay._clock() // 600) <= 1


async def test_what_relays_once_said_of_the_time_ages_with_it():
    """Their word is an hour and more old when the next circuit is built."""
    clock = Clock()
    async with LocalOverlay(clock=clock) as overlay, target_of(overlay) as target, overlay.node() as node:
        for hour in range(1, 3):
            clock.shift = hour * 3600
            await to_some_storer(node)
            await ask(node, target)
            await node._client.refresh_table()


# Guards


async def test_a_home_keeps_its_guard(overlay):
    guards = set()
    for _ in range(4):
        async with overlay.node(home=overlay.home("client")) as node:
            guards.add(guard_of(await to_some_storer(node, but=guards)))
    assert len(guards) == 1


async def test_a_guard_is_kept_before_its_first_circuit_is_handed_out(overlay):
    home = overlay.home("client")
    async with overlay.node(home=home) as node:
        circuit = await to_some_storer(node)
        saved = home.load_guards(overlay.network.net_id, lambda text: Guards.load(text.encode()))
        assert [guard.confirmed for guard in saved._sampled.values() if guard.relay == guard_of(circuit)] != [None]


async def test_a_process_that_changed_no_guard_leaves_those_of_another_alone(overlay):
    home, net_id = overlay.home("client"), overlay.network.net_id
    async with overlay.node(home=home) as one:
        await to_some_storer(one)
    async with overlay.node(home=home) as one:
        home.save_guards(net_id, "what another process has saved meanwhile")
        await to_some_storer(one)
    assert home.load_guards(net_id, str) == "what another process has saved meanwhile"


async def test_guards_that_cannot_be_kept_are_an_error_and_no_circuit_is_left(overlay):
    class ReadOnly(MemoryHome):
        def save_guards(self, net_id, text):
            raise HomeError("cannot write guards.json: no space left on device")

    node = await overlay.node(home=ReadOnly()).__aenter__()
    try:
        with pytest.raises(HomeError, match="no space left"):
            await to_some_storer(node)
        await no_circuit_left(overlay, node)
    finally:
        with pytest.raises(HomeError, match="no space left"):
            await node.__aexit__(None, None, None)


async def test_a_guard_that_is_gone_is_replaced_by_the_next_one(overlay):
    async with overlay.node() as node:
        guard = guard_of(await to_some_storer(node))
        await overlay.stop(guard)
        circuit = await to_some_storer(node, but={guard})
        assert guard_of(circuit) != guard
        assert not node._client.guards.vanguards._avoided  # it was not the vanguard's fault


async def test_a_guard_that_is_silent_is_replaced_by_the_next_one(overlay):
    async with overlay.node() as node:
        guard = guard_of(await to_some_storer(node))
        stop_reading(guard_port(node))
        circuit = await to_some_storer(node, but={guard})
        assert guard_of(circuit) != guard
        assert not node._client.guards.vanguards._avoided


async def test_the_error_of_a_guard_names_it(overlay):
    async with overlay.node() as node:
        guard = await to_some_storer(node)
        everybody = list(overlay.relays)
        for index in everybody:
            await overlay.stop(index)
        with pytest.raises(CircuitFailed) as failure:
            await to_some_storer(node, but={guard_of(guard)})
        attempt = failure.value.attempts[0]
        assert (attempt.hop, attempt.role, attempt.relay) == (1, "guard", guard.hops[0].address)
        assert attempt.reason == f"cannot reach {attempt.relay}: connection refused"
        assert len({attempt.relay for attempt in failure.value.attempts}) >= 2


# Relays that fail on the way


async def test_a_relay_that_is_gone_is_left_out_of_the_next_path(overlay):
    async with overlay.node() as node:
        gone = {str(overlay.relays[4].relay_id)}
        await overlay.stop(4)
        for _ in range(3):
            circuit = await to_some_storer(node, but=gone)
            assert not gone & set(relay_ids(circuit))


async def test_a_relay_that_was_restarted_is_used_again_once_its_new_keys_are_known(overlay, monkeypatch):
    monkeypatch.setattr(client_module, "TABLE_STALE", 0.0)
    async with overlay.node() as node:
        storer = some_storer(node)
        await overlay.restart(storer.relay_id)
        circuit = await node._client.open_to_storer(storer)  # by the old keys first
        assert relay_ids(circuit)[-1] == str(storer.relay_id)
        circuit.close()
        assert node._client.table.get(storer.relay_id).onion != storer.onion


async def test_a_table_that_is_fresh_is_not_fetched_for_every_failure(overlay):
    async with overlay.node() as node:
        gone = some_storer(node)
        await overlay.stop(gone.relay_id)
        fetched = node._client._refreshed
        with pytest.raises(CircuitFailed):
            await node._client.open_to_storer(gone)
        assert node._client._refreshed == fetched


async def test_what_the_target_itself_refuses_is_not_tried_behind_another_final_hop(overlay, monkeypatch):
    async with target_of(overlay) as target, overlay.node() as node:
        monkeypatch.setattr(admission, "SESSIONS_PER_TARGET", 0)
        with pytest.raises(CircuitFailed) as failure:
            async with node.circuit(target.node_id):
                pytest.fail("a circuit to a target that takes none")
        (attempt,) = failure.value.attempts
        assert (attempt.hop, attempt.role, attempt.status) == (5, "target", "target refused")
        await no_circuit_left(overlay, node, target)


async def test_a_path_that_breaks_is_told_with_what_it_broke_at(overlay):
    """The final hop's process is gone: the middle says so, and names whom it could not reach."""
    async with target_of(overlay) as target, overlay.node() as node:
        record = await node._records.find(target.node_id)
        for final in record.finals:
            await overlay.stop(final.entry.relay_id)
        with pytest.raises(CircuitFailed) as failure:
            await node._client.open_to_target(target.node_id, record)
        for attempt in failure.value.attempts:
            assert (attempt.hop, attempt.role, attempt.status) in {
                (1, "guard", ""),
                (1, "guard", "next unreachable"),
                (2, "vanguard", "next unreachable"),
                (3, "middle", "next unreachable"),
            }
        finals = {str(final.entry.endpoint.addresses[0]) for final in record.finals}
        named = [attempt for attempt in failure.value.attempts if attempt.role == "middle"]
        for attempt in named:
            assert any(f"it cannot reach hop 4 (final {final})" in attempt.reason for final in finals)
        await no_circuit_left(overlay, node)


async def test_more_circuits_than_a_guard_takes_at_once_wait_for_their_turn(overlay):
    async with overlay.node() as node:
        storer = some_storer(node)
        circuits = await asyncio.gather(*(node._client.open_to_storer(storer) for _ in range(18)))
        guards = {guard_of(circuit) for circuit in circuits}
        assert len(guards) == 1
        assert not node._client.guards._trouble
        for circuit in circuits:
            circuit.close()
        await no_circuit_left(overlay, node)


# Whom to blame, without sockets


@pytest.fixture
async def blaming():
    """A client and a path of guard, vanguard, middle and storer; what it makes of a failure, and then of another."""
    client = await client_of(grown_table())
    storer = next(entry for entry in client.table if entry.side is Side.FAR)
    path = choose_storer_path(client.table, storer, client.guards, client.rng, client.policy, unix_now=NOW)
    doubted = set()

    def blame(hop, status):
        attempt = Attempt(hop, "192.0.2.1:443", "role", status or "no answer", status)
        suspects = client._blamed(path, attempt, doubted)
        return "".join("GVMS"[path.relays.index(each)] for each in suspects)

    return client, path, blame


@pytest.mark.parametrize(
    ("hop", "status", "blamed"),
    [
        (1, "", "G"),  # it is silent, or will not have the circuit
        (1, "overloaded", "G"),
        (2, "overloaded", "V"),
        (3, "clock", "M"),
        (4, "policy", "S"),
        (1, "next unreachable", "V"),
        (2, "next silent", "M"),
        (3, "next refused", "S"),
        (4, "next refused", "S"),  # behind a final hop is the target, which is no relay
        (0, "", "MS"),  # or those behind it could walk us through all vanguards
    ],
)
async def test_whom_a_failure_is_blamed_on(blaming, hop, status, blamed):
    _, _, blame = blaming
    assert blame(hop, status) == blamed


async def test_a_relay_that_blames_the_next_one_twice_is_itself_left_out(blaming):
    _, _, blame = blaming
    assert [blame(2, "next unreachable") for _ in range(2)] == ["M", "MV"]
    assert [blame(1, "next unreachable") for _ in range(3)] == ["V", "V", "V"]  # a guard is not given up for that


async def test_guards_and_vanguards_are_passed_over_only_when_it_is_their_fault(blaming):
    client, path, blame = blaming
    guards, vanguards = client.guards._trouble, client.guards.vanguards._avoided
    blame(3, "next unreachable")
    blame(2, "next unreachable")
    blame(1, "overloaded")
    blame(2, "overloaded")
    blame(0, "")
    assert not guards
    assert not vanguards
    blame(1, "next unreachable")
    assert not guards
    assert list(vanguards) == [path.vanguard.relay_id]
    blame(1, "")
    assert list(guards) == [path.guard.relay_id]


# Networks that are too small, without sockets


async def client_of(table, *, min_anonymity=Anonymity.REDUCED):
    """A client of a public network that knows this table, and reaches nobody."""
    rng, policy = SystemRng(), PathPolicy(bytes(range(8)), min_anonymity=min_anonymity)
    now = asyncio.get_running_loop().time()
    engine = Engine(net_id=policy.net_id, rng=rng, now=now, testnet=False, finals=None, roles=Roles(0))
    client = Client(Driver(engine, None, clock=lambda: NOW), MemoryHome(), None, policy, rng)
    client.table = table
    return client


async def test_a_network_below_the_minimum_is_not_used():
    client = await client_of(grown_table(groups=5))
    with pytest.raises(NoPath, match=r"anonymity is tiny \(5 address groups\), below the minimum reduced"):
        await client.open_to_storer(next(iter(client.table)))


async def test_a_network_below_every_minimum_is_not_used():
    client = await client_of(grown_table(groups=3), min_anonymity=Anonymity.TINY)
    with pytest.raises(NoPath, match="3 address groups of relays; a private path needs 4"):
        await client.open_to_storer(next(iter(client.table)))


async def test_an_empty_table_offers_nothing():
    client = await client_of(RelayTable(PathPolicy(bytes(8))))
    assert client.anonymity == (Anonymity.NONE, 0)


# Cancellation


async def test_a_start_that_is_cancelled_leaves_no_link():
    async with mute_listener() as (mute, links):
        home = MemoryHome()
        invite = home.init_relay([f"tls://{mute.addresses[0]}"], [], SystemRng())
        network = NetworkFile.create("mute", (invite,), testnet=True, rng=SystemRng())
        starting = asyncio.create_task(Node(network).__aenter__())
        await until(lambda: links)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_seed_that_is_not_there_is_told_by_its_address():
    (port,) = free_ports(1)
    invite = MemoryHome().init_relay([f"tls://127.0.0.1:{port}"], [], SystemRng())
    network = NetworkFile.create("nobody", (invite,), testnet=True, rng=SystemRng())
    with pytest.raises(NoNetwork, match=f"cannot reach 127.0.0.1:{port}: connection refused"):
        async with Node(network):
            pytest.fail("a node of no network")
