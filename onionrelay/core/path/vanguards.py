"""Vanguards: the second relays of paths, kept for days (specs/07-directory-and-paths.md, "Vanguards").

Whoever controls the final hop and forces rebuilds sooner or later owns a middle, and sees the relay before it. A small
set that changes slowly keeps that from becoming a list of all guards' neighbours.
"""

from collections.abc import Callable, Container, Iterable

from onionrelay.base.ids import RelayId
from onionrelay.base.limits import VANGUARD_AVOIDED, VANGUARD_LIFE, VANGUARDS_MOST
from onionrelay.base.seams import Rng, shuffle
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.path.anonymity import clash
from onionrelay.core.path.candidates import Candidates
from onionrelay.wire.descriptor import Roles


class Vanguards:
    """The set, with the unix time until which each is kept. `version` changes with every change worth saving."""

    def __init__(self, until: Iterable[tuple[RelayId, int]] = ()) -> None:
        self.version = 0
        self._until = dict(until)
        self._avoided: dict[RelayId, int] = {}  # in memory only: until when each is passed over

    def saved(self) -> list[tuple[RelayId, int]]:
        """What the constructor takes to make the same set."""
        return list(self._until.items())

    def on_failure(self, relay_id: RelayId, unix_now: int) -> None:
        """The guard could not reach it: pass it over for a while, but keep it."""
        if relay_id in self._until:
            self._avoided[relay_id] = unix_now + VANGUARD_AVOIDED

    def on_success(self, relay_id: RelayId) -> None:
        """A circuit went through it."""
        self._avoided.pop(relay_id, None)

    def usable(
        self, guard: RelayEntry, candidates: Candidates, rng: Rng, exclude: Container[RelayId]
    ) -> list[RelayEntry]:
        """Those that may stand behind this guard now, in random order; draws more when there are too few."""
        self._drop_old(candidates)
        rules, now = candidates.rules, candidates.unix_now
        while len(self._until) < rules.vanguards and self._draw(guard, candidates, rng, exclude):
            pass

        def fits(entry: RelayEntry) -> bool:
            return entry.relay_id not in exclude and not clash(guard, entry, rules)

        ready = self._fitting(candidates, lambda entry: fits(entry) and self._avoided.get(entry.relay_id, 0) <= now)
        if not ready and (drawn := self.another(guard, candidates, rng, exclude)):
            ready = [drawn]
        ready = ready or self._fitting(candidates, fits)
        shuffle(rng, ready)
        return ready

    def another(
        self, guard: RelayEntry, candidates: Candidates, rng: Rng, exclude: Container[RelayId]
    ) -> RelayEntry | None:
        """One more than there should be, for when those there are do not do; None when there are too many already."""
        return self._draw(guard, candidates, rng, exclude) if len(self._until) < VANGUARDS_MOST else None

    def _drop_old(self, candidates: Candidates) -> None:
        latest = candidates.unix_now + VANGUARD_LIFE[1]
        kept = {
            relay_id: min(until, latest)
            for relay_id, until in self._until.items()
            if until > candidates.unix_now and candidates.still(relay_id, Roles.MIDDLE)
        }
        if kept != self._until:
            self._until = kept
            self._avoided = {relay_id: until for relay_id, until in self._avoided.items() if relay_id in kept}
            self.version += 1

    def _draw(
        self, guard: RelayEntry, candidates: Candidates, rng: Rng, exclude: Container[RelayId]
    ) -> RelayEntry | None:
        def acceptable(entry: RelayEntry) -> bool:
            taken = entry.relay_id in self._until or entry.relay_id in exclude
            return not taken and not clash(guard, entry, candidates.rules)

        entry = candidates.vanguards.draw(rng, acceptable)
        if entry is not None:
            life = max(rng.uniform(*VANGUARD_LIFE), rng.uniform(*VANGUARD_LIFE))
            self._until[entry.relay_id] = candidates.unix_now + int(life)
            self.version += 1
        return entry

    def _fitting(self, candidates: Candidates, fits: Callable[[RelayEntry], bool]) -> list[RelayEntry]:
        entries = (candidates.still(relay_id, Roles.MIDDLE) for relay_id in self._until)
        return [entry for entry in entries if entry is not None and fits(entry)]
