"""The messages of the link handshake, and the certificate of a relay's signing key (specs/02-wire.md).

The flow inside a fresh TLS connection, client first::

    C -> S   HELLO 1  HelloClient
    S -> C   HELLO 2  HelloServer      or  HELLO 3  HelloRefused, then close
    C -> S   AUTH 1   Auth             relays only; an anonymous client sends nothing here

In signed messages the extension list stands before the signature, so what is signed is one prefix of the body.
"""

from enum import IntEnum, IntFlag
from typing import ClassVar

import msgspec

from onionrelay.base.ids import RelayId, SigningKey
from onionrelay.base.limits import MAX_VERSIONS
from onionrelay.wire.address import Address, read_address
from onionrelay.wire.codec import SIGNATURE, Buffer, Extensions, Reader, Writer

NET_ID = 8
NONCE = 32


class Feature(IntFlag):
    """What an end understands. A command is sent only to a peer that lists its feature; unknown bits are ignored."""

    CIRCUITS = 1 << 0  # cells RELAY, RELAY_BULK, BUILD, BUILT, BUILD_ACK, DESTROY, CREDIT
    ATTACH = 1 << 1  # cells ATTACH
    DHT = 1 << 2  # cells DHT, relay messages DHT_QUERY and DHT_ANSWER
    DIR = 1 << 3  # cells DIR, relay messages DIR_GET and DIR_DATA


class LinkRole(IntEnum):
    """What the client of a link is to its server."""

    CLIENT = 0  # anonymous: no AUTH follows
    RELAY = 1  # an AUTH follows


class PaddingPolicy(IntEnum):
    """How much link padding the client wants on this link, in both directions."""

    OFF = 0
    REDUCED = 1
    FULL = 2


class HelloRefusal(IntEnum):
    """Why a link is refused."""

    WRONG_NETWORK = 1
    NO_VERSION = 2  # no common protocol version
    BUSY = 3
    NOT_A_RELAY = 4  # the server takes no links


class SigningCert(msgspec.Struct, frozen=True):
    """The relay id's word for a signing key. 100: signing_key 32 | not_after u32 | signature 64.

    The signature is the relay id's, thing "signing-cert", over `signed_part`.
    """

    SIZE: ClassVar[int] = 100

    signing_key: SigningKey
    not_after: int
    signature: bytes

    @property
    def signed_part(self) -> bytes:
        """signing_key 32 | not_after u32."""
        return Writer().key(self.signing_key).u32(self.not_after).done()

    def encode(self) -> bytes:
        """100 bytes."""
        return Writer().raw(self.signed_part).fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "SigningCert":
        """From 100 bytes."""
        reader = Reader(body, "signing certificate")
        certificate = cls(signing_key=reader.key(SigningKey), not_after=reader.u32(), signature=reader.take(SIGNATURE))
        reader.done()
        return certificate


class HelloClient(msgspec.Struct, frozen=True):
    """Opens a link. HELLO 1:

    net_id 8 | count u8 (1..16) | versions u16 each, ascending | features u64 | nonce 32 | want_role u8 |
    padding_policy u8 | extensions
    """

    TYPE: ClassVar[int] = 1

    net_id: bytes
    versions: tuple[int, ...]
    features: int
    nonce: bytes
    want_role: LinkRole
    padding_policy: PaddingPolicy
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        writer = Writer().fixed(self.net_id, NET_ID).numbers(self.versions).u64(self.features)
        writer.fixed(self.nonce, NONCE).u8(self.want_role).u8(self.padding_policy)
        return writer.extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "HelloClient":
        """From the body of the control message."""
        reader = Reader(body, "HELLO_C")
        return cls(
            net_id=reader.take(NET_ID),
            versions=reader.numbers(MAX_VERSIONS),
            features=reader.u64(),
            nonce=reader.take(NONCE),
            want_role=reader.enum(LinkRole, reader.u8()),
            padding_policy=reader.enum(PaddingPolicy, reader.u8()),
            extensions=reader.extensions(),
        )


class HelloServer(msgspec.Struct, frozen=True):
    """Accepts a link and proves who answers. HELLO 2:

    net_id 8 | version u16 | features u64 | nonce 32 | relay_id 32 | signing_cert 100 | observed 18 | window u32 |
    extensions | signature 64

    `observed` is the client's address as the server sees it; `window` is unix time // 600. The signature is the signing
    key's, thing "link-server", over SHA-256(HELLO_C body | signed_part) | SHA-256(server's leaf certificate, DER).
    """

    TYPE: ClassVar[int] = 2

    net_id: bytes
    version: int
    features: int
    nonce: bytes
    relay_id: RelayId
    signing_cert: SigningCert
    observed: Address
    window: int
    signature: bytes
    extensions: Extensions = ()

    @property
    def signed_part(self) -> bytes:
        """The body without its signature."""
        writer = Writer().fixed(self.net_id, NET_ID).u16(self.version).u64(self.features).fixed(self.nonce, NONCE)
        writer.key(self.relay_id).raw(self.signing_cert.encode()).raw(self.observed.encode()).u32(self.window)
        return writer.extensions(self.extensions).done()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().raw(self.signed_part).fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "HelloServer":
        """From the body of the control message."""
        reader = Reader(body, "HELLO_S")
        return cls(
            net_id=reader.take(NET_ID),
            version=reader.u16(),
            features=reader.u64(),
            nonce=reader.take(NONCE),
            relay_id=reader.key(RelayId),
            signing_cert=SigningCert.decode(reader.take(SigningCert.SIZE)),
            observed=read_address(reader),
            window=reader.u32(),
            extensions=reader.extensions(keep=SIGNATURE),
            signature=reader.take(SIGNATURE),
        )


class HelloRefused(msgspec.Struct, frozen=True):
    """Refuses a link; the server closes it behind. HELLO 3: reason u8 | extensions."""

    TYPE: ClassVar[int] = 3

    reason: HelloRefusal
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().u8(self.reason).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "HelloRefused":
        """From the body of the control message."""
        reader = Reader(body, "HELLO_REFUSED")
        return cls(reason=reader.enum(HelloRefusal, reader.u8()), extensions=reader.extensions())


class Auth(msgspec.Struct, frozen=True):
    """Proves that the link's client is a relay. AUTH 1: relay_id 32 | signing_cert 100 | extensions | signature 64.

    The signature is the signing key's, thing "link-client", over the transcript:
    SHA-256(HELLO_C body | HELLO_S body | SHA-256(server's leaf certificate, DER)).
    """

    TYPE: ClassVar[int] = 1

    relay_id: RelayId
    signing_cert: SigningCert
    signature: bytes
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        writer = Writer().key(self.relay_id).raw(self.signing_cert.encode()).extensions(self.extensions)
        return writer.fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "Auth":
        """From the body of the control message."""
        reader = Reader(body, "AUTH")
        return cls(
            relay_id=reader.key(RelayId),
            signing_cert=SigningCert.decode(reader.take(SigningCert.SIZE)),
            extensions=reader.extensions(keep=SIGNATURE),
            signature=reader.take(SIGNATURE),
        )
