"""A whole network in this process: real relays and nodes, linked by TLS over loopback.

::

    async with LocalOverlay() as overlay, overlay.node() as target, overlay.node() as client:
        await target.start_server(handler, 80)
        await target.wait_reachable(10)
        reader, writer = await client.open_connection(target.node_id, 80)

Everything in one event loop, so that a test can look inside any of them, and stop or restart a relay between two steps.
`node.localnet` runs the same as processes.
"""

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from onionrelay.base.errors import TimedOut, UsageError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import DEMO_RELAYS, DEMO_SEEDS
from onionrelay.net.system import SystemRng, unix_now
from onionrelay.node.api import Node
from onionrelay.node.home import Home, MemoryHome
from onionrelay.node.localnet import free_ports
from onionrelay.node.network_file import NetworkFile
from onionrelay.node.relay import RelayNode

PATIENCE = 10.0  # for what takes a fraction of a second unless something is broken
LOOK_AGAIN = 0.005


class LocalOverlay:
    """A test network; `async with`. `clock` is the wall clock of all its members.

    A relay keeps its index for good. `relays` holds those that run, by index; stopped ones keep their home, in memory,
    and their port, and come back with the same relay id and new onion keys.
    """

    def __init__(
        self, relays: int = DEMO_RELAYS, *, seeds: int = DEMO_SEEDS, clock: Callable[[], int] = unix_now
    ) -> None:
        if not 0 < seeds <= relays:
            raise UsageError(f"{seeds} of {relays} relays cannot be seeds")
        self.relays: dict[int, RelayNode] = {}
        self.folder: Path
        self.network: NetworkFile
        self._seeds = seeds
        self._clock = clock
        self._homes = [MemoryHome() for _ in range(relays)]
        self._indices: dict[RelayId, int] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onionrelay-overlay-")))
            stack.push_async_callback(self._stop_all)
            rng = SystemRng()
            invites = [
                home.init_relay([f"tls://127.0.0.1:{port}"], [], rng)
                for home, port in zip(self._homes, free_ports(len(self._homes)), strict=True)
            ]
            self.network = NetworkFile.create("overlay", tuple(invites[: self._seeds]), testnet=True, rng=rng)
            self._indices = {invite.relay_id: index for index, invite in enumerate(invites)}
            for index in range(len(invites)):
                await self.start(index)
            await self.until_known()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _stop_all(self) -> None:
        for index in tuple(self.relays):
            await self.stop(index)

    def home(self, name: str) -> Home:
        """The home of this name in the network's folder, for a node that is to remember something."""
        return Home(self.folder / name)

    def node(self, **settings: Any) -> Node:
        """A node of this network, not entered yet. `settings` as for `Node`; it forgets everything without a `home`."""
        return Node(self.network, **{"clock": self._clock} | settings)

    def index(self, relay: int | RelayId | str) -> int:
        """The index of a relay, known by its index, its relay id, or that id's text."""
        relay = RelayId.parse(relay) if isinstance(relay, str) else relay
        return relay if isinstance(relay, int) else self._indices[relay]

    async def start(self, relay: int | RelayId | str) -> RelayNode:
        """Starts a relay that does not run."""
        index = self.index(relay)
        if index in self.relays:
            raise UsageError(f"relay {index} runs already")
        node = RelayNode(self._homes[index], self.network, clock=self._clock)
        self.relays[index] = await node.__aenter__()
        return node

    async def stop(self, relay: int | RelayId | str) -> None:
        """Stops a relay, as the end of its process would: all its links are gone."""
        await self.relays.pop(self.index(relay)).__aexit__(None, None, None)

    async def restart(self, relay: int | RelayId | str) -> RelayNode:
        """Stops a relay, starts it again, and waits until the others know its new onion keys."""
        await self.stop(relay)
        node = await self.start(relay)
        await self.until_known()
        return node

    async def until_known(self) -> None:
        """Waits until every running relay knows the current descriptor of every other one."""
        await until(lambda: all(knows(*pair) for pair in itertools.permutations(self.relays.values(), 2)))


def knows(relay: RelayNode, other: RelayNode) -> bool:
    """Whether a relay has the descriptor that another one published last."""
    known = relay.table.get(other.relay_id)
    return known is not None and known.raw == other.descriptor


async def until(happened: Callable[[], bool], what: str = "what was waited for", seconds: float = PATIENCE) -> None:
    """Waits until something holds that no event tells of; TimedOut when it does not within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not happened():  # noqa: ASYNC110 - see the first line
                await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        raise TimedOut(what, seconds) from None
