"""Turns at a pace: in virtual time."""

import asyncio

import pytest

from onionrelay.core.token_bucket import TokenBucket
from onionrelay.node.pace import Pace
from tests.node.memory_circuit import in_virtual_time

RATE, BURST = 3.0, 15


@in_virtual_time
async def test_a_burst_goes_at_once_and_the_rest_at_the_rate():
    pace, loop = Pace(RATE, BURST), asyncio.get_running_loop()
    begun, times = loop.time(), []

    async def go():
        await pace.turn()
        times.append(loop.time() - begun)

    await asyncio.gather(*(go() for _ in range(45)))
    assert times[:BURST] == [0.0] * BURST
    assert times[-1] == pytest.approx(30 / RATE, abs=1 / RATE)


@in_virtual_time
async def test_a_bucket_at_the_other_end_never_runs_dry():
    pace, loop = Pace(RATE, BURST), asyncio.get_running_loop()
    guard = TokenBucket(RATE, BURST, loop.time())
    for pause in (0, 0, 7, 0.1, 30) * 12:
        await pace.turn()
        assert guard.take(loop.time())
        await asyncio.sleep(pause)


@in_virtual_time
async def test_one_who_comes_as_a_turn_falls_due_takes_it_from_nobody():
    pace, order, loop = Pace(1, 1), [], asyncio.get_running_loop()

    async def go(name):
        await pace.turn()
        order.append(name)

    late = []
    loop.call_at(loop.time() + 1, lambda: late.append(asyncio.create_task(go("late"))))  # before the timer of "second"
    await asyncio.gather(go("first"), go("second"))
    await late[0]
    assert order == ["first", "second", "late"]


@in_virtual_time
async def test_turns_are_taken_in_order_and_one_who_leaves_costs_nobody_his():
    pace, order = Pace(1, 1), []

    async def go(name):
        await pace.turn()
        order.append(name)

    tasks = [asyncio.create_task(go(name)) for name in "abcd"]
    await asyncio.sleep(0.5)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "c", "d"]
    assert asyncio.get_running_loop().time() < 4
