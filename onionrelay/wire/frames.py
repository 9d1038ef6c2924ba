"""Session packets and the frames in them (specs/06-sessions.md).

::

    packet           number u32 | frames                    5 to 1,080 bytes, or exactly 16,352

    OPEN_SESSION     01 | nonce 32 | features u32                               C: the first frame of a session
    SESSION_OPENED   02 | session id 16 | features u32                          T: its answer
    STREAM_OPEN      03 | stream u32 | port u16 | length u16 | metadata         a stream is asked for
    STREAM_REFUSED   04 | stream u32 | reason u8                                ... and refused
    STREAM           05 | stream u32 | offset u64 | flags u8 | length u16 | data      flags bit 0: FIN
    MAX_DATA         06 | limit u64                                             bytes of all streams together
    MAX_STREAM_DATA  07 | stream u32 | limit u64                                bytes of one stream
    RESET            08 | stream u32 | code u16 | final size u64                the sender gives a direction up
    STOP             09 | stream u32 | code u16                                 the receiver wants no more of it
    PING             0a | token u64
    PONG             0b | token u64
    CLOSE            0c | code u16                                              the last frame of a session

Codes 10 to 1f belong to resumption (ACK, JOIN, JOINED, LEG_ADD, LEG_DROP) and are not understood yet. 00 is never
assigned, so that zeros are no frames.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import ClassVar, TypeAlias

import msgspec

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.limits import LARGE_DATA, SMALL_DATA, STREAM_METADATA
from onionrelay.wire.codec import Buffer, Reader, Writer

NONCE = 32
SESSION_ID = 16
PACKET_NUMBER = 4
STREAM_FIELDS = Struct(">IQBH")  # stream, offset, flags, length
FIN = 1


class FrameCode(IntEnum):
    """The first byte of a frame."""

    OPEN_SESSION = 0x01
    SESSION_OPENED = 0x02
    STREAM_OPEN = 0x03
    STREAM_REFUSED = 0x04
    STREAM = 0x05
    MAX_DATA = 0x06
    MAX_STREAM_DATA = 0x07
    RESET = 0x08
    STOP = 0x09
    PING = 0x0A
    PONG = 0x0B
    CLOSE = 0x0C
    ACK = 0x10  # reserved from here on
    JOIN = 0x11
    JOINED = 0x12
    LEG_ADD = 0x13
    LEG_DROP = 0x14


STREAM = bytes([FrameCode.STREAM])


class RefusalReason(IntEnum):
    """Why a stream was refused."""

    NO_SUCH_PORT = 1  # nothing is offered on this port
    CONNECT_FAILED = 2  # something is, but it could not be reached
    NOT_ALLOWED = 3  # not for this caller, or not with this metadata
    BUSY = 4  # too many streams, or too little memory


class StreamCode(IntEnum):
    """Why one direction of a stream ended early: the code of RESET and STOP."""

    CANCELLED = 1  # its user closed or aborted it
    REFUSED = 2  # RESET only: the answer to STREAM_REFUSED
    STOPPED = 3  # RESET only: the answer to STOP
    SERVICE_LOST = 4  # the connection behind the stream broke
    RESOURCES = 5


RESET_ONLY = frozenset({StreamCode.REFUSED, StreamCode.STOPPED})


class CloseCode(IntEnum):
    """Why a session ended."""

    FINISHED = 0  # its user is done with it
    SHUTDOWN = 1  # the process ends
    BUSY = 2  # too many sessions; instead of SESSION_OPENED
    UNUSED = 3  # no stream for too long
    RESOURCES = 4
    LOST = 5  # reserved for resumption: what is missing cannot be sent again


class OpenSession(msgspec.Struct, frozen=True):
    """The opener's first frame. `features`: bits it offers, none of which is assigned yet."""

    nonce: bytes
    features: int = 0

    def encode(self) -> bytes:
        """37 bytes."""
        return Writer().u8(FrameCode.OPEN_SESSION).fixed(self.nonce, NONCE).u32(self.features).done()

    @classmethod
    def read(cls, reader: Reader) -> "OpenSession":
        """What follows the code."""
        return cls(reader.take(NONCE), reader.u32())


