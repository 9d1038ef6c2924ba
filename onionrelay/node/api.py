"""The library's face: private connections to nodes, and being one that others connect to.

::

    async with onionrelay.Node(network="network.toml") as node:
        reader, writer = await node.open_connection(node_id, 80)
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Hashable
from pathlib import Path
from types import TracebackType
from typing import Self

from onionrelay.base.errors import CircuitFailed, NetworkError, ProtocolViolation, UsageError
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.base.limits import DEFAULT_HOPS, MAX_HOPS, MIN_HOPS, TABLE_REFRESH
from onionrelay.base.seams import Rng
from onionrelay.core.circuit.engine import Engine
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.link.channel import Channel
from onionrelay.core.link.handshake import Peer
from onionrelay.core.path.policy import Anonymity, PathPolicy
from onionrelay.net.system import SystemRng, unix_now
from onionrelay.node.circuit import Circuit
from onionrelay.node.client import Client
from onionrelay.node.driver import CircuitListener, Driver
from onionrelay.node.events import Event, guarded
from onionrelay.node.home import Home, MemoryHome, resolve_network
from onionrelay.node.network_file import NetworkFile
from onionrelay.node.records import Records
from onionrelay.node.services import Handler, Service, Services, forward_to
from onionrelay.node.stream import Stream
from onionrelay.node.streams import SessionCarrier, StreamHandler
from onionrelay.node.target import Target
from onionrelay.node.tasks import SharedCalls, Tasks
from onionrelay.wire.address import Endpoint
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import Cmd
from onionrelay.wire.descriptor import Roles

log = logging.getLogger("onionrelay.node")

SessionKey = tuple[NodeId, int, Hashable]


class Node:
    """A node of the overlay, in this process: no daemon, no open port. An async context manager.

    `network`: a network file, its path, or None for ONIONRELAY_NETWORK or the network joined in `home`. `home`: a
    folder for keys and guards; None keeps everything in memory, which costs anonymity: each run then chooses a new
    guard, and sooner or later a hostile one. `min_anonymity`: "tiny", "reduced" or "full", below which nothing is
    connected (specs/07-directory-and-paths.md). `hops`: relays of a circuit, 3 to 5, the final hop included.

    Entering raises NoNetwork, ConfigError or HomeError. A node is entered once, and used within its `async with` only:
    UsageError otherwise. Left by an exception, it resets its connections; else what they have queued is sent. Nothing
    ever falls back to a less private connection.
    """

    def __init__(
        self,
        network: NetworkFile | str | os.PathLike[str] | None = None,
        *,
        home: Home | str | os.PathLike[str] | None = None,
        min_anonymity: str | Anonymity = Anonymity.REDUCED,
        hops: int = DEFAULT_HOPS,
        rng: Rng | None = None,
        clock: Callable[[], int] = unix_now,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.home = home if isinstance(home, Home) else Home(Path(home)) if home is not None else MemoryHome()
        self.hops = _checked_hops(hops)
        self.network = network if isinstance(network, NetworkFile) else _resolve(network, self.home)
        self._rng = rng or SystemRng()
        self._clock = clock
        self._emit = guarded(on_event)
        self._policy = PathPolicy(
            self.network.net_id, testnet=self.network.testnet, min_anonymity=_anonymity(min_anonymity)
        )
        self._services = Services()
        self._sessions: dict[SessionKey, SessionCarrier] = {}
        self._opening: SharedCalls[SessionKey, SessionCarrier] = SharedCalls()
        self._tasks = Tasks()
        self._stack = contextlib.AsyncExitStack()
        self._is_entered = self._is_open = False

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise UsageError("a node is entered once: make another one")
        self._is_entered = True
        try:
            await self._start()
        except BaseException:
            self._is_entered = False
            raise
        self._is_open = True
        return self

    async def _start(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            engine = Engine(
                net_id=self.network.net_id,
                rng=self._rng,
                now=asyncio.get_running_loop().time(),
                testnet=self.network.testnet,
                finals=None,
                roles=Roles(0),
            )
            self._driver = Driver(engine, self, clock=self._clock)
            stack.push_async_callback(self._driver.aclose)
            self._client = Client(self._driver, self.home, self.network, self._policy, self._rng)
            self._records = Records(self._client)
            self._target = Target(self._client, self._records, self.home, self._services, self._emit)
            stack.push_async_callback(self._target.aclose)
            stack.push_async_callback(self._close_sessions)
            await self._client.start()
            stack.callback(self._client.save)
            self._tasks.spawn(self._keep_up())
            stack.push_async_callback(self._tasks.aclose)
            self._stack = stack.pop_all()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for carrier in tuple(self._sessions.values()):
                carrier.abort_streams()
        try:
            await self._stack.aclose()
        finally:
            self._is_open = False

    def _require_open(self) -> None:
        if not self._is_open:
            raise UsageError("the node is not running: use it inside `async with`")

    async def _keep_up(self) -> None:
        """What falls due with the wall clock: a fresh relay table, and what the target makes of it."""
        while True:
            await asyncio.sleep(TABLE_REFRESH)
            try:
                await self._client.refresh_table()
            except NetworkError as error:
                log.info("the relay table is not refreshed: %s", error)
            self._target.keep_up()

    async def _close_sessions(self) -> None:
        await self._opening.aclose()
        await asyncio.gather(*(carrier.aclose() for carrier in tuple(self._sessions.values())))

    @property
    def node_id(self) -> NodeId:
        """The id under which this node can be reached once it serves something."""
        self._require_open()
        return self._target.node_id

    @property
    def anonymity(self) -> tuple[str, int]:
        """The level the network offers now, and the number of address groups that rests on."""
        self._require_open()
        level, groups = self._client.anonymity
        return str(level), groups

    # Reaching others

    async def open_connection(
        self, target: NodeId | str, port: int, *, hops: int | None = None, isolation: Hashable = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A private connection as an ordinary asyncio pair. Isolates and raises as `connect` does."""
        stream = await self._open_stream(target, port, hops, isolation)
        return stream.reader, stream.writer

    @contextlib.asynccontextmanager
    async def connect(
        self, target: NodeId | str, *, port: int, hops: int | None = None, isolation: Hashable = None
    ) -> AsyncIterator[Stream]:
        """A private connection to a port of a node; `stream.circuit` tells its hops.

        A circuit serves one node and one `isolation`: connections that agree in both (and in `hops`) share it, and to
        the node those of different circuits look like different callers. Any hashable value will do.

        Raises NodeNotFound, NoPath, CircuitFailed with the hop and the reason, StreamRefused, or CircuitLost when the
        circuit dies meanwhile. When cancelled, a half-built circuit is closed.
        """
        async with await self._open_stream(target, port, hops, isolation) as stream:
            yield stream

    @contextlib.asynccontextmanager
    async def circuit(self, target: NodeId | str, *, hops: int | None = None) -> AsyncIterator[Circuit]:
        """A circuit of its own to a node, without a stream: to look at, and to time. Raises as `connect` does."""
        node_id, relays = _node_id(target), self._hops(hops)
        self._require_open()
        circuit = await self._build(node_id, relays)
        try:
            yield circuit
        finally:
            circuit.close()

    async def _open_stream(self, target: NodeId | str, port: int, hops: int | None, isolation: Hashable) -> Stream:
        if not 0 < port <= 0xFFFF:
            raise UsageError(f"{port} is no port: 1 to 65535")
        key = _node_id(target), self._hops(hops), isolation
        self._require_open()
        carrier = await self._session(key)
        return await carrier.open_stream(port)

    def _hops(self, hops: int | None) -> int:
        return self.hops if hops is None else _checked_hops(hops)

    async def _session(self, key: SessionKey) -> SessionCarrier:
        carrier = self._sessions.get(key)
        if carrier is not None and carrier.is_open:
            return carrier
        return await self._opening.get(key, lambda: self._open_session(key))

    async def _open_session(self, key: SessionKey) -> SessionCarrier:
        node_id, hops, _ = key
        circuit = await self._build(node_id, hops)

        def closed(_: str) -> None:
            if self._sessions.get(key) is carrier:
                del self._sessions[key]
            circuit.close()

        carrier = SessionCarrier(
            circuit.origin,
            is_opener=True,
            rng=self._rng,
            circuit=circuit,
            flush=self._driver.settle,
            on_closed=closed,
        )
        circuit.session = carrier
        self._sessions[key] = carrier
        return carrier

    async def _build(self, node_id: NodeId, hops: int) -> Circuit:
        """With the record at hand first; with a fresh one, if there is one, when that leads nowhere."""
        record = await self._records.find(node_id)
        try:
            return await self._client.open_to_target(node_id, record, hops)
        except CircuitFailed as failure:
            try:
                fresh = await self._records.find(node_id, fresh=True)
            except NetworkError:
                raise failure from None  # it says more than that there is no newer record
            if fresh.version == record.version:
                raise
        return await self._client.open_to_target(node_id, fresh, hops)

    # Being reached

    async def start_server(self, handler: Handler, port: int) -> Service:
        """Serves a port of this node: `handler(reader, writer)` is called for each connection, as asyncio's servers do.

        The first service makes the node attach to its final hops; `wait_reachable` tells when that is done.
        """
        return await self._serve(port, Services.calling(handler))

    async def add_service(self, port: int, host: str, target_port: int) -> Service:
        """Passes connections to a port of this node on to a TCP service."""
        return await self._serve(port, forward_to(host, target_port))

    async def _serve(self, port: int, handler: StreamHandler) -> Service:
        self._require_open()
        service = self._services.add(port, handler)
        try:
            await self._target.start()
        except BaseException:
            service.close()
            raise
        return service

    async def wait_reachable(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - part of the message
        """Until this node is attached and its record is stored. Raises TimedOut."""
        self._require_open()
        await self._target.wait_reachable(timeout)

    # What the driver tells: see Owner

    def on_link_up(self, channel: Channel, peer: Peer) -> None:
        """See Owner."""
        self._client.on_link_up(channel, peer)

    def on_link_down(self, channel: Channel, why: str) -> None:
        """See Owner."""
        self._client.on_link_down(channel, why)
        self._target.on_link_down(channel, why)

    def on_control(self, channel: Channel, cmd: int, kind: int, body: bytes) -> None:
        """See Owner."""
        try:
            if cmd == Cmd.ATTACH:
                self._target.on_attach(channel, kind, body)
            else:
                self._client.on_directory(channel, cmd, kind, body)
        except ProtocolViolation as error:
            log.debug("link closed: %s", error)
            self._driver.close_link(channel)

    def on_next_hop_wanted(self, hop: Hop, relay_id: RelayId, endpoint: Endpoint) -> None:  # noqa: ARG002
        """See Owner: a node is no relay."""
        self._driver.refuse_next(hop, BuildStatus.POLICY)

    def on_endpoint(self, hop: Hop) -> CircuitListener | None:
        """See Owner."""
        return self._target.on_endpoint(hop)


def _resolve(network: str | os.PathLike[str] | None, home: Home) -> NetworkFile:
    return resolve_network(Path(network) if network is not None else None, os.environ, home)


def _node_id(target: NodeId | str) -> NodeId:
    return target if isinstance(target, NodeId) else NodeId.parse(target)


def _checked_hops(hops: int) -> int:
    if not MIN_HOPS <= hops <= MAX_HOPS:
        raise UsageError(f"a circuit has {MIN_HOPS} to {MAX_HOPS} relays, not {hops}")
    return hops


def _anonymity(text: str | Anonymity) -> Anonymity:
    if isinstance(text, Anonymity):
        return text
    levels = {str(level): level for level in (Anonymity.TINY, Anonymity.REDUCED, Anonymity.FULL)}
    if text not in levels:
        raise UsageError(f"{text!r} is no anonymity level: {', '.join(levels)}")
    return levels[text]
