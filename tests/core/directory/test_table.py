import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base import limits
from onionrelay.base.errors import ConfigError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import DESCRIPTOR_LIFE, FIRST_SEEN_KEPT, FOUNDING_SPAN, MAX_CONTROL_MESSAGE
from onionrelay.core.directory import table as table_module
from onionrelay.core.directory.table import UNKNOWN_AGE, Outcome, RelayTable
from onionrelay.wire.directory import BUCKETS, DirData, to_control
from tests.core.relays import DAY, NOW, POLICY, TESTNET, Relay, bare, bare_table, local_relays, public_address, table_of
from tests.seeded import SeededRng


def test_a_relay_is_new_then_old_then_newer():
    relay = Relay("a", "127.0.0.1:1")
    table = RelayTable(TESTNET)
    first = relay.describe()
    assert table.add(first, NOW).outcome is Outcome.NEW
    assert table.add(first, NOW).outcome is Outcome.OLD
    relay.seq = 3
    assert table.add(relay.describe(), NOW + 600).outcome is Outcome.NEWER
    assert table.add(first, NOW + 600).outcome is Outcome.OLD
    entry = table.get(relay.relay_id)
    assert entry is not None
    assert (entry.descriptor.seq, entry.first_seen) == (3, NOW)
    assert len(table) == 1


def test_a_second_descriptor_of_the_same_number_is_refused():
    relay = Relay("a", "127.0.0.1:1")
    table = table_of(relay)
    added = table.add(relay.describe(bandwidth=9), NOW)
    assert added.outcome is Outcome.REFUSED
    assert "same sequence number" in added.why
    assert table.get(relay.relay_id).descriptor.bandwidth == 0


@pytest.mark.parametrize("raw", [b"", b"\1", bytes(4096), b"x" * 5000])
def test_bytes_that_are_no_descriptor_are_refused_with_a_reason(raw):
    added = RelayTable(TESTNET).add(raw, NOW)
    assert added.outcome is Outcome.REFUSED
    assert added.why


def test_versions_tell_whether_anything_changed():
    relay = Relay("a", "127.0.0.1:1")
    table = table_of(relay)
    version = table.version
    assert not table.add(relay.describe(), NOW).changed
    assert not table.add(b"", NOW).changed
    assert table.version == version
    relay.seq += 1
    assert table.add(relay.describe(), NOW).changed
    assert table.version != version


def test_iteration_is_in_order_of_the_ids_whatever_the_order_of_arrival():
    relays = local_relays(12)
    forward, backward = table_of(*relays), table_of(*reversed(relays))
    assert [entry.relay_id for entry in forward] == [entry.relay_id for entry in backward]
    assert list(forward) == sorted(forward, key=lambda entry: entry.relay_id.raw)


def test_a_new_signing_key_leaves_the_old_one_good_for_vouchers():
    relay = Relay("a", "127.0.0.1:1")
    table = table_of(relay)
    old = relay.cert.signing_key
    relay.change_signing_key()
    table.add(relay.describe(), NOW)
    relay.seq += 1
    table.add(relay.describe(), NOW)  # a further descriptor under the new key does not push it out
    entry = table.get(relay.relay_id)
    assert entry.signing_keys(NOW) == (relay.cert.signing_key, old)


def test_an_expired_relay_is_dropped_but_not_its_age():
    relay = Relay("b", "127.0.0.1:2")
    table = table_of(Relay("a", "127.0.0.1:1"))
    later = NOW + 2 * FOUNDING_SPAN
    table.add(relay.describe(later), later)
    assert len(table.expire(NOW + DESCRIPTOR_LIFE)) == 1
    assert table.get(relay.relay_id) is not None
    assert [entry.relay_id for entry in table.expire(later + DESCRIPTOR_LIFE)] == [relay.relay_id]
    assert len(table) == 0
    back = later + 5 * DAY
    table.add(relay.describe(back, seq=9), back)
    assert table.age(table.get(relay.relay_id), back) == 5 * DAY


