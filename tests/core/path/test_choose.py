import itertools

import pytest

from onionrelay.base.errors import NoPath, UsageError
from onionrelay.core.directory.reach import UsableFinal
from onionrelay.core.path.anonymity import clash
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.choose import choose_path, choose_storer_path
from onionrelay.core.path.groups import Side
from onionrelay.core.path.guards import Guards
from onionrelay.core.path.policy import Anonymity, PathPolicy
from onionrelay.wire.descriptor import Roles
from tests.core.path.chance import are_alike, is_uniform
from tests.core.reaching import Node
from tests.core.relays import (
    ALL_ROLES,
    DAY,
    NET,
    NOW,
    POLICY,
    TESTNET,
    bare,
    bare_table,
    grown_table,
    local_relays,
    public_address,
    table_of,
)
from tests.seeded import SeededRng

VOUCHER = Node().final(local_relays(1)[0]).voucher
TINY = PathPolicy(NET, min_anonymity=Anonymity.TINY)


def finals_at(entries):
    return [UsableFinal(entry, VOUCHER, bytes(32)) for entry in entries]


def far_of(table, count=3):
    return finals_at([entry for entry in table if entry.side is Side.FAR][:count])


class Client:
    def __init__(self, table, policy=POLICY, seed=1):
        self.table = table
        self.policy = policy
        self.rng = SeededRng(seed)
        self.guards = Guards()
        self.candidates = Candidates.of(table, policy, NOW)

    def choose(self, finals, **options):
        options.setdefault("candidates", self.candidates)
        return choose_path(self.table, finals, self.guards, self.rng, self.policy, unix_now=NOW, **options)

    def reach(self, storer, **options):
        options.setdefault("candidates", self.candidates)
        return choose_storer_path(self.table, storer, self.guards, self.rng, self.policy, unix_now=NOW, **options)


LARGE = grown_table(60, 2)
FINALS = far_of(LARGE)


@pytest.mark.parametrize(
    ("hops", "roles"),
    [
        (3, ("guard", "middle", "final")),
        (4, ("guard", "vanguard", "middle", "final")),
        (5, ("guard", "vanguard", "middle", "middle", "final")),
    ],
)
def test_a_path_has_as_many_relays_as_asked_for(hops, roles):
    path = Client(LARGE).choose(FINALS, hops=hops)
    assert path.roles == roles
    assert len(path.relays) == hops
    assert path.relays[-1] == path.last == path.final.entry
    assert path.final in FINALS
    assert (path.anonymity, path.groups) == (Anonymity.FULL, 60)


@pytest.mark.parametrize("hops", [0, 2, 6])
def test_other_lengths_are_refused(hops):
    with pytest.raises(UsageError, match="3 to 5"):
        Client(LARGE).choose(FINALS, hops=hops)


@pytest.mark.parametrize("seed", range(60))
def test_guard_and_vanguard_stand_near_the_others_far_and_pairs_are_apart(seed):
    client = Client(LARGE, seed=seed)
    path = client.choose(FINALS, hops=5)
    assert {path.guard.side, path.vanguard.side} == {Side.NEAR}
    assert {entry.side for entry in (*path.middles, path.last)} == {Side.FAR}
    rules = client.candidates.rules
    assert not clash(path.guard, path.vanguard, rules)
    for one, other in itertools.combinations((*path.middles, path.last), 2):
        assert not clash(one, other, rules)


def test_the_guard_stays_and_vanguards_come_from_a_small_set():
    client = Client(LARGE)
    paths = [client.choose(FINALS) for _ in range(500)]
    assert len({path.guard.relay_id for path in paths}) == 1
    assert len({path.vanguard.relay_id for path in paths}) == 3
    assert len({path.middles for path in paths}) > 30


def test_the_final_hop_is_drawn_uniformly_from_those_of_the_record():
    """n = 6,000."""
    client = Client(LARGE)
    assert is_uniform([client.choose(FINALS).last.relay_id for _ in range(6000)], 3)


# What the target can see


def seen_by_the_target(client, count, **options):
    for _ in range(count):
        path = client.choose(FINALS[:1], **options)
        yield path.middles[-1].relay_id, path.last.relay_id


def guard_of(client):
    return client.choose(FINALS[:1]).guard


def clients_of_different_guards(table, policy=POLICY):
    clients = [Client(table, policy, seed) for seed in range(40)]
    first = clients[0]
    other = next(client for client in clients if guard_of(client).group != guard_of(first).group)
    return first, other


@pytest.mark.parametrize("hops", [3, 4])
def test_middle_and_final_hop_do_not_depend_on_guard_and_vanguards(hops):
    """n = 2 x 20,000 circuits of two clients towards one hostile target, chi-square at 1e-4."""
    one, other = clients_of_different_guards(LARGE)
    samples = [list(seen_by_the_target(client, 20_000, hops=hops)) for client in (one, other)]
    assert are_alike(*samples)
    assert is_uniform([middle for middle, _ in samples[0]], len(set(samples[0])))


