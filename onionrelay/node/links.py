"""Links to known relays: one to each, dialled when a circuit or the directory first needs it."""

from collections.abc import Callable, Collection, Iterator

from onionrelay.base.errors import NetworkError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import LINK_UNUSED
from onionrelay.core.circuit.engine import KeySet
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, Peer
from onionrelay.node.driver import Driver
from onionrelay.node.tasks import SharedCalls
from onionrelay.wire.address import Endpoint, Transport

DIALLED = Transport.TLS


class Links:
    """Every open link of one purpose to a known relay, and the dials under way."""

    def __init__(
        self,
        driver: Driver,
        handshake: Callable[[RelayId, bytes], ClientHandshake],
        purpose: LinkPurpose,
        *,
        build_keys: KeySet | None = None,
    ) -> None:
        """`handshake` makes the dialling end's, from the relay expected and the leaf's digest.

        With `build_keys`, the links that other relays dialled serve as well: both ends open circuits over them.
        """
        self._driver = driver
        self._handshake = handshake
        self._purpose = purpose
        self._purposes = {purpose, LinkPurpose.ACCEPTED} if build_keys else {purpose}
        self._build_keys = build_keys
        self._open: dict[RelayId, list[Channel]] = {}  # oldest first
        self._unused: dict[Channel, float] = {}  # since when `unused` has seen no circuit on them
        # By endpoint, too: who asks for a relay at a false address must not spoil the dial of others.
        self._dials: SharedCalls[tuple[RelayId, Endpoint], Channel] = SharedCalls()

    def __iter__(self) -> Iterator[Channel]:
        """One link to each relay."""
        return iter([channel for relay_id in self._open if (channel := self.find(relay_id))])

    def on_up(self, channel: Channel, peer: Peer) -> None:
        """A link is up; one to an anonymous client, or for another purpose, is none of ours."""
        if peer.relay_id is not None and channel.purpose in self._purposes:
            self._open.setdefault(peer.relay_id, []).append(channel)

    def on_down(self, channel: Channel) -> None:
        """A link is gone."""
        peer = channel.peer
        if peer is None or peer.relay_id is None or channel not in self._open.get(peer.relay_id, ()):
            return
        self._open[peer.relay_id].remove(channel)
        if not self._open[peer.relay_id]:
            del self._open[peer.relay_id]

    def find(self, relay_id: RelayId) -> Channel | None:
        """The oldest link to this relay: two that were dialled at the same moment from both ends thus agree on one."""
        # A channel closes a moment before its link is reported down.
        return next((channel for channel in self._open.get(relay_id, ()) if not channel.closed), None)

    def unused(self, now: float, *, but: Collection[RelayId]) -> list[Channel]:
        """The links dialled here that had no circuit at any call of the last LINK_UNUSED; those to `but` are kept."""
        bare = (
            channel
            for relay_id, channels in self._open.items()
            for channel in channels
            if channel.purpose is self._purpose and relay_id not in but and not channel.sides
        )
        self._unused = {channel: self._unused.get(channel, now) for channel in bare}
        return [channel for channel, since in self._unused.items() if now - since >= LINK_UNUSED]

    async def get(self, relay_id: RelayId, endpoint: Endpoint) -> Channel:
        """A link to this relay, dialled unless there is one. Raises NetworkError, its LinkRefused for another relay."""
        if channel := self.find(relay_id):
            return channel

        async def dial() -> Channel:
            return await dial_relay(
                self._driver, relay_id, endpoint, self._handshake, self._purpose, build_keys=self._build_keys
            )

        channel = await self._dials.get((relay_id, endpoint), dial)
        if channel.closed:
            raise NetworkError("the link was lost at once")
        return channel


async def dial_relay(
    driver: Driver,
    relay_id: RelayId,
    endpoint: Endpoint,
    handshake: Callable[[RelayId, bytes], ClientHandshake],
    purpose: LinkPurpose,
    *,
    build_keys: KeySet | None = None,
) -> Channel:
    """A new link to a relay at the first of its addresses that answers. Raises the last address's NetworkError."""
    failure = NetworkError("the relay has no address for TLS")
    for address in endpoint.addresses if DIALLED in endpoint.transports else ():
        try:
            return await driver.dial(
                address, lambda digest: handshake(relay_id, digest), purpose, build_keys=build_keys
            )
        except NetworkError as error:
            failure = error
    raise failure
