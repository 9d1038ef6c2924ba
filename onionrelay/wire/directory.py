"""Questions about relays (DIR) and records (DHT), and their answers: one codec, two carriers (specs/07).

======  ====  ==========  =========================================================================
family  kind  message     body
======  ====  ==========  =========================================================================
DIR     1     DirGet      first_bucket u16
DIR     2     DirData     next_bucket u16 | count u16 | count times (length u16 | descriptor)
DIR     3     DirPut      length u16 | descriptor
DIR     4     DirReceipt  result u8
DHT     1     DhtGet      key 32
DHT     2     DhtAnswer   count u16 | count times (length u16 | record)
DHT     3     DhtPut      key 32 | length u16 | record
DHT     4     DhtReceipt  result u8
======  ====  ==========  =========================================================================

Every body ends with an extension list. Between link ends a message is a control message of command DIR or DHT: type =
kind, body = request id u32 | body. Through a circuit it is a relay message, data = kind u8 | body: kinds 1 and 3 in
DIR_GET or DHT_QUERY, 2 and 4 in DIR_DATA or DHT_ANSWER, with the request id in the payload's header.
"""

from enum import IntEnum
from typing import ClassVar, TypeAlias

import msgspec

from onionrelay.base.limits import DESCRIPTOR_LIMIT, MAX_RECORD, MESSAGE_LIMIT
from onionrelay.wire.cell import Cmd
from onionrelay.wire.codec import Buffer, Extensions, Reader, Writer
from onionrelay.wire.relay import RelayCmd

BUCKETS = 256  # by the first byte of the relay id
KEY = 32
ROOM = MESSAGE_LIMIT - 4  # the longest body, behind a request id
ITEM_HEADER = 2


class StoreResult(IntEnum):
    """What became of a put."""

    STORED = 0
    STALE = 1  # this revision or a newer one is held already
    INVALID = 2
    FULL = 3
    BUSY = 4  # too many puts on this link
    UNREACHABLE = 5  # the described relay did not answer at its address


class DirGet(msgspec.Struct, frozen=True):
    """Asks for descriptors, whole buckets from `first_bucket` on. DIR 1: first_bucket u16 (0..255) | extensions."""

    FAMILY: ClassVar[int] = Cmd.DIR
    KIND: ClassVar[int] = 1

    first_bucket: int
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        return Writer().u16(self.first_bucket).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DirGet":
        """From the body."""
        reader = Reader(body, "DIR get")
        question = cls(first_bucket=reader.u16(), extensions=reader.extensions())
        reader.require(question.first_bucket < BUCKETS, f"no bucket {question.first_bucket}")
        return question


class DirData(msgspec.Struct, frozen=True):
    """Descriptors, as they were received. DIR 2:

    next_bucket u16 (where to go on; 256: that was all) | count u16 | (length u16 | descriptor) each | extensions
    """

    FAMILY: ClassVar[int] = Cmd.DIR
    KIND: ClassVar[int] = 2

    next_bucket: int
    descriptors: tuple[bytes, ...]
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        writer = Writer().u16(self.next_bucket)
        _write_items(writer, self.descriptors)
        return writer.extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DirData":
        """From the body. The descriptors are not decoded."""
        reader = Reader(body, "DIR data")
        next_bucket = reader.u16()
        reader.require(1 <= next_bucket <= BUCKETS, f"no bucket {next_bucket}")
        return cls(next_bucket, _read_items(reader, DESCRIPTOR_LIMIT), reader.extensions())


class DirPut(msgspec.Struct, frozen=True):
    """Offers a descriptor. DIR 3: length u16 | descriptor | extensions."""

    FAMILY: ClassVar[int] = Cmd.DIR
    KIND: ClassVar[int] = 3

    descriptor: bytes
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        return Writer().u16(len(self.descriptor)).raw(self.descriptor).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DirPut":
        """From the body. The descriptor is not decoded."""
        reader = Reader(body, "DIR put")
        return cls(descriptor=_read_item(reader, DESCRIPTOR_LIMIT), extensions=reader.extensions())


class DirReceipt(msgspec.Struct, frozen=True):
    """What became of a DirPut. DIR 4: result u8 | extensions."""

    FAMILY: ClassVar[int] = Cmd.DIR
    KIND: ClassVar[int] = 4

    result: StoreResult
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        return Writer().u8(self.result).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DirReceipt":
        """From the body."""
        reader = Reader(body, "DIR receipt")
        return cls(result=reader.enum(StoreResult, reader.u8()), extensions=reader.extensions())


class DhtGet(msgspec.Struct, frozen=True):
    """Asks for the records stored under a key. DHT 1: key 32 | extensions."""

    FAMILY: ClassVar[int] = Cmd.DHT
    KIND: ClassVar[int] = 1

    key: bytes
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        return Writer().fixed(self.key, KEY).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DhtGet":
        """From the body."""
        reader = Reader(body, "DHT get")
        return cls(key=reader.take(KEY), extensions=reader.extensions())


