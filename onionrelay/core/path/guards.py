"""Guards: the first relay of every path, kept for months (specs/07-directory-and-paths.md, "Guards").

Whoever draws a fresh first relay for each circuit meets a hostile one sooner or later; whoever keeps one meets it with
the probability of a single draw. So the state must survive restarts (`dump`, `load`), and a guard that does not answer
is no reason to walk through all others.
"""

from dataclasses import dataclass

import msgspec

from onionrelay.base.errors import ConfigError, InvalidId
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import (
    GUARD_BACKDATED,
    GUARD_CONFIRMED_LIFE,
    GUARD_LIFE,
    GUARD_RETRY,
    GUARD_RETRY_LAST,
    GUARD_RETRY_OTHERS,
    GUARD_RETRY_OTHERS_LAST,
    GUARD_UNLISTED,
    GUARDS_PRIMARY,
    GUARDS_SAMPLED,
    GUARDS_SAMPLED_MOST,
    GUARDS_SAMPLED_SHARE,
    NETWORK_DOWN_AFTER,
    NETWORK_DOWN_RETRY,
    VANGUARDS_MOST,
)
from onionrelay.base.seams import Rng
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.vanguards import Vanguards
from onionrelay.wire.descriptor import Roles

_VERSION = 1


class _Sampled(msgspec.Struct, forbid_unknown_fields=True):
    """One guard as it is saved; dates are unix times, and set back at random so that they tell little."""

    relay: str
    added: int
    confirmed: int | None = None  # a circuit was built through it
    unlisted: int | None = None  # since when it may not be a guard


class _SavedVanguard(msgspec.Struct, forbid_unknown_fields=True):
    relay: str
    until: int


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    guards: list[_Sampled]
    vanguards: list[_SavedVanguard]


@dataclass(slots=True)
class _Trouble:
    """Since when a guard has not answered, and when that was last found out. Forgotten at a restart."""

    since: int
    tried: int


