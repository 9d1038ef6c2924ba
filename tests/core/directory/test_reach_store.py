import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base.limits import REACH_LIFE, REACH_RECORD, STORED_OVERHEAD
from onionrelay.core.directory.placement import distance, reach_keys
from onionrelay.core.directory.reach_store import ReachStore
from onionrelay.wire.directory import StoreResult
from onionrelay.wire.reach import ReachRecord
from tests.core.reaching import PERIOD, Node
from tests.core.relays import NOW, TESTNET, local_relays

RELAY = local_relays(1)[0]
NODE = Node()
POSITION = hashlib.sha256(b"where this relay stands").digest()
COST = REACH_RECORD + STORED_OVERHEAD


def record(node=NODE, revision=1, unix_now=NOW, **changes):
    return node.record(node.final(RELAY), revision=revision, unix_now=unix_now, **changes)


def key(node=NODE, replica=0, period=PERIOD):
    return reach_keys(node.node_id, period)[replica]


def store(capacity=100 * COST):
    return ReachStore(TESTNET, POSITION, capacity)


def test_a_record_is_kept_under_either_key_of_its_node():
    kept, raw = store(), record()
    for replica in range(2):
        assert kept.put(key(replica=replica), raw, NOW) is StoreResult.STORED
        assert kept.get(key(replica=replica), NOW) == (raw,)
    assert len(kept) == 2
    assert kept.get(bytes(32), NOW) == ()


def test_the_highest_revision_wins_and_an_older_one_is_stale():
    kept, old, new = store(), record(revision=1), record(revision=2)
    assert kept.put(key(), old, NOW) is StoreResult.STORED
    assert kept.put(key(), new, NOW) is StoreResult.STORED
    assert kept.put(key(), new, NOW) is StoreResult.STORED
    assert kept.put(key(), old, NOW) is StoreResult.STALE
    assert kept.put(key(), record(revision=2), NOW) is StoreResult.STALE
    assert kept.get(key(), NOW) == (new,)
    assert (len(kept), kept.used) == (1, COST)


INVALID = {
    "not a record": (key(), b"junk"),
    "the key of another node": (key(Node("other")), record()),
    "the key of another period": (key(period=PERIOD + 1), record()),
    "another network": (key(), record(net_id=bytes(8))),
    "a changed byte": (key(), record()[:-1] + b"\0"),
    "too early": (key(period=PERIOD + 2), record(period=PERIOD + 2)),
    "expired": (key(), record(unix_now=NOW - REACH_LIFE)),
}


@pytest.mark.parametrize("case", INVALID)
def test_what_does_not_hold_is_not_kept(case):
    kept = store()
    assert kept.put(*INVALID[case], NOW) is StoreResult.INVALID
    assert len(kept) == 0


def test_a_record_is_served_until_it_expires():
    kept, raw = store(), record()
    kept.put(key(), raw, NOW)
    assert kept.get(key(), NOW + REACH_LIFE - 1) == (raw,)
    assert kept.get(key(), NOW + REACH_LIFE) == ()
    kept.expire(NOW + REACH_LIFE)
    assert (len(kept), kept.used) == (0, 0)


def test_a_full_store_keeps_what_is_closest_to_it():
    nodes = [Node(f"node {number}") for number in range(12)]
    nodes.sort(key=lambda node: distance(POSITION, key(node)))
    kept = store(4 * COST)
    for node in reversed(nodes):
        assert kept.put(key(node), record(node), NOW) is StoreResult.STORED
    assert [bool(kept.get(key(node), NOW)) for node in nodes] == [True] * 4 + [False] * 8
    assert kept.put(key(nodes[5]), record(nodes[5]), NOW) is StoreResult.FULL
    assert kept.put(key(nodes[3]), record(nodes[3], 2), NOW) is StoreResult.STORED
    assert kept.used == 4 * COST


def test_what_has_expired_makes_room_first():
    near, far = sorted((Node("a"), Node("b")), key=lambda node: distance(POSITION, key(node)))
    kept = store(COST)
    kept.put(key(near), record(near), NOW)
    later = NOW + REACH_LIFE
    assert kept.put(key(far), record(far, unix_now=later), later) is StoreResult.STORED


POOL = [
    (key(node), revision, record(node, revision))
    for node in (Node(f"pool {number}") for number in range(12))
    for revision in (1, 2, 3)
]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from(range(len(POOL))), st.integers(0, 4000)), max_size=40),
)
def test_whatever_is_put_the_store_stays_within_its_bounds_and_never_goes_back(slots, moves):
    kept = store(slots * COST + 17)
    seen: dict[bytes, int] = {}
    now = NOW
    for number, passes in moves:
        now += passes
        where, revision, raw = POOL[number]
        result = kept.put(where, raw, now)
        assert kept.used <= slots * COST + 17
        assert len(kept) <= slots
        assert len(kept) * COST == kept.used
        expired = ReachRecord.decode(raw).expires <= now
        assert (result is StoreResult.INVALID) == expired
        held = kept.get(where, now)
        assert len(held) <= 1
        if held:
            assert ReachRecord.decode(held[0]).revision >= revision
        if result is StoreResult.STORED:
            assert held == (raw,)
            assert revision >= seen.get(where, 0) or expired
            seen[where] = revision
        if result is StoreResult.FULL:
            assert len(kept) == slots
            seen.pop(where, None)
        for other in [each for each in seen if not kept.get(each, now)]:
            del seen[other]