class DhtAnswer(msgspec.Struct, frozen=True):
    """The records found, perhaps none. DHT 2: count u16 | (length u16 | record) each | extensions."""

    FAMILY: ClassVar[int] = Cmd.DHT
    KIND: ClassVar[int] = 2

    values: tuple[bytes, ...]
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        writer = Writer()
        _write_items(writer, self.values)
        return writer.extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DhtAnswer":
        """From the body. The records are not decoded."""
        reader = Reader(body, "DHT answer")
        return cls(values=_read_items(reader, MAX_RECORD), extensions=reader.extensions())


class DhtPut(msgspec.Struct, frozen=True):
    """Offers a record for a key. DHT 3: key 32 | length u16 | record | extensions."""

    FAMILY: ClassVar[int] = Cmd.DHT
    KIND: ClassVar[int] = 3

    key: bytes
    record: bytes
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        writer = Writer().fixed(self.key, KEY).u16(len(self.record)).raw(self.record)
        return writer.extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DhtPut":
        """From the body. The record is not decoded."""
        reader = Reader(body, "DHT put")
        return cls(key=reader.take(KEY), record=_read_item(reader, MAX_RECORD), extensions=reader.extensions())


class DhtReceipt(msgspec.Struct, frozen=True):
    """What became of a DhtPut. DHT 4: result u8 | extensions."""

    FAMILY: ClassVar[int] = Cmd.DHT
    KIND: ClassVar[int] = 4

    result: StoreResult
    extensions: Extensions = ()

    def encode(self) -> bytes:
        """The body."""
        return Writer().u8(self.result).extensions(self.extensions).done()

    @classmethod
    def decode(cls, body: Buffer) -> "DhtReceipt":
        """From the body."""
        reader = Reader(body, "DHT receipt")
        return cls(result=reader.enum(StoreResult, reader.u8()), extensions=reader.extensions())


Question: TypeAlias = DirGet | DirPut | DhtGet | DhtPut
Answer: TypeAlias = DirData | DirReceipt | DhtAnswer | DhtReceipt

RELAY_COMMANDS: dict[int, tuple[type[Question | Answer], ...]] = {
    RelayCmd.DIR_GET: (DirGet, DirPut),
    RelayCmd.DIR_DATA: (DirData, DirReceipt),
    RelayCmd.DHT_QUERY: (DhtGet, DhtPut),
    RelayCmd.DHT_ANSWER: (DhtAnswer, DhtReceipt),
}
CARRIER = {kind: cmd for cmd, kinds in RELAY_COMMANDS.items() for kind in kinds}
CONTROL_MESSAGES = {(kind.FAMILY, kind.KIND): kind for kind in CARRIER}


def to_control(message: Question | Answer, request_id: int) -> tuple[int, int, bytes]:
    """(cell command, control type, body) of the message between two link ends."""
    return message.FAMILY, message.KIND, Writer().u32(request_id).raw(message.encode()).done()


def from_control(cmd: int, kind: int, body: Buffer) -> tuple[int, Question | Answer]:
    """(request id, message) of a control message of command DIR or DHT."""
    reader = Reader(body, "directory message")
    return reader.u32(), _decode(reader, CONTROL_MESSAGES.get((cmd, kind)))


def to_relay(message: Question | Answer) -> tuple[int, bytes]:
    """(relay command, data) of the message through a circuit."""
    return CARRIER[type(message)], Writer().u8(message.KIND).raw(message.encode()).done()


def from_relay(cmd: int, data: Buffer) -> Question | Answer:
    """The message in a relay message DIR_GET, DIR_DATA, DHT_QUERY or DHT_ANSWER."""
    reader = Reader(data, "directory message")
    kinds = {kind.KIND: kind for kind in RELAY_COMMANDS.get(cmd, ())}
    return _decode(reader, kinds.get(reader.u8()))


def room_left(items: list[bytes]) -> int:
    """How long one more item may be so that a DirData or DhtAnswer with `items` still fits either carrier."""
    return ROOM - ITEM_HEADER * (len(items) + 3) - sum(map(len, items))


def _decode(reader: Reader, kind: type[Question | Answer] | None) -> Question | Answer:
    if kind is None:
        reader.fail("unknown kind, or a question where an answer belongs")
    return kind.decode(reader.rest())


def _write_items(writer: Writer, items: tuple[bytes, ...]) -> None:
    writer.u16(len(items))
    for item in items:
        writer.u16(len(item)).raw(item)


def _read_items(reader: Reader, longest: int) -> tuple[bytes, ...]:
    return tuple(_read_item(reader, longest) for _ in range(reader.u16()))


def _read_item(reader: Reader, longest: int) -> bytes:
    size = reader.u16()
    reader.require(1 <= size <= longest, f"an item of {size} bytes")
    return reader.take(size)
