"""SOCKS5 as a server speaks it (RFC 1928, RFC 1929), as far as CONNECT. No I/O; see `negotiation`.

::

    greeting     5 | count u8 | methods                          -> 5 | method
    password     1 | size u8 | user | size u8 | password         -> 1 | 0              only after method 2
    request      5 | command | 0 | kind | address | port u16     -> 5 | reply | 0 | 1 | IPv4 4 | port u16
    address      kind 1: IPv4 4     kind 3: size u8 | name     kind 4: IPv6 16

No user name or password is wrong, and none is needed: they only isolate. Who offers both methods is asked for them.
"""

from ipaddress import IPv4Address, IPv6Address

from onionrelay.apps.proxy_request import Arriving, Credentials, Parser, Refusal, Request, RequestRefused

VERSION, PASSWORD_VERSION = 5, 1
OPEN, PASSWORD, NO_METHOD = 0, 2, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4

GRANTED, FAILED, NOT_ALLOWED, NET_UNREACHABLE, HOST_UNREACHABLE, CONNECTION_REFUSED, EXPIRED = range(7)
NO_SUCH_COMMAND, NO_SUCH_KIND = 7, 8

REPLIES = {
    Refusal.FOREIGN: NOT_ALLOWED,
    Refusal.NO_SUCH_NAME: HOST_UNREACHABLE,
    Refusal.NOT_FOUND: HOST_UNREACHABLE,
    Refusal.NO_NETWORK: NET_UNREACHABLE,
    Refusal.CIRCUIT_FAILED: FAILED,
    Refusal.STREAM_REFUSED: CONNECTION_REFUSED,
    Refusal.TIMED_OUT: EXPIRED,
}


class Socks5:
    """The face's answers."""

    name = "socks5"

    def granted(self) -> bytes:
        """See Face. The address that a connection comes from is nobody's business, and here there is none."""
        return _reply(GRANTED)

    def refused(self, why: Refusal, text: str) -> bytes:  # noqa: ARG002 - a reply has no room for words
        """See Face."""
        return _reply(REPLIES[why])


def socks5(arriving: Arriving) -> Parser[Request]:
    """Greeting, password and request of one client. Raises RequestRefused."""
    _, count = yield from arriving.take(2)
    methods = yield from arriving.take(count)
    credentials = None
    if PASSWORD in methods:
        arriving.answer += bytes([VERSION, PASSWORD])
        credentials = yield from _credentials(arriving)
    elif OPEN in methods:
        arriving.answer += bytes([VERSION, OPEN])
    else:
        raise RequestRefused("it offers no method of authentication known here", bytes([VERSION, NO_METHOD]))
    host, port = yield from _destination(arriving)
    return Request(Socks5(), host, port, credentials)


def _credentials(arriving: Arriving) -> Parser[Credentials]:
    version, size = yield from arriving.take(2)
    if version != PASSWORD_VERSION:
        raise RequestRefused("its user name comes in a form unknown here", bytes([PASSWORD_VERSION, 1]))
    user = yield from arriving.take(size)
    (size,) = yield from arriving.take(1)
    password = yield from arriving.take(size)
    arriving.answer += bytes([PASSWORD_VERSION, 0])
    return Credentials(user, password)


def _destination(arriving: Arriving) -> Parser[tuple[str, int]]:
    version, command, _, kind = yield from arriving.take(4)
    if version != VERSION:
        raise RequestRefused("it changes the version of SOCKS on the way", _reply(FAILED))
    if command != CONNECT:
        raise RequestRefused("it wants to BIND or to send datagrams; only CONNECT is done", _reply(NO_SUCH_COMMAND))
    if kind == IPV4:
        host = str(IPv4Address((yield from arriving.take(4))))
    elif kind == IPV6:
        host = str(IPv6Address((yield from arriving.take(16))))
    elif kind == NAME:
        (size,) = yield from arriving.take(1)
        host = (yield from arriving.take(size)).decode("latin-1")
    else:
        raise RequestRefused("its address is of no known kind", _reply(NO_SUCH_KIND))
    port = int.from_bytes((yield from arriving.take(2)), "big")
    if port == 0:
        raise RequestRefused("it names port 0", _reply(FAILED))
    return host, port


def _reply(code: int) -> bytes:
    return bytes([VERSION, code, 0, IPV4]) + bytes(6)
