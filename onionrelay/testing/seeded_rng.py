"""Chance from a seed: the same seed draws the same values on every run."""

import random


class SeededRng:
    """An `Rng` for tests and simulations; no key drawn from it is a secret."""

    def __init__(self, seed: int | str | bytes) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable is what it is for

    def token(self, size: int) -> bytes:
        """`size` bytes."""
        return self._random.randbytes(size)

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound)."""
        return self._random.randrange(bound)

    def uniform(self, low: float, high: float) -> float:
        """A uniform float in [low, high)."""
        return self._random.uniform(low, high)
