"""A network in memory: real engines, handshakes, builds and cells; virtual time; no sockets.

::

    net = MemoryNet(seed=1)
    relays = [net.relay(f"relay{i}") for i in range(4)]
    target = net.target("target")
    client = net.client("client")
    net.attach(target, relays[-1])
    origin = client.open_circuit(relays, target)
    net.run(1)
    assert client.seen(CircuitOpened)

Every link is a `Pipe` of two `Direction`s, and whoever holds a direction sees and rules it: `tap` records its cells,
`adversary` puts others in their place, `stalled` leaves them in the sender's outbox. A run with the same seed repeats
every decision and time (not the ciphertext: ML-KEM draws its own randomness).
"""

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeVar

from onionrelay.base.errors import UsageError
from onionrelay.base.ids import HandleKey, NodeId, RelayId
from onionrelay.base.limits import CIRCUIT_MAX_LIFE, QUEUE_MEMORY, TIME_WINDOW
from onionrelay.core.circuit.engine import CircuitPlan, Engine, KeySet, OnionKeyRing, PlannedHop
from onionrelay.core.circuit.origin import Origin
from onionrelay.core.effects import Effect, LinkClosing, LinkUp, NextHopWanted
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, LinkIdentity, ServerHandshake
from onionrelay.core.link.identity import make_signing_cert
from onionrelay.crypto.signing import SigningSecret
from onionrelay.crypto.ticket import build_ticket
from onionrelay.testing.memory_link import Direction, Pipe
from onionrelay.testing.seeded_rng import SeededRng
from onionrelay.wire.address import Address, Endpoint, Transport
from onionrelay.wire.build import BuildRecord, BuildStatus, Role
from onionrelay.wire.descriptor import Roles
from onionrelay.wire.link import Feature

START = 1_800_000_000  # unix time at virtual time 0
FEATURES = Feature.CIRCUITS | Feature.ATTACH | Feature.DHT | Feature.DIR
ALL_ROLES = Roles.GUARD | Roles.MIDDLE | Roles.FINAL | Roles.DHT
K_TICKET = bytes(range(32))

E = TypeVar("E", bound=Effect)


class HandleTable:
    """The attachments of one final hop, entered by hand: the tickets are checked, vouchers do not exist."""

    def __init__(self) -> None:
        self.attached: dict[bytes, Channel] = {}

    def authorise(
        self, handle: bytes, ticket: bytes, ephemeral: bytes, now: float, unix_now: int
    ) -> Channel | BuildStatus:
        """See `FinalTable`."""
        del now, unix_now
        channel = self.attached.get(handle)
        if channel is None or channel.closed:
            return BuildStatus.NO_SUCH_HANDLE
        return channel if ticket == build_ticket(K_TICKET, ephemeral) else BuildStatus.TICKET


