import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base.errors import ConfigError
from onionrelay.base.limits import (
    GUARD_BACKDATED,
    GUARD_CONFIRMED_LIFE,
    GUARD_LIFE,
    GUARD_UNLISTED,
    GUARDS_PRIMARY,
    GUARDS_SAMPLED,
    GUARDS_SAMPLED_MOST,
    NETWORK_DOWN_AFTER,
    NETWORK_DOWN_RETRY,
)
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.groups import Side
from onionrelay.core.path.guards import Guards
from onionrelay.core.path.policy import PathPolicy
from onionrelay.wire.descriptor import Roles
from tests.core.path.chance import is_uniform
from tests.core.relays import ALL_ROLES, DAY, NET, NOW, POLICY, bare, bare_table, grown_table, public_address
from tests.seeded import SeededRng

LASTING = {"expires": NOW + 1000 * DAY}
TABLE = grown_table(60, **LASTING)


class Client:
    """A client with guards, whose clock the test turns."""

    def __init__(self, table=TABLE, seed=1, guards=None, policy=POLICY):
        self.table = table
        self.policy = policy
        self.rng = SeededRng(seed)
        self.guards = guards or Guards()
        self.now = NOW

    def usable(self):
        return self.guards.usable(Candidates.of(self.table, self.policy, self.now), self.rng)

    def succeed(self, entry):
        self.guards.on_success(entry.relay_id, self.now, self.rng)

    def fail(self, entry):
        self.guards.on_failure(entry.relay_id, self.now)

    @property
    def saved(self):
        return json.loads(self.guards.dump())["guards"]


def test_three_guards_are_drawn_on_the_near_side_and_kept():
    client = Client()
    first = client.usable()
    assert len(first) == GUARDS_PRIMARY
    assert {entry.side for entry in first} == {Side.NEAR}
    for _ in range(50):
        client.now += DAY
        assert client.usable() == first
    assert len(client.saved) == GUARDS_PRIMARY


def test_a_guard_that_works_comes_before_those_not_yet_tried():
    client = Client()
    _, second, third = client.usable()
    client.succeed(third)
    assert client.usable()[0] == third
    client.now += DAY * 30
    client.succeed(second)
    assert client.usable()[:2] == [third, second]


@pytest.mark.parametrize("seed", range(20))
def test_a_guard_that_is_confirmed_later_does_not_overtake(seed):
    """Whatever the dates say, which are set back at random by days; and also after a restart."""
    client = Client(seed=seed)
    first, second, third = client.usable()
    for entry in (second, first, third):
        client.succeed(entry)
    assert client.usable() == [second, first, third]
    assert [guard["relay"] for guard in client.saved] == [str(entry.relay_id) for entry in client.usable()]
    assert Client(guards=Guards.load(client.guards.dump())).usable() == [second, first, third]


def test_guards_are_drawn_by_group():
    """n = 3,000 clients; the near side of 60 groups."""
    candidates = Candidates.of(TABLE, POLICY, NOW)
    firsts = [Guards().usable(candidates, SeededRng(seed))[0].group for seed in range(3000)]
    assert is_uniform(firsts, candidates.guards.group_count)


def test_a_guard_that_fails_is_passed_over_and_tried_again():
    client = Client()
    client.guards.on_network(NOW)
    first, second, third = client.usable()
    client.fail(first)
    assert client.usable() == [second, third]
    client.now += 599
    client.guards.on_network(client.now)
    assert client.usable() == [second, third]
    client.now += 1
    assert client.usable() == [first, second, third]
    client.succeed(first)
    assert client.usable()[0] == first


@pytest.mark.parametrize(
    ("down", "pause"), [(0, 600), (6 * 3600, 5400), (4 * DAY, 14_400), (7 * DAY, 9 * 3600), (90 * DAY, 9 * 3600)]
)
def test_the_longer_a_guard_is_down_the_rarer_it_is_tried(down, pause):
    client = Client()
    first, *others = client.usable()
    client.fail(first)
    client.now += down
    client.fail(first)
    for wait, expected in ((pause - 1, others), (pause, [first, *others])):
        client.guards.on_network(client.now + wait)
        later = Candidates.of(TABLE, POLICY, client.now + wait)
        assert client.guards.usable(later, client.rng) == expected


