"""Builds that fail: where, how the client learns of it, and what is left behind."""

from dataclasses import replace

import pytest

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import (
    BUILD_BURST_CLIENT_LINK,
    BUILT_WAIT,
    HALF_BUILT_LIFE,
    REPLY_SLOT,
    RING_BURST,
    SMALL_CELL,
    TIME_WINDOW,
)
from onionrelay.core.circuit import admission, keyring
from onionrelay.core.effects import CircuitOpened, CircuitRefused, EndpointReached, MessageArrived
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.crypto.onion_keys import OnionSecret
from onionrelay.testing.memory_net import MemoryNet, split
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
    out.adversary = drop(Cmd.BUILD)
    world.build().net.run(1)
    assert world.refused[:2] == (hop, BuildStatus.NEXT_SILENT)


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


# Tampering


@pytest.mark.parametrize("link", range(4))
@pytest.mark.parametrize("seed", range(6))
def test_a_build_changed_anywhere_never_opens(link, seed):
    """One bit of one cell, on any link, and a circuit to the target never comes to be."""
    world = World(3, seed=seed).build()
    rng = SeededRng(f"{link}/{seed}")
    victim, at = rng.below(7), 8 + rng.below(1104)
    seen = []

    def flip(cell):
        if header(cell)[1] != Cmd.BUILD:
            return (cell,)
        seen.append(cell)
        changed = bytearray(cell)
        if len(seen) == victim + 1:
            changed[at] ^= 1 << rng.below(8)
        return (bytes(changed),)

    out, _ = world.links()[link]
    out.adversary = flip
    reached = len(world.target.seen(EndpointReached))
    world.build()
    assert not world.opened
    assert len(world.target.seen(EndpointReached)) == reached
    expected = (link, BuildStatus.NEXT_REFUSED) if link else (1, None)
    assert world.refused[:2] == expected
    out.adversary = None
    assert world.build().opened


def shuffled(kind):
    """An adversary that treats the second of seven BUILD cells in some way."""
    held = []

    def rule(cell):
        if header(cell)[1] != Cmd.BUILD:
            return (cell,)
        held.append(cell)
        match kind, len(held):
            case "drop", 2:
                return ()
            case "double", 2:
                return (cell, cell)
            case "swap", 2:
                return ()
            case "swap", 3:
                return (cell, held[1])
            case "gen", 2:
                return (cell[:5] + b"\x01" + cell[6:],)
            case "all gen 2", _:
                return (cell[:5] + b"\x02" + cell[6:],)
            case _:
                return (cell,)

    return rule


@pytest.mark.parametrize("link", range(3))
@pytest.mark.parametrize("kind", ["drop", "double", "swap", "gen", "all gen 2"])
def test_build_cells_out_of_place_never_open_a_circuit(kind, link):
    world = World(2).build()
    reached = len(world.target.seen(EndpointReached))
    world.links()[link][0].adversary = shuffled(kind)
    world.build().net.run(6)
    assert not world.opened
    assert len(world.client.seen(CircuitRefused)) == 1
    assert len(world.target.seen(EndpointReached)) == reached


def test_gen_is_copied_by_every_hop():
    world = World(2).build()
    world.links()[0][0].adversary = lambda cell: (
        (cell[:5] + b"\x01" + cell[6:],) if header(cell)[1] == Cmd.BUILD else (cell,)
    )
    out, _ = world.links()[2]
    out.tap = []
    assert world.build().opened
    assert [cell[5] for cell in out.tap if header(cell)[1] == Cmd.BUILD] == [1] * 7


@pytest.mark.parametrize("link", range(3))
@pytest.mark.parametrize("slot", range(6))
def test_an_answer_garbled_on_the_way_is_blamed_on_nobody(link, slot):
    world = World(2).build()

    def garble(cell):
        if header(cell)[1] != Cmd.BUILT:
            return (cell,)
        changed = bytearray(cell)
        changed[8 + slot * REPLY_SLOT + 50] ^= 1
        return (bytes(changed),)

    world.links()[link][1].adversary = garble
    world.build()
    hop = link + slot  # the path index whose answer stands in this slot on this link
    if hop < 3:
        assert world.refused == (0, None, f"the answer is garbled behind hop {hop}")
    else:
        assert world.opened  # a slot nobody reads


