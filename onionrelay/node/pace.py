"""Spaces what a client asks of its guard as the guard takes it, which sheds all that comes sooner."""

import asyncio

from onionrelay.core.token_bucket import TokenBucket


class Pace:
    """`rate` turns a second and `burst` at once; whoever comes first has the first turn."""

    def __init__(self, rate: float, burst: float) -> None:
        self._pause = 1 / rate
        self._bucket = TokenBucket(rate, burst, asyncio.get_running_loop().time())
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Waits for the next turn."""
        async with self._queue:
            while not self._bucket.take(asyncio.get_running_loop().time()):  # noqa: ASYNC110 - time is all there is to wait for
                await asyncio.sleep(self._pause)