class SessionOpened(msgspec.Struct, frozen=True):
    """The acceptor's first frame. `features`: those of the opener's bits that hold from now on."""

    session_id: bytes
    features: int = 0

    def encode(self) -> bytes:
        """21 bytes."""
        return Writer().u8(FrameCode.SESSION_OPENED).fixed(self.session_id, SESSION_ID).u32(self.features).done()

    @classmethod
    def read(cls, reader: Reader) -> "SessionOpened":
        """What follows the code."""
        return cls(reader.take(SESSION_ID), reader.u32())


class StreamOpen(msgspec.Struct, frozen=True):
    """Asks the other end for a stream to one of its ports. `metadata` is between the applications: up to 1,024."""

    stream: int
    port: int
    metadata: bytes = b""

    def encode(self) -> bytes:
        """9 bytes and the metadata."""
        if len(self.metadata) > STREAM_METADATA:
            raise UsageError(f"metadata of {len(self.metadata)} bytes; at most {STREAM_METADATA} fit")
        writer = Writer().u8(FrameCode.STREAM_OPEN).u32(self.stream).u16(self.port)
        return writer.u16(len(self.metadata)).raw(self.metadata).done()

    @classmethod
    def read(cls, reader: Reader) -> "StreamOpen":
        """What follows the code."""
        stream, port, size = reader.u32(), reader.u16(), reader.u16()
        reader.require(size <= STREAM_METADATA, f"metadata of {size} bytes")
        return cls(stream, port, reader.take(size))


class StreamRefused(msgspec.Struct, frozen=True):
    """The answer to STREAM_OPEN when there will be no stream."""

    stream: int
    reason: RefusalReason

    def encode(self) -> bytes:
        """6 bytes."""
        return Writer().u8(FrameCode.STREAM_REFUSED).u32(self.stream).u8(self.reason).done()

    @classmethod
    def read(cls, reader: Reader) -> "StreamRefused":
        """What follows the code."""
        return cls(reader.u32(), reader.enum(RefusalReason, reader.u8()))


class StreamData(msgspec.Struct, frozen=True):
    """STREAM: bytes of a stream from `offset` on; with `fin`, the last ones. Empty only with `fin`."""

    HEADER: ClassVar[int] = 1 + STREAM_FIELDS.size

    stream: int
    offset: int
    data: bytes
    fin: bool = False

    def encode(self) -> bytes:
        """16 bytes and the data."""
        return stream_header(self.stream, self.offset, len(self.data), fin=self.fin) + self.data

    @classmethod
    def read(cls, reader: Reader) -> "StreamData":
        """What follows the code. The one frame that counts for speed: its fields are read at once."""
        stream, offset, flags, size = STREAM_FIELDS.unpack(reader.take(STREAM_FIELDS.size))
        reader.require(flags <= FIN, "unknown flags of STREAM")
        reader.require(bool(size or flags), "a STREAM frame that says nothing")
        return cls(stream, offset, reader.take(size), bool(flags))


class MaxData(msgspec.Struct, frozen=True):
    """How many bytes of all its streams together the receiver of this frame may have sent since the beginning."""

    limit: int

    def encode(self) -> bytes:
        """9 bytes."""
        return Writer().u8(FrameCode.MAX_DATA).u64(self.limit).done()

    @classmethod
    def read(cls, reader: Reader) -> "MaxData":
        """What follows the code."""
        return cls(reader.u64())


class MaxStreamData(msgspec.Struct, frozen=True):
    """How many bytes of one stream the receiver of this frame may have sent. The acceptor's first one accepts it."""

    stream: int
    limit: int

    def encode(self) -> bytes:
        """13 bytes."""
        return Writer().u8(FrameCode.MAX_STREAM_DATA).u32(self.stream).u64(self.limit).done()

    @classmethod
    def read(cls, reader: Reader) -> "MaxStreamData":
        """What follows the code."""
        return cls(reader.u32(), reader.u64())


class Reset(msgspec.Struct, frozen=True):
    """The sender gives its direction of a stream up after `final_size` bytes."""

    stream: int
    code: StreamCode
    final_size: int

    def encode(self) -> bytes:
        """15 bytes."""
        return Writer().u8(FrameCode.RESET).u32(self.stream).u16(self.code).u64(self.final_size).done()

    @classmethod
    def read(cls, reader: Reader) -> "Reset":
        """What follows the code."""
        return cls(reader.u32(), reader.enum(StreamCode, reader.u16()), reader.u64())