class Guards:
    """The sampled guards in the order of their use, and the vanguards. Save it whenever `version` has changed."""

    def __init__(self) -> None:
        self.vanguards = Vanguards()
        self._version = 0
        self._sampled: dict[RelayId, _Sampled] = {}  # in the order they were drawn, from confirmation on in that one
        self._trouble: dict[RelayId, _Trouble] = {}
        self._network_seen = 0

    @property
    def version(self) -> tuple[int, int]:
        """Changes with every change that has to survive a restart."""
        return self._version, self.vanguards.version

    def on_success(self, relay_id: RelayId, unix_now: int, rng: Rng) -> None:
        """A circuit was built through this guard: from now on it is one of those used first."""
        self.on_network(unix_now)
        self._trouble.pop(relay_id, None)
        guard = self._sampled.get(relay_id)
        if guard is not None and guard.confirmed is None:
            guard.confirmed = _backdated(unix_now, GUARD_CONFIRMED_LIFE, rng)
            self._sampled[relay_id] = self._sampled.pop(relay_id)  # behind those confirmed before
            self._version += 1

    def on_failure(self, relay_id: RelayId, unix_now: int) -> None:
        """This guard could not be reached, or did not answer on its link."""
        if relay_id in self._sampled:
            trouble = self._trouble.setdefault(relay_id, _Trouble(unix_now, unix_now))
            trouble.tried = unix_now

    def on_network(self, unix_now: int) -> None:
        """Some link came up: while links do, a guard that fails is itself the cause."""
        self._network_seen = unix_now

    def usable(self, candidates: Candidates, rng: Rng) -> list[RelayEntry]:
        """The guards that may be tried now, best first; `next_try` says how long to wait when there is none.

        Draws new guards only when fewer than three listed ones are left, or when all sampled ones fail although the
        network works.
        """
        now = candidates.unix_now
        self._refresh(candidates, rng)
        listed = self._listed(candidates)
        primary = listed[:GUARDS_PRIMARY]
        ready = [entry for entry in primary if self._due(entry.relay_id, now, primary=True)]
        if ready or self._network_may_be_down(now):
            return ready
        ready = [entry for entry in listed[GUARDS_PRIMARY:] if self._due(entry.relay_id, now, primary=False)]
        if not ready and (drawn := self._draw(candidates, rng)):
            ready = [drawn]
        return ready

    def next_try(self, unix_now: int) -> int | None:
        """Seconds until a guard that failed is due again; None when none has failed."""
        waits = [self._wait(trouble, unix_now, primary=True) for trouble in self._trouble.values()]
        return max(1, min(waits)) if waits else None

    def _refresh(self, candidates: Candidates, rng: Rng) -> None:
        now = candidates.unix_now
        for relay_id, guard in list(self._sampled.items()):
            self._mark_listed(guard, None if candidates.still(relay_id, Roles.GUARD) else now)
            if _is_over(guard, now):
                del self._sampled[relay_id]
                self._trouble.pop(relay_id, None)
                self._version += 1
        while len(self._listed(candidates)) < GUARDS_PRIMARY and self._draw(candidates, rng):
            pass

    def _mark_listed(self, guard: _Sampled, unlisted: int | None) -> None:
        if (guard.unlisted is None) != (unlisted is None):
            guard.unlisted = unlisted
            self._version += 1

    def _listed(self, candidates: Candidates) -> list[RelayEntry]:
        """Guards that may be used as far as the table says, in the order of their use."""
        entries = (candidates.still(relay_id, Roles.GUARD) for relay_id, _ in self._in_order())
        return [entry for entry in entries if entry is not None]

    def _in_order(self) -> list[tuple[RelayId, _Sampled]]:
        """Confirmed guards as they were confirmed, then as drawn. Not by date: dates are set back at random."""
        return sorted(self._sampled.items(), key=lambda item: item[1].confirmed is None)

    def _draw(self, candidates: Candidates, rng: Rng) -> RelayEntry | None:
        most = max(GUARDS_SAMPLED, int(GUARDS_SAMPLED_SHARE * len(candidates.guards)))
        if len(self._sampled) >= min(most, GUARDS_SAMPLED_MOST):
            return None
        entry = candidates.guards.draw(rng, lambda entry: entry.relay_id not in self._sampled)
        if entry is not None:
            added = _backdated(candidates.unix_now, GUARD_LIFE, rng)
            self._sampled[entry.relay_id] = _Sampled(str(entry.relay_id), added)
            self._version += 1
        return entry

    def _due(self, relay_id: RelayId, unix_now: int, *, primary: bool) -> bool:
        trouble = self._trouble.get(relay_id)
        return trouble is None or self._wait(trouble, unix_now, primary=primary) <= 0

    def _wait(self, trouble: _Trouble, unix_now: int, *, primary: bool) -> int:
        """Seconds until a guard in trouble may be tried again."""
        if self._network_may_be_down(unix_now):
            return trouble.tried + NETWORK_DOWN_RETRY - unix_now
        down = trouble.tried - trouble.since
        steps, last = (GUARD_RETRY, GUARD_RETRY_LAST) if primary else (GUARD_RETRY_OTHERS, GUARD_RETRY_OTHERS_LAST)
        return trouble.tried + next((pause for limit, pause in steps if down < limit), last) - unix_now

    def _network_may_be_down(self, unix_now: int) -> bool:
        return unix_now - self._network_seen > NETWORK_DOWN_AFTER

    def dump(self) -> bytes:
        """The state as JSON, for `load`."""
        vanguards = [_SavedVanguard(str(relay_id), until) for relay_id, until in self.vanguards.saved()]
        saved = _Saved(_VERSION, [guard for _, guard in self._in_order()], vanguards)
        return msgspec.json.format(msgspec.json.encode(saved)) + b"\n"

    @classmethod
    def load(cls, data: bytes) -> "Guards":
        """The state that `dump` wrote. Raises ConfigError for anything else.

        Whoever catches that should ask before starting afresh: fresh guards are what the state is there to prevent.
        """
        guards = cls()
        try:
            saved = msgspec.json.decode(data, type=_Saved)
            guards._sampled = {RelayId.parse(guard.relay): guard for guard in saved.guards}
            guards.vanguards = Vanguards((RelayId.parse(each.relay), each.until) for each in saved.vanguards)
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidId) as exc:
            raise ConfigError(f"the saved guards are damaged: {exc}") from exc
        kept = len(guards._sampled), len(guards.vanguards.saved())
        if saved.version != _VERSION or not _within_bounds(saved) or kept != (len(saved.guards), len(saved.vanguards)):
            raise ConfigError("the saved guards are not from this program")
        return guards


def _is_over(guard: _Sampled, unix_now: int) -> bool:
    if guard.unlisted is not None and unix_now - guard.unlisted > GUARD_UNLISTED:
        return True
    kept_long_enough = guard.confirmed is None or unix_now - guard.confirmed > GUARD_CONFIRMED_LIFE
    return unix_now - guard.added > GUARD_LIFE and kept_long_enough


def _backdated(unix_now: int, life: int, rng: Rng) -> int:
    return unix_now - int(rng.uniform(0, GUARD_BACKDATED * life))


def _within_bounds(saved: _Saved) -> bool:
    dates = [guard.added for guard in saved.guards] + [each.until for each in saved.vanguards]
    dates += [date for guard in saved.guards for date in (guard.confirmed, guard.unlisted) if date is not None]
    few = len(saved.guards) <= GUARDS_SAMPLED_MOST and len(saved.vanguards) <= VANGUARDS_MOST
    return few and all(0 <= date < 1 << 32 for date in dates)
