import asyncio
import time

import pytest

from onionrelay.base.seams import Rng, choose, shuffle
from onionrelay.net.system import SystemRng, monotonic, unix_now


def test_tokens():
    rng: Rng = SystemRng()
    assert [len(rng.token(size)) for size in (0, 1, 32)] == [0, 1, 32]
    assert rng.token(16) != rng.token(16)


def test_integers_cover_their_range_and_nothing_else():
    rng = SystemRng()
    assert {rng.below(3) for _ in range(300)} == {0, 1, 2}
    assert rng.below(1) == 0
    with pytest.raises(ValueError):
        rng.below(0)


def test_floats_stay_in_their_range():
    rng = SystemRng()
    drawn = [rng.uniform(1.5, 9.5) for _ in range(500)]
    assert 1.5 <= min(drawn) < 3
    assert 8 < max(drawn) < 9.5


def test_it_is_an_rng_for_the_seams():
    items = list(range(50))
    shuffle(SystemRng(), items)
    assert sorted(items) == list(range(50)) != items
    assert choose(SystemRng(), items) in items


async def test_the_clocks():
    loop = asyncio.get_running_loop()
    assert loop.time() <= monotonic() <= loop.time()
    assert abs(unix_now() - time.time()) <= 1
    assert isinstance(unix_now(), int)
