"""Relay descriptors: how one is made, and everything that must hold before one is believed.

specs/07-directory-and-paths.md, "Descriptors". A `RelayEntry` is a descriptor that was checked once, with what path
choice asks of it worked out.
"""

import hashlib
from dataclasses import dataclass
from math import inf

import msgspec

from onionrelay.base.errors import BadRecord
from onionrelay.base.ids import RelayId, SigningKey
from onionrelay.base.limits import (
    CIRCUITS_PER_LINK,
    CLOCK_SKEW_REFUSED,
    DESCRIPTOR_LIFE,
    SIGNING_CERT_LIFE,
    TIME_WINDOW,
)
from onionrelay.core.link.identity import check_signing_cert
from onionrelay.core.path.groups import Side, address_group, addresses, kad_position, side_of, subnet
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.onion_keys import OnionPublic
from onionrelay.crypto.signing import SigningSecret, verify
from onionrelay.wire.address import Endpoint
from onionrelay.wire.descriptor import NatClass, RelayDescriptor, Roles
from onionrelay.wire.link import SigningCert


@dataclass(frozen=True, slots=True)
class RelayEntry:
    """One relay as this process knows it.

    `raw` are the bytes as received, which are what is passed on and hashed; `digest` is their SHA-256. `first_seen` is
    this process's own unix time. `previous_cert` certified the signing key before the current one, if it was seen.
    `group`, `side` and `position` (32 bytes, in the DHT) follow from the first address, `groups` and `subnets` from
    all of them.
    """

    relay_id: RelayId
    descriptor: RelayDescriptor
    raw: bytes
    digest: bytes
    onion: OnionPublic
    first_seen: int
    previous_cert: SigningCert | None
    group: bytes
    groups: frozenset[bytes]
    subnets: frozenset[bytes]
    side: Side
    position: bytes

    @property
    def endpoint(self) -> Endpoint:
        """Where the relay is reached; what a build record says of it."""
        return self.descriptor.endpoint

    @property
    def family(self) -> tuple[RelayId, ...]:
        """The relays that it declares to be run by the same people."""
        return self.descriptor.family

    @property
    def bandwidth(self) -> float:
        """Bytes a second as claimed; infinite when nothing is claimed."""
        return 2.0**self.descriptor.bandwidth if self.descriptor.bandwidth else inf

    def is_valid(self, unix_now: int) -> bool:
        """Whether the descriptor has not expired."""
        return self.descriptor.expires > unix_now

    def has(self, roles: Roles) -> bool:
        """Whether it is willing to be all of `roles`."""
        return self.descriptor.roles & roles == roles

    def signing_keys(self, unix_now: int) -> tuple[SigningKey, ...]:
        """The keys that may have signed its vouchers: those whose certificates have not ended."""
        certs = (self.descriptor.signing_cert, self.previous_cert)
        return tuple(cert.signing_key for cert in certs if cert is not None and cert.not_after > unix_now)

    def __repr__(self) -> str:
        return f"RelayEntry({self.relay_id!r}, seq={self.descriptor.seq})"


def make_descriptor(
    signing: SigningSecret,
    *,
    net_id: bytes,
    relay_id: RelayId,
    cert: SigningCert,
    seq: int,
    unix_now: int,
    onion: OnionPublic,
    endpoints: tuple[Endpoint, ...],
    roles: Roles,
    features: int,
    max_hold: int,
    max_circuits: int = CIRCUITS_PER_LINK,
    expires: int | None = None,
    next_onion_digest: bytes = bytes(32),
    nat: NatClass = NatClass.PUBLIC,
    bandwidth: int = 0,
    family: tuple[RelayId, ...] = (),
    load: int = 0,
    dht_slot: int = 0,
) -> bytes:
    """A signed descriptor. `seq` must be higher than that of every earlier one; `cert` certifies `signing`.

    It ends with `expires`, with the certificate, or after 26 hours, whichever comes first; `max_hold` in seconds.
    """
    published = unix_now - unix_now % TIME_WINDOW
    ends = min(expires or published + DESCRIPTOR_LIFE, published + DESCRIPTOR_LIFE, cert.not_after)
    unsigned = RelayDescriptor(
        net_id=net_id,
        relay_id=relay_id,
        signing_cert=cert,
        seq=seq,
        published=published,
        expires=ends - ends % TIME_WINDOW,
        onion_x25519=onion.x25519,
        onion_mlkem=onion.mlkem,
        next_onion_digest=next_onion_digest,
        endpoints=endpoints,
        roles=roles,
        features=features,
        nat=nat,
        bandwidth=bandwidth,
        family=tuple(sorted(family)),
        load=load,
        dht_slot=dht_slot,
        max_circuits=max_circuits,
        max_hold=max_hold,
        signature=b"",
    )
    return msgspec.structs.replace(unsigned, signature=signing.sign("relay", unsigned.signed_part)).encode()


def verify_descriptor(raw: bytes, unix_now: int, policy: PathPolicy) -> RelayEntry:
    """The relay that `raw` describes, seen now for the first time.

    Raises MalformedMessage for bytes that are no descriptor, BadRecord with the reason for one that does not hold, and
    BadSignature. Costs about half a millisecond: four keys, two signatures.
    """
    descriptor = RelayDescriptor.decode(raw)
    _check_dates(descriptor, unix_now)
    entry = place(descriptor, raw, policy, first_seen=unix_now)
    check_signing_cert(descriptor.relay_id, descriptor.signing_cert)
    verify(descriptor.signing_cert.signing_key, "relay", descriptor.signed_part, descriptor.signature)
    return entry


def place(
    descriptor: RelayDescriptor,
    raw: bytes,
    policy: PathPolicy,
    *,
    first_seen: int,
    previous_cert: SigningCert | None = None,
) -> RelayEntry:
    """The entry of a descriptor whose dates and signatures are checked elsewhere; everything else is checked here."""
    if descriptor.net_id != policy.net_id:
        raise BadRecord("descriptor of another network")
    places = addresses(descriptor.endpoints)
    if not policy.testnet and not all(address.is_public for address in places):
        raise BadRecord("descriptor with an address that is not public")
    group = address_group(places[0], policy)
    return RelayEntry(
        relay_id=descriptor.relay_id,
        descriptor=descriptor,
        raw=raw,
        digest=hashlib.sha256(raw).digest(),
        onion=OnionPublic.decode(descriptor.onion_x25519, descriptor.onion_mlkem),
        first_seen=first_seen,
        previous_cert=previous_cert,
        group=group,
        groups=frozenset(address_group(address, policy) for address in places),
        subnets=frozenset(subnet(address, policy) for address in places),
        side=side_of(group),
        position=kad_position(descriptor.relay_id, places[0], descriptor.dht_slot, policy),
    )


def _check_dates(descriptor: RelayDescriptor, unix_now: int) -> None:
    if descriptor.published > unix_now + CLOCK_SKEW_REFUSED:
        raise BadRecord("descriptor published in the future")
    if descriptor.expires <= unix_now:
        raise BadRecord("descriptor expired")
    if descriptor.signing_cert.not_after <= unix_now:
        raise BadRecord("signing certificate expired")
    if descriptor.signing_cert.not_after > unix_now + SIGNING_CERT_LIFE + CLOCK_SKEW_REFUSED:
        raise BadRecord("signing certificate longer than allowed")
