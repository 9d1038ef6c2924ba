import hashlib

import pytest

from onionrelay.base.ids import NodeId
from onionrelay.base.limits import BLIND_PERIOD, CLOCK_SKEW_REFUSED, REACH_EARLY, REACH_KEPT, REACH_REPLICAS
from onionrelay.core.directory.placement import (
    distance,
    is_storable,
    period_start,
    periods_to_ask,
    periods_to_publish,
    reach_keys,
    replica_key,
    storers,
)
from onionrelay.core.path.groups import Side
from onionrelay.crypto.blind import blind_public, period_at
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.descriptor import Roles
from tests.core.relays import ALL_ROLES, DAY, NOW, bare, bare_table, grown_table, public_address

NODE = NodeId(SigningSecret(bytes(32)).public)
PERIOD = period_at(NOW)
START = period_start(PERIOD)
KEY = hashlib.sha256(b"some key").digest()


def test_keys_are_those_of_the_blinded_key_and_differ_by_period_and_replica():
    keys = reach_keys(NODE, PERIOD)
    blinded = blind_public(NODE, PERIOD)
    assert keys == tuple(replica_key(blinded, PERIOD, replica) for replica in range(REACH_REPLICAS))
    place = blinded.raw + PERIOD.to_bytes(8, "big") + b"\1"
    assert keys[1] == hashlib.sha256(b"onionrelay/kd/reach/1\0" + place).digest()
    assert len({*keys, *reach_keys(NODE, PERIOD + 1)}) == 2 * REACH_REPLICAS


def test_storers_are_the_closest_on_the_far_side():
    table = grown_table(60)
    found = storers(KEY, table, NOW)
    assert len(found) == 4
    assert {entry.side for entry in found} == {Side.FAR}
    nearest = min(distance(entry.position, KEY) for entry in table if entry.side is Side.FAR)
    distances = [distance(entry.position, KEY) for entry in found]
    assert distances[0] == nearest
    assert distances == sorted(distances)
    assert max(distances) < min(distance(e.position, KEY) for e in table if e.side is Side.FAR and e not in found)


def test_a_group_holds_a_record_once_however_many_relays_it_puts_close_by():
    crowd = [bare(f"crowd {n}", public_address(3, n)) for n in range(300)]
    table = bare_table([*grown_table(30), *crowd])
    groups = [entry.group for entry in storers(KEY, table, NOW)]
    assert len(set(groups)) == len(groups) == 4


def test_only_willing_relays_with_a_valid_descriptor_store():
    entries = [
        bare("no role", public_address(1), roles=ALL_ROLES & ~Roles.DHT),
        bare("expired", public_address(2), expires=NOW),
        bare("good", public_address(3)),
    ]
    assert storers(KEY, bare_table(entries), NOW) == (entries[2],)


def test_near_side_relays_store_only_where_the_far_side_is_too_small():
    near = [e for e in grown_table(60) if e.side is Side.NEAR]
    far = [e for e in grown_table(60) if e.side is Side.FAR][:2]
    found = storers(KEY, bare_table([*near, *far]), NOW)
    assert [entry.side for entry in found] == [Side.FAR, Side.FAR, Side.NEAR, Side.NEAR]


def test_a_period_lasts_from_noon_to_noon():
    assert START % DAY == 12 * 3600
    assert period_at(START) == PERIOD
    assert period_at(START - 1) == PERIOD - 1


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (START - REACH_EARLY - CLOCK_SKEW_REFUSED - 1, False),
        (START - REACH_EARLY - CLOCK_SKEW_REFUSED, True),
        (START + BLIND_PERIOD + REACH_KEPT - 1, True),
        (START + BLIND_PERIOD + REACH_KEPT, False),
    ],
)
def test_records_are_kept_a_little_before_and_after_their_period(moment, expected):
    assert is_storable(PERIOD, moment) is expected


def test_a_period_is_asked_for_by_everybody_whose_clock_may_say_so():
    assert periods_to_ask(START + DAY // 2) == (PERIOD,)
    assert periods_to_ask(START + 60) == (PERIOD, PERIOD - 1)
    assert periods_to_ask(START - 60) == (PERIOD - 1, PERIOD)


def test_the_next_period_is_published_early_and_the_last_one_a_little_longer():
    assert periods_to_publish(START + DAY // 2, 0) == (PERIOD,)
    assert periods_to_publish(START + BLIND_PERIOD - 7000, 6999) == (PERIOD,)
    assert periods_to_publish(START + BLIND_PERIOD - 7000, 7000) == (PERIOD, PERIOD + 1)
    assert periods_to_publish(START + 60, 0) == (PERIOD - 1, PERIOD)


@pytest.mark.parametrize("offset", range(0, BLIND_PERIOD, 599))
def test_whatever_is_published_may_be_stored_and_whatever_is_asked_for_is_published(offset):
    moment = START + offset
    for early in (0, REACH_EARLY):
        published = periods_to_publish(moment, early)
        assert all(is_storable(period, moment) for period in published)
        assert period_at(moment) in published
        for skew in (-CLOCK_SKEW_REFUSED, 0):
            assert periods_to_ask(moment + skew)[0] in published
        assert set(periods_to_ask(moment + CLOCK_SKEW_REFUSED)) & set(published)
