"""Two drivers linked by TLS over loopback, with owners that remember what they are told."""

import asyncio
import contextlib

from onionrelay.base.ids import RelayId
from onionrelay.base.limits import TIME_WINDOW
from onionrelay.core.circuit.engine import CircuitPlan, Engine, KeySet, OnionKeyRing, PlannedHop
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, LinkIdentity, ServerHandshake
from onionrelay.core.link.identity import make_signing_cert
from onionrelay.crypto.signing import SigningSecret
from onionrelay.net.system import SystemRng, unix_now
from onionrelay.net.tls import TlsListener
from onionrelay.node.driver import Driver
from onionrelay.testing.overlay import until
from onionrelay.wire.address import Address, Endpoint, Transport
from onionrelay.wire.build import BuildRecord, Role
from onionrelay.wire.descriptor import Roles
from onionrelay.wire.link import Feature

NET = bytes(range(8))
FEATURES = Feature.CIRCUITS | Feature.ATTACH | Feature.DHT | Feature.DIR
ROLES = Roles.GUARD | Roles.MIDDLE | Roles.FINAL | Roles.DHT
LOCALHOST = Address("127.0.0.1", 0)


class Party:
    """A relay with nothing but links: an Owner that keeps a list of all it hears. `async with`."""

    def __init__(self, net_id=NET, clock=unix_now):
        self.net_id = net_id
        self.clock = clock
        self.rng = SystemRng()
        self.ups, self.downs, self.controls, self.wanted = [], [], [], []
        self.accepted = 0
        self.on_message = None  # takes (channel, cmd, kind, body)
        self.listener = None  # of circuits that end here

    async def __aenter__(self):
        relay, signing = SigningSecret.generate(self.rng), SigningSecret.generate(self.rng)
        cert = make_signing_cert(relay, signing.public, self.clock() + 24 * 3600)
        self.relay_id = RelayId(relay.public)
        self.identity = LinkIdentity(self.relay_id, signing, cert)
        self.keys = KeySet(self.relay_id.raw, OnionKeyRing(self.relay_id.raw, self.rng, self.clock()), is_node=False)
        now = asyncio.get_running_loop().time()
        self.engine = Engine(net_id=self.net_id, rng=self.rng, now=now, testnet=True, finals=None, roles=ROLES)
        self.driver = Driver(self.engine, self, clock=self.clock)
        self.tls = TlsListener([LOCALHOST], self.on_link)
        self.tls.start()
        return self

    async def __aexit__(self, *_):
        await self.tls.close()
        await self.driver.aclose()

    @property
    def address(self):
        return self.tls.addresses[0]

    @property
    def endpoint(self):
        return Endpoint.at(Transport.TLS, self.address)

    def on_link(self, link):
        self.accepted += 1
        handshake = ServerHandshake(
            net_id=self.net_id,
            identity=self.identity,
            leaf_digest=link.leaf_digest,
            observed=link.remote,
            rng=self.rng,
            features=FEATURES,
        )
        self.driver.accept(link, handshake, self.keys)

    def handshake(self, relay_id, digest, *, anonymous=False):
        return ClientHandshake(
            net_id=self.net_id,
            expected=relay_id,
            leaf_digest=digest,
            identity=None if anonymous else self.identity,
            rng=self.rng,
            features=FEATURES,
        )

    async def dial(self, other, purpose=LinkPurpose.RELAY, **kwargs):
        return await self.driver.dial(
            other.address, lambda digest: self.handshake(other.relay_id, digest, **kwargs), purpose
        )

    @property
    def ports(self):
        """The links it has."""
        return list(self.driver._ports.values())

    # Owner

    def on_link_up(self, channel, peer):
        self.ups.append((channel, peer))

    def on_link_down(self, channel, why):
        self.downs.append((channel, why))

    def on_control(self, channel, cmd, kind, body):
        self.controls.append((channel, cmd, kind, body))
        if self.on_message:
            self.on_message(channel, cmd, kind, body)

    def on_next_hop_wanted(self, hop, relay_id, endpoint):
        self.wanted.append((hop, relay_id, endpoint))

    def on_endpoint(self, hop):
        return self.listener


@contextlib.asynccontextmanager
async def parties(count=2, clock=unix_now):
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Party(clock=clock)) for _ in range(count)]


@contextlib.asynccontextmanager
async def mute_listener():
    """Completes TLS with whoever dials, and then says nothing. Yields it, and the links it has."""
    links = []
    listener = TlsListener([LOCALHOST], links.append)
    listener.start()
    yield listener, links
    for link in links:
        link.close()
    await listener.close()


def plan(*path):
    """The plan of a circuit through `path`, which ends at the last one."""
    window = unix_now() // TIME_WINDOW
    hops = []
    for at, party in enumerate(path):
        last = at + 1 == len(path)
        following = None if last else path[at + 1]
        record = BuildRecord(
            role=Role.ENDPOINT if last else Role.FORWARD,
            window=window,
            lifetime=600,
            **({} if last else {"next_id": following.relay_id, "endpoint": following.endpoint}),
        )
        hops.append(PlannedHop(party.relay_id.raw, party.keys.ring.public, record))
    return CircuitPlan(tuple(hops), lifetime=600)


def stop_reading(port):
    """From now on this end of a link does not see what arrives: its peer seems to be asleep."""
    asyncio.get_running_loop().remove_reader(port.link._fd)


async def all_gone(*members):
    """Waits until none of them has a link."""
    await until(lambda: not any(member.ports for member in members), "the end of all links")
