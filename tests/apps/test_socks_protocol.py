"""What programs say to the proxy, and what it answers: SOCKS5 and HTTP CONNECT, without a socket."""

import asyncio
import base64
import contextlib
import random
from dataclasses import dataclass

import pytest
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy

from onionrelay.apps.http_connect import STATUS, HttpConnect
from onionrelay.apps.negotiation import Negotiation
from onionrelay.apps.proxy_request import Arriving, Credentials, Refusal
from onionrelay.apps.socks_protocol import REPLIES, Socks5
from onionrelay.base.limits import HTTP_HEAD

NAME = b"a.onionrelay"
GREETING = b"\x05\x01\x00"
WITH_PASSWORD = b"\x05\x02\x00\x02"
PASSWORD = b"\x01\x02me\x03abc"
CONNECT_NAME = b"\x05\x01\x00\x03" + bytes([len(NAME)]) + NAME + b"\x00\x50"
ME = Credentials(b"me", b"abc")
GRANTED = bytes.fromhex("05000001000000000000")


def reply(code):
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Heard:
    """All that a program sees and gets of one negotiation."""

    answer: bytes
    request: tuple | None
    refused: str | None
    early: bytes


def hear(*pieces):
    negotiation, answer = Negotiation(), b""
    for piece in pieces:
        answer += negotiation.receive(piece)
    request = negotiation.request
    wanted = request and (request.face.name, request.host, request.port, request.credentials)
    assert negotiation.is_over == bool(request or negotiation.refused)
    return Heard(answer, wanted, negotiation.refused, negotiation.early)


def one_byte_at_a_time(data):
    return hear(*(data[at : at + 1] for at in range(len(data))))


def basic(text):
    return base64.b64encode(text)


def head(line, *headers):
    return b"\r\n".join([line, *headers, b"", b""])


# Requests that are understood: bytes -> answer, (face, host, port, credentials), what is left over

UNDERSTOOD = {
    "a name": (GREETING + CONNECT_NAME, b"\x05\x00", ("socks5", "a.onionrelay", 80, None), b""),
    "IPv4": (GREETING + b"\x05\x01\x00\x01\x7f\x00\x00\x01\xff\xff", b"\x05\x00", ("socks5", "127.0.0.1", 65535, None), b""),
    "IPv6": (GREETING + b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x01", b"\x05\x00", ("socks5", "::1", 1, None), b""),
    "an empty name": (GREETING + b"\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00", ("socks5", "", 80, None), b""),
    "the longest name": (GREETING + b"\x05\x01\x00\x03\xff" + b"x" * 255 + b"\x00\x50", b"\x05\x00", ("socks5", "x" * 255, 80, None), b""),
    "a name that is no text": (GREETING + b"\x05\x01\x00\x03\x02\xff\x00\x00\x50", b"\x05\x00", ("socks5", "\xff\x00", 80, None), b""),
    "a password": (b"\x05\x01\x02" + PASSWORD + CONNECT_NAME, b"\x05\x02\x01\x00", ("socks5", "a.onionrelay", 80, ME), b""),
    "both methods: the password isolates": (WITH_PASSWORD + PASSWORD + CONNECT_NAME, b"\x05\x02\x01\x00", ("socks5", "a.onionrelay", 80, ME), b""),
    "methods that nobody knows": (b"\x05\x03\x01\x80\x00" + CONNECT_NAME, b"\x05\x00", ("socks5", "a.onionrelay", 80, None), b""),
    "empty words": (b"\x05\x01\x02\x01\x00\x00" + CONNECT_NAME, b"\x05\x02\x01\x00", ("socks5", "a.onionrelay", 80, Credentials(b"", b"")), b""),
    "the longest words": (b"\x05\x01\x02\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255 + CONNECT_NAME, b"\x05\x02\x01\x00", ("socks5", "a.onionrelay", 80, Credentials(b"u" * 255, b"p" * 255)), b""),
    "data at once": (GREETING + CONNECT_NAME + b"\x05\x01GET", b"\x05\x00", ("socks5", "a.onionrelay", 80, None), b"\x05\x01GET"),
    "CONNECT": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"Host: b"), b"", ("http", "a.onionrelay", 80, None), b""),
    "CONNECT of HTTP/1.0": (head(b"CONNECT a.onionrelay:80 HTTP/1.0"), b"", ("http", "a.onionrelay", 80, None), b""),
    "CONNECT by hand": (b"CONNECT a.onionrelay:80 HTTP/1.1\nHost: b\n\n", b"", ("http", "a.onionrelay", 80, None), b""),
    "CONNECT and data at once": (head(b"CONNECT a.onionrelay:80 HTTP/1.1") + b"\r\n\r\nx", b"", ("http", "a.onionrelay", 80, None), b"\r\n\r\nx"),
    "CONNECT to IPv6": (head(b"CONNECT [::1]:443 HTTP/1.1"), b"", ("http", "::1", 443, None), b""),
    "CONNECT with a password": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"pRoxy-authorization:  bAsic " + basic(b"me:abc")), b"", ("http", "a.onionrelay", 80, ME), b""),
    "colons in the password": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"Proxy-Authorization: Basic " + basic(b":a:b")), b"", ("http", "a.onionrelay", 80, Credentials(b"", b"a:b")), b""),
    "an authorization for somebody else": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"Authorization: Bearer x"), b"", ("http", "a.onionrelay", 80, None), b""),
    "the longest head": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"X: " + b"x" * (HTTP_HEAD - 34 - 7)), b"", ("http", "a.onionrelay", 80, None), b""),
}  # fmt: skip


