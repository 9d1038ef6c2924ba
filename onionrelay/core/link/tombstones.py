"""What a link remembers of circuits that are gone, and how it takes cells of circuits it does not know."""

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import TOMBSTONE, TOMBSTONES_PER_LINK, UNKNOWN_CIRCUIT_LIMIT, UNKNOWN_CIRCUIT_WINDOW


class Tombstones:
    """Circuit ids that were destroyed at this end less than TOMBSTONE seconds ago.

    The peer may not have seen our DESTROY yet, so its cells for such a circuit are no violation. But it can have no
    more of them under way than its allowance was.
    """

    __slots__ = ("_graves", "_strays", "_strays_since")

    def __init__(self) -> None:
        self._graves: dict[int, tuple[float, int]] = {}  # oldest first: circ_id -> (forgotten at, allowance left)
        self._strays = 0
        self._strays_since = 0.0

    def bury(self, circ_id: int, allowance: int, now: float) -> None:
        """Remembers a circuit that the peer may still send `allowance` bytes of cells on."""
        self.forget(now)
        self._graves[circ_id] = (now + TOMBSTONE, allowance)

    def __contains__(self, circ_id: int) -> bool:
        return circ_id in self._graves

    def charge(self, circ_id: int, size: int) -> None:
        """Drops a relay cell of a buried circuit. Raises when the peer can not have had the allowance for it."""
        until, allowance = self._graves[circ_id]
        if size > allowance:
            raise ProtocolViolation("cells beyond the allowance of a destroyed circuit")
        self._graves[circ_id] = (until, allowance - size)

    def stray(self, now: float) -> None:
        """Counts a cell of a circuit that never was. Raises when there have been too many of late."""
        if now - self._strays_since > UNKNOWN_CIRCUIT_WINDOW:
            self._strays, self._strays_since = 0, now
        self._strays += 1
        if self._strays > UNKNOWN_CIRCUIT_LIMIT:
            raise ProtocolViolation("too many cells of unknown circuits")

    def forget(self, now: float) -> None:
        """Drops those whose time is over, and the oldest of too many."""
        while self._graves:
            oldest = next(iter(self._graves))
            if self._graves[oldest][0] > now and len(self._graves) < TOMBSTONES_PER_LINK:
                return
            del self._graves[oldest]
