"""Questions to the relay at the other end of a link, and their answers. specs/07-directory-and-paths.md."""

import asyncio
import itertools

from onionrelay.base.errors import NetworkError, ProtocolViolation, TimedOut
from onionrelay.base.limits import ANSWER_TIMEOUT, MAX_RELAYS
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.link.channel import Channel
from onionrelay.node.driver import Driver
from onionrelay.wire.directory import BUCKETS, Answer, DirData, DirGet, DirPut, DirReceipt, Question, to_control

REQUEST_IDS = 1 << 32


class Requests:
    """The open questions of one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._ids = itertools.count(1)
        self._waiting: dict[tuple[Channel, int], asyncio.Future[Answer]] = {}

    async def ask(self, channel: Channel, question: Question) -> Answer:
        """Raises TimedOut, or NetworkError when the link is gone or goes first."""
        if channel.closed:
            raise NetworkError("the link to the relay is gone")
        key = (channel, next(self._ids) % REQUEST_IDS)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            self._driver.send_control(channel, *to_control(question, key[1]))
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise TimedOut("a relay's answer about the relay table", ANSWER_TIMEOUT) from None
        finally:
            del self._waiting[key]

    def on_answer(self, channel: Channel, request_id: int, answer: Answer) -> None:
        """An answer came. One that nobody waits for any more is dropped."""
        waiting = self._waiting.get((channel, request_id))
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def on_link_down(self, channel: Channel, why: str) -> None:
        """No answer will come over this link."""
        for (asked, _), waiting in self._waiting.items():
            if asked is channel and not waiting.done():
                waiting.set_exception(NetworkError(why))

    async def fetch_table(self, channel: Channel, table: RelayTable) -> int:
        """Adds to `table` all that the relay at the other end knows; returns how many descriptors it sent.

        Whole buckets, from the first to the last: what is fetched says nothing about what will be used.
        """
        bucket, received = 0, 0
        while bucket < BUCKETS:
            page = await self.ask(channel, DirGet(bucket))
            if not isinstance(page, DirData) or page.next_bucket <= bucket:
                raise ProtocolViolation("no page of the relay table, or one that leads back")
            received += len(page.descriptors)
            if received > MAX_RELAYS:
                raise ProtocolViolation("more relays than a table may have")
            now = self._driver.unix_now()
            for raw in page.descriptors:
                table.add(raw, now)
            bucket = page.next_bucket
            await asyncio.sleep(0)  # a page is up to 40 signatures to verify: others get their turn
        return received

    async def push(self, channel: Channel, descriptor: bytes) -> DirReceipt:
        """Offers a descriptor and returns what became of it."""
        receipt = await self.ask(channel, DirPut(descriptor))
        if not isinstance(receipt, DirReceipt):
            raise ProtocolViolation("no receipt for a descriptor")
        return receipt
