"""Control messages: what two link ends say to each other on circ_id 0 (specs/02-wire.md, "Control messages").

::

    type u16 | length u32 | body        split over consecutive small cells of one command, the last one zero-padded

At most 65,536 bytes of body, 4,096 for HELLO and AUTH. Two messages of one command are never interleaved; messages of
different commands may be.
"""

import msgspec

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.limits import MAX_CONTROL_MESSAGE, MAX_HANDSHAKE_MESSAGE, SMALL_BODY
from onionrelay.wire.cell import Cmd, pack_cell
from onionrelay.wire.codec import Buffer, Reader, Writer, is_zero

CONTROL_HEADER = 6  # type u16 | length u32


class ControlMessage(msgspec.Struct, frozen=True):
    """One whole control message: `body` is what the decoder of (command, `type`) takes."""

    type: int
    body: bytes


def control_limit(cmd: int) -> int:
    """The longest body of a control message that travels in cells of this command."""
    return MAX_HANDSHAKE_MESSAGE if cmd in (Cmd.HELLO, Cmd.AUTH) else MAX_CONTROL_MESSAGE


def fragment(cmd: int, type: int, body: bytes) -> bytes:  # noqa: A002 - the word of the layout
    """The cells that carry one control message."""
    if len(body) > control_limit(cmd):
        raise UsageError(f"a control message of {len(body)} bytes in command {cmd}")
    message = Writer().u16(type).u32(len(body)).raw(body).done()
    return b"".join(
        pack_cell(0, cmd, message[start : start + SMALL_BODY]) for start in range(0, len(message), SMALL_BODY)
    )


class Assembler:
    """Puts the control messages of one command on one link together again. `limit`: the longest body accepted.

    It never holds more than one announced message, and the announcement is checked on the first cell. After a
    MalformedMessage the link is closed, so the state does not matter any more.
    """

    __slots__ = ("_body", "_left", "_limit", "_type")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._type = 0
        self._body = bytearray()
        self._left = 0

    def feed(self, cell_body: Buffer) -> ControlMessage | None:
        """Take the body of the next cell; the message when this cell completes it."""
        part = self._begin(cell_body) if not self._left else bytes(cell_body)
        if len(part) > self._left:
            if not is_zero(part[self._left :]):
                raise MalformedMessage("control message: padding is not zero")
            part = part[: self._left]
        self._body += part
        self._left -= len(part)
        return None if self._left else ControlMessage(self._type, bytes(self._body))

    def _begin(self, cell_body: Buffer) -> bytes:
        reader = Reader(cell_body, "control message")
        self._type, length = reader.u16(), reader.u32()
        reader.require(length <= self._limit, f"{length} bytes announced, at most {self._limit} allowed")
        self._body.clear()
        self._left = length
        return reader.rest()
