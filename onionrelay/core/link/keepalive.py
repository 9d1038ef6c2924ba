"""PING and PONG: keeps a link's NAT mapping, measures its round trip, and notices when the peer is gone."""

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import LINK_DEAD_AFTER, PING_ANSWER, PING_INTERVAL, PING_INTERVAL_NAT

_SMOOTHING = 0.25  # of each new round trip in the running average


class KeepAlive:
    """One link's clockwork. A PING goes out as soon as the link is up, then every `interval`.

    Dead is a link that brought nothing at all for `patience` seconds while a PING was unanswered: on an attachment 45 s
    after the last cell (15 + 30), elsewhere 30 s after a PING.
    """

    __slots__ = ("_heard", "_interval", "_patience", "_ping_due", "_sent_at", "_token", "round_trip")

    def __init__(self, now: float, *, behind_nat: bool) -> None:
        self._interval = PING_INTERVAL_NAT if behind_nat else PING_INTERVAL
        self._patience = LINK_DEAD_AFTER - PING_INTERVAL_NAT if behind_nat else PING_ANSWER
        self._ping_due = now
        self._heard = now
        self._token: int | None = None
        self._sent_at = now
        self.round_trip: float | None = None

    def heard(self, now: float) -> None:
        """Something came from the peer."""
        self._heard = now

    @property
    def deadline(self) -> float:
        """When to look again."""
        return self._ping_due if self._token is None else self._dead_at

    @property
    def _dead_at(self) -> float:
        return max(self._heard, self._sent_at) + self._patience

    def is_dead(self, now: float) -> bool:
        """The peer has been silent for too long."""
        return self._token is not None and now >= self._dead_at

    def wants_ping(self, now: float) -> bool:
        """It is time for a PING, and none is under way."""
        return self._token is None and now >= self._ping_due

    def ping(self, token: int, now: float) -> None:
        """A PING with this token is being sent."""
        self._token, self._sent_at = token, now
        self._ping_due = now + self._interval

    def pong(self, token: int, now: float) -> None:
        """A PONG came. Tokens are random, so an answer that was not asked for is a lie about the round trip."""
        if token != self._token:
            raise ProtocolViolation("a PONG that answers no PING")
        self._token = None
        sample = min(now - self._sent_at, self._patience)  # a peer that holds its PONG back must not stretch our timers
        known = self.round_trip
        self.round_trip = sample if known is None else known + _SMOOTHING * (sample - known)
