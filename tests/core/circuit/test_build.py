"""Builds that fail: where, how the client learns of it, and what is left behind."""

from dataclasses import replace

import pytest

from onionrelay.base.limits import (
    BUILD_TIMEOUT,
    BUILT_WAIT,
    HALF_BUILT_LIFE,
    TIME_WINDOW,
)
from onionrelay.core.circuit import admission, keyring
from onionrelay.core.effects import CircuitRefused
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.crypto.onion_keys import OnionSecret
from onionrelay.testing.memory_net import MemoryNet
from onionrelay.wire.build import BuildStatus, Role
from onionrelay.wire.cell import Cmd
from onionrelay.wire.descriptor import Roles
from tests.core.circuit.raw_client import RawClient
from tests.core.circuit.world import World, closings, header, with_record
from tests.seeded import SeededRng


def drop(*cmds):
    return lambda cell: () if header(cell)[1] in cmds else (cell,)


def nothing_is_left(world):
    """No circuit and no half-open build anywhere, on links that are all up."""
    assert world.sides() == []
    for node in world.net.nodes:
        assert node.engine.circuits == 0
        assert node.engine._runtime.half_open == 0
        assert closings(node) == []
    return True


# Each hop refuses for its own reason, and the client knows which


@pytest.mark.parametrize("hop", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"window": 0}, BuildStatus.CLOCK),
        ({"lifetime": 0}, BuildStatus.LIFETIME),
        ({"lifetime": 21_610}, BuildStatus.LIFETIME),
    ],
)
def test_a_record_that_no_hop_takes(hop, fields, status):
    world = World(3)
    world.build_plan(with_record(world.plan(), hop, **fields))
    assert world.refused[:2] == (hop, status)
    assert nothing_is_left(world)


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_the_neighbouring_windows_are_taken(offset):
    world = World(1)
    world.build(window=world.net.unix_now // TIME_WINDOW + offset)
    assert world.opened == (abs(offset) <= 1)


@pytest.mark.parametrize("hop", [1, 2])
def test_the_next_relay_cannot_be_reached(hop):
    world = World(3)
    world.relays[hop].refuses_links = True
    world.build()
    assert world.refused[:2] == (hop, BuildStatus.NEXT_UNREACHABLE)
    assert nothing_is_left(world)


def test_the_driver_says_why_there_is_no_link():
    world = World(2)
    world.relays[0]._dial = lambda wanted: world.relays[0].engine.refuse_next(
        wanted.hop, BuildStatus.NEXT_ID_MISMATCH, world.net.now
    )
    world.build()
    assert world.refused[:2] == (1, BuildStatus.NEXT_ID_MISMATCH)


def test_a_driver_that_never_answers_is_not_waited_for_for_ever():
    world = World(2)
    world.relays[0]._dial = lambda wanted: None
    world.build()
    world.net.run(HALF_BUILT_LIFE + 1)
    assert world.refused[:2] == (0, None)  # the client's own patience ended first
    assert nothing_is_left(world)


def test_an_answer_of_the_driver_that_comes_too_late_is_ignored():
    world = World(2)
    kept = []
    world.relays[0]._dial = kept.append
    world.build()
    world.client.act(world.origin.close)
    world.net.run(1)
    channel = world.net.channel(world.relays[0], world.relays[1], LinkPurpose.RELAY)
    world.net.run(1)
    world.relays[0].act(lambda: world.relays[0].engine.offer_next(kept[0].hop, channel, world.net.now))
    world.relays[0].act(
        lambda: world.relays[0].engine.refuse_next(kept[0].hop, BuildStatus.NEXT_UNREACHABLE, world.net.now)
    )
    world.net.run(1)
    assert nothing_is_left(world)


@pytest.mark.parametrize("hop", [1, 2, 3])
def test_the_next_hop_is_silent(hop):
    world = World(3).build()
    out, _ = world.links()[hop]
    out.adversary, out.tap = drop(Cmd.BUILD), []
    world.build().net.run(1)
    assert world.refused[:2] == (hop, BuildStatus.NEXT_SILENT)
    assert [header(cell)[1] for cell in out.tap] == [Cmd.BUILD] * 7 + [Cmd.DESTROY]


def test_the_first_hop_is_silent():
    world = World(3).build()
    out, _ = world.links()[0]
    out.adversary = drop(Cmd.BUILD)
    world.build()
    world.net.run(1)
    assert world.refused == (1, None, "the first hop is silent")


def test_silence_after_the_acknowledgement_is_nobodys_in_particular():
    world = World(3).build()
    _, back = world.links()[2]
    back.adversary = drop(Cmd.BUILT)
    world.build()
    world.net.run(3.9)
    assert len(world.client.seen(CircuitRefused)) == 0
    world.net.run(0.2)
    assert world.refused == (0, None, "no answer in time")
    assert list(world.client.engine._build_times._seconds)[1:] == [pytest.approx(BUILD_TIMEOUT)]


def test_a_client_that_is_gone_does_not_keep_a_build_half_open():
    world = World(3).build()
    _, back = world.links()[2]
    back.adversary = drop(Cmd.BUILT)
    world.links()[0][0].adversary = drop(Cmd.DESTROY)
    world.build()
    world.net.run(BUILT_WAIT + 1)
    assert len(world.sides()) == 8  # those of the first circuit
    assert all(relay.engine._runtime.half_open == 0 for relay in world.relays)


@pytest.mark.parametrize("hop", [2, 3, 4])
def test_the_next_hop_cannot_open_its_record(hop):
    world = World(3)
    plan = world.plan()
    hops = list(plan.hops)
    hops[hop - 1] = replace(hops[hop - 1], onion=OnionSecret.generate(SeededRng(hop)).public)
    world.build_plan(replace(plan, hops=tuple(hops)))
    assert world.refused[:2] == (hop - 1, BuildStatus.NEXT_REFUSED)
    assert nothing_is_left(world)


def test_the_first_hop_cannot_open_its_record():
    world = World(3)
    plan = world.plan()
    hops = (replace(plan.hops[0], onion=OnionSecret.generate(SeededRng(1)).public), *plan.hops[1:])
    world.build_plan(replace(plan, hops=hops))
    assert world.refused == (1, None, "the first hop ended it (unopenable)")


@pytest.mark.parametrize("hop", [1, 2, 3])
def test_the_next_link_breaks_while_the_answer_is_awaited(hop):
    world = World(3).build()
    out, back = world.links()[hop]
    back.adversary = drop(Cmd.BUILT)
    world.build()
    world.net.lose(out.sender[1])
    world.net.run(1)
    assert world.refused[:2] == (hop, BuildStatus.NEXT_UNREACHABLE)


def test_a_handle_that_is_not_attached():
    world = World(3)
    world.relays[-1].handles.attached.clear()
    assert world.build().refused[:2] == (3, BuildStatus.NO_SUCH_HANDLE)


def test_a_caller_without_the_targets_record():
    world = World(3)
    world.build_plan(replace(world.plan(), k_ticket=bytes(32)))
    assert world.refused[:2] == (3, BuildStatus.TICKET)
    assert nothing_is_left(world)


def test_a_target_with_all_its_sessions_taken(monkeypatch):
    monkeypatch.setattr(admission, "SESSIONS_PER_TARGET", 2)
    world = World(1).build().build().build()
    assert world.refused[:2] == (2, BuildStatus.TARGET_REFUSED)
    world.target.act(world.end.close)
    world.net.run(1)
    assert world.build().opened


def test_a_target_is_no_relay():
    world = World(2)
    other = world.net.endpoint(world.relays[0])
    plan = world.plan()
    sealed = replace(plan.hops[2].record, role=Role.FORWARD, next_id=world.relays[0].relay_id, endpoint=other)
    origin_plan = object.__new__(type(plan))  # a plan that onionrelay itself would not make
    for field, value in (("lifetime", plan.lifetime), ("k_ticket", plan.k_ticket)):
        object.__setattr__(origin_plan, field, value)
    object.__setattr__(origin_plan, "hops", (*plan.hops[:2], replace(plan.hops[2], record=sealed)))
    world.build_plan(origin_plan)
    assert world.refused[:2] == (3, BuildStatus.BAD_RECORD)


@pytest.mark.parametrize("hop", [1, 2])
def test_a_relay_is_not_its_own_next_hop(hop):
    world = World(3)
    relay = world.relays[hop - 1]
    world.build_plan(with_record(world.plan(), hop, next_id=relay.relay_id, endpoint=world.net.endpoint(relay)))
    assert world.refused[:2] == (hop, BuildStatus.BAD_RECORD)


@pytest.mark.parametrize("hop", [1, 2])
def test_private_addresses_are_for_test_networks(hop):
    world = World(3, testnet=False)
    assert world.build().opened
    inner = MemoryNet(1)
    private = inner.endpoint(inner.relay("inside"))  # 10.1.0.1
    world.build_plan(with_record(world.plan(), hop, endpoint=private))
    assert world.refused[:2] == (hop, BuildStatus.POLICY)


@pytest.mark.parametrize(
    ("hop", "roles"),
    [
        (1, Roles.MIDDLE | Roles.FINAL),  # a client begins here, and this relay is no guard
        (2, Roles.GUARD | Roles.DHT),
        (3, Roles.GUARD | Roles.MIDDLE),
    ],
)
def test_a_relay_does_only_what_it_volunteers_for(hop, roles):
    world = World(3)
    relay = world.net.relay("unwilling", roles)
    world.relays[hop - 1] = relay
    world.net.attach(world.target, world.relays[-1])
    assert world.build().refused[:2] == (hop, BuildStatus.POLICY)
    assert nothing_is_left(world)


def test_a_record_that_does_not_decode(monkeypatch):
    world = World(2).build()
    monkeypatch.setattr("onionrelay.wire.build.VERSION", 9)  # what the client writes, before the hops read it
    channel = world.links()[0][0].sender[1]
    world.links()[0][0].stalled = True
    plan = world.plan()
    world.origin = world.client.act(
        lambda: world.client.engine.open_circuit(channel, plan, world.net.now, world.net.unix_now)
    )
    monkeypatch.undo()
    world.links()[0][0].stalled = False
    world.net.flush(channel)
    world.net.run(1)
    assert world.refused[:2] == (1, BuildStatus.BAD_RECORD)


def test_more_builds_than_can_be_remembered(monkeypatch):
    monkeypatch.setattr(keyring, "REPLAY_TAGS_PER_WINDOW", 2)
    world = World(1).build().build()
    assert world.opened
    assert world.build().refused[:2] == (1, BuildStatus.OVERLOADED)


def test_a_link_with_as_many_circuits_as_it_may_carry():
    world = World(2).build()
    world.links()[-1][0].sender[1].max_circuits = 1
    assert world.build().refused[:2] == (2, BuildStatus.OVERLOADED)


# A failed build leaves the circuit alive up to the hop that failed, for a short while


@pytest.mark.parametrize("hop", [1, 2])
def test_a_circuit_that_broke_lives_for_ten_seconds_up_to_the_break(hop):
    world = World(3)
    world.relays[hop].refuses_links = True
    raw = RawClient(world)
    status, layers = raw.build(world.plan())
    assert status is BuildStatus.NEXT_UNREACHABLE
    assert len(layers) == hop
    for number in range(1, hop + 1):
        assert raw.echo(layers, number) == b"12345678"
    world.net.run(HALF_BUILT_LIFE - 2)
    assert raw.echo(layers, hop) == b"12345678"
    world.net.run(2)
    assert [relay.engine.circuits for relay in world.relays] == [0, 0, 0]
