"""How a target attaches to a final hop, and the voucher it gets for that (specs/05-attach-and-reach.md).

Control messages of command ATTACH on a link of its own. The target is the link's anonymous client::

    T -> F   1 Attach            handle, limits, ticket key, signature of the handle
    F -> T   2 AttachAccepted    a voucher              or   4 AttachRefused
    T -> F   3 VoucherRequest    before each publication; answered by 2
    T -> F   5 Detach            the handle ends here
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

import msgspec

from onionrelay.base.ids import HandleKey, RelayId
from onionrelay.base.limits import TIME_WINDOW, VOUCHER, VOUCHER_LIFE
from onionrelay.wire.codec import SIGNATURE, Buffer, Extensions, Reader, Writer
from onionrelay.wire.link import NET_ID

VOUCHER_VERSION = 1
TICKET_KEY = 32


class AttachRefusal(IntEnum):
    """Why a final hop does not take a handle, or no longer keeps it."""

    NOT_A_FINAL = 1
    BUSY = 2
    TOO_MANY = 3  # from this address group
    HANDLE_TAKEN = 4
    POW_NEEDED = 5
    UNKNOWN_HANDLE = 6  # a voucher was asked for on a link without an attachment


class Voucher(msgspec.Struct, frozen=True):
    """A final hop's dated word that it held the link of a handle. 145:

    version u8 = 1 | final 32 | handle 32 | not_before u32 | not_after u32 | max_circuits u16 | builds_per_minute u16 |
    zero 4 | signature 64

    Both times are multiples of 600 and at most 3 hours apart. The signature is the final's signing key's, thing
    "voucher", over `signed_part(net_id)`.
    """

    SIZE: ClassVar[int] = VOUCHER

    final: RelayId
    handle: HandleKey
    not_before: int
    not_after: int
    max_circuits: int
    builds_per_minute: int
    signature: bytes

    def signed_part(self, net_id: bytes) -> bytes:
        """net_id 8 | the voucher without its signature."""
        return Writer().fixed(net_id, NET_ID).raw(self._fields()).done()

    def _fields(self) -> bytes:
        writer = Writer().u8(VOUCHER_VERSION).key(self.final).key(self.handle).u32(self.not_before).u32(self.not_after)
        return writer.u16(self.max_circuits).u16(self.builds_per_minute).zeros(4).done()

    def encode(self) -> bytes:
        """145 bytes."""
        return Writer().raw(self._fields()).fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "Voucher":
        """From 145 bytes."""
        reader = Reader(body, "voucher")
        reader.version(VOUCHER_VERSION)
        final, handle = reader.key(RelayId), reader.key(HandleKey)
        not_before, not_after = reader.u32(), reader.u32()
        reader.require(not not_before % TIME_WINDOW and not not_after % TIME_WINDOW, "times finer than 10 minutes")
        reader.require(not_before < not_after <= not_before + VOUCHER_LIFE, "not valid for up to 3 hours")
        max_circuits, builds_per_minute = reader.u16(), reader.u16()
        reader.zeros(4)
        signature = reader.take(SIGNATURE)
        reader.done()
        return cls(final, handle, not_before, not_after, max_circuits, builds_per_minute, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Asks a final hop to forward the builds for a handle over this link. ATTACH 1:

    handle 32 | ttl u32 | max_circuits u16 | builds_per_minute u16 | pow_effort u32 | k_ticket 32 | extensions |
    signature 64

    The signature is the handle's, thing "attach", over `signed_part`. `builds_per_minute` 0: the final's default.
    """

    TYPE: ClassVar[int] = 1

    handle: HandleKey
    ttl: int
    max_circuits: int
    builds_per_minute: int
    pow_effort: int
    k_ticket: bytes = field(repr=False)
    signature: bytes
    extensions: Extensions = ()

    def signed_part(self, final: RelayId, transcript: bytes) -> bytes:
        """The final's relay id 32 | transcript of the link handshake 32 | the body without its signature."""
        return Writer().key(final).fixed(transcript, 32).raw(self._fields()).done()

    def _fields(self) -> bytes:
        writer = Writer().key(self.handle).u32(self.ttl).u16(self.max_circuits).u16(self.builds_per_minute)
        return writer.u32(self.pow_effort).fixed(self.k_ticket, TICKET_KEY).extensions(self.extensions).done()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().raw(self._fields()).fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "Attach":
        """From the body of the control message."""
        reader = Reader(body, "ATTACH")
        return cls(
            handle=reader.key(HandleKey),
            ttl=reader.u32(),
            max_circuits=reader.u16(),
            builds_per_minute=reader.u16(),
            pow_effort=reader.u32(),
            k_ticket=reader.take(TICKET_KEY),
            extensions=reader.extensions(keep=SIGNATURE),
            signature=reader.take(SIGNATURE),
        )


class AttachAccepted(msgspec.Struct, frozen=True):
    """The handle is attached, or still is. ATTACH 2: voucher 145 | extensions."""

    TYPE: ClassVar[int] = 2

    voucher: Voucher
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().raw(self.voucher.encode()).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "AttachAccepted":
        """From the body of the control message."""
        reader = Reader(body, "ATTACH accepted")
        return cls(voucher=Voucher.decode(reader.take(Voucher.SIZE)), extensions=reader.extensions())


class VoucherRequest(msgspec.Struct, frozen=True):
    """Asks for a fresh voucher for the handle attached on this link. ATTACH 3: extensions."""

    TYPE: ClassVar[int] = 3

    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "VoucherRequest":
        """From the body of the control message."""
        return cls(extensions=Reader(body, "voucher request").extensions())


class AttachRefused(msgspec.Struct, frozen=True):
    """The handle is not attached. ATTACH 4: reason u8 | extensions."""

    TYPE: ClassVar[int] = 4

    reason: AttachRefusal
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().u8(self.reason).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "AttachRefused":
        """From the body of the control message."""
        reader = Reader(body, "ATTACH refused")
        return cls(reason=reader.enum(AttachRefusal, reader.u8()), extensions=reader.extensions())


class Detach(msgspec.Struct, frozen=True):
    """Ends the attachment; circuits through it are destroyed. ATTACH 5: extensions."""

    TYPE: ClassVar[int] = 5

    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body of the control message."""
        return Writer().extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "Detach":
        """From the body of the control message."""
        return cls(extensions=Reader(body, "DETACH").extensions())
