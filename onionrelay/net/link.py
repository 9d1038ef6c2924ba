"""The transport's face: what carries a link's bytes, and what it carries them for.

Free of cells: a transport knows the authenticated peer certificate and a stream of bytes, nothing else.
The rules a transport keeps are in specs/10-tls-links.md.
"""

from typing import Protocol

from onionrelay.wire.address import Address

SPARE = 16  # bytes behind the input that a receiver may use and must restore


class Receiver(Protocol):
    """What a link drives. Its methods are called from the event loop, never from inside a call it makes to a link."""

    @property
    def outbox(self) -> bytearray:
        """Bytes to send. The receiver only ever appends; the link sends from the front and deletes what was sent."""
        ...

    def feed(self, buffer: bytearray, size: int) -> int:
        """Handle `buffer[:size]`; return how many of its bytes are done with. The rest comes again, in front of more.

        The buffer is the receiver's to modify until it returns, with `SPARE` bytes behind `size`, and must keep its
        length; no view of it may outlive the call. Bytes of the peer never make it raise.
        """
        ...

    def on_room(self) -> None:
        """`outbox` has fallen below half of SEND_QUEUE after having been above it."""
        ...

    def on_lost(self, why: str) -> None:
        """The link is gone, whoever ended it. Called exactly once, and last."""
        ...


class Link(Protocol):
    """One open connection to a peer, after the transport's own handshake and before the link handshake."""

    @property
    def remote(self) -> Address:
        """Where the peer is, as this end sees it."""
        ...

    @property
    def leaf_digest(self) -> bytes:
        """SHA-256 of the server's leaf certificate (DER): its own at the server, the one it was shown at the client."""
        ...

    @property
    def is_server(self) -> bool:
        """True for an accepted link."""
        ...

    def attach(self, receiver: Receiver) -> None:
        """Start to feed `receiver` and send its outbox. Once per link."""
        ...

    def flush(self) -> None:
        """Send what the outbox holds as far as the transport takes it now; the rest follows by itself.

        Cheap when there is nothing to send. An outbox beyond SEND_QUEUE_HARD ends the link. Never raises.
        """
        ...

    def close(self) -> None:
        """Send what goes without waiting, then close. May be called at any time and again; never raises."""
        ...
