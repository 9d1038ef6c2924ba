"""TLS contexts and the non-blocking TLS handshake, for both ends of a link. Rules: specs/10-tls-links.md."""

import asyncio
import ssl

from onionrelay.base.errors import NetworkError
from onionrelay.base.limits import ALPN
from onionrelay.net.certificate import Certificate


def client_context() -> ssl.SSLContext:
    """For dialling: shows no certificate and no name, and accepts any: identity is proved inside the link."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _restrict(context)


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """For accepting: serves `certificate`, asks for none, and issues no session tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    certificate.load_into(context)
    return _restrict(context)


def _restrict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    # Some Pythons set it: a connection that is cut would then look like one that was closed.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols([ALPN])
    return context


async def shake_hands(sock: ssl.SSLSocket) -> None:
    """Completes the TLS handshake of a non-blocking socket, without a time limit; OSError when it fails.

    Raises NetworkError when the peer speaks TLS but not this protocol.
    """
    while True:
        try:
            sock.do_handshake()
            break
        except ssl.SSLWantReadError:
            await _ready(sock, to_write=False)
        except ssl.SSLWantWriteError:
            await _ready(sock, to_write=True)
    if sock.selected_alpn_protocol() != ALPN:
        raise NetworkError("the peer speaks TLS, but not onionrelay's protocol")


async def _ready(sock: ssl.SSLSocket, *, to_write: bool) -> None:
    """Waits until the socket is readable, or writable. Leaves no callback behind when cancelled."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
    descriptor = sock.fileno()
    add(descriptor, wake)
    try:
        await woken
    finally:
        remove(descriptor)
