import pytest

from onionrelay.base.limits import VANGUARD_AVOIDED, VANGUARD_LIFE, VANGUARDS_MOST
from onionrelay.core.path.anonymity import clash
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.groups import Side
from onionrelay.core.path.vanguards import Vanguards
from tests.core.path.chance import is_uniform
from tests.core.relays import DAY, NOW, POLICY, bare, bare_table, grown_table, public_address
from tests.seeded import SeededRng

TABLE = grown_table(60, 2, expires=NOW + 100 * DAY)
GUARD = next(entry for entry in TABLE if entry.side is Side.NEAR)


class Client:
    def __init__(self, table=TABLE, seed=1, saved=()):
        self.table = table
        self.rng = SeededRng(seed)
        self.vanguards = Vanguards(saved)
        self.now = NOW

    def usable(self, guard=GUARD, exclude=frozenset()):
        return self.vanguards.usable(guard, Candidates.of(self.table, POLICY, self.now), self.rng, exclude)


def test_three_are_drawn_on_the_near_side_apart_from_the_guard_and_kept():
    client = Client()
    found = client.usable()
    assert len(found) == len({entry.group for entry in found}) == 3
    for entry in found:
        assert entry.side is Side.NEAR
        assert entry.group != GUARD.group
    for _ in range(30):
        client.now += 600
        assert set(client.usable()) == set(found)


def test_two_do_in_a_small_network():
    assert len(Client(grown_table(9)).usable(next(iter(grown_table(9))))) == 2


def test_each_comes_first_equally_often():
    client, candidates = Client(), Candidates.of(TABLE, POLICY, NOW)
    firsts = [client.vanguards.usable(GUARD, candidates, client.rng, frozenset())[0] for _ in range(3000)]
    assert is_uniform([entry.relay_id for entry in firsts], 3)


def test_lives_last_one_to_twelve_days_longer_ones_more_often():
    """The larger of two uniform draws from 1 to 12 days has mean 1 + 11 * 2/3 days; n = 3,000 lives."""
    lives = []
    for seed in range(1000):
        client = Client(seed=seed)
        client.usable()
        lives += [until - NOW for _, until in client.vanguards.saved()]
    low, high = VANGUARD_LIFE
    assert low <= min(lives)
    assert max(lives) <= high
    assert abs(sum(lives) / len(lives) - (low + (high - low) * 2 / 3)) < 3.9 * (high - low) / 18**0.5 / 3000**0.5


def test_a_vanguard_is_replaced_when_its_time_has_come_and_not_before():
    client = Client()
    found = set(client.usable())
    ends = dict(client.vanguards.saved())
    first = min(ends, key=ends.get)
    client.now = ends[first] - 1
    assert set(client.usable()) == found
    client.now += 1
    renewed = set(client.usable())
    assert {entry.relay_id for entry in found - renewed} == {first}
    assert len(renewed) == 3


def test_one_that_cannot_be_reached_is_passed_over_for_a_while_but_kept():
    client = Client()
    down, *others = client.usable()
    client.vanguards.on_failure(down.relay_id, client.now)
    assert set(client.usable()) == set(others)
    client.now += VANGUARD_AVOIDED
    assert set(client.usable()) == {down, *others}
    client.vanguards.on_failure(down.relay_id, client.now)
    client.vanguards.on_success(down.relay_id)
    assert down in client.usable()
    assert len(client.vanguards.saved()) == 3


def test_when_none_can_be_reached_a_few_more_are_drawn_and_then_the_old_ones_are_tried_again():
    client = Client()
    seen = set()
    for _ in range(20):
        ready = client.usable()
        assert ready
        seen.update(ready)
        for entry in ready:
            client.vanguards.on_failure(entry.relay_id, client.now)
    assert len(seen) == VANGUARDS_MOST
    assert set(client.usable()) == seen


def test_what_is_excluded_is_left_out():
    client = Client()
    out, *others = client.usable()
    assert set(client.usable(exclude={out.relay_id})) == set(others)


def test_with_another_guard_those_that_clash_with_it_are_left_out():
    client = Client()
    found = client.usable()
    candidates = Candidates.of(TABLE, POLICY, NOW)
    neighbour = next(e for e in TABLE if e.group == found[0].group and e != found[0])
    assert clash(neighbour, found[0], candidates.rules)
    assert set(client.usable(neighbour)) == set(found[1:])


def test_one_that_left_the_network_is_replaced():
    client = Client()
    gone, *others = client.usable()
    client.table = bare_table(entry for entry in TABLE if entry != gone)
    found = set(client.usable())
    assert len(found) == 3
    assert set(others) < found


def test_saved_ones_come_back_and_a_date_too_far_ahead_is_cut():
    client = Client()
    found = set(client.usable())
    back = Client(seed=9, saved=client.vanguards.saved())
    assert set(back.usable()) == found
    eternal = Client(seed=9, saved=[(entry.relay_id, 1 << 31) for entry in found])
    assert set(eternal.usable()) == found
    assert max(until for _, until in eternal.vanguards.saved()) <= NOW + VANGUARD_LIFE[1]


@pytest.mark.parametrize("count", [0, 1])
def test_where_there_is_nobody_else_there_is_no_vanguard(count):
    guard = bare("guard", public_address(1))
    others = [bare(f"{n}", public_address(9)) for n in range(count)]
    assert Client(bare_table([guard, *others])).usable(guard) == others
