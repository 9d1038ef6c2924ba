"""Reach records: found, remembered, stored, and looked for where others lie."""

import json

import pytest

from onionrelay.base.errors import CircuitFailed, NodeNotFound
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import LOOKUPS_AT_ONCE, REACH_LIFE, TABLE_STALE
from onionrelay.core.directory.placement import periods_to_ask, reach_keys, storers
from onionrelay.core.path.guards import Guards
from onionrelay.crypto.signing import SigningSecret
from onionrelay.net.system import SystemRng
from onionrelay.testing.overlay import LocalOverlay
from onionrelay.wire.directory import DhtAnswer, DhtGet, DirData, StoreResult
from tests.core.relays import bare_table
from tests.node.overlays import Clock, attachments, no_circuit_left, republish, target_of


def storers_of(overlay, node_id, client):
    """The relays that are asked for a node's record."""
    table, now = client._client.table, client._clock()
    found = {
        entry.relay_id
        for period in periods_to_ask(now)
        for key in reach_keys(node_id, period)
        for entry in storers(key, table, now)
    }
    return [overlay.relays[overlay.index(relay_id)] for relay_id in found]


def guard_of(client):
    """The relay that this client asks nothing."""
    guard, *_ = client._client.guards.usable(client._client.candidates, client._client.rng)
    return guard.relay_id


def answers(relay, answer):
    """Makes a relay answer every look-up so; returns the list of those it got."""
    asked, honest = [], relay._directory.answer

    def answer_question(question, now):
        if not isinstance(question, DhtGet):
            return honest(question, now)
        asked.append(question)
        return answer

    relay._directory.answer = answer_question
    return asked


def kept(relays, keys):
    """The record that these relays keep under some of these keys."""
    (record,) = {stored.raw for relay in relays for key, stored in relay._store._by_distance.values() if key in keys}
    return record


def keys_of(node_id, client):
    return {key for period in periods_to_ask(client._clock()) for key in reach_keys(node_id, period)}


@pytest.fixture
async def target(overlay):
    async with target_of(overlay) as target:
        yield target


@pytest.fixture
async def client(overlay, target):
    async with overlay.node() as client:
        yield client


async def test_a_record_is_found_and_remembered(overlay, target, client):
    record = await client._records.find(target.node_id)
    assert record.contents.node_id == target.node_id
    assert len(record.finals) == 3
    assert record.rejected == ()
    for relay in overlay.relays.values():
        relay._directory.answer = None  # nobody is asked again
    assert await client._records.find(target.node_id) is record
    await no_circuit_left(overlay, client)


async def test_no_more_relays_are_asked_than_it_takes(overlay, target, client):
    asked = []
    for relay in storers_of(overlay, target.node_id, client):
        honest = relay._directory.answer
        relay._directory.answer = lambda question, now, honest=honest: asked.append(question) or honest(question, now)
    await client._records.find(target.node_id)
    assert len(asked) == LOOKUPS_AT_ONCE


async def test_a_fresh_record_is_asked_for_when_it_is_wanted(target, client):
    record = await client._records.find(target.node_id)
    assert await client._records.find(target.node_id, fresh=True) is not record


async def test_a_record_is_forgotten_when_it_has_expired():
    clock = Clock()
    async with LocalOverlay(clock=clock) as overlay, target_of(overlay) as target, overlay.node() as client:
        await client._records.find(target.node_id)
        clock.shift = REACH_LIFE + 600
        with pytest.raises(NodeNotFound):
            await client._records.find(target.node_id)
        assert not client._records._known


async def test_a_node_that_nobody_knows(overlay, client):
    stranger = NodeId(SigningSecret.generate(SystemRng()).public)
    places = [relay.relay_id for relay in storers_of(overlay, stranger, client)]
    guard = {"relay": str(places[0]), "added": client._clock(), "confirmed": client._clock()}
    client._client.guards = Guards.load(json.dumps({"version": 1, "guards": [guard], "vanguards": []}).encode())
    assert guard_of(client) == places[0]
    with pytest.raises(NodeNotFound) as failure:
        await client._records.find(stranger)
    assert str(failure.value) == (  # the guard is not asked, which does not mean that it did not answer
        f"none of the {len(places) - 1} relays asked knows the node: is it running, and is the id right?"
    )
    await no_circuit_left(overlay, client)


async def test_one_honest_storer_is_enough(overlay, target, client):
    asked = storers_of(overlay, target.node_id, client)
    not_asked = {guard_of(client), guard_of(target)}  # the target has given its guard no record
    honest = next(relay for relay in asked if relay.relay_id not in not_asked)
    liars = [relay for relay in asked if relay is not honest]
    assert len(liars) > LOOKUPS_AT_ONCE
    for lie in (DhtAnswer((b"junk",)), DhtAnswer((bytes(3325), b"more")), DhtAnswer(()), DirData(256, ())):
        for liar in liars:
            answers(liar, lie)
        record = await client._records.find(target.node_id, fresh=True)
        assert record.contents.node_id == target.node_id


async def test_an_older_record_than_one_seen_before_is_not_taken(overlay, target, client):
    await client._records.find(target.node_id)
    old = kept(overlay.relays.values(), keys_of(target.node_id, client))
    await republish(target)
    newer = await client._records.find(target.node_id, fresh=True)
    for relay in storers_of(overlay, target.node_id, client):
        answers(relay, DhtAnswer((old,)))
    with pytest.raises(NodeNotFound, match="no relay has a record of the node that holds: record older than"):
        await client._records.find(target.node_id, fresh=True)
    assert await client._records.find(target.node_id) is newer


async def test_a_record_of_another_node_is_no_record(overlay, target, client):
    async with target_of(overlay) as other:
        wrong = kept(overlay.relays.values(), keys_of(other.node_id, client))
        for relay in storers_of(overlay, target.node_id, client):
            answers(relay, DhtAnswer((wrong,)))
        with pytest.raises(NodeNotFound, match="record of another node"):
            await client._records.find(target.node_id, fresh=True)


async def test_a_search_that_reaches_nobody_says_why(overlay, target, client):
    for index in tuple(overlay.relays):
        await overlay.stop(index)
    with pytest.raises(CircuitFailed, match="cannot reach"):
        await client._records.find(target.node_id)


async def test_final_hops_that_are_newer_than_the_table_are_found_out_about(overlay, target, client):
    new = {each.final.relay_id for each in attachments(target).values()}
    old = [entry for entry in client._client.table if entry.relay_id not in new]
    client._client.table = bare_table(old, client._client.policy)
    client._client._refreshed = -TABLE_STALE
    record = await client._records.find(target.node_id)
    assert {final.entry.relay_id for final in record.finals} == new
    await no_circuit_left(overlay, client)


async def test_a_put_is_answered(overlay, target, client):
    now = client._clock()
    key = reach_keys(target.node_id, periods_to_ask(now)[0])[0]
    record = kept(overlay.relays.values(), {key})
    storer = next(each for each in storers(key, client._client.table, now) if each.relay_id != guard_of(client))
    assert await client._records.put(key, record, storer) is StoreResult.STORED
    assert await client._records.put(bytes(32), record, storer) is StoreResult.INVALID
    assert await client._records.put(key, b"junk", storer) is StoreResult.INVALID
    await no_circuit_left(overlay, client)
