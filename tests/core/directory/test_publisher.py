import pytest

from onionrelay.base.limits import REACH_REPLICAS, REACH_STORERS
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
