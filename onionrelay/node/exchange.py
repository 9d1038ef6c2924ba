"""How relays keep each other's tables complete. specs/07-directory-and-paths.md, "The relay table".

Each holds a link to every seed, over which its own descriptor goes there and the whole table comes back; and what is
news to a relay it passes on to all its neighbours, so that a new descriptor is everywhere within a second.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from onionrelay.base.errors import ConfigError, NetworkError, OnionRelayError, ProtocolViolation
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import DIR_PUT_BURST, DIR_PUT_RATE, REDIAL_FIRST, REDIAL_LAST
from onionrelay.base.seams import Rng
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.link.channel import Channel
from onionrelay.core.token_bucket import TokenBucket
from onionrelay.node.driver import Driver
from onionrelay.node.events import Event, guarded
from onionrelay.node.links import Links
from onionrelay.node.requests import Requests
from onionrelay.node.tasks import Tasks
from onionrelay.wire.directory import StoreResult
from onionrelay.wire.invite import Invite

log = logging.getLogger("onionrelay.exchange")


class TableExchange:
    """One relay's part in it. Begin with `publish`, and go on with `keep_linked` for each seed.

    `describe` makes the relay's descriptor with the sequence number given; `descriptor` is the one published last.
    """

    def __init__(
        self,
        relay_id: RelayId,
        table: RelayTable,
        driver: Driver,
        links: Links,
        *,
        requests: Requests,
        tasks: Tasks,
        rng: Rng,
        describe: Callable[[int], bytes],
        on_event: Callable[[Event], None],
    ) -> None:
        self.published_at = 0
        self.descriptor = b""
        self._relay_id = relay_id
        self._table = table
        self._driver = driver
        self._links = links
        self._requests = requests
        self._tasks = tasks
        self._rng = rng
        self._describe = describe
        self._emit = guarded(on_event)
        self._seq = 0
        self._buckets: dict[Channel, TokenBucket] = {}

    def publish(self) -> RelayEntry:
        """Makes a new descriptor of this relay and tells the neighbours. Raises ConfigError when it would not hold."""
        now = self._driver.unix_now()
        milliseconds = time.time_ns() // 1_000_000 % 1000
        self._seq = max(self._seq + 1, 1000 * now + milliseconds)  # higher than before a restart, without a count kept
        descriptor = self._describe(self._seq)
        added = self._table.add(descriptor, now)
        if added.entry is None:
            raise ConfigError(f"this relay's own descriptor does not hold: {added.why}")
        self.published_at, self.descriptor = now, descriptor
        self.pass_on(descriptor, source=None)
        return added.entry

    def admits(self, channel: Channel) -> bool:
        """Whether one more descriptor is taken over this link now: neighbours can be told apart, and slowed down."""
        now = asyncio.get_running_loop().time()
        return self._buckets.setdefault(channel, TokenBucket(DIR_PUT_RATE, DIR_PUT_BURST, now)).take(now)

    def pass_on(self, descriptor: bytes, source: Channel | None) -> None:
        """Offers a descriptor that is news to all neighbours; theirs to do the same, so that it reaches everybody."""
        for channel in self._links:
            if channel is not source:
                self._tasks.spawn(self._requests.push(channel, descriptor), may_raise=(NetworkError, ProtocolViolation))

    def on_link_down(self, channel: Channel) -> None:
        """A link is gone."""
        self._buckets.pop(channel, None)

    async def keep_linked(self, seed: Invite) -> None:
        """Holds a link to a seed, over which descriptors travel both ways; starts over whenever it is lost."""
        pause = REDIAL_FIRST
        while True:
            try:
                channel = await self._links.get(seed.relay_id, seed.endpoint)
                receipt = await self._requests.push(channel, self.descriptor)
                known = await self._requests.fetch_table(channel, self._table)
                self._outdo(receipt.result)
                self._emit({"event": "linked", "seed": str(seed.endpoint.addresses[0]), "relays": known})
                pause = REDIAL_FIRST
                await self._driver.wait_down(channel)
            except OnionRelayError as error:  # also a ConfigError: this relay's descriptor may hold the next time
                log.info("not linked to a seed: %s", error)
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.5))
            pause = min(2 * pause, REDIAL_LAST)

    def _outdo(self, result: StoreResult) -> None:
        """Publishes anew when a descriptor of an earlier run stands in the way of this one's.

        Of a run with this same number, which a seed refuses to replace; or of one whose clock was ahead, which has
        just come with the seed's table.
        """
        held = self._table.get(self._relay_id)
        if held is not None and (result is StoreResult.INVALID or held.raw != self.descriptor):
            self._seq = max(self._seq, held.descriptor.seq)
            self.publish()