def test_a_relay_that_was_away_for_long_is_young_again():
    relay = Relay("b", "127.0.0.1:2")
    table = table_of(Relay("a", "127.0.0.1:1"))
    later = NOW + 2 * FOUNDING_SPAN
    table.add(relay.describe(later), later)
    table.expire(later + 2 * DAY)
    table.expire(later + 2 * DAY + FIRST_SEEN_KEPT)
    back = later + 3 * DAY + FIRST_SEEN_KEPT
    relay.cert = relay.certify(back + DAY)
    table.add(relay.describe(back, seq=9), back)
    assert table.age(table.get(relay.relay_id), back + 7) == 7


def test_relays_met_at_the_beginning_count_as_old():
    first, same, later = Relay("a", "127.0.0.1:1"), Relay("b", "127.0.0.1:2"), Relay("c", "127.0.0.1:3")
    table = table_of(first)
    table.add(same.describe(NOW), NOW + FOUNDING_SPAN)
    table.add(later.describe(NOW), NOW + FOUNDING_SPAN + 1)
    now = NOW + 2 * FOUNDING_SPAN
    ages = [table.age(table.get(relay.relay_id), now) for relay in (first, same, later)]
    assert ages == [UNKNOWN_AGE, UNKNOWN_AGE, FOUNDING_SPAN - 1]


# Pages


def pages(table):
    bucket, found = 0, []
    while bucket < BUCKETS:
        page = table.page(bucket)
        _, _, body = to_control(page, 0xFFFFFFFF)
        assert len(body) <= MAX_CONTROL_MESSAGE
        assert DirData.decode(page.encode()) == page
        assert page.next_bucket > bucket
        found.append(page)
        bucket = page.next_bucket
    return found


@pytest.mark.parametrize("count", [0, 1, 300])
def test_pages_hold_every_descriptor_once_and_fit_their_messages(count):
    rng = SeededRng(count)
    relays = [bare(f"{n}", public_address(n % 90, n)) for n in range(count)]
    table = bare_table(entry_of_size(entry, 900 + rng.below(3000)) for entry in relays)
    found = [raw for page in pages(table) for raw in page.descriptors]
    assert found == [entry.raw for entry in table]
    assert len(found) == count


def test_a_page_begins_where_it_is_asked_to():
    table = bare_table(bare(f"{n}", public_address(n)) for n in range(90))
    assert table.page(255).descriptors == tuple(entry.raw for entry in table if entry.relay_id.raw[0] == 255)
    assert table.page(128).descriptors == tuple(entry.raw for entry in table if entry.relay_id.raw[0] >= 128)


def entry_of_size(entry, size):
    return table_module.replace(entry, raw=entry.digest.ljust(size, b"."))


def in_bucket(name, group, first_seen=NOW, size=4000):
    """A relay whose id was ground to fall into bucket 7."""
    entry = bare(name, public_address(group), first_seen=first_seen)
    relay_id = RelayId(b"\7" + entry.relay_id.raw[1:])
    return table_module.replace(entry_of_size(entry, size), relay_id=relay_id)


def test_a_flooded_bucket_still_fits_a_message_and_keeps_the_relays_of_other_groups():
    honest = [in_bucket(f"honest {n}", 10 + n, size=1700) for n in range(3)]
    table = bare_table(honest)
    outcomes = {table._admit(in_bucket(f"sybil {n}", n % 2, NOW + n), None, NOW).outcome for n in range(200)}
    assert outcomes == {Outcome.NEW, Outcome.FULL}
    assert all(table.get(entry.relay_id) for entry in honest)
    late = in_bucket("late", 40, NOW + 999)
    assert table._admit(late, None, NOW).changed
    assert table.get(late.relay_id)
    assert all(table.get(entry.relay_id) for entry in honest)
    assert pages(table)


