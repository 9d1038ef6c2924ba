"""A relay's public description of itself (specs/07-directory-and-paths.md)."""

from enum import IntEnum, IntFlag
from itertools import pairwise

import msgspec

from onionrelay.base.ids import RelayId
from onionrelay.base.limits import (
    DESCRIPTOR_LIFE,
    DESCRIPTOR_LIMIT,
    DHT_SLOTS,
    MAX_ENDPOINTS,
    MAX_FAMILY,
    MAX_VERSIONS,
    TIME_WINDOW,
)
from onionrelay.wire.address import Endpoint, read_endpoint
from onionrelay.wire.build import TIME_UNIT, tens
from onionrelay.wire.codec import SIGNATURE, Buffer, Extensions, Reader, Writer
from onionrelay.wire.link import NET_ID, SigningCert

VERSION = 1
X25519_KEY = 32
MLKEM_KEY = 1184
DIGEST = 32
SEED = 32


class Roles(IntFlag):
    """What a relay is willing to be. Unknown bits are kept and ignored."""

    GUARD = 1
    MIDDLE = 2
    FINAL = 4
    DHT = 8
    STUN = 16
    SIGNAL = 32
    PLAIN_RELAY = 64


class NatClass(IntEnum):
    """How a relay's addresses are reached, as it found out about itself."""

    UNKNOWN = 0
    PUBLIC = 1
    EIM_OPEN = 2  # endpoint-independent mapping, and open to all
    EIM = 3
    SYMMETRIC = 4
    UDP_BLOCKED = 5


class RelayDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a path choice needs to know of a relay, signed by the relay. At most 4,096 bytes:

    ::

        version u8 = 1 | net_id 8 | relay_id 32 | signing_cert 100 | seq u64 | published u32 | expires u32
        onion_x25519 32 | onion_mlkem 1184 | next_onion_digest 32 (SHA-256 of the next period's two keys; zero: none)
        count u8 (1..2) | endpoints 25 each | roles u16 | features u64 | nat u8 | bandwidth u8
        count u8 (0..8) | family 32 each, relay ids, ascending | count u8 (1..16) | versions u16 each, ascending
        pow_effort u32 | pow_seed 32 | load u8 | dht_slot u8 (0..3) | max_circuits u16 | max_hold u16 (10 s units)
        extensions | signature 64

    Times are unix seconds, multiples of 600, `expires` at most 26 h after `published`; `max_hold` is in seconds here, a
    multiple of 10. `bandwidth`: log2 of bytes a second, 0 unknown. `load`: 0 idle to 255 full. The first endpoint is
    the one that build records carry. The signature is the signing key's, thing "relay", over `signed_part`.
    """

    net_id: bytes
    relay_id: RelayId
    signing_cert: SigningCert
    seq: int
    published: int
    expires: int
    onion_x25519: bytes
    onion_mlkem: bytes
    next_onion_digest: bytes = bytes(DIGEST)
    endpoints: tuple[Endpoint, ...]
    roles: Roles
    features: int
    nat: NatClass = NatClass.UNKNOWN
    bandwidth: int = 0
    family: tuple[RelayId, ...] = ()
    versions: tuple[int, ...] = (1,)
    pow_effort: int = 0
    pow_seed: bytes = bytes(SEED)
    load: int = 0
    dht_slot: int = 0
    max_circuits: int
    max_hold: int
    extensions: Extensions = ()
    signature: bytes

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that build records carry."""
        return self.endpoints[0]

    @property
    def signed_part(self) -> bytes:
        """The descriptor without its signature."""
        writer = Writer().u8(VERSION).fixed(self.net_id, NET_ID).key(self.relay_id).raw(self.signing_cert.encode())
        writer.u64(self.seq).u32(self.published).u32(self.expires)
        writer.fixed(self.onion_x25519, X25519_KEY).fixed(self.onion_mlkem, MLKEM_KEY)
        writer.fixed(self.next_onion_digest, DIGEST).u8(len(self.endpoints))
        for endpoint in self.endpoints:
            writer.raw(endpoint.encode())
        writer.u16(self.roles).u64(self.features).u8(self.nat).u8(self.bandwidth).u8(len(self.family))
        for member in self.family:
            writer.key(member)
        writer.numbers(self.versions).u32(self.pow_effort).fixed(self.pow_seed, SEED).u8(self.load).u8(self.dht_slot)
        writer.u16(self.max_circuits).u16(tens(self.max_hold))
        return writer.extensions(self.extensions).done()

    def encode(self) -> bytes:
        """The descriptor as it is stored, sent and hashed."""
        return Writer().raw(self.signed_part).fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "RelayDescriptor":
        """From the whole descriptor. Signatures and times are the caller's to check."""
        reader = Reader(body, "relay descriptor")
        reader.require(len(body) <= DESCRIPTOR_LIMIT, "too long")
        reader.version(VERSION)
        return cls(
            net_id=reader.take(NET_ID),
            relay_id=reader.key(RelayId),
            signing_cert=SigningCert.decode(reader.take(SigningCert.SIZE)),
            seq=reader.u64(),
            published=(published := reader.u32()),
            expires=_read_expiry(reader, published),
            onion_x25519=reader.take(X25519_KEY),
            onion_mlkem=reader.take(MLKEM_KEY),
            next_onion_digest=reader.take(DIGEST),
            endpoints=_read_endpoints(reader),
            roles=Roles(reader.u16()),
            features=reader.u64(),
            nat=reader.enum(NatClass, reader.u8()),
            bandwidth=reader.u8(),
            family=_read_family(reader),
            versions=reader.numbers(MAX_VERSIONS),
            pow_effort=reader.u32(),
            pow_seed=reader.take(SEED),
            load=reader.u8(),
            dht_slot=_read_slot(reader),
            max_circuits=reader.u16(),
            max_hold=reader.u16() * TIME_UNIT,
            extensions=reader.extensions(keep=SIGNATURE),
            signature=reader.take(SIGNATURE),
        )


def _read_expiry(reader: Reader, published: int) -> int:
    expires = reader.u32()
    reader.require(not published % TIME_WINDOW and not expires % TIME_WINDOW, "times finer than 10 minutes")
    reader.require(published < expires <= published + DESCRIPTOR_LIFE, "not valid for up to 26 hours")
    return expires


def _read_endpoints(reader: Reader) -> tuple[Endpoint, ...]:
    count = reader.u8()
    reader.require(1 <= count <= MAX_ENDPOINTS, f"{count} endpoints")
    endpoints = tuple(read_endpoint(reader) for _ in range(count))
    reader.require(all(endpoint.addresses for endpoint in endpoints), "an endpoint without address")
    return endpoints


def _read_family(reader: Reader) -> tuple[RelayId, ...]:
    count = reader.u8()
    reader.require(count <= MAX_FAMILY, f"a family of {count}")
    family = tuple(reader.key(RelayId) for _ in range(count))
    reader.require(all(a < b for a, b in pairwise(family)), "the family is not in ascending order")
    return family


def _read_slot(reader: Reader) -> int:
    slot = reader.u8()
    reader.require(slot < DHT_SLOTS, f"DHT slot {slot}")
    return slot
