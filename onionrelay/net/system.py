"""The operating system's chance and clocks, behind the seams of `base`."""

import random
import secrets
import time


class SystemRng:
    """The `Rng` of a running node: the operating system's cryptographic source."""

    def __init__(self) -> None:
        self._system = random.SystemRandom()

    def token(self, size: int) -> bytes:
        """`size` random bytes."""
        return secrets.token_bytes(size)

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound)."""
        return secrets.randbelow(bound)

    def uniform(self, low: float, high: float) -> float:
        """A uniform float in [low, high)."""
        return low + (high - low) * self._system.random()


def monotonic() -> float:
    """Seconds for timers: what protocol code is given as `now`. The clock of asyncio's event loops."""
    return time.monotonic()


def unix_now() -> int:
    """Seconds since 1970 by this machine's clock, for what expires."""
    return int(time.time())
