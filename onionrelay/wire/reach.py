"""The reach record: how to reach a node, readable only by who knows its id (specs/05-attach-and-reach.md).

Relays store the outer record under a blinded key and can check but not read it. The inner contents name the final hops.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from onionrelay.base.ids import BlindedKey, NodeId, RecordKey
from onionrelay.base.limits import MAX_FINALS, REACH_PLAINTEXT, REACH_RECORD, TIME_WINDOW
from onionrelay.wire.attach import TICKET_KEY, Voucher
from onionrelay.wire.codec import SIGNATURE, Buffer, Extensions, Reader, Writer
from onionrelay.wire.descriptor import MLKEM_KEY, SEED, X25519_KEY
from onionrelay.wire.link import NET_ID

VERSION = 1
SALT = 16
CIPHERTEXT = REACH_PLAINTEXT + 16


class ReachRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What relays store. 3,325 bytes:

    ::

        version u8 = 1 | net_id 8 | period u64 | revision u64 | expires u32 | blinded 32 | record_key 32 | cert 64
        salt 16 | ciphertext 3088 | signature 64

    `expires` is a multiple of 600. `cert` is the blinded key's signature, thing "reach-cert", over `cert_part`;
    `signature` the record key's, thing "reach", over `signed_part`; the ciphertext's associated data are `aad`. To
    make a record, fill in what is known, with b"" for the rest: each part reads only the fields that it covers.
    """

    SIZE: ClassVar[int] = REACH_RECORD

    net_id: bytes
    period: int
    revision: int
    expires: int
    blinded: BlindedKey
    record_key: RecordKey
    cert: bytes = b""
    salt: bytes = b""
    ciphertext: bytes = b""
    signature: bytes = b""

    @property
    def cert_part(self) -> bytes:
        """net_id 8 | period u64 | record_key 32."""
        return Writer().fixed(self.net_id, NET_ID).u64(self.period).key(self.record_key).done()

    @property
    def aad(self) -> bytes:
        """Everything before the salt."""
        writer = Writer().u8(VERSION).fixed(self.net_id, NET_ID).u64(self.period).u64(self.revision).u32(self.expires)
        return writer.key(self.blinded).key(self.record_key).fixed(self.cert, SIGNATURE).done()

    @property
    def signed_part(self) -> bytes:
        """Everything before the signature."""
        return Writer().raw(self.aad).fixed(self.salt, SALT).fixed(self.ciphertext, CIPHERTEXT).done()

    def encode(self) -> bytes:
        """3,325 bytes."""
        return Writer().raw(self.signed_part).fixed(self.signature, SIGNATURE).done()

    @classmethod
    def decode(cls, body: Buffer) -> "ReachRecord":
        """From 3,325 bytes. Signatures, period and expiry are the caller's to check."""
        reader = Reader(body, "reach record")
        reader.require(len(body) == cls.SIZE, "wrong length")
        reader.version(VERSION)
        record = cls(
            net_id=reader.take(NET_ID),
            period=reader.u64(),
            revision=reader.u64(),
            expires=reader.u32(),
            blinded=reader.key(BlindedKey),
            record_key=reader.key(RecordKey),
            cert=reader.take(SIGNATURE),
            salt=reader.take(SALT),
            ciphertext=reader.take(CIPHERTEXT),
            signature=reader.take(SIGNATURE),
        )
        reader.require(not record.expires % TIME_WINDOW, "expiry finer than 10 minutes")
        return record


@dataclass(frozen=True, slots=True)
class FinalEntry:
    """One final hop of a node. 177: voucher 145 | k_ticket 32."""

    voucher: Voucher
    k_ticket: bytes = field(repr=False)

    def encode(self) -> bytes:
        """177 bytes."""
        return Writer().raw(self.voucher.encode()).fixed(self.k_ticket, TICKET_KEY).done()

    @classmethod
    def decode(cls, body: Buffer) -> "FinalEntry":
        """From 177 bytes."""
        reader = Reader(body, "final entry")
        entry = _read_final(reader)
        reader.done()
        return entry


def _read_final(reader: Reader) -> FinalEntry:
    return FinalEntry(voucher=Voucher.decode(reader.take(Voucher.SIZE)), k_ticket=reader.take(TICKET_KEY))


class ReachContents(msgspec.Struct, frozen=True, kw_only=True):
    """What a reach record says to who can open it. 3,072 bytes:

    ::

        node_id 32 | onion_x25519 32 | onion_mlkem 1184 | features u64 | pow_effort u32 | pow_seed 32 | policy u16
        count u8 (1..6) | finals 177 each | length u16 of the extension list | extensions | zeros

    `policy` has no bits assigned yet; unknown ones are ignored.
    """

    node_id: NodeId
    onion_x25519: bytes
    onion_mlkem: bytes
    features: int
    finals: tuple[FinalEntry, ...]
    pow_effort: int = 0
    pow_seed: bytes = bytes(SEED)
    policy: int = 0
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """3,072 bytes."""
        writer = Writer().key(self.node_id).fixed(self.onion_x25519, X25519_KEY).fixed(self.onion_mlkem, MLKEM_KEY)
        writer.u64(self.features).u32(self.pow_effort).fixed(self.pow_seed, SEED).u16(self.policy).u8(len(self.finals))
        for final in self.finals:
            writer.raw(final.encode())
        return writer.counted_extensions(self.extensions).padded(REACH_PLAINTEXT)

    @classmethod
    def decode(cls, body: Buffer) -> "ReachContents":
        """From 3,072 bytes. That `node_id` is the one looked up, and the vouchers, are the caller's to check."""
        reader = Reader(body, "reach contents")
        reader.require(len(body) == REACH_PLAINTEXT, "wrong length")
        contents = cls(
            node_id=reader.key(NodeId),
            onion_x25519=reader.take(X25519_KEY),
            onion_mlkem=reader.take(MLKEM_KEY),
            features=reader.u64(),
            pow_effort=reader.u32(),
            pow_seed=reader.take(SEED),
            policy=reader.u16(),
            finals=_read_finals(reader),
            extensions=reader.counted_extensions(),
        )
        reader.padding()
        return contents


def _read_finals(reader: Reader) -> tuple[FinalEntry, ...]:
    count = reader.u8()
    reader.require(1 <= count <= MAX_FINALS, f"{count} finals")
    return tuple(_read_final(reader) for _ in range(count))
