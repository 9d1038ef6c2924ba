import asyncio
import socket
import ssl
from contextlib import contextmanager, suppress

import pytest

from onionrelay.base.errors import NetworkError, TimedOut
from onionrelay.base.limits import ALPN
from onionrelay.net.certificate import Certificate
from onionrelay.net.tls import dial_tls
from onionrelay.net.tls_handshake import server_context
from onionrelay.wire.address import Address
from tests.net.links import linked, listening, nothing_left_open, turns


async def test_nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = Address(*sock.getsockname())
        with nothing_left_open(), pytest.raises(NetworkError, match=f"cannot reach {address}: .*refused") as error:
            await dial_tls(address, timeout=10)
        assert not isinstance(error.value, TimedOut)


@contextmanager
def silent_port():
    """A port that takes connections and says nothing."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        yield Address(*sock.getsockname()), sock


async def test_a_dial_takes_no_longer_than_allowed():
    with silent_port() as (address, _), nothing_left_open(), pytest.raises(TimedOut) as error:
        await dial_tls(address, timeout=0.02)
    assert str(error.value) == f"the dial to {address} took longer than 0.02 s"


async def test_a_cancelled_dial_leaves_nothing():
    with silent_port() as (address, listening_socket), nothing_left_open():
        for rounds in range(6):
            task = asyncio.create_task(dial_tls(address, timeout=10))
            await turns(rounds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with suppress(BlockingIOError):
                listening_socket.accept()[0].close()


async def test_a_dial_cancelled_as_it_succeeds_leaves_nothing():
    async with listening() as (listener, accepted):
        with nothing_left_open():
            for rounds in range(12):
                task = asyncio.create_task(dial_tls(listener.addresses[0], timeout=10))
                await turns(rounds)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    (await task).close()
                while listener._half_open:
                    await turns(1)
                await turns(3)
                while not accepted.empty():
                    accepted.get_nowait().close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_what_answers_is_not_tls(answer):
    with silent_port() as (address, sock):
        task = asyncio.create_task(dial_tls(address, timeout=10))
        connection, _ = await asyncio.get_running_loop().sock_accept(sock)
        with connection:
            await asyncio.get_running_loop().sock_recv(connection, 10_000)
            await asyncio.get_running_loop().sock_sendall(connection, answer)
        with pytest.raises(NetworkError, match="cannot reach"):
            await task


@pytest.mark.parametrize("settings", ["other protocol", "old version"])
async def test_a_tls_server_of_another_kind(settings):
    context = server_context(Certificate.generate())
    if settings == "other protocol":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        Certificate.generate().load_into(context)
    else:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        address = Address(*server.sockets[0].getsockname())
        with pytest.raises(NetworkError, match="not onionrelay" if settings == "other protocol" else "cannot reach"):
            await dial_tls(address, timeout=10)


async def test_what_a_dial_shows():
    """No server name, no session, no certificate; the one protocol, and TLS 1.3 only."""
    names = []
    context = server_context(Certificate.generate())
    context.sni_callback = lambda _, name, __: names.append(name)
    context.verify_mode = ssl.CERT_NONE
    served = asyncio.Queue()

    def serve(_, writer):
        served.put_nowait(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        link = await dial_tls(Address(*server.sockets[0].getsockname()), timeout=10)
        writer = await served.get()
        seen = writer.get_extra_info("ssl_object")
        assert names == [None]
        assert seen.selected_alpn_protocol() == ALPN == "onionrelay/1"
        assert seen.version() == "TLSv1.3"
        assert not seen.session_reused
        assert writer.get_extra_info("peercert") is None
        link.close()
        writer.close()


async def test_names_are_never_looked_up(monkeypatch):
    def forbidden(*_):
        raise AssertionError("getaddrinfo")

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    for host in ("127.0.0.1", "::1"):
        async with linked(host):
            pass
