"""What one process takes as given when it judges descriptors, records and paths (specs/07-directory-and-paths.md)."""

from dataclasses import dataclass, field
from enum import IntEnum

from onionrelay.base.ids import RelayId


class Anonymity(IntEnum):
    """How much the network can offer, in the order `min_anonymity` compares; a test network satisfies every minimum."""

    NONE = 0  # fewer than 4 address groups: no private connection at all
    TINY = 1
    REDUCED = 2
    FULL = 3
    TESTNET = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class PathPolicy:
    """The network, and where we stand in it.

    `testnet` comes from the network file and from nowhere else. `own_relay` and `own_groups` (address groups of our
    own public addresses) keep a process from being its own guard, vanguard or final hop; middles are not filtered by
    them, since a target that watches many circuits would notice who never appears.
    """

    net_id: bytes
    testnet: bool = False
    min_anonymity: Anonymity = Anonymity.REDUCED
    own_relay: RelayId | None = None
    own_groups: frozenset[bytes] = field(default=frozenset())
