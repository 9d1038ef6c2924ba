"""How much anonymity the relay table can give, and which rules hold at that level (specs/07-directory-and-paths.md).

The level follows from the table alone, so every client with the same table enforces the same rules.
"""

from dataclasses import dataclass
from enum import Enum

from onionrelay.base.errors import NoPath
from onionrelay.base.limits import GROUPS_FULL, GROUPS_REDUCED, GROUPS_TINY, MIDDLE_AGE, VANGUARDS, VANGUARDS_REDUCED
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.policy import Anonymity, PathPolicy
from onionrelay.wire.descriptor import Roles

CARRIES_CIRCUITS = Roles.GUARD | Roles.MIDDLE | Roles.FINAL


class Apart(Enum):
    """What two relays of one pair must not share, beside the identity."""

    IDENTITY = "identity"
    SUBNET = "subnet"  # IPv4 /24, IPv6 /48, and no common family
    GROUP = "group"  # IPv4 /16, IPv6 /32, and no common family


@dataclass(frozen=True, slots=True)
class Rules:
    """The constraints in force. `groups` counts the address groups behind `level`."""

    level: Anonymity
    groups: int
    sides: bool  # near and far side kept apart
    ages: bool  # relays must have been known for a while
    apart: Apart
    vanguards: int

    def require(self, minimum: Anonymity) -> None:
        """Raise NoPath when the network offers less than `minimum`, or nothing at all."""
        if self.level is Anonymity.NONE:
            raise NoPath(f"the network has {self.groups} address groups of relays; a private path needs {GROUPS_TINY}")
        if self.level < minimum:
            raise NoPath(f"anonymity is {self.level} ({self.groups} address groups), below the minimum {minimum}")


def anonymity_level(table: RelayTable, policy: PathPolicy, unix_now: int) -> tuple[Anonymity, int]:
    """The level reported to people, and the number of address groups it rests on."""
    rules = rules_for(table, policy, unix_now)
    return rules.level, rules.groups


def rules_for(table: RelayTable, policy: PathPolicy, unix_now: int) -> Rules:
    """The rules that hold for this table now; only the level named, not the rules, differs on a test network."""
    relays = [entry for entry in table if entry.is_valid(unix_now) and entry.descriptor.roles & CARRIES_CIRCUITS]
    groups = len({entry.group for entry in relays})
    aged = groups if policy.testnet else len({e.group for e in relays if table.age(e, unix_now) >= MIDDLE_AGE})
    if aged >= GROUPS_FULL:
        level = Anonymity.TESTNET if policy.testnet else Anonymity.FULL
        return Rules(level, aged, sides=True, ages=not policy.testnet, apart=Apart.GROUP, vanguards=VANGUARDS)
    level = Anonymity.TESTNET if policy.testnet else _small(groups)
    apart = Apart.SUBNET if groups >= GROUPS_REDUCED else Apart.IDENTITY
    return Rules(level, groups, sides=False, ages=False, apart=apart, vanguards=VANGUARDS_REDUCED)


def _small(groups: int) -> Anonymity:
    if groups >= GROUPS_REDUCED:
        return Anonymity.REDUCED
    return Anonymity.TINY if groups >= GROUPS_TINY else Anonymity.NONE


def clash(one: RelayEntry, other: RelayEntry, rules: Rules) -> bool:
    """Whether the two may not stand together in a pair that has to be independent."""
    if one.relay_id == other.relay_id:
        return True
    match rules.apart:
        case Apart.IDENTITY:
            return False
        case Apart.SUBNET:
            shared = one.subnets & other.subnets
        case Apart.GROUP:
            shared = one.groups & other.groups
    return bool(shared) or same_family(one, other)


def same_family(one: RelayEntry, other: RelayEntry) -> bool:
    """Whether both relays declare the other: one claim alone would let anybody split others' paths."""
    return one.relay_id in other.family and other.relay_id in one.family
