"""What the links and circuits of one engine share."""

from typing import TYPE_CHECKING, Protocol

from onionrelay.base.limits import LARGE_CELL, QUEUE_FULL, QUEUE_MEMORY, QUEUE_REFUSE, QUEUE_RELIEVED
from onionrelay.base.seams import Rng
from onionrelay.core.effects import Effect
from onionrelay.core.timers import Timers

if TYPE_CHECKING:
    from onionrelay.core.circuit.side import CircuitSide
    from onionrelay.core.link.channel import Channel

SPARE = 16  # bytes behind a cell that the layer's cipher may scribble on and restores


class Timed(Protocol):
    """An owner of a timer."""

    def on_timeout(self) -> None:
        """The time it set has come."""
        ...


class Runtime:
    """The moment of the current pass, chance, timers, and what is to be done once the pass is over.

    A pass is one call of an `Engine` method. `dirty`: channels whose outbox grew. `owing`: circuit sides whose peer may
    be due credit. `backlogged`: sides with queued cells, `queued` bytes in all. `scratch`: where the ends seal a cell.
    """

    __slots__ = (
        "backlogged",
        "circuits",
        "dirty",
        "effects",
        "half_open",
        "net_id",
        "node_ends",
        "now",
        "owing",
        "queue_memory",
        "queued",
        "rng",
        "scratch",
        "timers",
        "unix_now",
    )

    def __init__(self, *, net_id: bytes, rng: Rng, now: float, queue_memory: int = QUEUE_MEMORY) -> None:
        self.net_id = net_id
        self.rng = rng
        self.now = now
        self.unix_now = 0
        self.timers: Timers[Timed] = Timers()
        self.effects: list[Effect] = []
        self.dirty: dict[Channel, None] = {}  # a dict for its order: a set would make a seeded run differ from the last
        self.owing: dict[CircuitSide, None] = {}
        self.backlogged: dict[CircuitSide, None] = {}
        self.queued = 0
        self.queue_memory = queue_memory
        self.half_open = 0
        self.circuits = 0  # that pass through or end here as hops
        self.node_ends = 0  # of these, those that end at a node and not at a relay
        self.scratch = bytearray(LARGE_CELL + SPARE)

    def wake(self, owner: Timed, after: float) -> None:
        """Sets the owner's one timer to `after` seconds from now."""
        self.timers.set(owner, self.now + after)

    @property
    def refuses_circuits(self) -> bool:
        """The queues are so full that a new circuit would only die."""
        return self.queued > QUEUE_REFUSE * self.queue_memory

    @property
    def is_full(self) -> bool:
        """The queues are so full that circuits have to die."""
        return self.queued > QUEUE_FULL * self.queue_memory

    @property
    def is_relieved(self) -> bool:
        """Enough circuits have died."""
        return self.queued <= QUEUE_RELIEVED * self.queue_memory
