"""Background tasks with an owner."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from onionrelay.base.errors import NetworkError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Tasks:
    """A set of tasks that one object owns and ends.

    Unlike in a TaskGroup, a failing task does not end the others: a relay goes on when the work for one peer breaks.
    The failure reaches the event loop's exception handler, so that it is seen.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(
        self, work: Coroutine[Any, Any, T], *, may_raise: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> asyncio.Task[T]:
        """Starts `work`. Errors of `may_raise` are for whoever awaits the task, and no failure of the program."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(functools.partial(self._ended, may_raise))
        return task

    def _ended(self, may_raise: type[Exception] | tuple[type[Exception], ...], task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, may_raise):
            task.get_loop().call_exception_handler(
                {"message": "a background task failed", "exception": error, "task": task}
            )

    async def aclose(self) -> None:
        """Cancels what still runs and waits for its end."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class SharedCalls(Generic[K, T]):
    """Calls that several may wait for: asked for twice at once, made once; given up when nobody waits any more."""

    def __init__(self) -> None:
        self._running: dict[K, _SharedCall[T]] = {}

    async def get(self, key: K, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `call`, or of the one that is under way for `key`; or its exception.

        Returns, also when cancelled, only after a call that was given up has ended. NetworkError after `aclose`.
        """
        shared = self._running.get(key)
        if shared is None:
            shared = self._running[key] = _SharedCall(asyncio.get_running_loop().create_task(call()))
            shared.task.add_done_callback(functools.partial(self._ended, key, shared))
        shared.waiting += 1
        try:
            await asyncio.wait([shared.task])
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                self._forget(key, shared)
                shared.task.cancel()
                await asyncio.wait([shared.task])
        if shared.task.cancelled():
            raise NetworkError("given up, for this end is closing")
        return shared.task.result()

    def _ended(self, key: K, shared: "_SharedCall[T]", task: asyncio.Task[T]) -> None:
        self._forget(key, shared)
        if not task.cancelled():
            task.exception()  # the one who waited may have been cancelled at this very moment: then nobody asks for it

    def _forget(self, key: K, shared: "_SharedCall[T]") -> None:
        if self._running.get(key) is shared:
            del self._running[key]

    async def aclose(self) -> None:
        """Cancels what is under way and waits for its end."""
        running = [shared.task for shared in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class _SharedCall(Generic[T]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0
