"""What travels inside the onion layers of a circuit: payloads, and the messages cut into them (specs/04-cells.md).

::

    payload  cmd u8 | flags u8 (bit 0 MORE) | rid u16 | length u16 | zero 2 | data | zeros        1,088 or 16,360 bytes

A message is the data of successive payloads up to the first without MORE. A payload with MORE is full. Per hop and
direction one message is under way at a time.
"""

from struct import Struct

import msgspec

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.limits import BUILT, LARGE_DATA, MESSAGE_LIMIT, PAYLOAD_HEADER, SMALL_DATA
from onionrelay.wire.build import Extend, ExtendFailed
from onionrelay.wire.codec import Buffer, is_zero

PAYLOAD = Struct(">BBHHH")  # cmd, flags, rid, length, zero
MORE = 1
PAYLOAD_SIZES = (PAYLOAD_HEADER + SMALL_DATA, PAYLOAD_HEADER + LARGE_DATA)


class RelayCmd:
    """The command of a relay message. 0 and 6 are not assigned; the ones without a length below are reserved."""

    SESS = 1
    EXTEND = 2
    EXTENDED = 3
    EXTEND_FAILED = 4
    ACK = 5
    DHT_QUERY = 7
    DHT_ANSWER = 8
    DIR_GET = 9
    DIR_DATA = 10
    LIVE_QUERY = 11
    LIVE_PROOF = 12
    ATTACH = 13
    AUTH_CLIENT = 14
    PQ_REKEY = 15
    DROP = 16
    END_CIRCUIT = 17
    ECHO = 18
    ECHOED = 19


LONGEST_MESSAGE = {
    RelayCmd.SESS: LARGE_DATA,
    RelayCmd.EXTEND: Extend.SIZE,
    RelayCmd.EXTENDED: BUILT,
    RelayCmd.EXTEND_FAILED: ExtendFailed.SIZE,
    RelayCmd.DHT_QUERY: MESSAGE_LIMIT,
    RelayCmd.DHT_ANSWER: MESSAGE_LIMIT,
    RelayCmd.DIR_GET: MESSAGE_LIMIT,
    RelayCmd.DIR_DATA: MESSAGE_LIMIT,
    RelayCmd.ECHO: 8,
    RelayCmd.ECHOED: 8,
}
"""The longest data of a message by its command; a command that is not here does not exist in this version."""


class RelayPayload(msgspec.Struct, frozen=True):
    """The content of one relay cell or, out of a MessageAssembler, one whole message (`more` is then False)."""

    cmd: int
    more: bool
    rid: int
    data: bytes


def pack_payload(cmd: int, rid: int, data: Buffer, *, more: bool = False, room: int = SMALL_DATA) -> bytes:
    """One payload, filled up with zeros. `room`: SMALL_DATA or LARGE_DATA, what the cell's payload can hold."""
    if len(data) > room or (more and len(data) != room):
        raise UsageError(f"{len(data)} bytes do not fit a payload of {room}")
    header = PAYLOAD.pack(cmd, MORE if more else 0, rid, len(data), 0)
    return (header + bytes(data)).ljust(PAYLOAD_HEADER + room, b"\0")


def split_message(cmd: int, rid: int, data: bytes) -> list[bytes]:
    """The small payloads that carry a message, in order; at least one."""
    if len(data) > LONGEST_MESSAGE[cmd]:
        raise UsageError(f"a message of {len(data)} bytes in relay command {cmd}")
    starts = range(0, max(len(data), 1), SMALL_DATA)
    return [
        pack_payload(cmd, rid, data[start : start + SMALL_DATA], more=start + SMALL_DATA < len(data))
        for start in starts
    ]


def parse_payload(view: Buffer) -> RelayPayload:
    """The content of a payload of either size."""
    if len(view) not in PAYLOAD_SIZES:
        raise MalformedMessage(f"a payload of {len(view)} bytes")
    cmd, flags, rid, length, zero = PAYLOAD.unpack_from(view)
    end = PAYLOAD_HEADER + length
    if flags > MORE or zero:
        raise MalformedMessage("payload: unknown flag or non-zero reserved bytes")
    if end > len(view):
        raise MalformedMessage("payload: its data overrun it")
    if end < len(view) and (flags or not is_zero(view[end:])):
        raise MalformedMessage("payload: padding is not zero, or stands before the end of a message")
    return RelayPayload(cmd, bool(flags), rid, bytes(view[PAYLOAD_HEADER:end]))


class MessageAssembler:
    """Puts the messages of one hop and direction together again.

    It holds one unfinished message, never longer than its command allows. After a MalformedMessage the circuit is
    destroyed, so the state does not matter any more.
    """

    __slots__ = ("_cmd", "_data", "_rid", "_under_way")

    def __init__(self) -> None:
        self._under_way = False
        self._cmd = 0
        self._rid = 0
        self._data = bytearray()

    def feed(self, payload: RelayPayload) -> RelayPayload | None:
        """Take the next payload; the whole message when this payload completes it."""
        if self._under_way and (payload.cmd, payload.rid) != (self._cmd, self._rid):
            raise MalformedMessage("a relay message begins inside another")
        longest = LONGEST_MESSAGE.get(payload.cmd)
        if longest is None:
            raise MalformedMessage(f"unknown relay command {payload.cmd}")
        if payload.cmd == RelayCmd.SESS and (payload.more or payload.rid):
            raise MalformedMessage("SESS: one payload without a request id is one packet")
        if len(self._data) + len(payload.data) > longest:
            raise MalformedMessage(f"a relay message longer than its command {payload.cmd} allows")
        if not payload.more and not self._under_way:
            return payload
        return self._continue(payload)

    def _continue(self, payload: RelayPayload) -> RelayPayload | None:
        self._cmd, self._rid, self._under_way = payload.cmd, payload.rid, payload.more
        self._data += payload.data
        if payload.more:
            return None
        whole = RelayPayload(payload.cmd, more=False, rid=payload.rid, data=bytes(self._data))
        self._data.clear()
        return whole
