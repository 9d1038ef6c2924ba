"""Background tasks, and calls that several wait for: in virtual time."""

import asyncio
import gc

import pytest

from onionrelay.base.errors import NetworkError, NoPath
from onionrelay.node.tasks import SharedCalls, Tasks
from tests.node.memory_circuit import in_virtual_time


def collect_errors():
    """What the event loop would complain about."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    return errors


async def fail(error, after=0.0):
    await asyncio.sleep(after)
    raise error


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


class Call:
    """Something slow that can be counted."""

    def __init__(self, seconds=1.0, error=None):
        self.begun = self.ended = self.cancelled = 0
        self.seconds = seconds
        self.error = error

    async def __call__(self):
        self.begun += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)  # tidying up takes a while
            self.cancelled += 1
            raise
        self.ended += 1
        if self.error:
            raise self.error
        return self.begun


# Tasks


@in_virtual_time
async def test_a_task_that_fails_is_seen_and_ends_no_other():
    errors, tasks, other = collect_errors(), Tasks(), Call()
    tasks.spawn(other())
    tasks.spawn(fail(ZeroDivisionError("a bug")))
    await asyncio.sleep(2)
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
    assert other.ended == 1


@in_virtual_time
async def test_an_expected_error_is_for_whoever_awaits_the_task():
    errors, tasks = collect_errors(), Tasks()
    task = tasks.spawn(fail(NoPath("none")), may_raise=(NetworkError, OSError))
    with pytest.raises(NoPath):
        await task
    await turns()
    assert errors == []


@in_virtual_time
async def test_closing_cancels_and_waits_for_the_end():
    tasks, calls = Tasks(), [Call(60), Call(60)]
    for call in calls:
        tasks.spawn(call())
    await asyncio.sleep(1)
    await tasks.aclose()
    assert [call.cancelled for call in calls] == [1, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_closing_reports_what_fails_while_it_is_cancelled():
    errors, tasks = collect_errors(), Tasks()

    async def stumble():
        try:
            await asyncio.sleep(60)
        finally:
            raise ZeroDivisionError

    tasks.spawn(stumble())
    await turns()
    await tasks.aclose()
    await turns()
    assert len(errors) == 1


# Shared calls


@in_virtual_time
async def test_what_is_asked_for_twice_at_once_is_done_once():
    shared, call = SharedCalls(), Call()
    assert await asyncio.gather(shared.get("a", call), shared.get("a", call)) == [1, 1]
    assert await shared.get("a", call) == 2  # nothing is remembered


@in_virtual_time
async def test_keys_are_apart():
    shared, one, other = SharedCalls(), Call(), Call()
    await asyncio.gather(shared.get("a", one), shared.get("b", other))
    assert one.begun == other.begun == 1


@in_virtual_time
async def test_everybody_gets_the_error():
    shared = SharedCalls()
    results = await asyncio.gather(
        *(shared.get("a", Call(error=NoPath("none"))) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [NoPath] * 3


@in_virtual_time
async def test_a_call_goes_on_while_somebody_waits():
    shared, call = SharedCalls(), Call()
    one, other = (asyncio.create_task(shared.get("a", call)) for _ in range(2))
    await turns()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert await other == 1
    assert call.cancelled == 0


@in_virtual_time
async def test_a_call_that_nobody_waits_for_is_given_up_and_has_ended_before_the_last_one_leaves():
    shared, call = SharedCalls(), Call()
    waiting = [asyncio.create_task(shared.get("a", call)) for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (call.cancelled, call.ended) == (1, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await shared.get("a", call) == 2


@in_virtual_time
async def test_who_comes_while_a_call_is_being_given_up_gets_a_new_one():
    shared, call = SharedCalls(), Call()
    task = asyncio.create_task(shared.get("a", call))
    await turns()
    task.cancel()
    await turns()
    assert await shared.get("a", call) == 2
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_closing_is_an_error_for_those_who_wait_and_no_cancellation():
    shared = SharedCalls()
    waiting = asyncio.create_task(shared.get("a", Call(60)))
    await turns()
    await shared.aclose()
    with pytest.raises(NetworkError, match="closing"):
        await waiting


@in_virtual_time
async def test_an_error_that_comes_with_the_cancellation_of_its_reader_leaves_nothing_behind():
    errors, shared = collect_errors(), SharedCalls()
    waiting = asyncio.create_task(shared.get("a", Call(1, error=NoPath("none"))))
    await turns()
    loop = asyncio.get_running_loop()
    loop.call_at(loop.time() + 1, waiting.cancel)  # right behind the end of the call
    await asyncio.sleep(3)
    assert waiting.done()
    del waiting
    gc.collect()
    await turns()
    assert errors == []
