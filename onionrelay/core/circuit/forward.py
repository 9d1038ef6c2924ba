"""The way of a relay cell through a relay. specs/04b-circuits.md, "The forwarding path".

::

    read_cells                     splits what a link delivered, and looks up the circuit of each relay cell
      towards_target / _client     counts it against the window, applies a layer in place; mine, or for the next link?
        CircuitSide.pass_on        writes the next link's circuit id in place; into its outbox, or a queue   (side.py)

This is the one part of onionrelay that works on buffers and not on values, because it runs a hundred thousand times a
second: no object is made for a cell, and benchmarks/forward.py says what one costs. What happens but rarely (build,
destroy, credit, deliver) is somewhere else and only called from here.
"""

from collections.abc import Callable
from struct import Struct

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import CELL_HEADER, LARGE_CELL, SMALL_CELL
from onionrelay.core.circuit.side import CircuitSide, Receive
from onionrelay.core.link.channel import Channel
from onionrelay.crypto.layer import LayerForEnc
from onionrelay.wire.cell import CELL_SIZE, Cmd

_HEADER = Struct(">II")  # circ_id | cmd, gen and two zero bytes as one number
_RELAY_SIZES = {Cmd.RELAY << 24: SMALL_CELL, Cmd.RELAY_BULK << 24: LARGE_CELL}  # by that number: all others are zero

OnCell = Callable[[Channel, int, int, int, bytes], None]
"""Takes a cell that is no relay cell: its channel, circ_id, cmd, the three bytes behind the command, and its body."""

PassOn = Callable[[bytearray, int, int, CircuitSide], None]
"""Takes the relay cell at an offset of a buffer, its size, and the side it arrived on."""

Owing = dict[CircuitSide, None]


def read_cells(channel: Channel, buf: bytearray, size: int, on_cell: OnCell) -> int:
    """Handles all whole cells in `buf[:size]`; returns how many bytes they were.

    Raises ProtocolViolation for what closes the link. What is wrong with one circuit, that circuit handles.
    """
    at = 0
    sides = channel.sides
    while at + CELL_HEADER <= size:
        circ_id, kind = _HEADER.unpack_from(buf, at)
        length = _RELAY_SIZES.get(kind)
        if length is None:
            length = CELL_SIZE[kind >> 24]
            if not length:
                raise ProtocolViolation(f"unknown cell command {kind >> 24}")
            if at + length > size:
                break
            on_cell(channel, circ_id, kind >> 24, kind & 0xFFFFFF, bytes(buf[at + CELL_HEADER : at + length]))
        elif at + length > size:
            break
        elif (side := sides.get(circ_id)) is not None:
            side.receive(buf, at, length)
        else:
            channel.on_stray(circ_id, kind >> 24, length)
        at += length
    return at


def towards_target(side: CircuitSide, owing: Owing, layer: LayerForEnc, deliver: Receive, onward: PassOn) -> Receive:
    """What takes the cells that come from the client's side: `deliver` those for this hop, `onward` the others."""
    take, enc, is_mine = side.window.take, layer.enc, layer.is_mine

    def receive(buf: bytearray, at: int, size: int) -> None:
        if take(size):
            owing[side] = None
        enc(buf, at, size)
        if is_mine(buf, at):
            layer.update()
            deliver(buf, at, size)
        else:
            onward(buf, at, size, side)

    return receive


def towards_client(side: CircuitSide, owing: Owing, layer: LayerForEnc, onward: PassOn) -> Receive:
    """What takes the cells that come from the target's side. None of them is for a hop."""
    take, enc = side.window.take, layer.enc

    def receive(buf: bytearray, at: int, size: int) -> None:
        if take(size):
            owing[side] = None
        enc(buf, at, size)
        onward(buf, at, size, side)

    return receive


def small_only(receive: Receive, refuse: Callable[[], None]) -> Receive:
    """For a circuit whose build records forbid large cells: `refuse`, not `receive`, takes those."""

    def receive_small(buf: bytearray, at: int, size: int) -> None:
        if size == SMALL_CELL:
            receive(buf, at, size)
        else:
            refuse()

    return receive_small
