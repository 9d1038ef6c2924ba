from collections import Counter
from math import sqrt

import pytest

from onionrelay.core.path.sampling import Sampler
from tests.core.path.chance import are_alike, is_uniform
from tests.core.relays import bare, public_address
from tests.seeded import SeededRng

HONEST = [bare(f"honest {n}", public_address(n % 300, n), bandwidth=20) for n in range(500)]


def draws(sampler, count, seed=1, acceptable=lambda _: True):
    rng = SeededRng(seed)
    return [sampler.draw(rng, acceptable) for _ in range(count)]


def sybils(count, groups):
    return [bare(f"sybil {n}", public_address(400 + n % groups, n), bandwidth=60) for n in range(count)]


def test_five_thousand_relays_in_ten_groups_weigh_as_much_as_ten():
    """n = 20,000 draws; the share expected is 10/310, and the bound of the design is that plus 0.02."""
    attackers = sybils(5000, 10)
    sampler = Sampler(HONEST + attackers)
    theirs = set(map(id, attackers))
    share = sum(id(entry) in theirs for entry in draws(sampler, 20_000)) / 20_000
    assert share <= 10 / 310 + 0.02
    assert share <= 0.05
    assert abs(share - 10 / 310) < 3.9 * sqrt(10 / 310 / 20_000)
    rng = SeededRng(2)
    everybody = HONEST + attackers
    by_node = sum(id(everybody[rng.below(5500)]) in theirs for _ in range(20_000)) / 20_000
    assert by_node > 0.85, "the control: drawing by node gives the network away"


def test_a_hundred_groups_buy_a_quarter():
    attackers = sybils(5000, 100)
    theirs = set(map(id, attackers))
    share = sum(id(entry) in theirs for entry in draws(Sampler(HONEST + attackers), 20_000)) / 20_000
    assert abs(share - 0.25) < 3.9 * sqrt(0.25 * 0.75 / 20_000)


def test_groups_of_like_relays_are_drawn_alike_and_so_are_relays_within_a_group():
    """n = 30,000 over 100 groups of 1 to 7 relays."""
    entries = [bare(f"{g}/{h}", public_address(g, h), bandwidth=20) for g in range(100) for h in range(1 + g % 7)]
    found = draws(Sampler(entries), 30_000)
    assert is_uniform([entry.group for entry in found], 100)
    crowded = [entry.relay_id for entry in found if entry.group == entries[-1].group]
    assert is_uniform(crowded, 1 + 99 % 7)
    assert not is_uniform([entry.relay_id for entry in found], len(entries)), "the control: not uniform by node"


def test_a_claim_above_the_usual_one_gains_nothing_and_one_below_it_loses():
    def shares(claim):
        usual = [bare(f"usual {n}", public_address(n), bandwidth=20) for n in range(99)]
        own = bare("own", public_address(99), bandwidth=claim)
        return sum(entry is own for entry in draws(Sampler([*usual, own]), 20_000))

    boasting, usual, unknown, modest = shares(60), shares(20), shares(0), shares(14)
    assert boasting == usual == unknown
    assert abs(modest / usual - 1 / 8) < 0.1


def test_no_group_gets_more_than_the_cap_of_the_total():
    """60 slow groups and a fast one: without a cap it would have a third of all draws; 2 % of the total is allowed."""
    slow = [bare(f"slow {n}", public_address(n), bandwidth=10) for n in range(60)]
    fast = [bare(f"fast {n}", public_address(100 + n), bandwidth=20) for n in range(70)]
    weights = Sampler(slow + fast)._bounds
    shares = [after - before for before, after in zip([0.0, *weights], weights, strict=False)]
    assert max(shares) <= 0.02 * (60 * 2**5 + 70 * 2**10) + 1e-9
    few = Sampler([bare("a", public_address(1), bandwidth=10), bare("b", public_address(2), bandwidth=20)])
    found = Counter(entry.descriptor.bandwidth for entry in draws(few, 4000))
    assert is_uniform(found.elements(), 2), "with two groups the cap makes both alike"


def test_a_condition_is_kept_and_does_not_bend_the_rest():
    """n = 20,000 each: what is drawn under a condition is what was drawn without it, the others left out."""
    entries = [bare(f"{n}", public_address(n % 40, n), bandwidth=14 + n % 8) for n in range(120)]
    sampler = Sampler(entries)

    def acceptable(entry):
        return entry.relay_id.raw[0] & 1

    free = [entry.relay_id for entry in draws(sampler, 40_000, 3) if acceptable(entry)]
    bound = [entry.relay_id for entry in draws(sampler, 20_000, 4, acceptable)]
    assert all(relay_id.raw[0] & 1 for relay_id in bound)
    assert are_alike(free, bound)


@pytest.mark.parametrize("seed", range(5))
def test_the_one_acceptable_relay_among_thousands_is_found(seed):
    wanted = HONEST[123]
    assert draws(Sampler(HONEST), 3, seed, lambda entry: entry is wanted) == [wanted] * 3


def test_nothing_to_draw_is_none():
    assert draws(Sampler([]), 1) == [None]
    assert draws(Sampler(HONEST), 1, acceptable=lambda _: False) == [None]
    assert len(Sampler(HONEST)) == 500
    assert Sampler(HONEST).group_count == 300
    assert Sampler([]).group_count == 0
