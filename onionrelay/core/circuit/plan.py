"""What a client asks to be built. specs/04b-circuits.md, "At the client"."""

from dataclasses import dataclass, field

from onionrelay.base.errors import UsageError
from onionrelay.base.limits import SLOTS
from onionrelay.crypto.onion_keys import OnionPublic
from onionrelay.wire.build import BuildRecord, Role


@dataclass(frozen=True, slots=True)
class PlannedHop:
    """One hop: its identity (32, relay or node id), its onion keys, and what it is told.

    The record of a hop with role HANDLE needs no ticket: the ticket proves the plan's `k_ticket` over a key that is
    drawn while the circuit is sealed.
    """

    identity: bytes
    onion: OnionPublic
    record: BuildRecord


@dataclass(frozen=True, slots=True)
class CircuitPlan:
    """The hops in path order; the first is the peer of the channel it is opened over.

    `lifetime` in seconds: the client ends the circuit then at the latest. `k_ticket` (32): the secret from the target's
    reach record, for the hop with role HANDLE.
    """

    hops: tuple[PlannedHop, ...]
    lifetime: float
    k_ticket: bytes = field(default=bytes(32), repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.hops) <= SLOTS:
            raise UsageError(f"a circuit has 1 to {SLOTS} hops, not {len(self.hops)}")
        *passing, last = self.hops
        if last.record.role is not Role.ENDPOINT or any(hop.record.role is Role.ENDPOINT for hop in passing):
            raise UsageError("the last hop of a circuit, and no other, is its endpoint")
        if len({hop.record.bulk for hop in self.hops}) > 1:
            raise UsageError("large cells are allowed to all hops of a circuit or to none")
