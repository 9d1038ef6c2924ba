"""Chance from a seed: the same seed draws the same values on every run."""

import random


class SeededRng:
    """An `onionrelay.base.seams.Rng`."""

    def __init__(self, seed: int | str | bytes) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)
