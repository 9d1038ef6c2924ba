"""A relay: forwards circuits, holds the links of targets, serves the relay table, stores reach records."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Self

from onionrelay.base.errors import DestroyReason, LinkRefused, NetworkError, OnionRelayError, ProtocolViolation
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import CIRCUIT_MAX_LIFE, DESCRIPTOR_REPUBLISH, LINKS_PER_ADDRESS_GROUP, RELAY_UPKEEP
from onionrelay.base.seams import Rng
from onionrelay.core.attach.final import FinalTable
from onionrelay.core.circuit.engine import Engine, KeySet
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.circuit.keyring import OnionKeyRing
from onionrelay.core.directory.descriptor import make_descriptor
from onionrelay.core.directory.reach_store import ReachStore
from onionrelay.core.directory.service import DirectoryService
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, Peer, ServerHandshake
from onionrelay.core.path.policy import PathPolicy
from onionrelay.net.system import SystemRng, unix_now
from onionrelay.net.tls import TlsLink, TlsListener
from onionrelay.node.driver import CircuitListener, Driver
from onionrelay.node.exchange import TableExchange
from onionrelay.node.home import Home, signing_key_due
from onionrelay.node.links import Links
from onionrelay.node.network_file import NetworkFile
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
    from_relay,
    to_control,
    to_relay,
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
        self._requests.on_link_down(channel, why)
        self._finals.on_link_lost(channel)

    # Circuits

    def on_next_hop_wanted(self, hop: Hop, relay_id: RelayId, endpoint: Endpoint) -> None:
        """See Owner."""
        if channel := self._links.find(relay_id):
            self._driver.offer_next(hop, channel)
        else:
            self._tasks.spawn(self._fetch_next(hop, relay_id, endpoint))

    async def _fetch_next(self, hop: Hop, relay_id: RelayId, endpoint: Endpoint) -> None:
        try:
            channel = await self._links.get(relay_id, endpoint)
        except LinkRefused:
            self._driver.refuse_next(hop, BuildStatus.NEXT_ID_MISMATCH)
        except NetworkError:
            self._driver.refuse_next(hop, BuildStatus.NEXT_UNREACHABLE)
        else:
            self._driver.offer_next(hop, channel)

    def on_endpoint(self, hop: Hop) -> CircuitListener:
        """See Owner: a circuit that ends at a relay asks it for records, or about relays."""
        return _Questions(self, hop)

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
                answer = self._directory.answer(message, self._clock())
            case DhtGet() | DhtPut():
                raise ProtocolViolation("records are put and fetched through circuits only")
            case _:
                self._requests.on_answer(channel, request_id, message)
                return
        self._driver.send_control(channel, *to_control(answer, request_id))

    def on_question(self, hop: Hop, cmd: int, rid: int, data: bytes) -> None:
        """A question came over a circuit that ends here. Who asks is not known, so it is no descriptor to be taken."""
        try:
            question = from_relay(cmd, data)
        except ProtocolViolation:
            question = None
        if isinstance(question, DirGet | DhtGet | DhtPut):
            answer, reply = to_relay(self._directory.answer(question, self._clock()))
            hop.send(answer, reply, rid=rid)
            self._driver.settle()
        else:
            self._driver.close_circuit(hop, DestroyReason.PROTOCOL)

    def _take(self, descriptor: bytes, channel: Channel) -> StoreResult:
        """Descriptors come from relays, not from whoever passes by."""
        if channel.peer is None or channel.peer.relay_id is None:
            raise ProtocolViolation("an anonymous client offers a descriptor")
        if not self._exchange.admits(channel):
            return StoreResult.BUSY
        known = self.table.version
        receipt = self._directory.answer(DirPut(descriptor), self._clock())
        if self.table.version != known:
            self._exchange.pass_on(descriptor, source=channel)
        return receipt.result if isinstance(receipt, DirReceipt) else StoreResult.INVALID

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
        while True:
            await asyncio.sleep(RELAY_UPKEEP)
            try:
                self._renew()
            except OnionRelayError as error:
                log.warning("cannot renew the relay's keys and descriptor: %s", error)
            now = self._clock()
            self.table.expire(now)
            self._store.expire(now)
            for channel in self._finals.expire(now):
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


class _Questions(CircuitListener):
    """A circuit that ends at this relay: questions about records and relays come over it."""

    def __init__(self, relay: RelayNode, hop: Hop) -> None:
        self._relay = relay
        self._hop = hop

    def on_message(self, hop: int, cmd: int, rid: int, data: bytes) -> None:  # noqa: ARG002
        """See CircuitListener."""
        self._relay.on_question(self._hop, cmd, rid, data)

    def on_room(self) -> None:
        """See CircuitListener."""

    def on_ended(self, why: str) -> None:
        """See CircuitListener."""
