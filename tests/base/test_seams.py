import pytest

from onionrelay.base.seams import choose, choose_weighted, shuffle
from tests.seeded import SeededRng


def test_choose_reaches_every_item():
    rng = SeededRng(1)
    assert {choose(rng, "abcd") for _ in range(200)} == set("abcd")


def test_shuffle_is_a_permutation_and_reaches_every_order():
    rng = SeededRng(2)
    seen = set()
    for _ in range(300):
        items = [1, 2, 3]
        shuffle(rng, items)
        assert sorted(items) == [1, 2, 3]
        seen.add(tuple(items))
    assert len(seen) == 6


def test_weights_are_respected():
    rng = SeededRng(3)
    draws = [choose_weighted(rng, "abc", [1, 0, 3]) for _ in range(2000)]
    assert draws.count("b") == 0
    assert draws.count("c") == pytest.approx(1500, abs=80)


def test_a_draw_at_the_very_end_is_the_last_item():
    """Floating-point sums may leave a point just beyond the last weight."""

    class Edge(SeededRng):
        def uniform(self, low, high):
            return high

    assert choose_weighted(Edge(0), "abc", [0.1, 0.2, 0.3]) == "c"
