"""A relay: forwards circuits, holds the links of targets, serves the relay table, stores reach records."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Self

from onionrelay.base.errors import LinkRefused, NetworkError, OnionRelayError, ProtocolViolation
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import (
    CIRCUIT_MAX_LIFE,
    DESCRIPTOR_REPUBLISH,
    DIALS_AT_ONCE,
    DIR_GET_BURST,
    DIR_GET_RATE,
    HALF_BUILT_LIFE,
    LINKS_PER_ADDRESS_GROUP,
    MAX_CONTROL_MESSAGE,
    RELAY_UPKEEP,
    SEND_QUEUE,
)
from onionrelay.base.seams import Rng
from onionrelay.core.attach.final import FinalTable
from onionrelay.core.circuit.engine import Engine, KeySet
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.circuit.keyring import OnionKeyRing
from onionrelay.core.directory.descriptor import make_descriptor
from onionrelay.core.directory.reach_store import ReachStore
from onionrelay.core.directory.service import RESULTS, DirectoryService
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, Peer, ServerHandshake
from onionrelay.core.path.policy import PathPolicy
from onionrelay.core.token_bucket import TokenBucket
from onionrelay.net.system import SystemRng, unix_now
from onionrelay.net.tls import TlsLink, TlsListener
from onionrelay.node.driver import CircuitListener, Driver
from onionrelay.node.exchange import TableExchange
from onionrelay.node.home import Home, signing_key_due
from onionrelay.node.links import Links
from onionrelay.node.network_file import NetworkFile
from onionrelay.node.questions import Questions
from onionrelay.node.requests import Requests
from onionrelay.node.tasks import Tasks
from onionrelay.wire.address import Address, Endpoint
from onionrelay.wire.attach import Attach, AttachAccepted, Detach, VoucherRequest
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import Cmd
from onionrelay.wire.descriptor import Roles
from onionrelay.wire.directory import (
    Answer,
    DhtGet,
    DhtPut,
    DirGet,
    DirPut,
    DirReceipt,
    Question,
    StoreResult,
    from_control,
    to_control,
)
from onionrelay.wire.invite import Invite
from onionrelay.wire.link import Feature

log = logging.getLogger("onionrelay.relay")

ROLES = Roles.GUARD | Roles.MIDDLE | Roles.FINAL | Roles.DHT
FEATURES = Feature.CIRCUITS | Feature.ATTACH | Feature.DHT | Feature.DIR


class RelayNode:
    """A running relay; an async context manager.

    ::

        async with RelayNode(home, network) as relay:
            print(relay.invite)
            await relay.wait_stopped()

    Making and entering it raise ConfigError or HomeError when its keys, settings or ports cannot be used. A seed that
    does not answer is tried again and again meanwhile. Events: "linked", with a seed's address and the number of relays
    that it knew.
    """

    def __init__(
        self,
        home: Home,
        network: NetworkFile,
        *,
        rng: Rng | None = None,
        clock: Callable[[], int] = unix_now,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.home = home
        self.network = network
        self._rng = rng or SystemRng()
        self._clock = clock
        self._on_event = on_event
        self._settings = home.relay_settings()
        if not network.testnet:
            self._settings.check_public()
        self._identity = home.relay_identity(self._rng, self._clock())
        self.invite = Invite(self.relay_id, self._settings.endpoint)
        self.policy = PathPolicy(network.net_id, testnet=network.testnet, own_relay=self.relay_id)
        self.table = RelayTable(self.policy)
        self._tasks = Tasks()
        self._dials: set[asyncio.Task[None]] = set()
        self._page_buckets: dict[Channel, TokenBucket] = {}
        self._stack = contextlib.AsyncExitStack()
        self._stopped = asyncio.Event()

    @property
    def relay_id(self) -> RelayId:
        """The relay's public id."""
        return self._identity.relay_id

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens."""
        return self._listener.addresses

    @property
    def descriptor(self) -> bytes:
        """What it last published about itself."""
        return self._exchange.descriptor

    async def wait_stopped(self) -> None:
        """Until `stop` is called."""
        await self._stopped.wait()

    def stop(self) -> None:
        """Ends `wait_stopped`. From the event loop's thread, for instance a signal handler."""
        self._stopped.set()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self.home.hold("relay"))
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        now, loop = self._clock(), asyncio.get_running_loop()
        self._ring = OnionKeyRing(self.relay_id.raw, self._rng, now)
        self._keys = KeySet(self.relay_id.raw, self._ring, is_node=False)
        self._finals: FinalTable[Channel] = FinalTable(self.relay_id, self._identity.signing_secret, self.policy)
        engine = Engine(
            net_id=self.network.net_id,
            rng=self._rng,
            now=loop.time(),
            testnet=self.network.testnet,
            finals=self._finals,
            roles=ROLES,
        )
        self._driver = Driver(engine, self, clock=self._clock)
        stack.push_async_callback(self._tasks.aclose)
        stack.push_async_callback(self._driver.aclose)  # before the tasks, for links that end start new ones
        self._requests = Requests(self._driver)
        self._links = Links(self._driver, self._handshake, LinkPurpose.RELAY, build_keys=self._keys)
        self._exchange = TableExchange(
            self.relay_id,
            self.table,
            self._driver,
            self._links,
            requests=self._requests,
            tasks=self._tasks,
            rng=self._rng,
            describe=self._describe,
            on_event=self._on_event,
        )
        self._listener = TlsListener(
            [address for _, address in self._settings.listen], self._on_link, admits=self._admits
        )
        own = self._exchange.publish()
        self._store = ReachStore(self.policy, own.position)
        self._directory = DirectoryService(self.table, self._store)
        self._listener.start()
        stack.push_async_callback(self._listener.close)
        for seed in self.network.seeds:
            if seed.relay_id != self.relay_id:
                self._tasks.spawn(self._exchange.keep_linked(seed))
        self._tasks.spawn(self._keep_up())

    # Links

    def _handshake(self, relay_id: RelayId, leaf_digest: bytes) -> ClientHandshake:
        return ClientHandshake(
            net_id=self.network.net_id,
            expected=relay_id,
            leaf_digest=leaf_digest,
            identity=self._identity,
            rng=self._rng,
            features=FEATURES,
        )

    def _on_link(self, link: TlsLink) -> None:
        handshake = ServerHandshake(
            net_id=self.network.net_id,
            identity=self._identity,
            leaf_digest=link.leaf_digest,
            observed=link.remote,
            rng=self._rng,
            features=FEATURES,
        )
        self._driver.accept(link, handshake, self._keys)

    def _admits(self, remote: Address) -> bool:
        """Whether one more link from this address is taken: one neighbourhood must not use up all there are."""
        return self.network.testnet or self._driver.links_from(remote.group24()) < LINKS_PER_ADDRESS_GROUP

    def on_link_up(self, channel: Channel, peer: Peer) -> None:
        """See Owner."""
        self._links.on_up(channel, peer)

    def on_link_down(self, channel: Channel, why: str) -> None:
        """See Owner."""
        self._links.on_down(channel)
        self._exchange.on_link_down(channel)
        self._page_buckets.pop(channel, None)
        self._requests.on_link_down(channel, why)
        self._finals.on_link_lost(channel)

    # Circuits

    def on_next_hop_wanted(self, hop: Hop, relay_id: RelayId, endpoint: Endpoint) -> None:
        """See Owner."""
        if channel := self._links.find(relay_id):
            self._driver.offer_next(hop, channel)
        elif len(self._dials) >= DIALS_AT_ONCE:
            self._driver.refuse_next(hop, BuildStatus.OVERLOADED)
        else:
            dial = self._tasks.spawn(self._fetch_next(hop, relay_id, endpoint))
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)

    async def _fetch_next(self, hop: Hop, relay_id: RelayId, endpoint: Endpoint) -> None:
        try:
            async with asyncio.timeout(HALF_BUILT_LIFE):  # the circuit does not wait any longer
                channel = await self._links.get(relay_id, endpoint)
        except LinkRefused:
            self._driver.refuse_next(hop, BuildStatus.NEXT_ID_MISMATCH)
        except (NetworkError, TimeoutError):
            self._driver.refuse_next(hop, BuildStatus.NEXT_UNREACHABLE)
        else:
            self._driver.offer_next(hop, channel)

    def on_endpoint(self, hop: Hop) -> CircuitListener:
        """See Owner: a circuit that ends at a relay asks it for records, or about relays."""
        return Questions(self._driver, self._directory, hop)

    # What comes over links and circuits

    def on_control(self, channel: Channel, cmd: int, kind: int, body: bytes) -> None:
        """See Owner."""
        try:
            if cmd == Cmd.ATTACH:
                self._on_attach(channel, kind, body)
            else:
                self._on_directory(channel, *from_control(cmd, kind, body))
        except ProtocolViolation as error:
            log.debug("link closed: %s", error)
            self._driver.close_link(channel)

    def _on_attach(self, channel: Channel, kind: int, body: bytes) -> None:
        now = self._clock()
        if channel.peer is None or not channel.is_client_link:
            raise ProtocolViolation("an attachment message on a link that no target has dialled")
        if kind == Attach.TYPE:
            answer = self._finals.on_attach(
                channel,
                self._driver.remote(channel),
                Attach.decode(body),
                channel.peer.transcript,
                unix_now=now,
                now=asyncio.get_running_loop().time(),
            )
        elif kind == VoucherRequest.TYPE:
            VoucherRequest.decode(body)
            answer = self._finals.on_renew(channel, now)
        elif kind == Detach.TYPE:
            Detach.decode(body)
            self._driver.close_link(channel)
            return
        else:
            raise ProtocolViolation("an attachment message that no final hop takes")
        if isinstance(answer, AttachAccepted):
            channel.max_circuits = answer.voucher.max_circuits
        self._driver.send_control(channel, Cmd.ATTACH, answer.TYPE, answer.encode())

    def _on_directory(self, channel: Channel, request_id: int, message: Question | Answer) -> None:
        match message:
            case DirPut(descriptor):
                answer: Answer = DirReceipt(self._take(descriptor, channel))
            case DirGet():
                self._require_patience(channel)
                answer = self._directory.answer(message, self._clock())
            case DhtGet() | DhtPut():
                raise ProtocolViolation("records are put and fetched through circuits only")
            case _:
                self._requests.on_answer(channel, request_id, message)
                return
        self._driver.send_control(channel, *to_control(answer, request_id))

    def _require_patience(self, channel: Channel) -> None:
        """Pages are for who reads them, and one after the other: a short question makes a long answer."""
        now = asyncio.get_running_loop().time()
        bucket = self._page_buckets.setdefault(channel, TokenBucket(DIR_GET_RATE, DIR_GET_BURST, now))
        # Circuits alone fill an outbox up to SEND_QUEUE: what is a page beyond it, answers have put there.
        if not bucket.take(now) or len(channel.outbox) > SEND_QUEUE + MAX_CONTROL_MESSAGE:
            raise ProtocolViolation("the relay table is asked for faster than it is read")

    def _take(self, descriptor: bytes, channel: Channel) -> StoreResult:
        """Descriptors come from relays, not from whoever passes by."""
        if channel.peer is None or channel.peer.relay_id is None:
            raise ProtocolViolation("an anonymous client offers a descriptor")
        if not self._exchange.admits(channel):
            return StoreResult.BUSY
        added = self.table.add(descriptor, self._clock())
        if added.changed:
            self._exchange.pass_on(descriptor, source=channel)
        return RESULTS[added.outcome]

    # Upkeep

    def _describe(self, seq: int) -> bytes:
        return make_descriptor(
            self._identity.signing_secret,
            net_id=self.network.net_id,
            relay_id=self.relay_id,
            cert=self._identity.signing_cert,
            seq=seq,
            unix_now=self._clock(),
            onion=self._ring.public,
            next_onion_digest=self._ring.next_digest,
            endpoints=(self._settings.endpoint,),
            roles=ROLES,
            features=FEATURES,
            max_hold=CIRCUIT_MAX_LIFE,
        )

    async def _keep_up(self) -> None:
        """What falls due with the wall clock. One failure must not keep the next time from coming."""
        seeds = {seed.relay_id for seed in self.network.seeds}
        while True:
            await asyncio.sleep(RELAY_UPKEEP)
            try:
                self._renew()
            except OnionRelayError as error:
                log.warning("cannot renew the relay's keys and descriptor: %s", error)
            now = self._clock()
            self.table.expire(now)
            self._store.expire(now)
            unused = self._links.unused(asyncio.get_running_loop().time(), but=seeds)
            for channel in (*self._finals.expire(now), *unused):
                self._driver.close_link(channel)

    def _renew(self) -> None:
        """New keys when it is time, and a new descriptor with them: vouchers are checked against the one it names."""
        now = self._clock()
        is_due = now >= signing_key_due(self._identity)
        if is_due:
            self._identity = self.home.relay_identity(self._rng, now)
            self._finals.signing = self._identity.signing_secret
        if self._ring.rotate(now) or is_due or now - self._exchange.published_at >= DESCRIPTOR_REPUBLISH:
            self._exchange.publish()
