"""Being reached: attachments to final hops, reach records, and the sessions that callers open."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from onionrelay.base.errors import DestroyReason, NetworkError, ProtocolViolation, TimedOut
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import PUBLISH_TRIES, SILENT_CIRCUITS
from onionrelay.core.attach.attachment import Attachment
from onionrelay.core.attach.target import AttachmentSet, CloseAttachment, Dial, Publish, SendAttach, TargetEffect
from onionrelay.core.circuit.engine import KeySet
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.circuit.keyring import OnionKeyRing
from onionrelay.core.directory.publisher import Publisher, Put
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.crypto.signing import SigningSecret
from onionrelay.node.client import Client
from onionrelay.node.driver import CircuitListener, Driver
from onionrelay.node.events import Event
from onionrelay.node.home import Home
from onionrelay.node.links import dial_relay
from onionrelay.node.records import Records
from onionrelay.node.services import Services
from onionrelay.node.stream import IncomingStream
from onionrelay.node.streams import SessionCarrier, SessionMemory
from onionrelay.node.tasks import Tasks
from onionrelay.wire.attach import AttachAccepted, AttachRefused
from onionrelay.wire.cell import Cmd
from onionrelay.wire.directory import StoreResult
from onionrelay.wire.frames import CloseCode
from onionrelay.wire.reach import ReachContents

log = logging.getLogger("onionrelay.target")

ATTACH_ANSWERS: dict[int, type[AttachAccepted] | type[AttachRefused]] = {
    answer.TYPE: answer for answer in (AttachAccepted, AttachRefused)
}


class Target:
    """Keeps a node reachable from `start` to `aclose`. Nothing of it exists before the node serves something."""

    def __init__(
        self,
        client: Client,
        records: Records,
        home: Home,
        services: Services,
        emit: Callable[[Event], None],
    ) -> None:
        """`emit` never raises: see `events.guarded`."""
        self._client = client
        self._records = records
        self._driver: Driver = client.driver
        self._home = home
        self._services = services
        self._emit = emit
        self._secret: SigningSecret | None = None
        self._tasks = Tasks()
        self._stack = contextlib.ExitStack()
        self._attachments: AttachmentSet | None = None
        self._dials: dict[Attachment, asyncio.Task[None]] = {}
        self._channels: dict[Attachment, Channel] = {}
        self._reachable = asyncio.Event()
        self._was_lost = False
        self._is_closing = False
        self._sessions: set[SessionCarrier] = set()
        self._silent: dict[Hop, None] = {}  # circuits without a session, oldest first
        self._serving: set[asyncio.Task[Any]] = set()
        self._memory = SessionMemory()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def secret(self) -> SigningSecret:
        """The node key, made when it is first needed."""
        if self._secret is None:
            self._secret = self._home.make_node_secret(self._client.rng)
        return self._secret

    @property
    def node_id(self) -> NodeId:
        """What callers type."""
        return NodeId(self.secret.public)

    async def start(self) -> None:
        """Attaches. HomeError when another process is this home's target already."""
        if self._attachments is not None:
            return
        ring = OnionKeyRing(self.node_id.raw, self._client.rng, self._driver.unix_now())
        self._keys = KeySet(self.node_id.raw, ring, is_node=True)
        self._publisher = Publisher(self.secret, self._client.policy, self._client.rng)
        self._stack.enter_context(self._home.hold("target"))
        self._attachments = AttachmentSet(self._client.rng)
        self.keep_up()

    def keep_up(self) -> None:
        """What falls due with the wall clock: a new onion key, and a fresh look at the relays to choose from."""
        if self._attachments is not None:
            # The old onion key is accepted for another day, and the record is published anew every hour.
            self._keys.ring.rotate(self._driver.unix_now())
            self._advance(lambda target, now, unix: target.on_candidates(self._client.candidates, now, unix))

    async def wait_reachable(self, timeout: float | None) -> None:  # noqa: ASYNC109 - part of the message
        """Until a record of this node is stored, and a final hop of it holds. Raises TimedOut."""
        try:
            async with asyncio.timeout(timeout):
                await self._reachable.wait()
        except TimeoutError:
            raise TimedOut("becoming reachable", timeout or 0) from None

    async def aclose(self) -> None:
        """Ends sessions, attachments, and handlers that still run."""
        self._is_closing = True
        await asyncio.gather(*(carrier.aclose(CloseCode.SHUTDOWN) for carrier in tuple(self._sessions)))
        serving = tuple(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        if self._attachments is not None:
            self._carry_out(self._attachments.stop())
            self._attachments = None
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.aclose()
        self._stack.close()

    # Attachments

    def _advance(self, step: Callable[[AttachmentSet, float, int], list[TargetEffect]]) -> None:
        """Tells the machine something, carries out what it asks for, and sets its timer."""
        if self._attachments is None:
            return
        loop = asyncio.get_running_loop()
        self._carry_out(step(self._attachments, loop.time(), self._driver.unix_now()))
        if self._reachable.is_set() and not self._is_attached:
            self._reachable.clear()
            self._was_lost = True
            self._emit({"event": "unreachable"})
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attachments is not None and self._attachments.deadline is not None:
            self._timer = loop.call_at(self._attachments.deadline, self._on_timer)

    @property
    def _is_attached(self) -> bool:
        return self._attachments is not None and any(each.is_up for each in self._attachments.attachments)

    def _on_timer(self) -> None:
        self._advance(lambda target, now, unix: target.on_timeout(now, unix))

    def _carry_out(self, effects: list[TargetEffect]) -> None:
        for effect in effects:
            match effect:
                case Dial(attachment):
                    self._dials[attachment] = self._tasks.spawn(self._dial(attachment))
                case SendAttach(attachment, message):
                    if channel := self._channels.get(attachment):
                        self._driver.send_control(channel, Cmd.ATTACH, message.TYPE, message.encode())
                case CloseAttachment(attachment, why):
                    log.info("attachment ended: %s", why)
                    self._close(attachment)
                case Publish():
                    self._tasks.spawn(self._publish(effect))

    async def _dial(self, attachment: Attachment) -> None:
        final = attachment.final
        try:
            channel = await dial_relay(
                self._driver,
                final.relay_id,
                final.endpoint,
                self._client.handshake,
                LinkPurpose.ATTACHMENT,
                build_keys=self._keys,
            )
        except NetworkError as error:
            log.info("final hop does not answer: %s", error)
            self._advance(lambda target, now, unix: target.on_link_lost(attachment, now, unix))
            return
        finally:
            self._dials.pop(attachment, None)
        if channel.peer is None:
            return
        self._channels[attachment] = channel
        transcript = channel.peer.transcript
        self._advance(lambda target, now, unix: target.on_link_up(attachment, transcript, now, unix))

    def _close(self, attachment: Attachment) -> None:
        if dial := self._dials.get(attachment):
            dial.cancel()
        if channel := self._channels.pop(attachment, None):
            self._driver.close_link(channel)

    def on_attach(self, channel: Channel, kind: int, body: bytes) -> None:
        """What a final hop says. Raises ProtocolViolation for what it must not say."""
        attachment = self._attachment_of(channel)
        answer = ATTACH_ANSWERS.get(kind)
        if attachment is None or answer is None:
            raise ProtocolViolation("an attachment message out of place")
        message = answer.decode(body)
        self._advance(lambda target, now, unix: target.on_message(attachment, message, now, unix))

    def on_link_down(self, channel: Channel, why: str) -> None:
        """See Owner."""
        if attachment := self._attachment_of(channel):
            log.info("attachment lost: %s", why)
            del self._channels[attachment]
            self._advance(lambda target, now, unix: target.on_link_lost(attachment, now, unix))

    def _attachment_of(self, channel: Channel) -> Attachment | None:
        return next((one for one, its in self._channels.items() if its is channel), None)

    # Publication

    async def _publish(self, wanted: Publish) -> None:
        onion = self._keys.ring.public
        contents = ReachContents(
            node_id=self.node_id, onion_x25519=onion.x25519, onion_mlkem=onion.mlkem, finals=wanted.finals, features=0
        )
        stored = 0
        try:
            stored = await self._store(contents, wanted.periods)
        finally:  # else nothing would ever be published again
            self._advance(lambda target, now, unix: target.on_published(stored=stored > 0, now=now, unix_now=unix))
        if stored:
            self._emit({"event": "published", "finals": len(wanted.finals), "stored": stored})
            self._on_stored()

    def _on_stored(self) -> None:
        if not self._is_attached:
            return
        self._reachable.set()
        if self._was_lost:
            self._was_lost = False
            self._emit({"event": "reachable", "node_id": str(self.node_id)})

    async def _store(self, contents: ReachContents, periods: tuple[int, ...]) -> int:
        """Puts the record where callers look; how many storers took it."""
        stored = 0
        for _ in range(PUBLISH_TRIES):
            puts = self._publisher.puts(contents, periods, self._client.table, self._driver.unix_now())
            results = await asyncio.gather(*map(self._put, puts))
            stored += results.count(StoreResult.STORED)
            stale = {put.period for put, result in zip(puts, results, strict=True) if result is StoreResult.STALE}
            for period in stale:
                self._publisher.on_stale(period)
            if not stale:
                break
        return stored

    async def _put(self, put: Put) -> StoreResult | None:
        try:
            return await self._records.put(put.key, put.record, put.storer)
        except (NetworkError, ProtocolViolation) as error:
            log.info("a relay did not take the reach record: %s", error)
            return None

    # Sessions

    def on_endpoint(self, hop: Hop) -> CircuitListener | None:
        """A caller's circuit has arrived."""
        if self._attachments is None or self._is_closing:
            return None
        self._silent[hop] = None
        if len(self._silent) > SILENT_CIRCUITS:
            # Each takes the place of a session; the oldest gives way, for who only looks has had time to look.
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            self._driver.close_circuit(oldest, DestroyReason.RESOURCES)
        return _Incoming(self, hop)

    def forget(self, hop: Hop) -> None:
        """A circuit is gone."""
        self._silent.pop(hop, None)

    def session(self, hop: Hop) -> SessionCarrier | None:
        """The session of a circuit, from its first packet on. None, and the circuit is closed, when there is none."""
        self._silent.pop(hop, None)
        if self._is_closing:
            self._driver.close_circuit(hop, DestroyReason.SHUTDOWN)
            return None

        def closed(_: str) -> None:
            self._sessions.discard(carrier)
            self._driver.close_circuit(hop)

        carrier = SessionCarrier(
            hop,
            is_opener=False,
            rng=self._client.rng,
            circuit=hop,
            on_stream=self._serve,
            memory=self._memory,
            flush=self._driver.settle,
            on_closed=closed,
        )
        self._sessions.add(carrier)
        return carrier

    async def _serve(self, incoming: IncomingStream) -> None:
        """Lets a service handle a stream. A handler may outlive its circuit, but not the node."""
        if task := asyncio.current_task():
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        await self._services.on_stream(incoming)


class _Incoming(CircuitListener):
    """A caller's circuit: a session begins with the first packet, so that one who only looks costs nothing."""

    def __init__(self, target: Target, hop: Hop) -> None:
        self._target = target
        self._hop = hop
        self._session: SessionCarrier | None = None

    def on_message(self, hop: int, cmd: int, rid: int, data: bytes) -> None:  # noqa: ARG002
        """See CircuitListener. A hop that is a node's takes no other command than SESS."""
        if self._session is None:
            self._session = self._target.session(self._hop)
        if self._session is not None:
            self._session.on_packet(data)

    def on_room(self) -> None:
        """See CircuitListener."""
        if self._session is not None:
            self._session.on_room()

    def on_ended(self, why: str) -> None:
        """See CircuitListener."""
        self._target.forget(self._hop)
        if self._session is not None:
            self._session.on_lost(why)
