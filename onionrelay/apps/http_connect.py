"""HTTP CONNECT as a proxy speaks it (RFC 9110, 9.3.6). No I/O; see `negotiation`.

Proxy-Authorization: Basic isolates as a SOCKS user name does. Every other scheme is refused rather than ignored: who
sends one counts on being kept apart from others. Whatever is no CONNECT gets an answer that a person can read.
"""

import base64
import binascii
import re
from http import HTTPStatus

from onionrelay.apps.proxy_request import (
    Arriving,
    Credentials,
    HeadTooLong,
    Parser,
    Refusal,
    Request,
    RequestRefused,
)
from onionrelay.base.limits import HTTP_HEAD

_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(r"\r?\n")
_TARGET = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*):(\d{1,5})", re.ASCII)

STATUS = {
    Refusal.FOREIGN: HTTPStatus.FORBIDDEN,
    Refusal.NO_SUCH_NAME: HTTPStatus.FORBIDDEN,
    Refusal.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Refusal.NO_NETWORK: HTTPStatus.SERVICE_UNAVAILABLE,
    Refusal.CIRCUIT_FAILED: HTTPStatus.BAD_GATEWAY,
    Refusal.STREAM_REFUSED: HTTPStatus.BAD_GATEWAY,
    Refusal.TIMED_OUT: HTTPStatus.GATEWAY_TIMEOUT,
}

ONLY_CONNECT = (
    "this proxy opens connections (CONNECT) and forwards no single requests: use it as a SOCKS5 proxy that is given "
    "names (socks5h://), or make your program tunnel (curl: --proxytunnel)"
)


class HttpConnect:
    """The face's answers."""

    name = "http"

    def granted(self) -> bytes:
        """See Face."""
        return b"HTTP/1.1 200 Connection established\r\n\r\n"

    def refused(self, why: Refusal, text: str) -> bytes:
        """See Face."""
        return _answer(STATUS[why], text)


def http_connect(arriving: Arriving) -> Parser[Request]:
    """The head of one client's request. Raises RequestRefused."""
    try:
        head = yield from arriving.take_through(_END, HTTP_HEAD)
    except HeadTooLong:
        raise _refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "its head does not end") from None
    first, *lines = _LINE.split(head.decode("latin-1"))[:-2]
    host, port = _destination(first)
    return Request(HttpConnect(), host, port, _credentials(lines))


def _destination(line: str) -> tuple[str, int]:
    match line.split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0"]:
            pass
        case [_, _, version] if version.startswith("HTTP/"):
            raise _refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        case _:
            raise _refused(HTTPStatus.BAD_REQUEST, "its first line is no HTTP request")
    if method != "CONNECT":
        raise _refused(HTTPStatus.METHOD_NOT_ALLOWED, ONLY_CONNECT, "Allow: CONNECT")
    found = _TARGET.fullmatch(target)
    if found is None or not 0 < int(found[2]) < 65536:
        raise _refused(HTTPStatus.BAD_REQUEST, "CONNECT takes a name and a port, NODE-ID.onionrelay:80")
    return found[1].strip("[]"), int(found[2])


def _credentials(lines: list[str]) -> Credentials | None:
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _refused(HTTPStatus.BAD_REQUEST, "one of its header lines is none")
        if name.lower() == "proxy-authorization":
            found.append(value.strip())
    if len(found) > 1:
        raise _refused(HTTPStatus.BAD_REQUEST, "it gives two user names")
    return _basic(found[0]) if found else None


def _basic(value: str) -> Credentials:
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        text = "only Basic authorization is known here: any user name and password will do, and isolates"
        raise _refused(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, text, 'Proxy-Authenticate: Basic realm="isolation"')
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        colon = b""
    if not colon:
        raise _refused(HTTPStatus.BAD_REQUEST, "its Proxy-Authorization is no user name and password in base64")
    return Credentials(user, password)


def _refused(status: HTTPStatus, text: str, *headers: str) -> RequestRefused:
    return RequestRefused(text, _answer(status, text, *headers))


def _answer(status: HTTPStatus, text: str, *headers: str) -> bytes:
    body = f"onionrelay: {text}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {status.phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
