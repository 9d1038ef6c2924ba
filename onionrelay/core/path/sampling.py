"""Drawing relays by address group first, so that a thousand relays in one block weigh as much as one.

specs/07-directory-and-paths.md. Within a group, and for a group's weight, a relay counts with the square root of
its bandwidth; a claim above the typical one is not believed, so claims only ever lower a relay's share.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import inf, sqrt
from statistics import median

from onionrelay.base.limits import GROUP_CAP
from onionrelay.base.seams import Rng, choose_weighted
from onionrelay.core.directory.descriptor import RelayEntry

REDRAWS = 32  # of a draw that turned out unacceptable, before the acceptable ones are listed and weighed by themselves


class Sampler:
    """A fixed set of candidates, drawn with replacement; building it is O(n), a draw O(log groups)."""

    def __init__(self, candidates: Iterable[RelayEntry]) -> None:
        groups: dict[bytes, list[RelayEntry]] = {}
        for entry in candidates:
            groups.setdefault(entry.group, []).append(entry)
        self._groups = list(groups.values())
        believed = _believed(self._groups)
        self._weights = [[sqrt(min(entry.bandwidth, believed)) for entry in group] for group in self._groups]
        self._bounds = list(accumulate(_capped([max(weights) for weights in self._weights])))

    @property
    def group_count(self) -> int:
        """How many address groups the candidates stand in."""
        return len(self._groups)

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def draw(self, rng: Rng, acceptable: Callable[[RelayEntry], bool]) -> RelayEntry | None:
        """One candidate that is acceptable, by group and then by weight; None when no candidate is."""
        for _ in range(REDRAWS if self._groups else 0):
            entry = self._draw(rng)
            if acceptable(entry):
                return entry
        left = [entry for group in self._groups for entry in group if acceptable(entry)]
        return Sampler(left).draw(rng, acceptable) if left else None

    def _draw(self, rng: Rng) -> RelayEntry:
        at = bisect_right(self._bounds, rng.uniform(0, self._bounds[-1]))
        at = min(at, len(self._groups) - 1)  # a float draw may reach the upper end
        return choose_weighted(rng, self._groups[at], self._weights[at])


def _believed(groups: Sequence[Sequence[RelayEntry]]) -> float:
    """The most bandwidth credited without a measurement: the median over groups of each group's largest claim."""
    claims = [[entry.bandwidth for entry in group if entry.bandwidth < inf] for group in groups]
    largest = [max(claimed) for claimed in claims if claimed]
    return median(largest) if largest else 1.0


def _capped(weights: Sequence[float]) -> list[float]:
    ceiling = GROUP_CAP * sum(weights)
    return [min(weight, ceiling) for weight in weights]
