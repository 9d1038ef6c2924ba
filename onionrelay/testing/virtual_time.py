"""An event loop whose clock jumps: hours of timers pass in milliseconds, and a test never sleeps.

Whenever nothing is ready to run, time moves to the next timer. Use it with transports in memory: a socket would be
given no time to answer. Waiting for what can never happen is an error, not a hang.

::

    def test_something() -> None:
        run(something())
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingLeftToHappen(RuntimeError):
    """Every task waits, and no timer is set."""


class _JumpingSelector(selectors.DefaultSelector):
    """Adds the time it was asked to wait to `now`, and does not wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise NothingLeftToHappen("every task waits, and no timer is set")
        if not ready and timeout is not None:
            self.now += max(timeout, 0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that begins at time 0."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """What asyncio.run does, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
