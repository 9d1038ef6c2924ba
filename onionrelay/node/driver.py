"""Runs an Engine on asyncio: sockets in, sockets out, one timer, and every effect to whoever waits for it.

The only place where `core` meets `net`. It decides nothing: what an effect means to a relay, a client or a target is
the owner's to say, and the listener's that was named for a circuit.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, assert_never

from onionrelay.base.errors import DestroyReason, LinkRefused, NetworkError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import DIAL_TIMEOUT
from onionrelay.core.circuit.end import CircuitEnd
from onionrelay.core.circuit.engine import CircuitPlan, Engine, KeySet
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.circuit.origin import Origin
from onionrelay.core.effects import (
    CircuitEnded,
    CircuitOpened,
    CircuitRefused,
    ControlArrived,
    Effect,
    EndpointReached,
    LinkClosing,
    LinkUp,
    MessageArrived,
    NextHopWanted,
    RoomToSend,
)
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, Peer, ServerHandshake
from onionrelay.net.link import Link
from onionrelay.net.system import unix_now
from onionrelay.net.tls import dial_tls
from onionrelay.wire.address import Address, Endpoint
from onionrelay.wire.build import BuildStatus

log = logging.getLogger("onionrelay.driver")


class CircuitListener(Protocol):
    """Who is told what happens on one circuit that begins or ends here."""

    def on_message(self, hop: int, cmd: int, rid: int, data: bytes) -> None:
        """One whole message of hop `hop` (counted from 1), or of the client (0)."""
        ...

    def on_room(self) -> None:
        """The circuit takes cells again after having refused one."""
        ...

    def on_ended(self, why: str) -> None:
        """The circuit is gone, and not because this end closed it. Last call."""
        ...


class OpeningListener(CircuitListener, Protocol):
    """Who is told how a circuit that was begun here comes along."""

    def on_opened(self) -> None:
        """Every hop has answered."""
        ...

    def on_refused(self, hop: int, status: BuildStatus | None, why: str) -> None:
        """The circuit was not built. `hop` counts from 1; 0: not localised. Last call."""
        ...


class Owner(Protocol):
    """What kind of node this is: a relay, or a client and target."""

    def on_link_up(self, channel: Channel, peer: Peer) -> None:
        """A link's handshake is complete, whoever dialled."""
        ...

    def on_link_down(self, channel: Channel, why: str) -> None:
        """A link is gone."""
        ...

    def on_control(self, channel: Channel, cmd: int, kind: int, body: bytes) -> None:
        """A control message: ATTACH, DHT or DIR."""
        ...

    def on_next_hop_wanted(self, hop: Hop, relay_id: RelayId, endpoint: Endpoint) -> None:
        """Answer with the engine's `offer_next` or `refuse_next`, now or later."""
        ...

    def on_endpoint(self, hop: Hop) -> CircuitListener | None:
        """A client's circuit ends here. None: nobody here wants it, and it is closed."""
        ...


class Port:
    """One link: the transport's receiver on one side, the engine's channel on the other."""

    def __init__(self, driver: "Driver", link: Link, channel: Channel) -> None:
        self.link = link
        self.channel = channel
        self.up: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        self.down = asyncio.Event()
        self.closing_because: str | None = None  # why this end gave the link up
        self._driver = driver

    @property
    def outbox(self) -> bytearray:
        """What waits to be sent."""
        return self.channel.outbox

    def feed(self, buffer: bytearray, size: int) -> int:
        """Cells have arrived."""
        return self._driver.feed(self.channel, buffer, size)

    def on_room(self) -> None:
        """The transport has drained."""
        self._driver.on_room(self.channel)

    def on_lost(self, why: str) -> None:
        """The transport is gone."""
        self._driver.on_link_lost(self, why)


