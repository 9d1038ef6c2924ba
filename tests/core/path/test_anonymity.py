import pytest

from onionrelay.base.errors import NoPath
from onionrelay.base.limits import MIDDLE_AGE
from onionrelay.core.path.anonymity import Apart, anonymity_level, clash, rules_for, same_family
from onionrelay.core.path.policy import Anonymity
from onionrelay.wire.descriptor import Roles
from tests.core.relays import NOW, POLICY, TESTNET, bare, bare_table, local_relays, public_address, table_of


def network(groups, per_group=2, **changes):
    return bare_table(
        bare(f"{group}/{host}", public_address(group, host), **changes)
        for group in range(groups)
        for host in range(per_group)
    )


@pytest.mark.parametrize(
    ("groups", "level"),
    [
        (0, Anonymity.NONE),
        (3, Anonymity.NONE),
        (4, Anonymity.TINY),
        (7, Anonymity.TINY),
        (8, Anonymity.REDUCED),
        (19, Anonymity.REDUCED),
        (20, Anonymity.FULL),
        (60, Anonymity.FULL),
    ],
)
def test_the_level_follows_the_number_of_groups(groups, level):
    assert anonymity_level(network(groups), POLICY, NOW) == (level, groups)


@pytest.mark.parametrize(
    ("groups", "apart", "sides", "vanguards"),
    [(7, Apart.IDENTITY, False, 2), (8, Apart.SUBNET, False, 2), (20, Apart.GROUP, True, 3)],
)
def test_the_rules_follow_it(groups, apart, sides, vanguards):
    rules = rules_for(network(groups), POLICY, NOW)
    assert (rules.apart, rules.sides, rules.ages, rules.vanguards) == (apart, sides, sides, vanguards)


@pytest.mark.parametrize("changes", [{"expires": NOW}, {"roles": Roles.DHT | Roles.STUN}])
def test_only_valid_relays_that_carry_circuits_count(changes):
    table = bare_table([*network(5), *(bare(f"x{n}", public_address(100 + n), **changes) for n in range(30))])
    assert anonymity_level(table, POLICY, NOW) == (Anonymity.TINY, 5)


def test_a_thousand_new_groups_raise_nothing_before_they_are_a_day_old():
    lasting = {"expires": NOW + 2 * MIDDLE_AGE}
    new = [bare(f"x{n}", public_address(100 + n), first_seen=NOW, **lasting) for n in range(200)]
    table = bare_table([*network(19, **lasting), *new])
    assert rules_for(table, POLICY, NOW + MIDDLE_AGE - 1).level is Anonymity.REDUCED
    assert rules_for(table, POLICY, NOW + MIDDLE_AGE).level is Anonymity.FULL


def test_a_test_network_has_the_rules_of_its_size_and_a_level_of_its_own():
    for count, apart, sides in ((3, Apart.IDENTITY, False), (8, Apart.SUBNET, False), (20, Apart.GROUP, True)):
        rules = rules_for(table_of(*local_relays(count)), TESTNET, NOW)
        assert (rules.level, rules.groups) == (Anonymity.TESTNET, count)
        assert (rules.apart, rules.sides, rules.ages) == (apart, sides, False)
        rules.require(Anonymity.FULL)


def test_less_than_the_minimum_is_refused_with_the_numbers():
    tiny = rules_for(network(5), POLICY, NOW)
    tiny.require(Anonymity.TINY)
    with pytest.raises(NoPath, match=r"anonymity is tiny \(5 address groups\), below the minimum reduced"):
        tiny.require(Anonymity.REDUCED)


def test_below_four_groups_there_is_no_private_connection_whatever_the_minimum():
    with pytest.raises(NoPath, match="3 address groups"):
        rules_for(network(3), POLICY, NOW).require(Anonymity.NONE)


# Clashes


def pair(one="9.9.1.1:1", two="8.8.1.1:1", **changes):
    return bare("one", one, **changes), bare("two", two)


RULES = {apart: rules_for(network(size), POLICY, NOW) for apart, size in zip(Apart, (4, 8, 20), strict=True)}


@pytest.mark.parametrize(
    ("one", "two", "clashing"),
    [
        ("9.9.1.1:1", "8.8.1.1:1", set()),
        ("9.9.1.1:1", "9.9.2.1:1", {Apart.GROUP}),
        ("9.9.1.1:1", "9.9.1.2:2", {Apart.GROUP, Apart.SUBNET}),
        ("[2620:0:1::1]:1", "[2620:0:2::1]:1", {Apart.GROUP}),
        ("[2620:0:1::1]:1", "[2620:0:1::2]:1", {Apart.GROUP, Apart.SUBNET}),
    ],
)
def test_addresses_clash_by_the_rule_in_force(one, two, clashing):
    assert {apart for apart, rules in RULES.items() if clash(*pair(one, two), rules)} == clashing


def test_a_relay_clashes_with_itself_under_every_rule():
    one, _ = pair()
    assert all(clash(one, one, rules) for rules in RULES.values())


def test_all_addresses_count():
    both = bare("both", "[2620:0:1::1]:1", "9.9.1.1:1")
    assert clash(both, bare("v6", "[2620:0:7::1]:1"), RULES[Apart.GROUP])
    assert clash(both, bare("v4", "9.9.7.1:1"), RULES[Apart.GROUP])


def test_a_family_counts_only_when_both_say_so():
    one, two = pair()
    claims = bare("one", "9.9.1.1:1", family=(two.relay_id,))
    returns = bare("two", "8.8.1.1:1", family=(one.relay_id,))
    assert not same_family(claims, two)
    assert not same_family(one, returns)
    assert same_family(claims, returns)
    assert clash(claims, returns, RULES[Apart.GROUP])
    assert clash(claims, returns, RULES[Apart.SUBNET])
    assert not clash(claims, returns, RULES[Apart.IDENTITY])
    assert not clash(claims, two, RULES[Apart.GROUP])
