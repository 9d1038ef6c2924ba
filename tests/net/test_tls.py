import asyncio
import errno
import os
import resource
import socket
import ssl
from contextlib import AsyncExitStack

import pytest

from onionrelay.base.errors import ConfigError
from onionrelay.net import tls
from onionrelay.net.tls import TlsListener, dial_tls
from onionrelay.net.tls_handshake import client_context
from onionrelay.wire.address import Address
from tests.net.links import Sink, hand_made, listening, nothing_left_open, open_files, raw_connection, turns

LOOPBACK = Address("127.0.0.1", 0)


# Listening


async def test_port_zero_becomes_a_real_port():
    async with listening() as (listener, _):
        (address,) = listener.addresses
        assert address.host == "127.0.0.1"
        assert address.port > 0


async def test_several_addresses_one_certificate():
    digests = []
    with nothing_left_open():
        links = []
        listener = TlsListener([LOOPBACK, Address("::1", 0)], links.append)
        assert listener.addresses == ()
        listener.start()
        assert [address.host for address in listener.addresses] == ["127.0.0.1", "::1"]
        for address in listener.addresses:
            link = await dial_tls(address, timeout=10)
            digests.append(link.leaf_digest)
            link.close()
        await listener.close()
        assert listener.addresses == ()
        for link in links:
            link.close()
    assert digests == [listener.certificate.digest] * 2


async def test_ipv4_and_ipv6_wildcards_share_a_port():
    first = TlsListener([Address("0.0.0.0", 0)], lambda link: link.close())
    first.start()
    port = first.addresses[0].port
    second = TlsListener([Address("::", port)], lambda link: link.close())
    second.start()
    assert second.addresses == (Address("::", port),)
    await first.close()
    await second.close()


async def test_a_port_in_use_is_said_clearly_and_nothing_is_kept():
    async with listening() as (listener, _):
        taken = listener.addresses[0]
        with nothing_left_open():
            second = TlsListener([LOOPBACK, taken], lambda link: link.close())
            with pytest.raises(ConfigError, match=f"cannot listen on {taken}: another program uses this port"):
                second.start()
            assert second.addresses == ()


async def test_an_address_of_another_machine():
    with nothing_left_open(), pytest.raises(ConfigError, match="this machine has no such address"):
        TlsListener([Address("192.0.2.1", 0)], lambda link: link.close()).start()


async def test_a_port_that_needs_rights(monkeypatch):
    class Unprivileged(socket.socket):
        def bind(self, address):
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tls.socket, "socket", Unprivileged)
    with nothing_left_open(), pytest.raises(ConfigError, match="not permitted; ports below 1024, such as 443"):
        TlsListener([Address("127.0.0.1", 443)], lambda link: link.close()).start()


async def test_a_port_is_free_again_at_once():
    async with listening() as (listener, accepted):
        address = listener.addresses[0]
        link, sink = await dial_tls(address, timeout=10), Sink()
        link.attach(sink)
        (await accepted.get()).close()  # first, so its side of the connection stays in TIME_WAIT
        await sink.until_lost()
    again = TlsListener([address], lambda link: link.close())
    again.start()
    await again.close()


async def test_close_ends_handshakes_under_way_but_no_links():
    async with AsyncExitStack() as stack:
        listener, accepted = await stack.enter_async_context(listening())
        silent = await stack.enter_async_context(hand_made(listener.addresses[0]))
        client = await dial_tls(listener.addresses[0], timeout=10)
        server = await accepted.get()
        accepted.put_nowait(server)
        await listener.close()
        assert await silent.read_raw() == b""
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        a.outbox += b"still here"
        client.flush()
        await b.until(lambda: b.received == b"still here")
        client.close()


async def test_close_at_the_moment_of_an_accept():
    """The handshake's task ends before it has begun."""
    async with listening() as (listener, _):
        address = listener.addresses[0]
        with socket.create_connection((address.host, address.port), timeout=10) as sock:
            listener._accept(asyncio.get_running_loop(), listener._sockets[0])
            assert len(listener._half_open) == 1
            await listener.close()
            assert sock.recv(1) == b""


async def test_admits_is_asked_before_tls():
    asked = []

    def admits(remote: Address) -> bool:
        asked.append(remote)
        return len(asked) > 1

    async with listening(admits=admits) as (listener, accepted):
        async with hand_made(listener.addresses[0]) as peer:
            own = Address(*peer.sock.getsockname())
            with pytest.raises(ConnectionError):
                await peer.shake_hands()
        link = await dial_tls(listener.addresses[0], timeout=10)
        assert (await accepted.get()).remote == asked[1]
        link.close()
    assert asked[0] == own


