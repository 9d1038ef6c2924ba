"""A link over TLS: the driver of one non-blocking `ssl.SSLSocket`. Transport rules: specs/10-tls-links.md.

asyncio's own TLS transports copy every byte twice more and cost a quarter more CPU; so readiness comes from
`add_reader` and `add_writer`, input is collected over many TLS records before it is handled in one pass, and output
leaves as one batch.

What `ssl` asks of a writer: it is not in OpenSSL's partial-write mode, so a `send` that raises SSLWantWriteError may
have sent part of its data and must be repeated from the same front with no fewer bytes, until it returns the whole
length. `_offered` remembers that length. The data may move and grow behind it meanwhile.
"""

import asyncio
import os
import ssl
import threading
from contextlib import suppress

from onionrelay.base.limits import READ_BUFFER, READS_PER_WAKEUP, SEND_CHUNK, SEND_QUEUE, SEND_QUEUE_HARD
from onionrelay.net.link import SPARE, Receiver
from onionrelay.wire.address import Address


class _ReadBuffer(threading.local):
    """The input buffer of all links of one thread: an idle link keeps only the bytes of its unfinished cell."""

    def __init__(self) -> None:
        self.bytes = bytearray(READ_BUFFER + SPARE)
        self.view = memoryview(self.bytes)


_input = _ReadBuffer()


