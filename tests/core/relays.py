"""Relays for tests of directory, paths and attachments: whole ones with keys, and many bare ones without."""

import hashlib
from dataclasses import dataclass, field

from nacl.bindings import crypto_sign_seed_keypair

from onionrelay.base.ids import RelayId, SigningKey
from onionrelay.core.directory.descriptor import RelayEntry, make_descriptor, place
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.link.identity import make_signing_cert
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.onion_keys import OnionSecret
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.address import Address, Endpoint, Transport
from onionrelay.wire.descriptor import RelayDescriptor, Roles
from onionrelay.wire.link import Feature, SigningCert
from tests.seeded import SeededRng

NOW = 1_800_000_600  # a multiple of 600
DAY = 24 * 3600
NET = bytes(range(8))
POLICY = PathPolicy(NET)
TESTNET = PathPolicy(NET, testnet=True)
ALL_ROLES = Roles.GUARD | Roles.MIDDLE | Roles.FINAL | Roles.DHT
FEATURES = int(Feature.CIRCUITS | Feature.ATTACH | Feature.DHT | Feature.DIR)
ONION = OnionSecret.generate(SeededRng("the onion key of every bare relay")).public


def endpoint(*addresses: str) -> Endpoint:
    return Endpoint.at(Transport.TLS, *map(Address.parse, addresses))


@dataclass
class Relay:
    """A relay with its keys."""

    name: str
    address: str
    roles: Roles = ALL_ROLES
    seq: int = 1
    changes: dict = field(default_factory=dict)

    def __post_init__(self):
        rng = SeededRng(self.name)
        self.secret = SigningSecret.generate(rng)
        self.signing = SigningSecret.generate(rng)
        self.relay_id = RelayId(self.secret.public)
        self.cert = self.certify(NOW + 20 * DAY)

    def certify(self, not_after: int) -> SigningCert:
        return make_signing_cert(self.secret, self.signing.public, not_after)

    def change_signing_key(self) -> None:
        self.signing = SigningSecret.generate(SeededRng(f"{self.name} {self.seq}"))
        self.cert = self.certify(NOW + 20 * DAY)
        self.seq += 1

    def describe(self, unix_now: int = NOW, **changes) -> bytes:
        settings = {
            "net_id": NET,
            "relay_id": self.relay_id,
            "cert": self.cert,
            "seq": self.seq,
            "unix_now": unix_now,
            "onion": ONION,
            "endpoints": (endpoint(self.address),),
            "roles": self.roles,
            "features": FEATURES,
            "max_hold": 3600,
        }
        return make_descriptor(self.signing, **settings | self.changes | changes)


def table_of(*relays: Relay, policy: PathPolicy = TESTNET, unix_now: int = NOW) -> RelayTable:
    table = RelayTable(policy)
    for relay in relays:
        assert table.add(relay.describe(unix_now), unix_now).changed, relay.name
    return table


def local_relays(count: int) -> list[Relay]:
    """Relays of a test network on one machine."""
    return [Relay(f"local {number}", f"127.0.0.1:{9000 + number}") for number in range(count)]


_CERT = SigningCert(SigningKey(bytes(32)), NOW + 20 * DAY, bytes(64))


def bare(name: str, *addresses: str, policy: PathPolicy = POLICY, first_seen: int = 0, **changes) -> RelayEntry:
    """An entry that no signature stands behind, made in a tenth of the time."""
    fields = {
        "net_id": NET,
        "relay_id": RelayId(crypto_sign_seed_keypair(hashlib.sha256(name.encode()).digest())[0]),
        "signing_cert": _CERT,
        "seq": 1,
        "published": NOW - 600,
        "expires": NOW + DAY,
        "onion_x25519": ONION.x25519,
        "onion_mlkem": ONION.mlkem,
        "endpoints": tuple(endpoint(address) for address in addresses),
        "roles": ALL_ROLES,
        "features": FEATURES,
        "max_circuits": 1000,
        "max_hold": 3600,
        "signature": bytes(64),
    }
    return place(RelayDescriptor(**fields | changes), name.encode(), policy, first_seen=first_seen)


def bare_table(entries, policy: PathPolicy = POLICY, founded: int = 0) -> RelayTable:
    table = RelayTable(policy)
    table.founded = founded
    for entry in entries:
        table._insert(entry)
    return table


def public_address(group: int, host: int = 1) -> str:
    """An address in the `group`-th of many public IPv4 /16 groups."""
    return f"{20 + group // 200}.{group % 200}.{host // 250}.{1 + host % 250}:443"


def grown_table(groups: int = 60, per_group: int = 1, **changes) -> RelayTable:
    """A public network, old enough for every role."""
    return bare_table(
        bare(f"{group}/{host}", public_address(group, host), **changes)
        for group in range(groups)
        for host in range(per_group)
    )
