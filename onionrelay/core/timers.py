"""The timers of one engine: at most one per owner, soonest first."""

from typing import Generic, TypeVar

from sortedcontainers import SortedDict

Key = TypeVar("Key")


class Timers(Generic[Key]):
    """When whom to wake. Setting a key again moves it; times are those of the caller's monotonic clock."""

    __slots__ = ("_count", "_queue", "_slots")

    def __init__(self) -> None:
        self._queue: SortedDict[tuple[float, int], Key] = SortedDict()
        self._slots: dict[Key, tuple[float, int]] = {}
        self._count = 0  # among equal times, the first one set fires first

    def set(self, key: Key, when: float) -> None:
        """Wakes `key` at `when`, and no more at the time set before."""
        self.cancel(key)
        self._count += 1
        slot = self._slots[key] = (when, self._count)
        self._queue[slot] = key

    def cancel(self, key: Key) -> None:
        """Forgets `key`; nothing happens when it has no timer."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            del self._queue[slot]

    @property
    def next(self) -> float | None:
        """The soonest time set; None when nothing is."""
        return self._queue.peekitem(0)[0][0] if self._queue else None

    def pop_due(self, now: float) -> Key | None:
        """Takes out the soonest key whose time has come.

        One at a time, because what it wakes may set and cancel others.
        """
        if not self._queue or self._queue.peekitem(0)[0][0] > now:
            return None
        key: Key = self._queue.popitem(0)[1]
        del self._slots[key]
        return key

    def __len__(self) -> int:
        return len(self._slots)