@pytest.mark.parametrize("groups", [60, 300, 900])
def test_while_the_network_works_other_guards_are_drawn_one_by_one_up_to_a_bound(groups):
    client = Client(grown_table(groups, **LASTING))
    near = len(Candidates.of(client.table, POLICY, NOW).guards)
    bound = min(max(GUARDS_SAMPLED, near // 5), GUARDS_SAMPLED_MOST)
    used = []
    for _ in range(80):
        client.guards.on_network(client.now)
        ready = client.usable()
        if not ready:
            break
        used.append(ready[0])
        client.fail(ready[0])
    assert len(used) == len(set(used)) == len(client.saved) == bound
    assert 0 < client.guards.next_try(client.now) <= 600


def test_when_no_link_works_the_network_is_to_blame_and_no_guard_is_burned():
    client = Client()
    client.guards.on_network(NOW)
    client.now += NETWORK_DOWN_AFTER + 1
    first = client.usable()
    for entry in first:
        client.fail(entry)
    assert client.usable() == []
    assert client.guards.next_try(client.now) == NETWORK_DOWN_RETRY
    client.now += NETWORK_DOWN_RETRY
    assert client.usable() == first
    assert len(client.saved) == GUARDS_PRIMARY


def test_a_guard_keeps_its_place_while_it_is_not_listed_for_a_few_weeks():
    client = Client()
    first, *others = client.usable()
    client.succeed(first)
    without = bare_table(entry for entry in TABLE if entry != first)
    client.table = without
    assert first not in client.usable()
    client.now += GUARD_UNLISTED
    client.usable()
    client.table = TABLE
    assert client.usable()[0] == first
    client.table = without
    client.usable()
    client.now += GUARD_UNLISTED + 1
    client.usable()
    assert str(first.relay_id) not in {guard["relay"] for guard in client.saved}
    assert set(others) <= set(client.usable())


def test_guards_are_replaced_after_months():
    client = Client()
    first, second, third = client.usable()
    client.succeed(first)
    client.now += int((1 - GUARD_BACKDATED) * GUARD_CONFIRMED_LIFE) + 30 * DAY
    client.succeed(second)
    client.now = NOW + GUARD_LIFE + 1
    kept = client.usable()
    assert first not in kept
    assert third not in kept
    assert second in kept
    client.now += GUARD_CONFIRMED_LIFE
    assert second not in client.usable()


def test_dates_are_set_back_at_random():
    dates = []
    for seed in range(200):
        client = Client(seed=seed)
        entry, *_ = client.usable()
        client.succeed(entry)
        guard = client.saved[0]
        dates.append((NOW - guard["added"], NOW - guard["confirmed"]))
    for index, life in enumerate((GUARD_LIFE, GUARD_CONFIRMED_LIFE)):
        backs = [date[index] for date in dates]
        assert 0 <= min(backs) < 0.02 * life
        assert 0.08 * life < max(backs) <= GUARD_BACKDATED * life


def test_a_process_is_not_its_own_guard_nor_is_its_neighbour():
    near = [entry for entry in TABLE if entry.side is Side.NEAR]
    policy = PathPolicy(NET, own_relay=near[0].relay_id, own_groups=frozenset({near[1].group}))
    seen = {entry for seed in range(300) for entry in Client(seed=seed, policy=policy).usable()}
    assert seen == set(near[2:])


def test_only_willing_relays_become_guards_and_an_unwilling_one_is_one_no_longer():
    unwilling = bare("no", public_address(1), roles=ALL_ROLES & ~Roles.GUARD)
    others = [bare(f"{n}", public_address(10 + n)) for n in range(3)]
    client = Client(bare_table([unwilling, *others]))
    assert set(client.usable()) == set(others)
    client.table = bare_table([unwilling, *others[1:]])
    assert set(client.usable()) == set(others[1:])


def test_young_relays_become_no_guards_in_a_large_network():
    young = [bare(f"y{n}", public_address(100 + n), first_seen=NOW - 7 * DAY) for n in range(100)]
    old = list(TABLE)
    for seed in range(50):
        assert not set(Client(bare_table([*old, *young]), seed).usable()) & set(young)


# Saving


def lived_in():
    client = Client()
    _, second, _ = client.usable()
    client.succeed(second)
    client.guards.vanguards.usable(second, Candidates.of(TABLE, POLICY, NOW), client.rng, frozenset())
    return client


def test_guards_survive_a_restart():
    client = lived_in()
    back = Client(guards=Guards.load(client.guards.dump()))
    assert back.usable() == client.usable()
    assert back.guards.vanguards.saved() == client.guards.vanguards.saved() != []
    assert back.guards.dump() == client.guards.dump()


def test_the_version_tells_when_to_save():
    client = Client()
    versions = [client.guards.version]
    entry, *_ = client.usable()
    versions.append(client.guards.version)
    client.usable()
    client.fail(entry)
    assert client.guards.version == versions[-1]
    client.succeed(entry)
    versions.append(client.guards.version)
    client.succeed(entry)
    assert client.guards.version == versions[-1]
    client.guards.vanguards.usable(entry, Candidates.of(TABLE, POLICY, NOW), client.rng, frozenset())
    versions.append(client.guards.version)
    assert len(set(versions)) == len(versions)


GOOD = lived_in().guards.dump()


def changed(**fields):
    return json.dumps(json.loads(GOOD) | fields).encode()


def with_guard(**fields):
    guards = json.loads(GOOD)["guards"]
    return changed(guards=[guards[0] | fields, *guards[1:]])


DAMAGED = {
    "empty": b"",
    "cut short": GOOD[: len(GOOD) // 2],
    "not JSON": b"\0\xff\xfe",
    "not UTF-8": GOOD.replace(b"added", b"\xff\xff\xff\xff\xff"),
    "another shape": b"[1, 2]",
    "deep": b"[" * 100_000,
    "another version": changed(version=2),
    "an unknown field": changed(colour="red"),
    "no guards": json.dumps({"version": 1, "vanguards": []}).encode(),
    "a node id for a relay id": with_guard(relay="onr1q" + "q" * 58),
    "an id with a wrong letter": with_guard(relay=json.loads(GOOD)["guards"][0]["relay"][:-1] + "b"),
    "a date that is text": with_guard(added="yesterday"),
    "a date before all time": with_guard(added=-1),
    "a date after all time": with_guard(confirmed=1 << 40),
    "a number beyond all numbers": with_guard(added=10**400),
    "a guard twice": changed(guards=json.loads(GOOD)["guards"][:1] * 2),
    "a vanguard twice": changed(vanguards=json.loads(GOOD)["vanguards"][:1] * 2),
    "far too many": changed(guards=json.loads(GOOD)["guards"] * 40),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_a_typed_error(case):
    with pytest.raises(ConfigError, match="saved guards"):
        Guards.load(DAMAGED[case])


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 4))
def test_any_damage_is_a_typed_error_or_gives_guards_that_work(at, put, cut):
    damaged = GOOD[:at] + put + GOOD[at + cut :]
    try:
        guards = Guards.load(damaged)
    except ConfigError:
        return
    assert len(Client(guards=guards).usable()) >= 1
