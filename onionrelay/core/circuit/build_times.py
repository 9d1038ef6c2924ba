"""How long a client waits for a circuit to be built: learnt from its own builds.

specs/03-build.md, "Statuses, timers, blame".
"""

from collections import deque

from onionrelay.base.limits import (
    BUILD_HISTORY,
    BUILD_TIMEOUT,
    BUILD_TIMEOUT_CAP,
    BUILD_TIMEOUT_FLOOR,
    BUILDS_KNOWN,
)


class BuildTimes:
    """The durations of the last BUILD_HISTORY builds.

    A build that ran into the timeout counts as having taken that long. Left out, it would pull the percentile down, and
    the timeout after it, until only the fastest paths were ever used.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=BUILD_HISTORY)

    def add(self, seconds: float) -> None:
        """A build was answered, or given up, after this time."""
        self._seconds.append(seconds)

    @property
    def timeout(self) -> float:
        """The 80th percentile within its bounds, once BUILDS_KNOWN builds are known."""
        if len(self._seconds) < BUILDS_KNOWN:
            return BUILD_TIMEOUT
        percentile = sorted(self._seconds)[len(self._seconds) * 4 // 5]
        return min(max(percentile, BUILD_TIMEOUT_FLOOR), BUILD_TIMEOUT_CAP)
