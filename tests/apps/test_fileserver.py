import asyncio
import http.client
import os
from contextlib import asynccontextmanager

import pytest

from onionrelay.apps.fileserver import FileServer
from onionrelay.base.limits import HTTP_HEAD

BODY = bytes(range(256)) * 4000


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret.txt").write_text("outside")
    root = tmp_path / "public"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "site").mkdir()
    (root / "big.bin").write_bytes(BODY)
    (root / "empty").write_bytes(b"")
    (root / "a b&<c>.txt").write_text("odd")
    (root / "sub" / "page.html").write_text("<p>")
    (root / "site" / "index.html").write_text("the index")
    (root / ".hidden").write_text("hidden")
    (root / "sub" / ".git").mkdir()
    (root / "sub" / ".git" / "config").write_text("hidden")
    (root / "out").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "inside").symlink_to(root / "big.bin")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    return root


@asynccontextmanager
async def serving(folder):
    """The server behind an ordinary TCP port; gives the port."""
    server = FileServer(folder)

    async def handle(reader, writer):
        await server.handle(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listener:
        yield listener.sockets[0].getsockname()[1]


async def ask(folder, *requests, headers=None):
    """The answers to `requests` ("GET /path"), over one connection."""

    def talk(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        answers = []
        for request in requests:
            method, path = request.split(" ", 1)
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            answers.append((answer.status, answer.read(), dict(answer.getheaders())))
        connection.close()
        return answers

    async with serving(folder) as port:
        return await asyncio.to_thread(talk, port)


async def raw(folder, request: bytes) -> bytes:
    async with serving(folder) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


async def test_one_connection_serves_many_requests(folder):
    answers = await ask(
        folder, "GET /big.bin", "HEAD /big.bin", "GET /none", "HEAD /none", "GET /empty", "GET /sub/page.html?x=1"
    )
    assert [status for status, _, _ in answers] == [200, 200, 404, 404, 200, 200]
    assert answers[0][1] == BODY
    assert answers[1][1] == b""
    assert answers[1][2]["Content-Length"] == str(len(BODY))
    assert answers[4][1] == b""
    assert answers[5][2]["Content-Type"] == "text/html"


async def test_folders_have_an_index(folder):
    root, site, redirect = await ask(folder, "GET /", "GET /site/", "GET /sub")
    assert root[0] == 200
    listing = root[1].decode()
    assert "big.bin" in listing
    assert '<a href="sub/">sub/</a>' in listing
    assert '<a href="a%20b%26%3Cc%3E.txt">a b&amp;&lt;c&gt;.txt</a>' in listing
    assert ".hidden" not in listing
    assert site[1] == b"the index"
    assert redirect[0] == 301
    assert redirect[2]["Location"] == "/sub/"


async def test_percent_encoding_and_links_that_stay_inside(folder):
    odd, inside = await ask(folder, "GET /a%20b%26%3Cc%3E.txt", "GET /inside")
    assert odd[1] == b"odd"
    assert inside[1] == BODY


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "//../secret.txt",
        "/out",
        "/up/secret.txt",
        "/up/",
        "/loop",
        "/fifo",
        "/.hidden",
        "/sub/.git/config",
        "/big.bin/",
        "/big.bin/x",
        "/%00",
        "/%ff",
        "/" + "x" * 300,
    ],
)
async def test_nothing_else_is_served(folder, path):
    ((status, body, _),) = await ask(folder, f"GET {path}")
    assert status == 404
    assert b"outside" not in body
    assert b"hidden" not in body


@pytest.mark.parametrize(
    ("header", "status", "first", "last"),
    [
        ("bytes=0-99", 206, 0, 99),
        ("bytes=1000-", 206, 1000, len(BODY) - 1),
        ("bytes=-10", 206, len(BODY) - 10, len(BODY) - 1),
        ("bytes=0-99999999", 206, 0, len(BODY) - 1),
        ("bytes=-99999999", 206, 0, len(BODY) - 1),
        ("bytes=5-4", 200, 0, len(BODY) - 1),
        ("bytes=0-1,3-4", 200, 0, len(BODY) - 1),
        ("lines=0-1", 200, 0, len(BODY) - 1),
        ("bytes=-", 200, 0, len(BODY) - 1),
    ],
)
async def test_ranges(folder, header, status, first, last):
    ((got, body, headers),) = await ask(folder, "GET /big.bin", headers={"Range": header})
    assert got == status
    assert body == BODY[first : last + 1]
    if status == 206:
        assert headers["Content-Range"] == f"bytes {first}-{last}/{len(BODY)}"


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0"])
async def test_a_range_behind_the_end(folder, header):
    answers = await ask(folder, "GET /big.bin", "GET /empty", headers={"Range": header})
    assert answers[0][0] == 416
    assert answers[1][0] == 416


async def test_other_methods(folder):
    answers = await ask(folder, "DELETE /big.bin", "OPTIONS /")
    assert [status for status, _, _ in answers] == [405, 405]
    assert answers[0][2]["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET http://[::1 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * HTTP_HEAD + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000, 431),
    ],
)
async def test_a_bad_head_is_answered_and_the_connection_ends(folder, request_, status):
    answer = await raw(folder, request_)
    head = answer.split(b"\r\n\r\n")[0]
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in head
    assert answer.count(b"HTTP/1.1") == 1


async def test_nothing_is_told_about_the_machine(folder):
    answer = await raw(folder, b"HEAD /big.bin HTTP/1.0\r\n\r\n")
    names = {line.split(b":")[0] for line in answer.split(b"\r\n")[1:-2]}
    assert names == {b"Content-Type", b"Accept-Ranges", b"Content-Length"}


async def test_the_connection_ends_when_the_client_says_so(folder):
    assert (await raw(folder, b"GET /empty HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n")).count(
        b"HTTP/"
    ) == 1
    assert await raw(folder, b"") == b""


async def test_names_that_are_no_utf8_are_served_as_they_are_listed(folder):
    odd = folder / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / os.fsdecode(b"\xff.txt")).write_text("odd")
    (_, index, _), (status, _, headers), (_, inner, _), (_, body, _) = await ask(
        folder, "GET /", "GET /caf%E9", "GET /caf%E9/", "GET /caf%E9/%FF.txt"
    )
    assert b'href="caf%E9/"' in index
    assert (status, headers["Location"]) == (301, "/caf%E9/")
    assert b'href="%FF.txt"' in inner
    assert body == b"odd"
