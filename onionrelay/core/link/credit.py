"""Credit: how many bytes of cells one end of a link may send on a circuit. specs/04b-circuits.md, "Credit".

Counted in whole RELAY and RELAY_BULK cells, for each circuit and direction of a link apart, from INITIAL_ALLOWANCE on.
The receiver gives back what has left its queue, so that no relay can be made to hold more than a window per circuit.
"""

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import (
    CREDIT_BATCH_DIVISOR,
    INITIAL_ALLOWANCE,
    LARGE_CELL,
    MAX_ALLOWANCE,
    WINDOW_FLOOR,
    WINDOW_GROWTH_SPAN,
    WINDOW_SHRINK_SPAN,
)


def raised(allowance: int, credit: int) -> int:
    """The sender's allowance after a CREDIT entry; one that would lift it above MAX_ALLOWANCE is ignored."""
    total = allowance + credit
    return total if total <= MAX_ALLOWANCE else allowance


class ReceiveWindow:
    """The receiver's side of one circuit and direction.

    `size`, the window, is what the peer may have under way: `left` of it is not sent yet, as far as has been seen here,
    `held` waits in a queue here, and the rest is owed to the peer. `cells` counts all that ever came.
    """

    __slots__ = ("_granted", "_mark", "_since", "cells", "held", "left", "size")

    def __init__(self, now: float) -> None:
        self.cells = 0
        self.held = 0
        self.left = INITIAL_ALLOWANCE
        self._since = now
        self._granted = 0
        self._resize(INITIAL_ALLOWANCE)

    def take(self, size: int) -> bool:
        """Counts a cell that arrived; True when a grant may be due. Raises when the peer had no allowance for it."""
        self.cells += 1
        self.left = left = self.left - size
        if left > self._mark:
            return False
        if left < 0:
            raise ProtocolViolation("cells beyond the allowance of their circuit")
        return True

    def hold(self, size: int) -> None:
        """A cell that arrived went into a queue and not straight out."""
        self.held += size

    def release(self, size: int) -> None:
        """A queued cell left its queue."""
        self.held -= size

    def grant(self, now: float, round_trip: float) -> int:
        """The credit to send now, 0 while it is not worth a cell. `round_trip` is the link's, in seconds."""
        owed = self.size - self.left - self.held
        if owed < self._batch:
            return 0
        self._granted += owed
        if self._granted >= self.size:
            self._judge(now - self._since, round_trip)
            self._granted, self._since = 0, now
            owed = max(0, self.size - self.left - self.held)
        self.left += owed
        return owed

    def _judge(self, span: float, round_trip: float) -> None:
        """A whole window was used up in `span` seconds: was it too small, or too large?"""
        if span <= max(2 * round_trip, WINDOW_GROWTH_SPAN):
            self._resize(min(2 * self.size, MAX_ALLOWANCE))
        elif span > WINDOW_SHRINK_SPAN and self.held > self.size // 2:
            self._resize(max(self.size // 2, WINDOW_FLOOR))

    def _resize(self, size: int) -> None:
        self.size = size
        self._mark = size - self._batch

    @property
    def _batch(self) -> int:
        """What is owed at least before it is granted: a CREDIT cell per large cell is the most it may cost."""
        return max(self.size // CREDIT_BATCH_DIVISOR, LARGE_CELL)
