"""Which relays may stand where on a path: the table, sorted by position (specs/07-directory-and-paths.md)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from onionrelay.base.ids import RelayId
from onionrelay.base.limits import GUARD_AGE, MIDDLE_AGE, VANGUARD_AGE
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.anonymity import Rules, rules_for
from onionrelay.core.path.groups import Side
from onionrelay.core.path.policy import PathPolicy
from onionrelay.core.path.sampling import Sampler
from onionrelay.wire.descriptor import Roles


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rules in force for one state of the table, and who is eligible under them at each position.

    Good for as long as the table's `version` stays, and for the minutes that expiries may lag.
    """

    table: RelayTable
    policy: PathPolicy
    unix_now: int
    rules: Rules
    guards: Sampler
    vanguards: Sampler
    middles: Sampler
    finals: Sampler

    @classmethod
    def of(cls, table: RelayTable, policy: PathPolicy, unix_now: int) -> Self:
        """Sorts the table; linear in the number of relays."""
        rules = rules_for(table, policy, unix_now)
        relays = [entry for entry in table if entry.is_valid(unix_now)]
        near = [e for e in relays if (not rules.sides or e.side is Side.NEAR) and not is_own(e, policy)]
        far = [e for e in relays if not rules.sides or e.side is Side.FAR]

        def known_for(age: int, entries: Iterable[RelayEntry]) -> Iterator[RelayEntry]:
            return (e for e in entries if not rules.ages or table.age(e, unix_now) >= age)

        return cls(
            table,
            policy,
            unix_now,
            rules,
            guards=Sampler(e for e in known_for(GUARD_AGE, near) if e.has(Roles.GUARD)),
            vanguards=Sampler(e for e in known_for(VANGUARD_AGE, near) if e.has(Roles.MIDDLE)),
            middles=Sampler(e for e in known_for(MIDDLE_AGE, far) if e.has(Roles.MIDDLE)),
            finals=Sampler(e for e in known_for(MIDDLE_AGE, far) if e.has(Roles.FINAL)),
        )

    def still(self, relay_id: RelayId, role: Roles) -> RelayEntry | None:
        """A relay that was drawn for the near side before, if it may still stand there; its age no longer matters."""
        entry = self.table.get(relay_id)
        if entry is None or not entry.is_valid(self.unix_now) or not entry.has(role) or is_own(entry, self.policy):
            return None
        return None if self.rules.sides and entry.side is not Side.NEAR else entry


def is_own(entry: RelayEntry, policy: PathPolicy) -> bool:
    """Whether the relay is this process, or shares an address group with it."""
    return entry.relay_id == policy.own_relay or bool(entry.groups & policy.own_groups)
