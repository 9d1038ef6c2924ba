"""What a session sees of a circuit, at whichever end it runs. specs/04b-circuits.md, "The ends of a circuit"."""

from typing import Protocol

from onionrelay.base.errors import DestroyReason
from onionrelay.base.limits import CELL_HEADER, LARGE_DATA, PAYLOAD_HEADER, SMALL_DATA, TAG
from onionrelay.wire.cell import Cmd
from onionrelay.wire.relay import RelayCmd, pack_payload, split_message

_HEADERS = {  # circ_id is filled in by the side that sends the cell
    PAYLOAD_HEADER + SMALL_DATA: bytes([0, 0, 0, 0, Cmd.RELAY, 0, 0, 0]),
    PAYLOAD_HEADER + LARGE_DATA: bytes([0, 0, 0, 0, Cmd.RELAY_BULK, 0, 0, 0]),
}


class CircuitEnd(Protocol):
    """The client's `Origin`, and the `Hop` at which a circuit ends."""

    @property
    def binding(self) -> bytes:
        """32 bytes that only the two ends of this circuit share: what a signature inside the session binds to."""
        ...

    def can_send(self, large: bool = False) -> bool:
        """Whether a cell (a large one) may be sent now. After a no, RoomToSend tells when it is worth asking again.

        Never yes for a large cell where the build records forbid them.
        """
        ...

    def send(self, cmd: int, data: bytes, *, hop: int | None = None, rid: int = 0, large: bool = False) -> None:
        """Seals and sends one message.

        `hop` is for the client: which hop it is for, counted from 1; None is the last. `large` lets a SESS packet that
        fits no small cell travel in a large one. What is sent against `can_send` waits in memory, up to END_QUEUE_HARD:
        then the circuit is destroyed. On a closed circuit nothing happens.
        """
        ...

    def close(self, reason: DestroyReason = DestroyReason.FINISHED) -> None:
        """Destroys the circuit. No effect follows; a second call does nothing."""
        ...


def payloads(cmd: int, rid: int, data: bytes, *, large: bool) -> list[bytes]:
    """The payloads that carry a message: one of either size for SESS, small ones for everything else."""
    if cmd == RelayCmd.SESS:
        return [pack_payload(cmd, rid, data, room=LARGE_DATA if large and len(data) > SMALL_DATA else SMALL_DATA)]
    return split_message(cmd, rid, data)


def write_cell(buf: bytearray, payload: bytes) -> int:
    """Lays a cell out at the start of `buf`, the end layer's mark and the circuit still open; returns its size."""
    size = CELL_HEADER + TAG + len(payload)
    buf[:CELL_HEADER] = _HEADERS[len(payload)]
    memoryview(buf)[CELL_HEADER + TAG : size] = payload  # a bytearray would copy it twice
    return size