class Stop(msgspec.Struct, frozen=True):
    """The receiver of a direction throws away whatever else comes, and asks its sender to reset it."""

    stream: int
    code: StreamCode

    def encode(self) -> bytes:
        """7 bytes."""
        return Writer().u8(FrameCode.STOP).u32(self.stream).u16(self.code).done()

    @classmethod
    def read(cls, reader: Reader) -> "Stop":
        """What follows the code."""
        stop = cls(reader.u32(), reader.enum(StreamCode, reader.u16()))
        reader.require(stop.code not in RESET_ONLY, "a code of RESET in STOP")
        return stop


class Ping(msgspec.Struct, frozen=True):
    """Asks for a PONG with the same token."""

    token: int

    def encode(self) -> bytes:
        """9 bytes."""
        return Writer().u8(FrameCode.PING).u64(self.token).done()

    @classmethod
    def read(cls, reader: Reader) -> "Ping":
        """What follows the code."""
        return cls(reader.u64())


class Pong(msgspec.Struct, frozen=True):
    """The answer to PING."""

    token: int

    def encode(self) -> bytes:
        """9 bytes."""
        return Writer().u8(FrameCode.PONG).u64(self.token).done()

    @classmethod
    def read(cls, reader: Reader) -> "Pong":
        """What follows the code."""
        return cls(reader.u64())


class Close(msgspec.Struct, frozen=True):
    """Ends the session at once; nothing follows it."""

    code: CloseCode

    def encode(self) -> bytes:
        """3 bytes."""
        return Writer().u8(FrameCode.CLOSE).u16(self.code).done()

    @classmethod
    def read(cls, reader: Reader) -> "Close":
        """What follows the code."""
        return cls(reader.enum(CloseCode, reader.u16()))


Frame: TypeAlias = (
    OpenSession
    | SessionOpened
    | StreamOpen
    | StreamRefused
    | StreamData
    | MaxData
    | MaxStreamData
    | Reset
    | Stop
    | Ping
    | Pong
    | Close
)

_READ: dict[int, Callable[[Reader], Frame]] = {
    FrameCode.OPEN_SESSION: OpenSession.read,
    FrameCode.SESSION_OPENED: SessionOpened.read,
    FrameCode.STREAM_OPEN: StreamOpen.read,
    FrameCode.STREAM_REFUSED: StreamRefused.read,
    FrameCode.STREAM: StreamData.read,
    FrameCode.MAX_DATA: MaxData.read,
    FrameCode.MAX_STREAM_DATA: MaxStreamData.read,
    FrameCode.RESET: Reset.read,
    FrameCode.STOP: Stop.read,
    FrameCode.PING: Ping.read,
    FrameCode.PONG: Pong.read,
    FrameCode.CLOSE: Close.read,
}


def stream_header(stream: int, offset: int, size: int, *, fin: bool) -> bytes:
    """The 16 bytes before the data of a STREAM frame; for senders that join packets from pieces."""
    return STREAM + STREAM_FIELDS.pack(stream, offset, FIN if fin else 0, size)


class Packet(msgspec.Struct, frozen=True):
    """The content of one SESS payload. `number` counts the packets of a sender from 0."""

    number: int
    frames: tuple[Frame, ...]

    def encode(self) -> bytes:
        """Must come to 5 to 1,080 or to 16,352 bytes."""
        packet = Writer().u32(self.number).raw(b"".join(frame.encode() for frame in self.frames)).done()
        if not is_packet_size(len(packet)):
            raise UsageError(f"a session packet of {len(packet)} bytes")
        return packet

    @classmethod
    def decode(cls, body: Buffer) -> "Packet":
        """From the data of a SESS message. Frame by frame, without recursion; copies stream data once."""
        if not is_packet_size(len(body)):
            raise MalformedMessage(f"a session packet of {len(body)} bytes")
        reader = Reader(body, "session packet")
        number = reader.u32()
        frames: list[Frame] = []
        while reader.left:
            code = reader.u8()
            read = _READ.get(code)
            if read is None:
                reader.fail(f"unknown frame code {code:#04x}")
            frames.append(read(reader))
        return cls(number, tuple(frames))


def is_packet_size(size: int) -> bool:
    """Whether a packet may have this size: it fits a small payload, or it fills a large one."""
    return PACKET_NUMBER < size <= SMALL_DATA or size == LARGE_DATA
