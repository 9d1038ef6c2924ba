"""What a program says to a proxy before its connection stands: SOCKS5 or HTTP CONNECT, told apart by the first byte.

No I/O: bytes in, bytes out. ::

    negotiation = Negotiation()
    while not negotiation.is_over:
        send(negotiation.receive(what_arrived))
    if negotiation.request: ...     # then what `early` holds is already the connection's
"""

from onionrelay.apps.http_connect import http_connect
from onionrelay.apps.proxy_request import Arriving, Parser, Request, RequestRefused
from onionrelay.apps.socks_protocol import VERSION, socks5

SOCKS4 = 4
TLS = 22  # a record that begins a handshake
SOCKS4_REFUSED = b"\x00\x5b" + bytes(6)


class Negotiation:
    """One program's. When it is over there is either a `request`, or the reason why there is none: `refused`."""

    def __init__(self) -> None:
        self.request: Request | None = None
        self.refused: str | None = None
        self._arriving = Arriving()
        self._parser = _parse(self._arriving)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be read for it."""
        return self.request is not None or self.refused is not None

    @property
    def early(self) -> bytes:
        """What came after the request: a program need not wait for the answer."""
        return bytes(self._arriving.data) if self.request else b""

    def receive(self, data: bytes) -> bytes:
        """Takes what arrived, in pieces of any size, and returns what is to be answered. Never raises."""
        self._arriving.data += data
        if not self.is_over:
            self._go_on()
        answer = bytes(self._arriving.answer)
        self._arriving.answer.clear()
        return answer

    def _go_on(self) -> None:
        try:
            next(self._parser)
        except StopIteration as done:
            self.request = done.value
        except RequestRefused as refusal:
            self.refused = str(refusal)
            self._arriving.answer += refusal.answer


def _parse(arriving: Arriving) -> Parser[Request]:
    first = yield from arriving.peek()
    if first == VERSION:
        return (yield from socks5(arriving))
    if bytes([first]).isalpha():  # the method of an HTTP request
        return (yield from http_connect(arriving))
    if first == SOCKS4:
        raise RequestRefused("it speaks SOCKS4, which cannot isolate; make it use SOCKS5", SOCKS4_REFUSED)
    if first == TLS:
        raise RequestRefused("it speaks TLS to the proxy: write http:// or socks5h://, not https://")
    raise RequestRefused("it speaks neither SOCKS5 nor HTTP")