# Who is turned away


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" * 2000],
)
async def test_garbage_instead_of_tls(garbage):
    async with listening() as (listener, accepted):
        with nothing_left_open():
            async with hand_made(listener.addresses[0]) as peer:
                await peer.send_raw(garbage)
                while await peer.read_raw():  # an alert, perhaps
                    pass
                await turns(5)
        client = await dial_tls(listener.addresses[0], timeout=10)
        client.close()
        assert accepted.empty() or not listener._half_open


def tls_1_2() -> ssl.SSLContext:
    context = client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


async def test_older_tls_is_refused():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0], tls_1_2()) as peer:
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await peer.shake_hands()
        assert accepted.empty()


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["onionrelay/2", "h2"]])
async def test_other_application_protocols_are_turned_away(protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    async with listening() as (listener, accepted), hand_made(listener.addresses[0], context) as peer:
        await peer.shake_hands()
        assert await peer.read_raw() == b""
        assert accepted.empty()


async def test_no_session_ticket_is_given():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        await peer.shake_hands()
        link, sink = await accepted.get(), Sink()
        sink.outbox += b"after any ticket"
        link.attach(sink)
        assert await peer.read() == b"after any ticket"
        assert not peer.tls.session.has_ticket
        link.close()


async def test_a_silent_client_has_its_time(monkeypatch):
    monkeypatch.setattr(tls, "LINK_HANDSHAKE_TIMEOUT", 0.02)
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        assert await peer.read_raw() == b""
        assert accepted.empty()


async def test_the_oldest_handshake_makes_room_for_the_newest(monkeypatch):
    monkeypatch.setattr(tls, "HALF_OPEN_LINKS", 3)
    async with AsyncExitStack() as stack:
        listener, _ = await stack.enter_async_context(listening())
        silent = []
        for count in range(1, 6):
            silent.append(await stack.enter_async_context(hand_made(listener.addresses[0])))
            while len(listener._half_open) < min(count, 3):
                await turns(1)
        assert await silent[0].read_raw() == b""
        assert await silent[1].read_raw() == b""
        assert len(listener._half_open) == 3
        link = await dial_tls(listener.addresses[0], timeout=10)
        assert await silent[2].read_raw() == b""
        await silent[4].shake_hands()
        link.close()


async def test_out_of_descriptors_the_listener_waits_and_goes_on(monkeypatch):
    monkeypatch.setattr(tls, "ACCEPT_PAUSE", 0.01)
    pauses = []
    pause = TlsListener._pause
    monkeypatch.setattr(TlsListener, "_pause", lambda *args: (pauses.append(1), pause(*args)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with listening() as (listener, accepted):
        client = socket.socket()
        client.setblocking(False)
        with client:
            # The kernel completes the connection; what the process lacks is a descriptor to accept it.
            connecting = asyncio.ensure_future(
                asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", listener.addresses[0].port))
            )
            lowest_free = os.dup(client.fileno())
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                await connecting
                while len(pauses) < 2:
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        link = await dial_tls(listener.addresses[0], timeout=10)
        await accepted.get()
        link.close()


async def test_closing_while_out_of_descriptors(monkeypatch):
    listener = TlsListener([LOOPBACK], lambda link: link.close())
    listener.start()
    listener._pause(asyncio.get_running_loop(), listener._sockets[0])
    await listener.close()
    assert not listener._pauses


async def test_connections_that_come_and_go_in_masses():
    async with listening() as (listener, accepted):
        address = listener.addresses[0]
        drained: list[asyncio.Task] = []

        async def bare() -> None:
            async with raw_connection(address):
                pass

        async def rude() -> None:
            async with raw_connection(address) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"\x16\x03\x01\x02\x00" + bytes(50))

        async def proper() -> None:
            link = await dial_tls(address, timeout=10)
            link.close()

        async def taken() -> None:
            while True:
                (await accepted.get()).close()

        before = open_files()
        drained.append(asyncio.create_task(taken()))
        for _ in range(5):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(10):
                    for kind in (bare, rude, proper):
                        tasks.create_task(kind())
        while listener._half_open or not accepted.empty():
            await asyncio.sleep(0)
        await turns(3)
        drained[0].cancel()
        assert open_files() == before


async def test_an_owner_that_fails_is_heard_of_and_the_link_closed():
    heard = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.put_nowait(context["exception"]))

    def failing(link):
        raise LookupError("a bug")

    listener = TlsListener([LOOPBACK], failing)
    listener.start()
    link, sink = await dial_tls(listener.addresses[0], timeout=10), Sink()
    link.attach(sink)
    assert await sink.until_lost() == "the peer closed the link"
    assert isinstance(await heard.get(), LookupError)
    await listener.close()
