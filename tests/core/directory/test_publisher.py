import itertools

import pytest

from onionrelay.base.limits import PUBLISH_TRIES, REACH_REPLICAS, REACH_STORERS, REVISION_SKIP, REVISION_SKIP_MOST
from onionrelay.core.directory.placement import period_start, reach_keys, storers
from onionrelay.core.directory.publisher import Publisher
from onionrelay.core.directory.reach import open_record
from onionrelay.core.directory.reach_store import ReachStore
from onionrelay.wire.directory import StoreResult
from onionrelay.wire.reach import ReachRecord
from tests.core.reaching import PERIOD, Node
from tests.core.relays import NOW, TESTNET, local_relays, table_of
from tests.seeded import SeededRng

RELAYS = local_relays(12)
TABLE = table_of(*RELAYS)
NODE = Node()
CONTENTS = NODE.contents(NODE.final(RELAYS[0]))


def publisher(seed=1):
    return Publisher(NODE.secret, TESTNET, SeededRng(seed))


def test_a_record_goes_to_every_storer_of_every_key():
    puts = publisher().puts(CONTENTS, (PERIOD,), TABLE, NOW)
    expected = {(key, s.relay_id) for key in reach_keys(NODE.node_id, PERIOD) for s in storers(key, TABLE, NOW)}
    assert {(put.key, put.storer.relay_id) for put in puts} == expected
    assert len(puts) == REACH_REPLICAS * REACH_STORERS
    assert len({put.record for put in puts}) == 1
    assert open_record(puts[0].record, NODE.node_id, TABLE, NOW, TESTNET).finals


def test_each_publication_is_a_new_revision_under_the_same_record_key():
    publishing = publisher()
    records = [ReachRecord.decode(publishing.puts(CONTENTS, (PERIOD,), TABLE, NOW)[0].record) for _ in range(3)]
    assert [record.revision for record in records] == [records[0].revision + n for n in range(3)]
    assert len({record.record_key for record in records}) == 1
    assert len({record.salt for record in records}) == 3


def test_each_period_has_its_own_keys_which_are_forgotten_with_it():
    publishing = publisher()
    now = period_start(PERIOD + 1) - 60
    both = [ReachRecord.decode(put.record) for put in publishing.puts(CONTENTS, (PERIOD, PERIOD + 1), TABLE, now)]
    assert len({(r.period, r.blinded, r.record_key) for r in both}) == 2
    publishing.puts(CONTENTS, (PERIOD + 1,), TABLE, now + 60)
    assert set(publishing._secrets) == set(publishing._revisions) == {PERIOD + 1}


def tries(store, publishing, now):
    """How many publications it takes until one is stored."""
    count = 1
    while True:
        put = publishing.puts(CONTENTS, (PERIOD,), TABLE, now)[0]
        if store.put(put.key, put.record, now) is StoreResult.STORED:
            return count
        publishing.on_stale(PERIOD)
        count += 1


def test_ten_starts_in_ten_minutes_take_two_tries_each():
    store = ReachStore(TESTNET, bytes(32))
    start = NOW - NOW % 600
    assert [tries(store, publisher(n), start + 60 * n + 30) for n in range(10)] == [1, *[2] * 9]
    assert tries(store, publisher(11), start + 600) == 1


def test_a_publication_gets_past_three_starts_in_the_same_minute():
    store = ReachStore(TESTNET, bytes(32))
    minute = NOW - NOW % 600 + 120
    assert [tries(store, publisher(n), minute + n) for n in range(4)] == [1, 2, 3, PUBLISH_TRIES]


def test_skips_double_up_to_a_bound_and_are_forgotten_with_the_period():
    publishing, revisions = publisher(), []
    for _ in range(12):
        publishing.on_stale(PERIOD)
        revisions.append(publishing._revisions[PERIOD])
    steps = [after - before - 1 for before, after in itertools.pairwise(revisions)]
    assert steps == [*(REVISION_SKIP << n for n in range(1, 8)), *[REVISION_SKIP_MOST] * 4]
    publishing.puts(CONTENTS, (PERIOD,), TABLE, NOW)
    publishing.puts(CONTENTS, (PERIOD + 1,), TABLE, NOW)
    assert not publishing._skips


@pytest.mark.parametrize("earlier", [1, 200])
def test_a_publisher_that_restarted_gets_past_its_own_older_record(earlier):
    store = ReachStore(TESTNET, bytes(32))
    before, after = publisher(1), publisher(2)
    for _ in range(earlier):
        put = before.puts(CONTENTS, (PERIOD,), TABLE, NOW)[0]
        assert store.put(put.key, put.record, NOW) is StoreResult.STORED
    put = after.puts(CONTENTS, (PERIOD,), TABLE, NOW)[0]
    assert store.put(put.key, put.record, NOW) is StoreResult.STALE
    after.on_stale(PERIOD)
    put = after.puts(CONTENTS, (PERIOD,), TABLE, NOW)[0]
    assert store.put(put.key, put.record, NOW) is StoreResult.STORED