def test_a_full_table_takes_a_relay_of_a_smaller_group_for_the_youngest_of_the_largest(monkeypatch):
    monkeypatch.setattr(table_module, "MAX_RELAYS", 12)
    crowd = [bare(f"crowd {n}", public_address(1, n), first_seen=n) for n in range(9)]
    others = [bare(f"other {n}", public_address(2 + n), first_seen=50) for n in range(3)]
    table = bare_table(crowd + others)
    more = table._admit(bare("one more of the crowd", public_address(1, 99)), None, NOW)
    assert more.outcome is Outcome.FULL
    assert more.why == "the relay table is full"
    assert table._admit(bare("new", public_address(30)), None, NOW).outcome is Outcome.NEW
    assert len(table) == 12
    assert [entry for entry in crowd if table.get(entry.relay_id) is None] == [crowd[-1]]
    assert limits.MAX_RELAYS == 10_000


def test_a_relay_that_is_refused_for_want_of_room_has_driven_nobody_out():
    """It would take the place of one of the crowd and of another relay, but then there is no crowd any more."""
    crowd = [in_bucket(f"crowd {n}", 1, n, size=1000) for n in range(2)]
    table = bare_table([*crowd, *(in_bucket(f"single {n}", 20 + n, size=2000) for n in range(31))])
    before, version = list(table), table.version
    assert table._admit(in_bucket("large", 90, size=4000), None, NOW).outcome is Outcome.FULL
    assert (list(table), table.version, table._absent) == (before, version, {})
    held = table.get(in_bucket("single 0", 20, size=2000).relay_id)
    update = table_module.replace(held, raw=held.raw + bytes(4000))
    assert table._admit(update, held, NOW).outcome is Outcome.FULL
    assert (list(table), table.version) == (before, version)


def test_a_relay_that_was_driven_out_keeps_its_age(monkeypatch):
    monkeypatch.setattr(table_module, "MAX_RELAYS", 3)
    crowd = [bare(f"crowd {n}", public_address(1, n), first_seen=n) for n in range(3)]
    table = bare_table(crowd)
    assert table._admit(bare("new", public_address(2)), None, NOW).changed
    assert table.get(crowd[2].relay_id) is None
    assert table._with_memory(table_module.replace(crowd[2], first_seen=NOW)).first_seen == 2


def test_no_more_ages_are_kept_than_relays(monkeypatch):
    monkeypatch.setattr(table_module, "MAX_RELAYS", 2)
    table = bare_table([])
    for n in range(5):
        table._insert(entry := bare(f"{n}", public_address(1, n)))
        table._retire(entry, NOW)
    assert list(table._absent) == [bare(f"{n}", public_address(1, n)).relay_id for n in (3, 4)]


# The saved table


def saved():
    relays = local_relays(3)
    table = table_of(*relays)
    relays[0].change_signing_key()
    table.add(relays[0].describe(), NOW)
    gone = Relay("gone", "127.0.0.1:1")
    table.add(gone.describe(NOW - DAY), NOW)
    table.expire(NOW + 2 * 3600)
    return table


def test_a_saved_table_comes_back_whole():
    table = saved()
    back = RelayTable.load(table.dump(), TESTNET, NOW)
    assert list(back) == list(table)
    assert back.founded == table.founded
    assert back._absent == table._absent != {}
    assert any(entry.previous_cert for entry in back)
    assert back.dump() == table.dump()


def test_what_has_expired_meanwhile_does_not_come_back():
    back = RelayTable.load(saved().dump(), TESTNET, NOW + DESCRIPTOR_LIFE)
    assert len(back) == 0
    assert len(back._absent) == 4


def test_a_table_of_another_network_is_refused():
    with pytest.raises(ConfigError, match="another network"):
        RelayTable.load(saved().dump(), table_module.replace(TESTNET, net_id=bytes(8)), NOW)


def test_a_table_of_a_test_network_is_not_taken_for_a_public_one():
    with pytest.raises(ConfigError, match="not public"):
        RelayTable.load(saved().dump(), POLICY, NOW)


DUMP = saved().dump()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, len(DUMP) - 1), st.integers(1, 255))
def test_a_damaged_file_is_a_typed_error(at, change):
    for damaged in (DUMP[:at], DUMP[:at] + bytes([DUMP[at] ^ change]) + DUMP[at + 1 :], DUMP + b"\0"):
        with pytest.raises(ConfigError):
            RelayTable.load(damaged, TESTNET, NOW)