@pytest.mark.parametrize("what", UNDERSTOOD)
def test_what_is_understood(what):
    data, answer, request, early = UNDERSTOOD[what]
    assert hear(data) == Heard(answer, request, None, early)
    assert one_byte_at_a_time(data) == hear(data)
    for at in range(min(1000, len(data) - len(early))):
        assert hear(data[:at]).request is None


# Requests that are refused: bytes -> how the answer begins, a word of the reason

REFUSED = {
    "no method": (b"\x05\x00", b"\x05\xff", "method"),
    "only GSSAPI": (b"\x05\x01\x01", b"\x05\xff", "method"),
    "a password of another version": (b"\x05\x01\x02\x02\x01", b"\x05\x02\x01\x01", "user name"),
    "another version on the way": (GREETING + b"\x04\x01\x00\x01", b"\x05\x00" + reply(1), "version"),
    "BIND": (GREETING + b"\x05\x02\x00\x03", b"\x05\x00" + reply(7), "BIND"),
    "UDP ASSOCIATE": (GREETING + b"\x05\x03\x00\x01", b"\x05\x00" + reply(7), "datagrams"),
    "Tor's RESOLVE": (GREETING + b"\x05\xf0\x00\x03", b"\x05\x00" + reply(7), "only CONNECT"),
    "a kind of address unknown": (GREETING + b"\x05\x01\x00\x05", b"\x05\x00" + reply(8), "kind"),
    "port 0": (GREETING + CONNECT_NAME[:-1] + b"\x00", b"\x05\x00" + reply(1), "port 0"),
    "SOCKS4": (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x00\x5b\x00\x00\x00\x00\x00\x00", "SOCKS4"),
    "TLS": (b"\x16\x03\x01\x02\x00", b"", "TLS"),
    "anything else": (b"\x00", b"", "neither"),
    "an empty line": (b"\r\nCONNECT", b"", "neither"),
    "GET through the proxy": (head(b"GET http://a.onionrelay/ HTTP/1.1"), b"HTTP/1.1 405 Method Not Allowed\r\n", "socks5h"),
    "GET of the proxy": (head(b"GET / HTTP/1.1"), b"HTTP/1.1 405 ", "tunnel"),
    "a method in small letters": (head(b"connect a.onionrelay:80 HTTP/1.1"), b"HTTP/1.1 405 ", "CONNECT"),
    "HTTP/2": (head(b"PRI * HTTP/2.0"), b"HTTP/1.1 505 ", "HTTP/1.1"),
    "HTTP/0.9": (head(b"GET /"), b"HTTP/1.1 400 ", "first line"),
    "spaces": (head(b"CONNECT  a.onionrelay:80 HTTP/1.1"), b"HTTP/1.1 400 ", "first line"),
    "no port": (head(b"CONNECT a.onionrelay HTTP/1.1"), b"HTTP/1.1 400 ", "port"),
    "an empty port": (head(b"CONNECT a.onionrelay: HTTP/1.1"), b"HTTP/1.1 400 ", "port"),
    "CONNECT to port 0": (head(b"CONNECT a.onionrelay:0 HTTP/1.1"), b"HTTP/1.1 400 ", "port"),
    "port 65536": (head(b"CONNECT a.onionrelay:65536 HTTP/1.1"), b"HTTP/1.1 400 ", "port"),
    "digits of another script": (head("CONNECT a.onionrelay:\xb2 HTTP/1.1".encode("latin-1")), b"HTTP/1.1 400 ", "port"),
    "CONNECT to a URL": (head(b"CONNECT http://a.onionrelay:80 HTTP/1.1"), b"HTTP/1.1 400 ", "port"),
    "IPv6 without brackets": (head(b"CONNECT ::1:80 HTTP/1.1"), b"HTTP/1.1 400 ", "port"),
    "a header that is none": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"nonsense"), b"HTTP/1.1 400 ", "header"),
    "a folded header": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"X: y", b" z: w"), b"HTTP/1.1 400 ", "header"),
    "a header that does not end": (b"CONNECT a.onionrelay:80 HTTP/1.1\r\nX: " + b"x" * HTTP_HEAD, b"HTTP/1.1 431 ", "end"),
    "another authorization": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"Proxy-Authorization: Bearer x"), b"HTTP/1.1 407 ", "Basic"),
    "two authorizations": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", *[b"Proxy-Authorization: Basic " + basic(b"a:b")] * 2), b"HTTP/1.1 400 ", "two"),
    "no base64": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"Proxy-Authorization: Basic \xe9==="), b"HTTP/1.1 400 ", "base64"),
    "no password": (head(b"CONNECT a.onionrelay:80 HTTP/1.1", b"Proxy-Authorization: Basic " + basic(b"me")), b"HTTP/1.1 400 ", "base64"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    data, answer, word = REFUSED[what]
    heard = hear(data)
    assert heard.request is None
    assert word in heard.refused
    if answer.startswith(b"HTTP"):
        assert heard.answer.startswith(answer)
        assert_readable(heard.answer, heard.refused)
    else:
        assert heard.answer == answer
    assert one_byte_at_a_time(data) == heard
    assert hear(data, b"more") == heard


def assert_readable(answer, text):
    """It is one whole HTTP answer, with a body for people."""
    headers, _, body = answer.partition(b"\r\n\r\n")
    lines = headers.decode().split("\r\n")[1:]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert int(fields["content-length"]) == len(body)
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert body == f"onionrelay: {text}\n".encode()


def test_what_405_and_407_must_name():
    assert b"\r\nAllow: CONNECT\r\n" in hear(REFUSED["GET of the proxy"][0]).answer
    assert b'\r\nProxy-Authenticate: Basic realm="isolation"\r\n' in hear(REFUSED["another authorization"][0]).answer


def test_a_head_is_not_taken_beyond_its_limit():
    longest = UNDERSTOOD["the longest head"][0]
    assert len(longest) == HTTP_HEAD
    assert hear(longest.replace(b"xx", b"xxx", 1)).answer.startswith(b"HTTP/1.1 431 ")


def test_an_endless_head_is_given_up_and_what_follows_is_not_read():
    negotiation = Negotiation()
    while not negotiation.is_over:
        negotiation.receive(b"X" * 1000)
    assert negotiation.refused
    assert negotiation.early == b""


def test_every_refusal_has_a_code_of_each_face():
    assert REPLIES.keys() == STATUS.keys() == set(Refusal)
    assert Socks5().granted() == GRANTED
    assert HttpConnect().granted() == b"HTTP/1.1 200 Connection established\r\n\r\n"
    for why in Refusal:
        assert Socks5().refused(why, "text") == reply(REPLIES[why])
        answer = HttpConnect().refused(why, "a reason\u2014in words")
        assert answer.startswith(f"HTTP/1.1 {int(STATUS[why])} ".encode())
        assert_readable(answer, "a reason\u2014in words")
        assert REPLIES[why] != 0
        assert STATUS[why] >= 400


def test_credentials_do_not_show():
    assert "abc" not in repr(ME)
    assert "me" not in repr(ME).replace("Credentials", "")
    request = Negotiation()
    request.receive(WITH_PASSWORD + PASSWORD + CONNECT_NAME)
    assert "abc" not in repr(request.request)


def test_nothing_but_equal_pairs_are_equal():
    pairs = [(b"a", b"b"), (b"a", b"c"), (b"ab", b""), (b"", b"ab"), (b"a:b", b""), (b"b", b"a")]
    assert len({Credentials(*pair) for pair in (*pairs, *pairs)}) == len(pairs)


def test_a_word_over_http_is_the_same_word_over_socks():
    over_http = hear(UNDERSTOOD["CONNECT with a password"][0]).request
    over_socks = hear(UNDERSTOOD["a password"][0]).request
    assert over_http[3] == over_socks[3]


# Against another implementation's client


@contextlib.asynccontextmanager
async def answering(outcome):
    """A server that negotiates and answers; yields its port, and the requests it hears."""
    heard = []

    async def serve(reader, writer):
        negotiation = Negotiation()
        while not negotiation.is_over:
            writer.write(negotiation.receive(await reader.read(1)))
        heard.append(negotiation.request)
        face = negotiation.request.face
        writer.write(face.granted() if outcome is None else face.refused(outcome, "a reason"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


async def ask_as_python_socks(scheme, port, words="", host="a.onionrelay"):
    """Negotiates as python-socks' client does, which raises what it makes of the answer."""
    proxy = Proxy.from_url(f"{scheme}://{words}127.0.0.1:{port}", rdns=True)
    (await proxy.connect(host, 80)).close()


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@pytest.mark.parametrize(("words", "credentials"), [("", None), ("me:abc@", ME)])
@pytest.mark.parametrize("host", ["a.onionrelay", "127.0.0.1", "::1"])
async def test_python_socks_is_understood_and_understands(scheme, words, credentials, host):
    async with answering(None) as (port, heard):
        await ask_as_python_socks(scheme, port, words, host)
    assert [(each.host, each.port, each.credentials) for each in heard] == [(host, 80, credentials)]


@pytest.mark.parametrize(
    ("why", "over_socks", "over_http"),
    [
        (Refusal.FOREIGN, "not allowed by ruleset", "403"),
        (Refusal.NO_SUCH_NAME, "Host unreachable", "403"),
        (Refusal.NOT_FOUND, "Host unreachable", "404"),
        (Refusal.NO_NETWORK, "Network unreachable", "503"),
        (Refusal.CIRCUIT_FAILED, "General SOCKS server failure", "502"),
        (Refusal.STREAM_REFUSED, "Connection refused", "502"),
        (Refusal.TIMED_OUT, "TTL expired", "504"),
    ],
)
async def test_python_socks_reads_refusals_as_they_are_meant(why, over_socks, over_http):
    async with answering(why) as (port, _):
        with pytest.raises(ProxyError, match=over_socks):
            await ask_as_python_socks("socks5", port)
        with pytest.raises(ProxyError, match=over_http):
            await ask_as_python_socks("http", port)


# Fuzz


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 1:
                del data[at : at + rng.randint(1, 4)]
            case 2 if at < len(data):
                data[at] = rng.choice((0, 1, 2, 3, 4, 5, 255, rng.randrange(256)))
            case _:
                data = data[:at]
    return bytes(data)


def test_twenty_thousand_mutations():
    """None raises, each comes to the same by other pieces, and answers stay small."""
    rng = random.Random(5)
    seeds = [data for data, *_ in (*UNDERSTOOD.values(), *REFUSED.values()) if len(data) < 1000]
    outcomes = {"granted": 0, "refused": 0, "unfinished": 0}
    for _ in range(20_000):
        data = mutated(rng, rng.choice(seeds))
        cut = rng.randrange(len(data) + 1)
        heard = hear(data)
        assert hear(data[:cut], data[cut:]) == heard
        assert len(heard.answer) < 1000
        outcome = "granted" if heard.request else "refused" if heard.refused else "unfinished"
        outcomes[outcome] += 1
        if heard.request:
            assert 0 < heard.request[2] < 65536
    assert min(outcomes.values()) > 1000


def test_a_parser_takes_no_more_than_it_asks_for():
    arriving = Arriving()
    parser = arriving.take(2)
    next(parser)
    arriving.data += b"abc"
    with pytest.raises(StopIteration) as done:
        next(parser)
    assert done.value.value == b"ab"
    assert arriving.data == b"c"