class Driver:
    """See the module. Every method is called from the event loop's thread."""

    def __init__(self, engine: Engine, owner: Owner, *, clock: Callable[[], int] = unix_now) -> None:
        self.engine = engine
        self.unix_now = clock
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._ports: dict[Channel, Port] = {}
        self._listeners: dict[CircuitEnd, CircuitListener] = {}
        self._opening: dict[Origin, OpeningListener] = {}
        self._settling = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._drained = asyncio.Event()
        self._drained.set()

    # Links

    async def dial(
        self,
        address: Address,
        handshake: Callable[[bytes], ClientHandshake],
        purpose: LinkPurpose,
        *,
        build_keys: KeySet | None = None,
    ) -> Channel:
        """A new link, complete with its handshake, which is made from the leaf's digest.

        Raises NetworkError: TimedOut when nothing answers, LinkRefused when one end does not want the other. Leaves
        nothing open then, or when cancelled. How long the link handshake may take, the channel sees to.
        """
        self._require_open()
        link = await dial_tls(address, timeout=DIAL_TIMEOUT)
        try:
            self._require_open()
            port = self._add(link, handshake(link.leaf_digest), purpose, build_keys)
            await port.up
        except BaseException:
            link.close()
            raise
        if port.channel.closed:
            raise NetworkError(f"the link to {address} was lost at once")
        return port.channel

    def _require_open(self) -> None:
        if self._is_closing:
            raise NetworkError("this end is closing")

    def accept(self, link: Link, handshake: ServerHandshake, build_keys: KeySet) -> None:
        """Serves a link that somebody else dialled."""
        self._add(link, handshake, LinkPurpose.ACCEPTED, build_keys)

    def _add(
        self, link: Link, handshake: ClientHandshake | ServerHandshake, purpose: LinkPurpose, keys: KeySet | None
    ) -> Port:
        channel = self.engine.add_link(
            handshake, is_server=link.is_server, purpose=purpose, build_keys=keys, now=self._loop.time()
        )
        port = Port(self, link, channel)
        # Nobody awaits it on an accepted link, and a dial may have been cancelled: then the error has no reader.
        port.up.add_done_callback(lambda up: up.cancelled() or up.exception())
        self._ports[channel] = port
        self._drained.clear()
        link.attach(port)
        self.settle()
        return port

    def remote(self, channel: Channel) -> Address:
        """Where the other end of a link is, as seen from here."""
        return self._ports[channel].link.remote

    def send_control(self, channel: Channel, cmd: int, kind: int, body: bytes) -> None:
        """Sends a control message; on a link that is gone nothing happens."""
        if channel in self._ports:
            self.engine.send_control(channel, cmd, kind, body)
            self.settle()

    def links_from(self, group: bytes) -> int:
        """How many links come from one /24 or /48."""
        return sum(port.link.is_server and port.link.remote.group24() == group for port in self._ports.values())

    async def wait_down(self, channel: Channel) -> None:
        """Until a link is gone."""
        if port := self._ports.get(channel):
            await port.down.wait()

    def close_link(self, channel: Channel) -> None:
        """Ends a link and all circuits on it."""
        if port := self._ports.get(channel):
            port.link.close()

    async def aclose(self) -> None:
        """Ends every link, waits until the transports have let go, and makes no new one: a dial raises NetworkError."""
        self._is_closing = True
        for port in tuple(self._ports.values()):
            port.link.close()
        await self._drained.wait()
        if self._timer is not None:
            self._timer.cancel()

    # Circuits

    def open_circuit(self, channel: Channel, plan: CircuitPlan, listener: OpeningListener) -> Origin:
        """Begins to build a circuit over a guard link. Raises NetworkError when the link takes none."""
        origin = self.engine.open_circuit(channel, plan, self._loop.time(), self.unix_now())
        self._opening[origin] = listener
        self.settle()
        return origin

    def close_circuit(self, end: CircuitEnd, reason: DestroyReason = DestroyReason.FINISHED) -> None:
        """Destroys a circuit that begins or ends here, open or being built; its listener hears nothing more.

        Also to be called for an end that was closed directly, for of that the engine says nothing.
        """
        self._listeners.pop(end, None)
        if isinstance(end, Origin):
            self._opening.pop(end, None)
        end.close(reason)
        self.settle()

    def offer_next(self, hop: Hop, channel: Channel) -> None:
        """Answers NextHopWanted: go on over this link."""
        self.engine.offer_next(hop, channel, self._loop.time())
        self.settle()

    def refuse_next(self, hop: Hop, status: BuildStatus) -> None:
        """Answers NextHopWanted: it cannot be had."""
        self.engine.refuse_next(hop, status, self._loop.time())
        self.settle()

    # Transports

    def feed(self, channel: Channel, buffer: bytearray, size: int) -> int:
        """See `net.link.Receiver.feed`."""
        used = self.engine.feed(channel, buffer, size, self._loop.time(), self.unix_now())
        self.settle()
        return used

    def on_room(self, channel: Channel) -> None:
        """See `net.link.Receiver.on_room`."""
        self.engine.on_room(channel, self._loop.time())
        self.settle()

    def on_link_lost(self, port: Port, why: str) -> None:
        """See `net.link.Receiver.on_lost`."""
        why = port.closing_because or why
        del self._ports[port.channel]
        port.down.set()
        if not port.up.done():
            port.up.set_exception(NetworkError(why))
        self.engine.on_link_lost(port.channel, self._loop.time())
        self._owner.on_link_down(port.channel, why)
        self.settle()
        if not self._ports:
            self._drained.set()

    def settle(self) -> None:
        """Hands out effects and flushes links until the engine has nothing more to say.

        After every call into the engine, also by way of a CircuitEnd. A listener's own requests come back in here
        while effects are being handed out: the loop that is running takes care of theirs too.
        """
        if self._settling:
            return
        self._settling = True
        try:
            while True:
                effects = self.engine.take_effects()
                for effect in effects:
                    self._hand_out(effect)
                dirty = self.engine.take_dirty()
                for channel in dirty:
                    if port := self._ports.get(channel):
                        port.link.flush()
                if not effects and not dirty:
                    break
        finally:
            self._settling = False
        self._arm()

    def _hand_out(self, effect: Effect) -> None:
        """What a listener breaks at one effect must not cost the others theirs."""
        try:
            self._apply(effect)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody else's effect is next
            context = {"message": f"{type(effect).__name__} was not dealt with", "exception": error}
            self._loop.call_exception_handler(context)

    def _apply(self, effect: Effect) -> None:
        match effect:
            case MessageArrived(end, hop, cmd, rid, data):
                if listener := self._listeners.get(end):
                    listener.on_message(hop, cmd, rid, data)
            case RoomToSend(end):
                if listener := self._listeners.get(end):
                    listener.on_room()
            case CircuitEnded(end, why):
                if listener := self._listeners.pop(end, None):
                    listener.on_ended(why)
            case CircuitOpened(origin):
                if opening := self._opening.pop(origin, None):
                    self._listeners[origin] = opening
                    opening.on_opened()
            case CircuitRefused(origin, hop, status, why):
                if opening := self._opening.pop(origin, None):
                    opening.on_refused(hop, status, why)
            case EndpointReached(hop):
                self._welcome(hop)
            case NextHopWanted(hop, relay_id, endpoint):
                self._owner.on_next_hop_wanted(hop, relay_id, endpoint)
            case ControlArrived(channel, cmd, kind, body):
                self._owner.on_control(channel, cmd, kind, body)
            case LinkUp(channel, peer):
                self._on_link_up(channel, peer)
            case LinkClosing():
                self._on_link_closing(effect)
            case _:
                assert_never(effect)

    def _welcome(self, hop: Hop) -> None:
        listener = self._owner.on_endpoint(hop)
        if listener is None:
            hop.close()
        else:
            self._listeners[hop] = listener

    def _on_link_up(self, channel: Channel, peer: Peer) -> None:
        port = self._ports.get(channel)
        if port is not None and not port.up.done():
            port.up.set_result(peer)
            self._owner.on_link_up(channel, peer)

    def _on_link_closing(self, closing: LinkClosing) -> None:
        if port := self._ports.get(closing.channel):
            log.debug("link closed: %s", closing.why)
            port.closing_because = closing.why
            if not port.up.done():
                port.up.set_exception(LinkRefused(closing.why) if closing.refused else NetworkError(closing.why))
            port.link.close()

    # Time

    def _arm(self) -> None:
        """One timer. It is never moved later: when it goes off too early it is only set again."""
        deadline = self.engine.deadline
        if deadline is None or self._is_closing or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.engine.on_timeout(self._loop.time(), self.unix_now())
        self.settle()
