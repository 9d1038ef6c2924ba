"""Builds that somebody interferes with, and builds that come too often or on the wrong link."""

from dataclasses import replace

import pytest

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import (
    BUILD_BURST_CLIENT_LINK,
    HALF_BUILT_LIFE,
    REPLY_SLOT,
    RING_BURST,
    SMALL_CELL,
    TIME_WINDOW,
)
from onionrelay.core.circuit import admission
from onionrelay.core.effects import CircuitOpened, CircuitRefused, EndpointReached, MessageArrived
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.testing.memory_link import split
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import Cmd
from tests.core.circuit.world import World, closings, header, with_record
from tests.seeded import SeededRng


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
    assert world.refused == (1, BuildStatus.OVERLOADED, "the first hop is busy")
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


@pytest.mark.parametrize(
    ("limit", "link"),
    [
        ("HALF_OPEN_BUILDS", 0),
        ("CLIENT_HALF_OPEN_BUILDS", 0),
        ("CIRCUITS", 0),
        ("HALF_OPEN_BUILDS_PER_LINK", 1),
    ],
)
def test_half_open_and_open_circuits_are_bounded(limit, link, monkeypatch):
    """`link` 0 is a client's, 1 one between relays."""
    monkeypatch.setattr(admission, limit, 3)
    world = World(2).build()
    world.client.act(world.origin.close)
    world.net.run(1)
    out, back = world.links()[link]
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
    assert world.refused == (1, BuildStatus.OVERLOADED, "the first hop is busy")


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
