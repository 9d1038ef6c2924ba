"""A circuit as the node that built it sees it."""

import asyncio

import pytest

from onionrelay.base.errors import CircuitFailed, CircuitLost, MalformedMessage, TimedOut
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.core.path.policy import Anonymity
from onionrelay.node import circuit as circuit_module
from onionrelay.node.circuit import REASONS, Circuit, HopInfo, timings
from onionrelay.testing.overlay import until
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.directory import DhtAnswer, DhtGet, DirData, DirGet
from onionrelay.wire.relay import RelayCmd
from tests.node.overlays import AT_ONCE, no_circuit_left, relay_ids, some_storer
from tests.node.parties import parties, plan, stop_reading

HOPS = (
    HopInfo(1, "guard", "onrr1a", "192.0.2.1:443"),
    HopInfo(2, "middle", "onrr1b", "192.0.2.2:443"),
    HopInfo(3, "final", "onrr1c", "192.0.2.3:443"),
    HopInfo(4, "target"),
)


def guard_port(node):
    """The node's end of its link to the guard."""
    return next(port for port in node._driver._ports.values() if port.channel.purpose is LinkPurpose.GUARD)


# Times


def test_each_hop_adds_the_difference_of_medians():
    found = timings([[0.010, 0.012, 0.011], [0.030, 0.031, 0.500], [0.030, 0.030, 0.030]])
    assert [hop.position for hop in found] == [1, 2, 3]
    assert [round(hop.median_ms, 6) for hop in found] == [11, 31, 30]
    assert [round(hop.added_ms, 6) for hop in found] == [11, 20, -1]
    assert {hop.samples for hop in found} == {3}


def test_the_error_of_a_difference_is_that_of_both_medians():
    steady, shaky = [0.010] * 9, [0.020 + 0.001 * n for n in range(-4, 5)]
    alone, behind = timings([shaky])[0], timings([steady, shaky])[1]
    assert alone.error_ms == pytest.approx(1.4826 * 1.2533 * 2 / 3)  # the median deviation is 2 ms, of 9 samples
    assert behind.error_ms == pytest.approx(alone.error_ms)
    assert timings([shaky, shaky])[1].error_ms == pytest.approx(2**0.5 * alone.error_ms)


def test_a_hop_describes_itself():
    assert [str(hop) for hop in HOPS[2:]] == ["final 192.0.2.3:443", "target"]


# Why a circuit was not built


async def refusal(hop, status, why="why"):
    async with parties(1) as (party,):
        circuit = Circuit(party.driver, HOPS, Anonymity.FULL)
        circuit.on_refused(hop, status, why)
        with pytest.raises(CircuitFailed) as failure:
            await circuit._opened
        return failure.value


def test_every_status_has_its_words():
    assert set(REASONS) == set(BuildStatus) - {BuildStatus.OK}


async def test_a_refusal_names_the_hop_and_what_it_said():
    failure = await refusal(3, BuildStatus.NO_SUCH_HANDLE)
    (attempt,) = failure.attempts
    assert (attempt.hop, attempt.role, attempt.relay) == (3, "final", "192.0.2.3:443")
    assert attempt.status == "no such handle"
    assert str(failure) == (
        "the circuit was not built; hop 3 (final 192.0.2.3:443): no such handle: "
        "the node is not attached there, or no longer"
    )


@pytest.mark.parametrize(
    ("hop", "behind"), [(1, "hop 2 (middle 192.0.2.2:443)"), (3, "hop 4 (target)"), (4, "the next hop")]
)
async def test_a_refusal_names_the_hop_that_could_not_be_reached(hop, behind):
    for status in (BuildStatus.NEXT_UNREACHABLE, BuildStatus.NEXT_SILENT, BuildStatus.NEXT_ID_MISMATCH):
        failure = await refusal(hop, status)
        assert failure.hop == hop
        assert behind in failure.reason


async def test_a_failure_at_no_hop_in_particular_names_the_path_by_its_last_relay():
    (attempt,) = (await refusal(0, None, "no answer in time")).attempts
    assert (attempt.hop, attempt.role, attempt.relay, attempt.status) == (0, "final", "192.0.2.3:443", "")
    assert attempt.reason == "no answer in time"


async def test_a_circuit_that_ends_in_the_moment_it_opens_was_not_built():
    async with parties() as (client, relay):
        channel = await client.dial(relay, LinkPurpose.GUARD, anonymous=True)
        stop_reading(client.ports[0])
        opening = asyncio.create_task(Circuit.open(client.driver, channel, plan(relay), HOPS[:1], Anonymity.FULL))
        await until(lambda: client.driver._opening)
        (listener,) = client.driver._opening.values()
        listener.on_opened()
        listener.on_ended("the first hop ended it")
        with pytest.raises(CircuitFailed, match="the first hop ended it"):
            await opening
        await until(lambda: not relay.engine.circuits)


async def test_a_link_that_is_gone_is_the_guards_failure():
    async with parties() as (client, relay):
        channel = await client.dial(relay, LinkPurpose.GUARD, anonymous=True)
        client.driver.close_link(channel)
        await client.driver.wait_down(channel)
        with pytest.raises(CircuitFailed) as failure:
            await Circuit.open(client.driver, channel, plan(relay), HOPS[:1], Anonymity.FULL)
        assert (failure.value.hop, failure.value.attempts[0].role) == (1, "guard")


# In a network


@pytest.fixture
async def node(overlay):
    async with overlay.node() as node:
        yield node


@pytest.fixture
async def circuit(overlay, node):
    """A circuit to a relay, through three others."""
    circuit = await node._client.open_to_storer(some_storer(node))
    yield circuit
    circuit.close()
    await no_circuit_left(overlay, node)


