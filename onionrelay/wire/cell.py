"""Cells: everything inside a link after TLS is one of two sizes (specs/02-wire.md, "Cells").

::

    circ_id u32 | cmd u8 | gen u8 | zero u16 | body      small 1112 = 8 + 1104; large 16384 = 8 + 16376, RELAY_BULK only

`gen` is zero but in BUILD. Cells with circ_id 0 concern the link itself. The engine reads headers with HEADER straight
from its receive buffer; the functions here serve everything that is not the forwarding path.
"""

from collections.abc import Sequence
from struct import Struct

from onionrelay.base.errors import DestroyReason, MalformedMessage, UsageError
from onionrelay.base.limits import CELL_HEADER, LARGE_BODY, LARGE_CELL, SMALL_BODY, SMALL_CELL
from onionrelay.wire.codec import Buffer, is_zero

HEADER = Struct(">IBBH")  # circ_id, cmd, gen, zero
CREDIT_ENTRY = Struct(">II")  # circ_id, bytes
CREDIT_ENTRIES = SMALL_BODY // CREDIT_ENTRY.size  # 138
MAX_GEN = 1
SERVER_CIRCUIT = 1 << 31  # set in the circ_id of circuits that the link's server opened


class Cmd:
    """The command byte of a cell. Plain integers: an enum member costs ten times a look-up on the forwarding path."""

    PADDING = 0
    HELLO = 1
    AUTH = 2
    RELAY = 3
    BUILD = 4
    BUILT = 5
    BUILD_ACK = 6
    DESTROY = 7
    CREDIT = 8
    PING = 9
    PONG = 10
    ATTACH = 11
    DHT = 12
    DIR = 13
    REACH = 14
    RELAY_BULK = 15


CONTROL_COMMANDS = frozenset({Cmd.HELLO, Cmd.AUTH, Cmd.ATTACH, Cmd.DHT, Cmd.DIR, Cmd.REACH})
"""Commands whose bodies are fragments of control messages (wire/control.py)."""

LINK_COMMANDS = CONTROL_COMMANDS | {Cmd.PADDING, Cmd.CREDIT, Cmd.PING, Cmd.PONG}
"""Commands that travel on circ_id 0; all others need a circuit."""

CELL_SIZE: tuple[int, ...] = tuple(
    LARGE_CELL if cmd == Cmd.RELAY_BULK else SMALL_CELL if cmd < Cmd.RELAY_BULK else 0 for cmd in range(256)
)
"""The size of a whole cell by its command byte; 0 for a command that does not exist."""


def pack_cell(circ_id: int, cmd: int, body: Buffer = b"", gen: int = 0) -> bytes:
    """One whole cell. A small body is filled up with zeros; a large one must be full."""
    size = CELL_SIZE[cmd]
    room = size - CELL_HEADER
    if not size or len(body) > room or (size == LARGE_CELL and len(body) != LARGE_BODY):
        raise UsageError(f"a body of {len(body)} bytes does not fit command {cmd}")
    return HEADER.pack(circ_id, cmd, gen, 0) + bytes(body).ljust(room, b"\0")


def check_header(circ_id: int, cmd: int, gen: int, zero: int) -> None:
    """Check what the fields of a header promise each other. A cell that fails this closes its link."""
    if not CELL_SIZE[cmd]:
        raise MalformedMessage(f"unknown command {cmd}")
    if zero or (gen and cmd != Cmd.BUILD):
        raise MalformedMessage("a reserved byte of a cell header is not zero")
    if (circ_id == 0) != (cmd in LINK_COMMANDS):
        raise MalformedMessage(f"command {cmd} on circuit id {circ_id}")


def pack_destroy(circ_id: int, reason: DestroyReason) -> bytes:
    """A DESTROY cell: reason u8 | zero."""
    return pack_cell(circ_id, Cmd.DESTROY, bytes([reason]))


def parse_destroy(body: Buffer) -> DestroyReason:
    """The reason of a DESTROY. A code from a later version reads as NONE: a reason is a hint, no rule hangs on it."""
    _check_size(body)
    if not is_zero(body[1:]):
        raise MalformedMessage("DESTROY: padding is not zero")
    try:
        return DestroyReason(body[0])
    except ValueError:
        return DestroyReason.NONE


def pack_ping(cmd: int, token: int) -> bytes:
    """A PING, or the PONG that repeats its token: u64 | zero."""
    return pack_cell(0, cmd, token.to_bytes(8))


def parse_ping(body: Buffer) -> int:
    """The token of a PING or PONG."""
    _check_size(body)
    if not is_zero(body[8:]):
        raise MalformedMessage("PING: padding is not zero")
    return int.from_bytes(body[:8])


def parse_build_ack(body: Buffer) -> None:
    """Check that the body of a BUILD_ACK is empty."""
    _check_size(body)
    if not is_zero(body):
        raise MalformedMessage("BUILD_ACK: padding is not zero")


def pack_credit(entries: Sequence[tuple[int, int]]) -> bytes:
    """As many CREDIT cells as the (circ_id, bytes) entries need: circ_id u32 | bytes u32, neither of them zero."""
    if not all(circ_id and amount for circ_id, amount in entries):
        raise UsageError("a credit entry names a circuit and an amount")
    return b"".join(
        pack_cell(
            0, Cmd.CREDIT, b"".join(CREDIT_ENTRY.pack(*entry) for entry in entries[start : start + CREDIT_ENTRIES])
        )
        for start in range(0, len(entries), CREDIT_ENTRIES)
    )


def parse_credit(body: Buffer) -> list[tuple[int, int]]:
    """The (circ_id, bytes) entries of one CREDIT cell; a zero entry ends them, and nothing may follow it."""
    _check_size(body)
    entries: list[tuple[int, int]] = []
    for at in range(0, SMALL_BODY, CREDIT_ENTRY.size):
        circ_id, amount = CREDIT_ENTRY.unpack_from(body, at)
        if not circ_id and not amount:
            if not is_zero(body[at:]):
                raise MalformedMessage("CREDIT: padding is not zero")
            break
        if not circ_id or not amount:
            raise MalformedMessage("CREDIT: an entry lacks its circuit or amount")
        entries.append((circ_id, amount))
    if not entries:
        raise MalformedMessage("CREDIT: no entry")
    return entries


def _check_size(body: Buffer) -> None:
    if len(body) != SMALL_BODY:
        raise MalformedMessage(f"a small body of {len(body)} bytes")
