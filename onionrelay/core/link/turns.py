"""Whose cells leave next on a link that is full: quiet circuits first. specs/04b-circuits.md, "Queues".

The rule is the one of RFC 8290 (FQ-CoDel) for sparse flows. It stands in for Tor's moving average of each circuit's
rate: it keeps no clock and no history, costs the same however many circuits wait, and serves the one purpose, that a
keystroke does not queue behind a download, as well.
"""

from collections import deque
from typing import Generic, Protocol, TypeVar

from onionrelay.base.limits import LARGE_CELL

QUANTUM = LARGE_CELL  # bytes a circuit may send before the next one's turn


class Waiting(Protocol):
    """A circuit in line. The last two attributes are the line's own."""

    enlisted: bool
    turn: int

    @property
    def ready(self) -> bool:
        """Whether it has a cell to send, and the credit for it."""
        ...


Circuit = TypeVar("Circuit", bound=Waiting)


class Turns(Generic[Circuit]):
    """A circuit that starts to wait is quiet and served before all that have waited; after one quantum it is busy.

    Busy circuits take turns of one quantum. A quiet one that runs dry passes through the busy line before it leaves:
    otherwise, by offering one cell at a time, it would always be quiet.
    """

    __slots__ = ("_busy", "_quiet")

    def __init__(self) -> None:
        self._quiet: deque[Circuit] = deque()
        self._busy: deque[Circuit] = deque()

    def enlist(self, circuit: Circuit) -> None:
        """Lets a circuit wait for its turn, unless it does already."""
        if not circuit.enlisted:
            circuit.enlisted = True
            circuit.turn = QUANTUM
            self._quiet.append(circuit)

    def next(self) -> Circuit | None:
        """The ready circuit whose turn it is; it stays in line, and pays for what it sends by lowering its `turn`."""
        while line := self._quiet or self._busy:
            circuit = line[0]
            if circuit.ready and circuit.turn > 0:
                return circuit
            line.popleft()
            if circuit.ready:
                circuit.turn += QUANTUM
                self._busy.append(circuit)
            elif line is self._quiet:
                self._busy.append(circuit)
            else:
                circuit.enlisted = False
        return None