async def test_an_open_circuit_knows_its_hops(circuit, node):
    assert circuit.is_open
    assert [hop.role for hop in circuit.hops] == ["guard", "vanguard", "middle", "storer"]
    assert [hop.position for hop in circuit.hops] == [1, 2, 3, 4]
    assert len(set(relay_ids(circuit))) == 4
    for hop in circuit.hops:
        assert hop.address in {str(entry.endpoint.addresses[0]) for entry in node._client.table}
    assert circuit.anonymity is Anonymity.TESTNET
    assert 0 < circuit.build_time < 10


async def test_every_hop_sends_echoes(circuit):
    assert all([await circuit.echo(hop.position) > 0 for hop in circuit.hops])
    times = await circuit.ping(samples=3)
    assert [time.position for time in times] == [1, 2, 3, 4]
    assert {time.samples for time in times} == {3}


async def test_echoes_side_by_side_are_told_apart(circuit):
    assert all(seconds > 0 for seconds in await asyncio.gather(*(circuit.echo(n % 4 + 1) for n in range(40))))
    assert not circuit._echoes


async def test_the_last_hop_answers_questions(circuit):
    table, nothing = await asyncio.gather(circuit.ask(DirGet(0)), circuit.ask(DhtGet(bytes(32))))
    assert isinstance(table, DirData)
    assert len(table.descriptors) == 8
    assert nothing == DhtAnswer(())
    assert not circuit._answers


async def test_what_does_not_come_in_time(circuit, node, monkeypatch):
    monkeypatch.setattr(circuit_module, "ECHO_TIMEOUT", 0.05)
    monkeypatch.setattr(circuit_module, "ANSWER_TIMEOUT", 0.05)
    stop_reading(guard_port(node))
    with pytest.raises(TimedOut, match="the echo of hop 3"):
        await circuit.echo(3)
    with pytest.raises(TimedOut, match=r"the answer of storer 127\.0\.0\.1:"):
        await circuit.ask(DirGet(0))
    assert circuit.is_open


async def test_an_answer_that_comes_too_late_is_no_matter(circuit, node, monkeypatch):
    monkeypatch.setattr(circuit_module, "ECHO_TIMEOUT", 0.05)
    port = guard_port(node)
    stop_reading(port)
    with pytest.raises(TimedOut):
        await circuit.echo(1)
    monkeypatch.undo()
    asyncio.get_running_loop().add_reader(port.link._fd, port.link._on_readable)
    assert await circuit.echo(1) > 0


async def test_an_answer_that_cannot_be_read_is_an_error_of_the_question(circuit):
    asking = asyncio.create_task(circuit.ask(DirGet(0)))
    await asyncio.sleep(0)  # it has asked now, and has no answer yet
    (rid,) = circuit._answers
    circuit.on_message(4, RelayCmd.DIR_DATA, rid, b"junk")
    with pytest.raises(MalformedMessage):
        await asking


async def test_only_the_last_hop_answers_and_only_what_was_asked(circuit):
    asking = asyncio.create_task(circuit.ask(DirGet(0)))
    await asyncio.sleep(0)  # it has asked now, and has no answer yet
    (rid,) = circuit._answers
    circuit.on_message(2, RelayCmd.DIR_DATA, rid, b"junk")
    circuit.on_message(4, RelayCmd.DIR_DATA, rid + 1, b"junk")
    assert isinstance(await asking, DirData)


async def test_a_question_back_is_no_answer(circuit):
    asking = asyncio.create_task(circuit.ask(DirGet(0)))
    await asyncio.sleep(0)  # it has asked now, and has no answer yet
    (rid,) = circuit._answers
    circuit.on_message(4, RelayCmd.DHT_ANSWER, rid, b"\x01" + bytes(32))
    with pytest.raises(MalformedMessage):
        await asking


async def test_closing_ends_what_waits_and_nothing_can_be_asked_after_it(circuit, node):
    stop_reading(guard_port(node))
    waiting = [asyncio.create_task(work) for work in (circuit.echo(1), circuit.ask(DirGet(0)), circuit.wait_lost())]
    await until(lambda: circuit._echoes and circuit._answers)
    circuit.close()
    circuit.close()
    for lost in waiting[:2]:
        with pytest.raises(CircuitLost, match="closed at this end"):
            await lost
    assert await waiting[2] == "closed at this end"
    for late in (circuit.echo(1), circuit.ask(DirGet(0))):
        with pytest.raises(CircuitLost, match="closed at this end"):
            await late
    assert not circuit.is_open


async def test_a_relay_that_goes_away_ends_the_circuit(overlay, node):
    circuit = await node._client.open_to_storer(some_storer(node))
    lost = asyncio.create_task(circuit.wait_lost())
    await overlay.stop(circuit.hops[2].relay_id)
    async with asyncio.timeout(AT_ONCE):
        assert await lost == "a hop behind the first ended it"
    await no_circuit_left(overlay, node)


async def test_a_guard_that_goes_away_ends_the_circuit(overlay, node):
    circuit = await node._client.open_to_storer(some_storer(node))
    await overlay.stop(circuit.hops[0].relay_id)
    async with asyncio.timeout(AT_ONCE):
        assert await circuit.wait_lost() == "the link to the first hop was lost"


async def test_an_open_that_is_cancelled_leaves_no_circuit_at_any_relay(overlay, node):
    entry = some_storer(node, but={str(overlay.relays[index].relay_id) for index in range(3, 8)})
    storer = overlay.relays[overlay.index(entry.relay_id)]  # a seed: everybody has a link to it already
    for port in storer._driver._ports.values():
        stop_reading(port)
    opening = asyncio.create_task(node._client.open_to_storer(entry))
    await until(lambda: sum(relay._driver.engine.circuits for relay in overlay.relays.values()) >= 3)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await no_circuit_left(overlay, node)
