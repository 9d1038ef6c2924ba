import asyncio
import time

import pytest

from onionrelay.testing.virtual_time import NothingLeftToHappen, VirtualTimeLoop, run


def test_hours_pass_in_no_time():
    async def body():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        assert loop.time() == 0
        await asyncio.sleep(3600 * 24)
        assert loop.time() == pytest.approx(3600 * 24)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return loop.time()

    begun = time.monotonic()
    assert run(body()) == pytest.approx(3600 * 24 + 60)
    assert time.monotonic() - begun < 5


def test_timers_fire_in_order_at_their_times():
    async def body():
        fired = []

        async def after(delay):
            await asyncio.sleep(delay)
            fired.append((delay, round(asyncio.get_running_loop().time(), 6)))

        async with asyncio.TaskGroup() as tasks:
            for delay in (5, 0.001, 1000, 3):
                tasks.create_task(after(delay))
        return fired

    assert run(body()) == [(0.001, 0.001), (3, 3), (5, 5), (1000, 1000)]


def test_no_time_passes_while_something_can_run():
    async def body():
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(body()) == 0


def test_waiting_for_ever_is_an_error():
    with pytest.raises(NothingLeftToHappen):
        run(asyncio.Event().wait())


def test_an_error_comes_out():
    async def body():
        await asyncio.sleep(1)
        raise KeyError

    with pytest.raises(KeyError):
        run(body())