def test_a_recorded_build_cannot_be_used_again():
    world = World(3).build()
    out, back = world.links()[1]
    out.tap, back.tap = [], []
    onward = world.links()[2][0]
    onward.tap = []
    world.build()
    recorded = [cell for cell in out.tap if header(cell)[1] == Cmd.BUILD]
    before = len(onward.tap)
    answers = len(back.tap)
    out.send(b"".join(b"\x00\x00\x12\x34" + cell[4:] for cell in recorded))
    world.net.run(1)
    assert [(header(cell)[1], cell[8]) for cell in back.tap[answers:]] == [(Cmd.DESTROY, DestroyReason.UNOPENABLE)]
    assert onward.tap[before:] == []
    assert world.session().net.now


def test_a_build_that_does_not_open_leaves_the_replay_memory_alone():
    world = World(1).build()
    out, _ = world.links()[0]
    ring = world.relays[0].relay_keys.ring
    tags = sum(len(tags) for key in ring._keys.values() for tags in key.seen.values())
    out.adversary = lambda cell: (cell[:-1] + bytes([cell[-1] ^ 1]),) if header(cell)[1] == Cmd.BUILD else (cell,)
    world.build()
    assert not world.opened
    assert sum(len(tags) for key in ring._keys.values() for tags in key.seen.values()) == tags


# Which keys a build is tried with depends on the link it comes on, and on nothing else


@pytest.mark.parametrize("sealed_to", ["relay", "node", "client"])
@pytest.mark.parametrize("arrives_on", ["accepted link", "attachment", "guard link"])
def test_only_the_links_own_keys_open_a_record(sealed_to, arrives_on):
    """A process that is relay and target at once, under two names, must not answer for one where it is the other."""
    world = World(2).build()
    both = world.net.relay("both")
    world.net.attach(both, world.relays[-1])
    feeder = world.net.relay("feeder")
    keys = {"relay": both.relay_keys, "node": both.node_keys, "client": world.client.node_keys}[sealed_to]
    purpose = {
        "accepted link": LinkPurpose.RELAY,
        "attachment": LinkPurpose.ATTACHMENT,
        "guard link": LinkPurpose.GUARD,
    }
    if arrives_on == "accepted link":
        pipe = world.net.link(feeder, both, LinkPurpose.RELAY)
        out, back = pipe.forth, pipe.back
    else:
        pipe = world.net.link(both, feeder, purpose[arrives_on])
        out, back = pipe.back, pipe.forth
    world.net.run(1)
    sealed = seal_to(world, keys)
    circ_id = (1 << 31 if out.sender[1].is_server else 0) | 5
    back.tap = []
    out.send(b"".join(circ_id.to_bytes(4) + cell[4:] for cell in sealed))
    world.net.run(1)
    opens = (arrives_on, sealed_to) in {("accepted link", "relay"), ("attachment", "node")}
    answer = [(header(cell)[1], cell[8] if header(cell)[1] == Cmd.DESTROY else None) for cell in back.tap]
    if opens:
        assert answer == [(Cmd.BUILD_ACK, None), (Cmd.BUILT, None)]
    else:
        assert answer == [(Cmd.DESTROY, DestroyReason.UNOPENABLE)]


def seal_to(world, keys):
    """The cells of a one-hop build that ends at the owner of these keys."""
    plan = world.net.plan([world.relays[0]], None)
    plan = replace(plan, hops=(replace(plan.hops[0], identity=keys.identity, onion=keys.ring.public),))
    out, _ = world.links()[0]
    out.tap, out.adversary = [], lambda cell: ()
    world.build_plan(plan, 0.0)
    cells, out.tap, out.adversary = out.tap, None, None
    return [cell for cell in cells if header(cell)[1] == Cmd.BUILD]


