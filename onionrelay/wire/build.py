"""What a circuit build says to each hop, and what a hop answers (specs/03-build.md); the crypto is elsewhere.

A build record travels sealed in one slot of BUILD, a reply body sealed in one slot of BUILT. EXTEND carries a further
BUILD through an open circuit, to be sent on by its last hop.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, TypeAlias

import msgspec

from onionrelay.base.errors import UsageError
from onionrelay.base.ids import HandleKey, RelayId
from onionrelay.base.limits import BUILD, RECORD_PLAINTEXT, REPLY_PLAINTEXT
from onionrelay.wire.address import ENDPOINT, Endpoint, read_endpoint
from onionrelay.wire.codec import KEY, Buffer, Extensions, Reader, Writer

VERSION = 1
BULK = 1
TICKET = 16
POW_NONCE = 16
TIME_UNIT = 10  # lifetimes on the wire count in tens of seconds
RECORD_FIXED = 108  # up to the extension list; the rest is extensions and random padding
REPLY_BODY = REPLY_PLAINTEXT - 32  # the first 32 bytes confirm the hop's key
REPLY_ROOM = REPLY_BODY - 3


class Role(IntEnum):
    """What the hop that opens a record is asked to be."""

    FORWARD = 0  # pass the build on to the relay `next_id`
    HANDLE = 1  # pass it on over the link that attached the handle `next_id`
    ENDPOINT = 2  # the circuit ends here: a target, or a relay from which it may be extended


class BuildStatus(IntEnum):
    """A hop's answer to its build record. What `detail` and `body` of the reply hold is given where it is not zero."""

    OK = 0
    CLOCK = 1  # the record's window is neither the hop's nor a neighbour of it
    OVERLOADED = 2  # detail: seconds to wait before another try
    POW_NEEDED = 3  # body: seed 32 | effort u32
    BAD_RECORD = 4
    NEXT_UNREACHABLE = 5
    NEXT_ID_MISMATCH = 6
    NEXT_SILENT = 7
    NO_SUCH_HANDLE = 8
    TARGET_REFUSED = 9
    TICKET = 10
    POLICY = 11
    LIFETIME = 12
    NEXT_REFUSED = 13


NextId: TypeAlias = RelayId | HandleKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """What one hop is told, 152 bytes:

    ::

          0 version u8 = 1 | 1 role u8 | 2 flags u16 (bit 0 BULK, others 0) | 4 window u32 = unix time // 600
          8 next_id 32         relay id (FORWARD), attach handle (HANDLE), zero (ENDPOINT)
         40 endpoint 25        of the next relay (FORWARD), else zero
         65 lifetime u16 (10 s units) | 67 cc_profile u8 | 68 zero 2
         70 ticket 16          (HANDLE), else zero
         86 pow_effort u32 | 90 pow_nonce 16
        106 length u16 of the extension list | 108 extensions, then random to 152

    `lifetime` is in seconds here, a multiple of 10. The random padding is no part of the value.
    """

    role: Role
    window: int
    lifetime: int
    next_id: NextId = None
    endpoint: Endpoint = Endpoint()  # noqa: RUF009 - frozen
    bulk: bool = True
    cc_profile: int = 0
    ticket: bytes = field(default=bytes(TICKET), repr=False)
    pow_effort: int = 0
    pow_nonce: bytes = bytes(POW_NONCE)
    extensions: Extensions = ()

    def encode(self, pad: bytes) -> bytes:
        """152 bytes. `pad`: at least as many random bytes as the extensions leave, 44 when there are none."""
        writer = Writer().u8(VERSION).u8(self.role).u16(BULK if self.bulk else 0).u32(self.window)
        writer.raw(self.next_id.raw if self.next_id else bytes(KEY)).raw(self.endpoint.encode())
        writer.u16(tens(self.lifetime)).u8(self.cc_profile).zeros(2).fixed(self.ticket, TICKET)
        writer.u32(self.pow_effort).fixed(self.pow_nonce, POW_NONCE)
        record = writer.counted_extensions(self.extensions).done()
        return Writer().raw(record).raw(pad[: RECORD_PLAINTEXT - len(record)]).exactly(RECORD_PLAINTEXT)

    @classmethod
    def decode(cls, body: Buffer) -> "BuildRecord":
        """From 152 bytes. What the role does not use must be zero."""
        reader = Reader(body, "build record")
        reader.require(len(body) == RECORD_PLAINTEXT, "wrong length")
        reader.version(VERSION)
        role, flags, window = reader.enum(Role, reader.u8()), reader.u16(), reader.u32()
        reader.require(flags in (0, BULK), "unknown flags")
        next_id, endpoint = _read_next_id(reader, role), read_endpoint(reader)
        reader.require((role is Role.FORWARD) == bool(endpoint.addresses), "the endpoint does not fit the role")
        lifetime, cc_profile = reader.u16() * TIME_UNIT, reader.u8()
        reader.zeros(2)
        ticket = reader.take(TICKET)
        reader.require(role is Role.HANDLE or ticket == bytes(TICKET), "a ticket without a handle")
        return cls(
            role=role,
            window=window,
            lifetime=lifetime,
            next_id=next_id,
            endpoint=endpoint,
            bulk=bool(flags & BULK),
            cc_profile=cc_profile,
            ticket=ticket,
            pow_effort=reader.u32(),
            pow_nonce=reader.take(POW_NONCE),
            extensions=reader.counted_extensions(),
        )


