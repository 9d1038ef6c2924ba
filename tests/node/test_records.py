"""Reach records: found, remembered, stored, and looked for where others lie."""

import pytest

from onionrelay.base.errors import CircuitFailed, NodeNotFound
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import LOOKUPS_AT_ONCE, REACH_LIFE
from onionrelay.core.attach.target import Publish
from onionrelay.core.directory.placement import periods_to_ask, reach_keys, storers
from onionrelay.crypto.signing import SigningSecret
from onionrelay.net.system import SystemRng
from onionrelay.testing.overlay import LocalOverlay
from onionrelay.wire.directory import DhtAnswer, DhtGet, DirData, StoreResult
from tests.node.overlays import Clock, no_circuit_left, target_of


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


async def republish(target):
    """Lets the target publish the final hops it has once more."""
    attached = target._target._attachments
    finals = tuple(each.entry for each in attached.attachments)
    await target._target._publish(Publish(finals, attached._schedule.periods(target._clock())))


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
    with pytest.raises(NodeNotFound) as failure:
        await client._records.find(stranger)
    count = len(storers_of(overlay, stranger, client))
    assert str(failure.value) == (
        f"none of the {count} relays asked knows the node: is it running, and is the id right?"
    )
    await no_circuit_left(overlay, client)


@pytest.mark.parametrize(
    "lie", [DhtAnswer((b"junk",)), DhtAnswer((bytes(3325), b"more")), DhtAnswer(()), DirData(256, ())]
)
async def test_one_honest_storer_is_enough(overlay, target, client, lie):
    *liars, honest = storers_of(overlay, target.node_id, client)
    for liar in liars:
        answers(liar, lie)
    record = await client._records.find(target.node_id)
    assert record.contents.node_id == target.node_id
    assert len(storers_of(overlay, target.node_id, client)) > LOOKUPS_AT_ONCE
    assert honest not in liars


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


async def test_a_put_is_answered(overlay, target, client):
    now = client._clock()
    key = reach_keys(target.node_id, periods_to_ask(now)[0])[0]
    storer = storers(key, client._client.table, now)[0]
    (record,) = overlay.relays[overlay.index(storer.relay_id)]._store.get(key, now)
    assert await client._records.put(key, record, storer) is StoreResult.STORED
    assert await client._records.put(bytes(32), record, storer) is StoreResult.INVALID
    assert await client._records.put(key, b"junk", storer) is StoreResult.INVALID
    await no_circuit_left(overlay, client)
