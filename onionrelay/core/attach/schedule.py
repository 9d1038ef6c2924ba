"""When a target publishes its reach record, and for which periods (specs/05-attach-and-reach.md, "Publishing")."""

from onionrelay.base.limits import PUBLISH_PAUSE, REACH_EARLY, REPUBLISH
from onionrelay.base.seams import Rng
from onionrelay.core.directory.placement import period_start, periods_to_publish
from onionrelay.crypto.blind import period_at

_JITTER = 0.2


class PublishSchedule:
    """Every hour or so, early in each new period, and when it is told that the record is out of date; never in a rush.

    `now` is monotonic; a period's times are unix times.
    """

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._due: float | None = None
        self._earliest = 0.0
        self._failures = 0
        self._published: frozenset[int] = frozenset()
        self._early_for = 0
        self._early = 0.0

    def periods(self, unix_now: int) -> tuple[int, ...]:
        """The periods that a record published now is for."""
        current = period_at(unix_now)
        if current != self._early_for:
            self._early_for, self._early = current, self._rng.uniform(0, REACH_EARLY)
        return periods_to_publish(unix_now, self._early)

    def wants(self, now: float, unix_now: int, *, outdated: bool) -> bool:
        """Whether to publish now; `outdated`: the record that was published last misleads."""
        if now < self._earliest:
            return False
        regular = self._due is None or now >= self._due
        return regular or outdated or not self._published.issuperset(self.periods(unix_now))

    def on_published(self, periods: tuple[int, ...], now: float, *, stored: bool) -> None:
        """A publication ended; `stored`: at least one storer took it."""
        if stored:
            self._failures = 0
            self._published = frozenset(periods)
            self._due = now + REPUBLISH * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            self._earliest = now + PUBLISH_PAUSE
        else:
            self._published = frozenset()
            self._earliest = now + min(PUBLISH_PAUSE * 2**self._failures, REPUBLISH)
            self._failures = min(self._failures + 1, 16)

    def next_event(self, now: float, unix_now: int, *, outdated: bool) -> float:
        """When `wants` may begin to say yes, if nothing else happens."""
        self.periods(unix_now)  # so that the moment of the next change is drawn
        change = now + period_start(self._early_for + 1) - self._early - unix_now
        upcoming = [moment for moment in (self._due, change) if moment is not None and moment > now]
        moment = now if outdated or self._due is None else min(upcoming, default=now)
        return max(moment, self._earliest)