class MemoryNode:
    """One process: an engine, and a driver that dials the next hop and keeps every effect in `effects`."""

    def __init__(self, net: "MemoryNet", name: str, *, roles: Roles, queue_memory: int) -> None:
        self.net = net
        self.name = name
        self.effects: list[Effect] = []
        self.on_effect: Callable[[Effect], None] | None = None
        self.handles = HandleTable()
        self.refuses_links = False
        self.rng = SeededRng(f"{net.seed}/{name}")
        self.node_id = NodeId(SigningSecret.generate(self.rng).public)
        self.node_keys = self._key_set(self.node_id.raw, is_node=True)
        self.identity = self._identity()
        self.relay_keys = self._key_set(self.identity.relay_id.raw, is_node=False) if roles else None
        self.engine = Engine(
            net_id=net.net_id,
            rng=self.rng,
            now=net.now,
            testnet=net.testnet,
            finals=self.handles,
            roles=roles,
            queue_memory=queue_memory,
        )
        self._wanted: dict[Channel, list[NextHopWanted]] = {}

    def __repr__(self) -> str:
        return f"MemoryNode({self.name})"

    def _identity(self) -> LinkIdentity:
        relay, signing = SigningSecret.generate(self.rng), SigningSecret.generate(self.rng)
        cert = make_signing_cert(relay, signing.public, self.net.unix_now + 30 * 24 * 3600)
        return LinkIdentity(RelayId(relay.public), signing, cert)

    def _key_set(self, identity: bytes, *, is_node: bool) -> KeySet:
        return KeySet(identity, OnionKeyRing(identity, self.rng, self.net.unix_now), is_node)

    @property
    def relay_id(self) -> RelayId:
        """The id under which it is a relay."""
        return self.identity.relay_id

    def seen(self, kind: type[E]) -> list[E]:
        """The effects of one kind so far."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    R = TypeVar("R")

    def act(self, call: Callable[[], R]) -> R:
        """Makes one call of the engine, and does what a driver does after it."""
        result = call()
        self.settle()
        return result

    def settle(self) -> None:
        """Acts on effects and flushes links until there is nothing to do."""
        while (effects := self.engine.take_effects()) or (dirty := self.engine.take_dirty()):
            for effect in effects:
                self._handle(effect)
            if not effects:
                for channel in dirty:
                    self.net.flush(channel)

    def _handle(self, effect: Effect) -> None:
        self.effects.append(effect)
        match effect:
            case NextHopWanted():
                self._dial(effect)
            case LinkUp(channel=channel):
                for wanted in self._wanted.pop(channel, []):
                    self.engine.offer_next(wanted.hop, channel, self.net.now)
            case LinkClosing(channel=channel):
                for wanted in self._wanted.pop(channel, []):
                    self.engine.refuse_next(wanted.hop, BuildStatus.NEXT_UNREACHABLE, self.net.now)
                self.net.close(channel)
            case _:
                pass
        if self.on_effect:
            self.on_effect(effect)

    def _dial(self, wanted: NextHopWanted) -> None:
        peer = self.net.by_relay_id.get(wanted.relay_id)
        if peer is None or peer.refuses_links:
            self.engine.refuse_next(wanted.hop, BuildStatus.NEXT_UNREACHABLE, self.net.now)
            return
        channel = self.net.channel(self, peer, LinkPurpose.RELAY)
        if channel.peer is not None:
            self.engine.offer_next(wanted.hop, channel, self.net.now)
        else:
            self._wanted.setdefault(channel, []).append(wanted)

    def open_circuit(
        self, path: Sequence["MemoryNode"], target: "MemoryNode | None" = None, **record: object
    ) -> Origin:
        """Starts a circuit through `path` to an attached target, or to the last relay. `record`: fields to override."""
        channel = self.net.channel(self, path[0], LinkPurpose.GUARD)
        if channel.peer is None:
            self.net.run_until(lambda: channel.peer is not None)
        plan = self.net.plan(path, target, **record)
        return self.act(lambda: self.engine.open_circuit(channel, plan, self.net.now, self.net.unix_now))


class MemoryNet:
    """See the module. `testnet` as in a network file; `seconds`: the one-way delay of links made from now on."""

    def __init__(self, seed: int = 0, *, seconds: float = 0.005, testnet: bool = True) -> None:
        self.seed = seed
        self.seconds = seconds
        self.testnet = testnet
        self.now = 0.0
        self.net_id = SeededRng(seed).token(8)
        self.nodes: list[MemoryNode] = []
        self.by_relay_id: dict[RelayId, MemoryNode] = {}
        self.pipes: list[Pipe] = []
        self.on_link: Callable[[Pipe], None] | None = None  # called with each new link before its first cell
        self._handles: dict[MemoryNode, HandleKey] = {}
        self._directions: dict[Channel, Direction] = {}  # by the channel that sends
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()

    @property
    def unix_now(self) -> int:
        """The wall clock of all nodes."""
        return START + int(self.now)

    # Nodes and links

    def _add(self, name: str, roles: Roles, queue_memory: int = QUEUE_MEMORY) -> MemoryNode:
        node = MemoryNode(self, name, roles=roles, queue_memory=queue_memory)
        self.nodes.append(node)
        if roles:
            self.by_relay_id[node.relay_id] = node
        return node

    def relay(self, name: str, roles: Roles = ALL_ROLES, *, queue_memory: int = QUEUE_MEMORY) -> MemoryNode:
        """A relay."""
        return self._add(name, roles, queue_memory)

    def client(self, name: str) -> MemoryNode:
        """A node that opens circuits and takes none."""
        return self._add(name, Roles(0))

    target = client

    def endpoint(self, node: MemoryNode) -> Endpoint:
        """A public address of its own for each node, or a private one in a test network."""
        index = self.nodes.index(node) + 1
        return Endpoint(Transport.TLS, ipv4=Address(f"{'10' if self.testnet else '9'}.{index}.0.1", 443))

    def link(self, dialler: MemoryNode, listener: MemoryNode, purpose: LinkPurpose) -> Pipe:
        """A new link; its handshake begins at once. Relays prove who they are on links of purpose RELAY."""
        digest = self.net_id * 4
        hello = ClientHandshake(
            net_id=self.net_id,
            expected=listener.relay_id,
            leaf_digest=digest,
            identity=dialler.identity if purpose is LinkPurpose.RELAY else None,
            rng=dialler.rng,
            features=FEATURES,
        )
        keys = {LinkPurpose.ATTACHMENT: dialler.node_keys, LinkPurpose.RELAY: dialler.relay_keys}.get(purpose)
        near = dialler.engine.add_link(hello, is_server=False, purpose=purpose, build_keys=keys, now=self.now)
        answer = ServerHandshake(
            net_id=self.net_id,
            identity=listener.identity,
            leaf_digest=digest,
            observed=Address(f"10.{self.nodes.index(dialler) + 1}.0.1", 50_000),
            rng=listener.rng,
            features=FEATURES,
        )
        far = listener.engine.add_link(
            answer, is_server=True, purpose=LinkPurpose.ACCEPTED, build_keys=listener.relay_keys, now=self.now
        )
        pipe = Pipe(Direction(self, (dialler, near), self.seconds), Direction(self, (listener, far), self.seconds))
        pipe.forth.receiver, pipe.back.receiver = pipe.back.sender, pipe.forth.sender
        self.pipes.append(pipe)
        self._directions |= {near: pipe.forth, far: pipe.back}
        if self.on_link:
            self.on_link(pipe)
        dialler.settle()
        return pipe

    def channel(self, dialler: MemoryNode, listener: MemoryNode, purpose: LinkPurpose) -> Channel:
        """The dialler's channel of an open link for this purpose; a new link when there is none."""
        for pipe in self.pipes:
            (node, channel), (peer, _) = pipe.forth.sender, pipe.back.sender
            if (node, peer, channel.purpose) == (dialler, listener, purpose) and not channel.closed:
                return channel
        return self.link(dialler, listener, purpose).forth.sender[1]

    def between(self, dialler: MemoryNode, listener: MemoryNode) -> Pipe:
        """The latest link between two nodes."""
        for pipe in reversed(self.pipes):
            if (pipe.forth.sender[0], pipe.back.sender[0]) == (dialler, listener):
                return pipe
        raise UsageError(f"no link from {dialler.name} to {listener.name}")

    def attach(self, target: MemoryNode, final: MemoryNode) -> HandleKey:
        """Gives a target a live link to a final hop, which from now on knows it by the handle returned."""
        pipe = self.link(target, final, LinkPurpose.ATTACHMENT)
        handle = HandleKey(SigningSecret.generate(target.rng).public)
        final.handles.attached[handle.raw] = pipe.back.sender[1]
        self._handles[target] = handle
        self.run_until(lambda: pipe.back.sender[1].peer is not None and pipe.forth.sender[1].peer is not None)
        return handle

    def plan(self, path: Sequence[MemoryNode], target: MemoryNode | None, **record: object) -> CircuitPlan:
        """The plan of a circuit through `path`; the last record sets the circuit's life."""
        fields: dict[str, object] = {"window": self.unix_now // TIME_WINDOW, "lifetime": CIRCUIT_MAX_LIFE} | record
        hops = []
        for index, node in enumerate(path):
            keys = node.relay_keys
            if keys is None:
                raise UsageError(f"{node.name} is no relay")
            if index + 1 < len(path):
                following = path[index + 1]
                told: dict[str, object] = {
                    "role": Role.FORWARD,
                    "next_id": following.relay_id,
                    "endpoint": self.endpoint(following),
                }
            elif target is not None:
                told = {"role": Role.HANDLE, "next_id": self._handles[target]}
            else:
                told = {"role": Role.ENDPOINT}
            hops.append(PlannedHop(keys.identity, keys.ring.public, BuildRecord(**(fields | told))))  # type: ignore[arg-type]
        if target is not None:
            keys = target.node_keys
            record_of_target = BuildRecord(**(fields | {"role": Role.ENDPOINT}))  # type: ignore[arg-type]
            hops.append(PlannedHop(keys.identity, keys.ring.public, record_of_target))
        return CircuitPlan(tuple(hops), lifetime=CIRCUIT_MAX_LIFE, k_ticket=K_TICKET)

    def flush(self, channel: Channel) -> None:
        """Sends a channel's outbox."""
        direction = self._directions.get(channel)  # not yet there while the handshake's first cells are made
        if direction:
            direction.flush()

    def close(self, channel: Channel) -> None:
        """Sends what a channel's outbox holds and closes the link behind it."""
        direction = self._directions[channel]
        direction.flush()
        self.at(direction.seconds, lambda: self.lose(channel))

    def lose(self, channel: Channel) -> None:
        """Breaks the link a channel belongs to, with all that is under way; both ends notice."""
        direction = self._directions[channel]
        ends = (direction.sender, direction.receiver)
        for _, end in ends:
            self._directions[end].cut = True
        for node, end in ends:
            self.at(0.0, lambda node=node, end=end: node.act(lambda: node.engine.on_link_lost(end, self.now)))  # type: ignore[misc]

    # Time

    def at(self, after: float, action: Callable[[], None]) -> None:
        """Does something `after` seconds from now."""
        heapq.heappush(self._queue, (self.now + after, next(self._count), action))

    def step(self, until: float = float("inf")) -> bool:
        """Moves to the next thing that happens and lets it happen; False when nothing does before `until`."""
        deadlines = [(node.engine.deadline, node) for node in self.nodes]
        timer = min((when for when, _ in deadlines if when is not None), default=float("inf"))
        event = self._queue[0][0] if self._queue else float("inf")
        if min(timer, event) > until:
            return False
        self.now = max(self.now, min(timer, event))
        if event <= timer:
            heapq.heappop(self._queue)[2]()
            return True
        for when, node in deadlines:
            if when is not None and when <= self.now:
                node.act(lambda node=node: node.engine.on_timeout(self.now, self.unix_now))  # type: ignore[misc]
        return True

    def run(self, seconds: float) -> None:
        """Lets this much time pass."""
        until = self.now + seconds
        while self.step(until):
            pass
        self.now = until

    def run_until(self, happened: Callable[[], bool], limit: float = 60.0) -> None:
        """Lets time pass until something holds; an error when it does not within `limit` seconds."""
        until = self.now + limit
        while not happened():
            if not self.step(until):
                raise UsageError(f"it has not happened within {limit:g} s")