@pytest.mark.parametrize(("periods", "opens"), [(0, True), (1, True), (2, False)])
def test_a_record_opens_under_the_current_and_the_previous_key(periods, opens):
    world = World(1)
    ring = world.relays[0].relay_keys.ring
    plan = world.net.plan([world.relays[0]], None)
    for _ in range(periods):
        world.net.run(24 * 3600)
        ring.rotate(world.net.unix_now)
    world.build_plan(with_record(plan, 1, window=world.net.unix_now // TIME_WINDOW))
    assert world.opened == opens


# Limits that answer before any decryption


def test_a_client_link_is_shed_beyond_its_rate_without_any_decryption(monkeypatch):
    world = World(1).build()
    world.net.run(60)
    channel = world.links()[0][0].sender[1]
    _, back = world.links()[0]
    back.tap = []
    opened = []
    monkeypatch.setattr(admission, "open_build", lambda *a: opened.append(a) or real(*a))
    plan = world.plan()
    for _ in range(BUILD_BURST_CLIENT_LINK + 5):
        world.client.act(lambda: world.client.engine.open_circuit(channel, plan, world.net.now, world.net.unix_now))
    world.net.run(0.1)
    relays_share = [call for call in opened if call[2] == world.relays[0].relay_keys.identity]
    assert len(relays_share) == BUILD_BURST_CLIENT_LINK
    busy = [cell for cell in back.tap if header(cell)[1] == Cmd.DESTROY]
    assert [cell[8] for cell in busy] == [DestroyReason.BUSY] * 5
    assert len(world.client.seen(CircuitRefused)) == 5
    assert world.refused == (1, None, "the first hop ended it (busy)")
    assert closings(world.client) == []


real = admission.open_build


def test_a_final_hop_that_rings_too_often_is_shed_by_the_target():
    world = World(1).build()
    world.net.run(60)
    cells = seal_to(world, world.target.node_keys)
    out, back = world.links()[1]
    back.tap = []
    for circ_id in range(1, 2 * RING_BURST + 4):
        out.send(b"".join((circ_id | 1 << 31).to_bytes(4) + cell[4:] for cell in cells))
    world.net.run(0.1)
    reasons = [cell[8] for cell in back.tap if header(cell)[1] == Cmd.DESTROY]
    assert reasons.count(DestroyReason.BUSY) == 3
    assert reasons.count(DestroyReason.UNOPENABLE) == 2 * RING_BURST - 1  # the first one opens, the rest replay it


@pytest.mark.parametrize("limit", ["HALF_OPEN_BUILDS", "HALF_OPEN_BUILDS_PER_LINK", "CIRCUITS"])
def test_half_open_and_open_circuits_are_bounded(limit, monkeypatch):
    monkeypatch.setattr(admission, limit, 3)
    world = World(1).build()
    world.client.act(world.origin.close)
    world.net.run(1)
    out, back = world.links()[0]
    back.tap = []
    first_cells = [header_of_build(circ_id) for circ_id in range(1, 6)]
    out.send(b"".join(first_cells))
    world.net.run(0.1)
    assert [(header(cell)[0], cell[8]) for cell in back.tap] == [(4, DestroyReason.BUSY), (5, DestroyReason.BUSY)]
    world.net.run(HALF_BUILT_LIFE)
    assert [(header(cell)[0], cell[8]) for cell in back.tap[2:]] == [(n, DestroyReason.TIMEOUT) for n in (1, 2, 3)]
    assert world.build().opened


def header_of_build(circ_id):
    return circ_id.to_bytes(4) + bytes([Cmd.BUILD]) + bytes(SMALL_CELL - 5)


def test_circuits_of_a_link_are_bounded():
    world = World(1).build()
    channel = world.links()[0][1].sender[1]
    channel.max_circuits = 1
    world.build()
    assert world.refused == (1, None, "the first hop ended it (busy)")


def test_a_relay_link_is_not_held_to_a_clients_rate():
    world = World(2).build()
    cells = seal_to(world, world.relays[1].relay_keys)
    out, back = world.links()[1]
    back.tap = []
    for circ_id in range(1, 100):
        out.send(b"".join(circ_id.to_bytes(4) + cell[4:] for cell in cells))
    world.net.run(0.1)
    assert DestroyReason.BUSY not in [cell[8] for cell in back.tap if header(cell)[1] == Cmd.DESTROY]


def test_a_build_under_an_id_of_the_other_ends_closes_the_link():
    world = World(1).build()
    out, _ = world.links()[0]
    out.send(header_of_build(1 << 31 | 9))
    world.net.run(1)
    assert closings(world.relays[0]) == ["a BUILD under a circuit id of this end"]


def test_a_late_effect_of_a_dead_build_is_harmless():
    world = World(3).build()
    back = world.links()[0][1]
    back.tap = []
    world.build()
    answers = split(b"".join(back.tap))
    world.client.act(world.origin.close)
    world.net.run(1)
    back.send(b"".join(cell for cell in answers if header(cell)[1] in (Cmd.BUILT, Cmd.BUILD_ACK)))
    world.net.run(1)
    assert closings(world.client) == []
    assert len(world.client.seen(CircuitOpened)) == 2
    assert world.client.seen(MessageArrived) == []
