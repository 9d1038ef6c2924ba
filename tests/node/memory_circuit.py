"""Two carriers joined by a circuit in memory, in virtual time."""

import asyncio
import functools
from collections import deque

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import LARGE_CELL, SMALL_CELL, SMALL_DATA
from onionrelay.node.streams import SessionCarrier
from onionrelay.testing.virtual_time import run
from onionrelay.wire.relay import RelayCmd
from tests.seeded import SeededRng

LATENCY = 0.05
MiB = 1024 * 1024


def in_virtual_time(test):
    """Run an async test under the virtual-time loop."""

    @functools.wraps(test)
    def call(*args, **kwargs):
        return run(test(*args, **kwargs))

    return call


class MemoryEnd:
    """A CircuitEnd: what is sent reaches the other end's carrier after LATENCY, `window` bytes at most under way."""

    def __init__(self, window, *, bulk):
        self.window = window
        self.bulk = bulk
        self.under_way = 0
        self.wanted = False
        self.is_closed = False
        self.closed_with = None
        self.sent = []
        self.outbox = []
        self.pipe = deque()
        self.carrier = None
        self.peer = None

    @property
    def binding(self):
        return bytes(32)

    def can_send(self, large=False):
        size = LARGE_CELL if large else SMALL_CELL
        if self.is_closed or (large and not self.bulk):
            return False
        if self.under_way + size > self.window:
            self.wanted = True
            return False
        return True

    def send(self, cmd, data, *, hop=None, rid=0, large=False):
        assert cmd == RelayCmd.SESS
        assert self.can_send(large=large)
        assert large or len(data) <= SMALL_DATA
        size = LARGE_CELL if large else SMALL_CELL
        self.under_way += size
        self.sent.append(data)
        self.outbox.append((size, data))

    def flush(self):
        """Nothing leaves before the carrier says so."""
        loop = asyncio.get_running_loop()
        for packet in self.outbox:
            self.pipe.append(packet)
            loop.call_later(LATENCY, self.arrive)
        self.outbox.clear()
        if self.closed_with is not None:
            loop.call_later(LATENCY, self.peer.lose, "the circuit was destroyed")

    def arrive(self):
        """The oldest packet arrives: timers of one moment fire in any order."""
        size, data = self.pipe.popleft()
        self.under_way -= size
        if not self.peer.is_closed:
            self.peer.carrier.on_packet(data)
        if self.wanted and not self.is_closed:
            self.wanted = False
            self.carrier.on_room()

    def close(self, reason=DestroyReason.FINISHED):
        if not self.is_closed:
            self.is_closed = True
            self.closed_with = reason

    def lose(self, why):
        if not self.is_closed:
            self.is_closed = True
            self.carrier.on_lost(why)


class Joined:
    """A client's carrier and a target's, over one circuit.

    ::

        async with Joined(on_stream) as pair:
            stream = await pair.client.open_stream(80)
    """

    def __init__(self, on_stream=None, *, client_on_stream=None, window=512 * 1024, bulk=True, memory=None):
        self.client_end, self.target_end = MemoryEnd(window, bulk=bulk), MemoryEnd(window, bulk=bulk)
        self.client_end.peer, self.target_end.peer = self.target_end, self.client_end
        self.closed = []
        self.errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(context))
        self.client = self.client_end.carrier = SessionCarrier(
            self.client_end,
            is_opener=True,
            rng=SeededRng("client"),
            circuit="the circuit",
            on_stream=client_on_stream,
            flush=self.client_end.flush,
            on_closed=lambda why: self.closed.append(("client", why)),
        )
        self.target = self.target_end.carrier = SessionCarrier(
            self.target_end,
            is_opener=False,
            rng=SeededRng("target"),
            circuit="the other end",
            on_stream=on_stream,
            flush=self.target_end.flush,
            memory=memory,
            on_closed=lambda why: self.closed.append(("target", why)),
        )

    def lose(self, why="a relay died"):
        for end in (self.client_end, self.target_end):
            end.lose(why)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        """Unless the test expects an error in a handler, there is none."""
        self.lose("the test is over")
        await self.client.aclose()
        await self.target.aclose()
        errors, self.errors = self.errors, []
        assert not errors


async def echo(incoming):
    async with incoming.accept() as stream:
        while data := await stream.read(65_536):
            stream.write(data)
            await stream.drain()
        stream.write_eof()


async def never_answer(incoming):
    await asyncio.Event().wait()


class Offers:
    """A handler that accepts everything and hands the streams to the test."""

    def __init__(self):
        self.streams = asyncio.Queue()
        self.over = asyncio.Event()

    async def __call__(self, incoming):
        self.streams.put_nowait(incoming.accept())
        await self.over.wait()


async def two_ends(pair, offers, **how):
    near = await pair.client.open_stream(80, **how)
    return near, await offers.streams.get()