class TlsLink:
    """See `net.link.Link`. Takes over a socket after its TLS handshake; made by `dial_tls` and `TlsListener`."""

    def __init__(self, sock: ssl.SSLSocket, *, remote: Address, leaf_digest: bytes, is_server: bool) -> None:
        self.remote = remote
        self.leaf_digest = leaf_digest
        self.is_server = is_server
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._closed_because: str | None = None
        self._unread = b""  # input the receiver did not consume
        self._offered = 0  # length of a send that must be repeated; 0: none
        self._above_half = False
        self._input_ended = ""  # why no more input comes
        self._turn_due = False  # a turn is scheduled by call_soon
        self._writer_on = False
        self._read_wants_write = False
        self._write_wants_read = False

    def __repr__(self) -> str:
        state = f"closed: {self._closed_because}" if self._closed_because is not None else "open"
        return f"TlsLink({'from' if self.is_server else 'to'} {self.remote}, {state})"

    def attach(self, receiver: Receiver) -> None:
        """Start to feed `receiver` and send its outbox. Once per link."""
        assert self._receiver is None, "a link has one receiver"  # noqa: S101 - the caller's bug, no input of a peer
        self._receiver = receiver
        if self._closed_because is not None:
            self._loop.call_soon(receiver.on_lost, self._closed_because)
            return
        self._loop.add_reader(self._fd, self._on_readable)
        self.flush()

    def flush(self) -> None:
        """Send what the outbox holds as far as the transport takes it now; see `Link.flush`."""
        if self._receiver is None or self._closed_because is not None:
            return
        if not self._writer_on:
            self._send(self._receiver)
        if len(self._receiver.outbox) > SEND_QUEUE_HARD:
            self._end("the peer does not read what it makes this end send")

    def close(self) -> None:
        """Send what goes without waiting, then close; see `Link.close`."""
        self.flush()
        if self._closed_because is None:
            # Sends close_notify; the answer that `unwrap` then looks for is not waited for.
            with suppress(OSError, ValueError):
                self._sock.unwrap()
            self._end("closed at this end")

    def _end(self, why: str) -> None:
        if self._closed_because is not None:
            return
        self._closed_because = why
        self._unread = b""
        # Before the socket: a descriptor may be another connection's as soon as it is closed.
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        with suppress(OSError):
            self._sock.close()
        # Later: nothing that the receiver calls may call it back.
        if self._receiver is not None and not self._loop.is_closed():
            self._loop.call_soon(self._receiver.on_lost, why)

    # Input

    def _on_readable(self) -> None:
        if not self._turn_due:
            self._take_turn()

    def _take_turn(self) -> None:
        """Handles what has arrived: up to READS_PER_WAKEUP buffers full, then other links get their turn."""
        self._turn_due = False
        receiver = self._receiver
        if receiver is None or self._closed_because is not None:
            return
        self._read(receiver)
        if self._write_wants_read and self._closed_because is None:
            self._write_wants_read = False
            self._send(receiver)

    def _read(self, receiver: Receiver) -> None:
        size = len(self._unread)
        _input.bytes[:size] = self._unread
        self._unread = b""
        for _ in range(READS_PER_WAKEUP):
            size, full = self._fill(size)
            size = self._hand_over(receiver, size)
            if self._closed_because is not None:
                return
            if not full:
                break
        else:
            # By hand: the selector does not see bytes that OpenSSL has taken from the socket already.
            self._turn_due = True
            self._loop.call_soon(self._take_turn)
        if self._input_ended:
            self._end(self._input_ended)
        else:
            self._unread = bytes(_input.view[:size])

    def _fill(self, size: int) -> tuple[int, bool]:
        """Reads on behind `size` bytes. Returns the new size and whether the buffer is full and more may be waiting."""
        view, recv_into = _input.view, self._sock.recv_into
        try:
            while size < READ_BUFFER:
                count = recv_into(view[size:READ_BUFFER], READ_BUFFER - size)  # one TLS record at most
                if count == 0:
                    self._input_ended = "the peer closed the link"
                    return size, False
                size += count
        except ssl.SSLWantReadError:
            return size, False
        except ssl.SSLWantWriteError:
            self._read_wants_write = True
            self._watch_writable()
            return size, False
        except OSError as error:
            self._input_ended = describe(error)
            return size, False
        return size, True

    def _hand_over(self, receiver: Receiver, size: int) -> int:
        """Feeds the buffer's first `size` bytes and moves what is left to its front; returns how much that is."""
        if size == 0:
            return 0
        try:
            used = receiver.feed(_input.bytes, size)
        except BaseException:
            self._end("internal error")
            raise
        left = size - used
        if left == READ_BUFFER:
            self._end("a buffer full of input holds nothing whole")
        elif left and used:
            _input.view[:left] = bytes(_input.view[used:size])
        return left

    # Output

    def _on_writable(self) -> None:
        receiver = self._receiver
        if receiver is None or self._closed_because is not None:
            return
        if self._read_wants_write:
            self._read_wants_write = False
            self._read(receiver)
        if self._closed_because is None:
            self._send(receiver)

    def _send(self, receiver: Receiver) -> None:
        """Sends until the outbox is empty or the socket full."""
        outbox = receiver.outbox
        if len(outbox) > SEND_QUEUE // 2:
            self._above_half = True
        blocked = False
        try:
            while outbox:
                self._offered = self._offered or min(len(outbox), SEND_CHUNK)
                # Both views are gone before the outbox changes: it cannot be resized under a view.
                with memoryview(outbox) as whole, whole[: self._offered] as part:
                    sent = self._sock.send(part)
                del outbox[:sent]
                self._offered = 0
        except ssl.SSLWantWriteError:
            blocked = True
        except ssl.SSLWantReadError:
            self._write_wants_read = True
        except OSError as error:
            self._end(describe(error))
            return
        if blocked or self._read_wants_write:
            self._watch_writable()
        else:
            self._unwatch_writable()
        if self._above_half and len(outbox) < SEND_QUEUE // 2:
            self._above_half = False
            self._loop.call_soon(self._tell_room)

    def _watch_writable(self) -> None:
        if not self._writer_on:
            self._writer_on = True
            self._loop.add_writer(self._fd, self._on_writable)

    def _unwatch_writable(self) -> None:
        if self._writer_on:
            self._writer_on = False
            self._loop.remove_writer(self._fd)

    def _tell_room(self) -> None:
        if self._receiver is None or self._closed_because is not None:
            return
        if len(self._receiver.outbox) < SEND_QUEUE // 2:
            self._receiver.on_room()
        else:  # filled again since
            self._above_half = True


def describe(error: OSError) -> str:
    """Words for a person: without error numbers, OpenSSL's source lines and addresses."""
    if isinstance(error, ssl.SSLEOFError) or _is_unexpected_end(error):
        return "the connection ended without a goodbye"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'unknown error').lower().replace('_', ' ')}"
    return os.strerror(error.errno).lower() if error.errno else "unknown error"


def _is_unexpected_end(error: OSError) -> bool:
    """Before 3.11.4 OpenSSL's own word for a missing goodbye is not made an SSLEOFError."""
    return isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"