def test_the_control_a_rule_between_middle_and_guard_would_be_noticed():
    """The same in a network too small for sides, where a middle is never the guard: that must show. n = 2 x 6,000."""
    small = bare_table([*list(grown_table(14)), FINALS[0].entry])
    one, other = clients_of_different_guards(small)
    assert not one.candidates.rules.sides
    samples = [list(seen_by_the_target(client, 6000)) for client in (one, other)]
    assert not are_alike(*samples)
    assert guard_of(one).relay_id not in {middle for middle, _ in samples[0]}


def test_hostile_relays_become_the_guard_of_a_few_users_for_good_and_not_of_all_in_the_end():
    """n = 1,500 users with 20 circuits each; a tenth of the near side's groups is hostile and full of relays."""
    groups = [n for n in range(120) if bare("x", public_address(n)).side is Side.NEAR]
    hostile = set(groups[: len(groups) // 10])
    relays = [bare(f"{g}/{h}", public_address(g, h)) for g in range(120) for h in range(30 if g in hostile else 1)]
    table = bare_table(relays)
    bad = {entry.relay_id for entry in relays if int(entry.descriptor.endpoint.ipv4.host.split(".")[1]) in hostile}
    candidates = Candidates.of(table, POLICY, NOW)
    finals = far_of(table)
    share = len(hostile) / candidates.guards.group_count
    caught = ever = 0
    for seed in range(1500):
        client = Client.__new__(Client)
        client.table, client.policy, client.candidates = table, POLICY, candidates
        client.rng, client.guards = SeededRng(seed), Guards()
        used = {client.choose(finals, hops=3).guard.relay_id for _ in range(20)}
        caught += bool(used & bad)
        ever += any(candidates.guards.draw(client.rng, lambda _: True).relay_id in bad for _ in range(20))
    deviation = (share * (1 - share) / 1500) ** 0.5
    assert abs(caught / 1500 - share) < 3.9 * deviation
    assert ever / 1500 > 0.8, "the control: a fresh guard for each circuit"


# What is left out


def test_excluded_relays_are_passed_over():
    client = Client(LARGE)
    away = FINALS[0].entry.relay_id
    paths = [client.choose(FINALS, exclude={away}) for _ in range(50)]
    assert {path.last.relay_id for path in paths} == {final.entry.relay_id for final in FINALS[1:]}
    first = client.choose(FINALS)
    exclude = {first.middles[0].relay_id, first.vanguard.relay_id}
    for _ in range(100):
        path = client.choose(FINALS, exclude=exclude)
        assert not exclude & {entry.relay_id for entry in path.relays}


def test_the_guard_changes_only_when_it_is_said_to_have_failed():
    client = Client(LARGE)
    guard = client.choose(FINALS).guard
    assert client.choose(FINALS, exclude={guard.relay_id}).guard == guard
    client.guards.on_network(NOW)
    client.guards.on_failure(guard.relay_id, NOW)
    assert client.choose(FINALS).guard != guard


def test_the_latest_descriptor_of_the_final_hop_is_used():
    client = Client(LARGE)
    newer = bare("newer", "9.9.9.9:443")
    old = FINALS[0].entry
    client.table = bare_table([*LARGE, newer])
    client.table._entries[old.relay_id] = newer
    assert client.choose(FINALS[:1]).last == newer or newer.side is Side.NEAR


def test_young_relays_carry_nothing_in_a_large_network():
    young = [bare(f"y{n}", public_address(100 + n), first_seen=NOW - DAY + 1) for n in range(100)]
    client = Client(bare_table([*LARGE, *young]))
    seen = {entry for _ in range(300) for entry in client.choose(FINALS, hops=5).relays}
    assert not seen & set(young)
    assert len(seen) > 40


# Small networks


@pytest.mark.parametrize("count", [4, 5, 7, 8, 12, 19])
@pytest.mark.parametrize("hops", [3, 4])
def test_in_a_small_network_all_hops_differ(count, hops):
    table = grown_table(count)
    finals = finals_at(list(table)[:3])
    for seed in range(12):
        client = Client(table, TINY, seed)
        for _ in range(20):
            path = client.choose(finals, hops=hops)
            assert len({entry.relay_id for entry in path.relays}) == hops


def test_five_relays_of_a_test_network_are_enough_whichever_is_down():
    relays = local_relays(5)
    table = table_of(*relays)
    for down in relays:
        finals = finals_at(table.get(relay.relay_id) for relay in relays[:3] if relay is not down)
        for seed in range(10):
            client = Client(table, TESTNET, seed)
            client.guards.on_failure(down.relay_id, NOW)
            for _ in range(5):
                try:
                    path = client.choose(finals, exclude={down.relay_id})
                except NoPath:
                    pytest.fail(f"no path without {down.name}")
                if path.guard.relay_id == down.relay_id:
                    client.guards.on_network(NOW)
                    client.guards.on_failure(down.relay_id, NOW)
                else:
                    assert down.relay_id not in {entry.relay_id for entry in path.relays}
            assert path.anonymity is Anonymity.TESTNET


def test_three_relays_of_a_test_network_carry_three_hops():
    table = table_of(*local_relays(3))
    path = Client(table, TESTNET).choose(finals_at(table), hops=3)
    assert len({entry.relay_id for entry in path.relays}) == 3


def test_when_the_only_final_hop_is_the_guard_another_guard_is_used():
    table = table_of(*local_relays(6))
    for seed in range(20):
        client = Client(table, TESTNET, seed)
        guard = client.choose(finals_at(table)).guard
        path = client.choose(finals_at([guard]))
        assert path.last == guard != path.guard


# No path


def reason(client, finals=FINALS, **options):
    with pytest.raises(NoPath) as caught:
        client.choose(finals, **options)
    return str(caught.value)


def without(role, side):
    def roles(group):
        entry = bare("x", public_address(group))
        return ALL_ROLES & ~role if entry.side is side else ALL_ROLES

    return bare_table(bare(f"{g}", public_address(g), roles=roles(g)) for g in range(60))


def test_no_final_hop():
    assert reason(Client(LARGE), []) == "none of the target's 0 final hops is left to try"
    everybody = {final.entry.relay_id for final in FINALS}
    assert reason(Client(LARGE), exclude=everybody) == "none of the target's 3 final hops is left to try"


def test_no_guard():
    assert reason(Client(without(Roles.GUARD, Side.NEAR))).startswith("no guard among the 0 address groups")


def test_no_vanguard():
    table = without(Roles.MIDDLE, Side.NEAR)
    assert "no vanguard that does not clash with the guard among the 0 address groups" in reason(Client(table))
    assert len(Client(table).choose(FINALS, hops=3).relays) == 3


def test_no_middle():
    table = without(Roles.MIDDLE, Side.FAR)
    assert "no middle relay left that keeps apart from the last one, among 0 address groups" in reason(Client(table))


def test_a_final_hop_on_the_near_side():
    near = finals_at(entry for entry in LARGE if entry.side is Side.NEAR)
    assert reason(Client(LARGE), near) == "the final hop is on the near side"


def test_guards_that_do_not_answer():
    client = Client(LARGE)
    for entry in client.guards.usable(client.candidates, client.rng):
        client.guards.on_failure(entry.relay_id, NOW)
    assert reason(client) == "no guard answers; the next try is in 10 s"


def test_a_network_below_the_minimum():
    table = grown_table(7)
    assert "anonymity is tiny (7 address groups), below the minimum reduced" in reason(Client(table), far_of(table))
    assert "3 address groups" in reason(Client(grown_table(3), TINY), far_of(grown_table(3)))


def test_four_relays_cannot_make_five_hops():
    table = table_of(*local_relays(4))
    assert "no middle relay left" in reason(Client(table, TESTNET), finals_at(table), hops=5)


# Paths to storers


@pytest.mark.parametrize("hops", [3, 4, 5])
def test_a_question_for_a_storer_takes_a_path_like_any_other(hops):
    client = Client(LARGE)
    storer = FINALS[0].entry
    path = client.reach(storer, hops=hops)
    assert path.last == storer
    assert path.final is None
    assert path.roles[-1] == "storer"
    assert len({entry.relay_id for entry in path.relays}) == hops
    assert {entry.side for entry in (*path.middles, path.last)} == {Side.FAR}


def test_a_storer_on_the_near_side_is_not_asked_in_a_large_network():
    near = next(entry for entry in LARGE if entry.side is Side.NEAR)
    with pytest.raises(NoPath, match="the storer is on the near side"):
        Client(LARGE).reach(near)


@pytest.mark.parametrize("count", [4, 5, 8, 19])
def test_in_a_small_network_the_guard_is_not_asked_and_every_other_storer_is_through_it(count):
    for seed in range(10):
        client = Client(grown_table(count), TINY, seed)
        guard, *_ = client.guards.usable(client.candidates, client.rng)
        with pytest.raises(NoPath, match="the storer is the guard of this path"):
            client.reach(guard)
        others = [entry for entry in client.table if entry != guard]
        assert {client.reach(storer).guard for storer in others for _ in range(3)} == {guard}


def test_a_storer_that_is_a_guard_which_does_not_answer_may_be_asked():
    client = Client(grown_table(8))
    client.guards.on_network(NOW)
    guard, second, _ = client.guards.usable(client.candidates, client.rng)
    client.guards.on_failure(guard.relay_id, NOW)
    assert client.reach(guard).guard == second


def test_sorting_the_table_anew_gives_the_same_path():
    one, other = Client(LARGE), Client(LARGE)
    assert one.choose(FINALS) == other.choose(FINALS, candidates=None)