def _read_next_id(reader: Reader, role: Role) -> NextId:
    match role:
        case Role.FORWARD:
            return reader.key(RelayId)
        case Role.HANDLE:
            return reader.key(HandleKey)
        case Role.ENDPOINT:
            reader.zeros(KEY)
            return None


def tens(seconds: int) -> int:
    """A time in the wire's unit of 10 seconds."""
    if seconds % TIME_UNIT:
        raise UsageError(f"{seconds} s is not a multiple of {TIME_UNIT} s")
    return seconds // TIME_UNIT


class ReplyBody(msgspec.Struct, frozen=True):
    """What one hop answers, 104 bytes: status u8 | detail u8 | length u8 | body | zeros."""

    status: BuildStatus
    detail: int = 0
    body: bytes = b""

    def encode(self) -> bytes:
        """104 bytes; `body` holds at most 101."""
        return Writer().u8(self.status).u8(self.detail).u8(len(self.body)).raw(self.body).padded(REPLY_BODY)

    @classmethod
    def decode(cls, body: Buffer) -> "ReplyBody":
        """From 104 bytes."""
        reader = Reader(body, "build reply")
        reader.require(len(body) == REPLY_BODY, "wrong length")
        reply = cls(status=reader.enum(BuildStatus, reader.u8()), detail=reader.u8(), body=reader.take(reader.u8()))
        reader.padding()
        return reply


class Extend(msgspec.Struct, frozen=True):
    """Asks the last hop of a circuit to pass a further BUILD on. 7785: next_id 32 | endpoint 25 | BUILD 7728.

    Relay message EXTEND; answered by EXTENDED, whose data are the 1,104 bytes of BUILT, or by EXTEND_FAILED.
    """

    SIZE: ClassVar[int] = KEY + ENDPOINT + BUILD

    next_id: RelayId
    endpoint: Endpoint
    build: bytes

    def encode(self) -> bytes:
        """7,785 bytes."""
        return Writer().key(self.next_id).raw(self.endpoint.encode()).fixed(self.build, BUILD).done()

    @classmethod
    def decode(cls, body: Buffer) -> "Extend":
        """From 7,785 bytes."""
        reader = Reader(body, "EXTEND")
        extend = cls(next_id=reader.key(RelayId), endpoint=read_endpoint(reader), build=reader.take(BUILD))
        reader.require(bool(extend.endpoint.addresses), "no address")
        reader.done()
        return extend


class ExtendFailed(msgspec.Struct, frozen=True):
    """The last hop could not pass the BUILD on. Relay message EXTEND_FAILED, 2: status u8 (not OK) | detail u8."""

    SIZE: ClassVar[int] = 2

    status: BuildStatus
    detail: int = 0

    def encode(self) -> bytes:
        """2 bytes."""
        return Writer().u8(self.status).u8(self.detail).done()

    @classmethod
    def decode(cls, body: Buffer) -> "ExtendFailed":
        """From 2 bytes."""
        reader = Reader(body, "EXTEND_FAILED")
        failed = cls(status=reader.enum(BuildStatus, reader.u8()), detail=reader.u8())
        reader.require(failed.status is not BuildStatus.OK, "a failure that is none")
        reader.done()
        return failed
