"""How links end, from either side and on their own."""

import asyncio
import hashlib
import socket
import struct

import pytest

from onionrelay.base.limits import READ_BUFFER, SEND_QUEUE_HARD
from onionrelay.net.tls import TlsLink, dial_tls
from tests.net.links import HandMadePeer, Sink, blocked, hand_made, linked, listening

GOODBYE_MISSING = "the connection ended without a goodbye"
CUT_OFF = {"connection reset by peer", "broken pipe", GOODBYE_MISSING}  # Python 3.11 loses the number of the error


async def test_close_says_goodbye_and_delivers_what_was_queued():
    async with linked() as (client, server):
        a, b = Sink(), Sink()
        client.attach(a)
        server.attach(b)
        a.outbox += b"last words"
        client.close()
        assert a.lost == []  # never from within a call
        assert await a.until_lost() == "closed at this end"
        assert await b.until_lost() == "the peer closed the link"
        assert b.received == b"last words"


async def test_close_may_be_called_at_any_time_and_again():
    async with linked() as (client, server):
        server.close()
        server.close()
        sink = Sink()
        server.attach(sink)
        server.flush()
        server.close()
        assert await sink.until_lost() == "closed at this end"
        client.flush()
        client.close()
        client.close()
    client.close()


async def test_close_within_the_receivers_calls():
    class Closing(Sink):
        link: TlsLink

        def use(self, buffer: bytearray, size: int) -> int:
            self.link.close()
            return super().use(buffer, size)

        def on_lost(self, why: str) -> None:
            self.link.close()
            self.link.flush()
            super().on_lost(why)

    async with linked() as (client, server):
        a, b = Sink(), Closing()
        b.link = server
        client.attach(a)
        a.outbox += bytes(600_000)
        client.flush()
        server.attach(b)
        assert await b.until_lost() == "closed at this end"
        assert len(b.feeds) == 1
        await a.until_lost()


async def test_closing_while_a_send_is_pending():
    async with linked() as (client, _server):
        sink = Sink()
        client.attach(sink)
        await blocked(sink, client)
        client.close()
        assert await sink.until_lost() == "closed at this end"


def test_close_after_the_loop_has_ended():
    async def open_one() -> TlsLink:
        async with listening() as (listener, _):
            link = await dial_tls(listener.addresses[0], timeout=10)
            link.attach(Sink())
            return link

    link = asyncio.run(open_one())
    link.close()
    assert link._sock.fileno() == -1


async def a_peer(listener, accepted, peer: HandMadePeer) -> tuple[TlsLink, Sink]:
    await peer.shake_hands()
    link, sink = await accepted.get(), Sink()
    link.attach(sink)
    await peer.send_raw(peer.records(b"hello"))
    await sink.until(lambda: sink.received == b"hello")
    return link, sink


async def test_the_end_of_a_connection_without_a_goodbye():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        _, sink = await a_peer(listener, accepted, peer)
        await peer.send_raw(peer.records(b"more"))
        peer.sock.close()
        assert await sink.until_lost() == GOODBYE_MISSING
        assert sink.received == b"hellomore"


async def test_half_close_ends_the_link():
    """The peer says goodbye and would still read: a link has no half."""
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        _, sink = await a_peer(listener, accepted, peer)
        with pytest.raises(Exception, match="read"):  # it would wait for the answer
            peer.tls.unwrap()
        await peer.send_raw(peer.outgoing.read())
        assert await sink.until_lost() == "the peer closed the link"
        assert await peer.read() == b""


async def test_half_close_of_the_connection_ends_the_link():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        _, sink = await a_peer(listener, accepted, peer)
        peer.sock.shutdown(socket.SHUT_WR)
        assert await sink.until_lost() == GOODBYE_MISSING
        while await peer.read_raw():  # an alert, then the end
            pass


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_a_reset_connection():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        _, sink = await a_peer(listener, accepted, peer)
        reset(peer.sock)
        assert await sink.until_lost() in CUT_OFF


async def test_a_reset_connection_found_by_sending():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        link, sink = await a_peer(listener, accepted, peer)
        reset(peer.sock)
        for _ in range(3):
            sink.outbox += bytes(1000)
            link.flush()
        assert sink.lost == []
        assert await sink.until_lost() in CUT_OFF


async def test_a_connection_lost_with_an_outbox_beyond_all_limits():
    """Two reasons to end at once: told once."""
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        link, sink = await a_peer(listener, accepted, peer)
        reset(peer.sock)
        sink.outbox += bytes(SEND_QUEUE_HARD + 1)
        link.flush()
        assert await sink.until_lost() in CUT_OFF


async def test_a_link_that_has_ended_watches_its_descriptor_no_more():
    async with linked() as (client, _server):
        sink, descriptor = Sink(), client._fd
        client.attach(sink)
        await blocked(sink, client)
        client.close()
        loop = asyncio.get_running_loop()
        assert not loop.remove_reader(descriptor)
        assert not loop.remove_writer(descriptor)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x20" + bytes(32), b"\0" * 5000])
async def test_garbage_instead_of_a_record(garbage):
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        _, sink = await a_peer(listener, accepted, peer)
        await peer.send_raw(garbage)
        assert (await sink.until_lost()).startswith("TLS failed: ")


async def test_a_record_changed_on_its_way():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        _, sink = await a_peer(listener, accepted, peer)
        record = bytearray(peer.records(b"changed"))
        record[-1] ^= 1
        await peer.send_raw(bytes(record))
        assert "bad record mac" in await sink.until_lost()
        assert sink.received == b"hello"


async def test_a_receiver_that_fails_loses_its_link_and_is_heard_of():
    class Failing(Sink):
        def use(self, buffer: bytearray, size: int) -> int:
            raise LookupError("a bug")

    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
    async with linked() as (client, server):
        a, b = Sink(), Failing()
        client.attach(a)
        server.attach(b)
        a.outbox += b"x"
        client.flush()
        assert await b.until_lost() == "internal error"
        assert [type(error) for error in heard] == [LookupError]


async def test_a_receiver_that_never_consumes_loses_its_link():
    class Full(Sink):
        def use(self, buffer: bytearray, size: int) -> int:
            return 0

    async with linked() as (client, server):
        a, b = Sink(), Full()
        client.attach(a)
        server.attach(b)
        a.outbox += bytes(READ_BUFFER + 1)
        client.flush()
        assert "nothing whole" in await b.until_lost()
        assert max(b.feeds) == READ_BUFFER


async def test_links_show_themselves_without_their_contents():
    async with linked() as (client, server):
        assert repr(client) == f"TlsLink(to {client.remote}, open)"
        server.close()
        assert repr(server) == f"TlsLink(from {server.remote}, closed: closed at this end)"


async def test_the_digest_is_that_of_the_certificate_served():
    async with listening() as (listener, accepted), hand_made(listener.addresses[0]) as peer:
        await peer.shake_hands()
        link = await accepted.get()
        accepted.put_nowait(link)
        assert link.leaf_digest == hashlib.sha256(peer.tls.getpeercert(binary_form=True)).digest()
