"""The small protocols through which chance and time reach protocol code."""

from collections.abc import MutableSequence, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Rng(Protocol):
    """Where randomness comes from: the operating system in a node, a seed in a test."""

    def token(self, size: int) -> bytes:
        """`size` random bytes."""
        ...

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound)."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A uniform float in [low, high)."""
        ...


def choose(rng: Rng, items: Sequence[T]) -> T:
    """One of `items`, uniformly."""
    return items[rng.below(len(items))]


def shuffle(rng: Rng, items: MutableSequence[T]) -> None:
    """Fisher-Yates, in place."""
    for last in range(len(items) - 1, 0, -1):
        other = rng.below(last + 1)
        items[last], items[other] = items[other], items[last]


def choose_weighted(rng: Rng, items: Sequence[T], weights: Sequence[float]) -> T:
    """One of `items` with probability proportional to its weight; at least one weight is positive."""
    point = rng.uniform(0, sum(weights))
    for item, weight in zip(items, weights, strict=True):
        point -= weight
        if point < 0:
            return item
    return items[-1]
