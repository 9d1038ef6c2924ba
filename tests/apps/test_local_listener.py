"""Ports of this machine: how they are written, and how connections share one."""

import asyncio
import socket

import pytest

from onionrelay.apps import local_listener
from onionrelay.apps.local_listener import LocalListener, parse_bind
from onionrelay.base.errors import ConfigError, UsageError
from onionrelay.wire.address import Address
from tests.apps.local_programs import PATIENCE

ANY = Address("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9190", "127.0.0.1:9190"),
        ("0", "127.0.0.1:0"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("127.1.2.3:80", "127.1.2.3:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("[::1]:65535", "[::1]:65535"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
    ],
)
def test_where_to_listen(text, address):
    assert str(parse_bind(text, remote=False)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "x", "-1", "65536", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", ":80", "::1:80", "[::1]", "[::1]:65536",
     "example.com:80", "[localhost]:80", "127.0.0.1:\u00b2", "[fe80::1%lo]:80"],
)  # fmt: skip
def test_what_is_no_place_to_listen(text):
    for remote in (False, True):
        with pytest.raises(UsageError):
            parse_bind(text, remote=remote)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[2001:db8::1]:80"])
def test_others_are_let_in_only_when_asked_for(text):
    with pytest.raises(UsageError, match="--allow-remote"):
        parse_bind(text, remote=False)
    assert str(parse_bind(text, remote=True)) == text


async def shout(reader, writer):
    writer.write((await reader.read()).upper())


async def say(address, text):
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(text)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_connection_is_closed_when_it_has_been_served(host):
    async with LocalListener(Address(host, 0)) as listener, listener.serving(shout):
        assert listener.address.port
        assert await say(listener.address, b"hello") == b"HELLO"


async def test_who_comes_early_waits_and_who_comes_late_is_refused():
    async with LocalListener(ANY) as listener:
        address = listener.address
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"early")
        writer.write_eof()
        async with listener.serving(shout):
            assert await reader.read() == b"EARLY"
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await say(address, b"late")


async def test_a_port_in_use():
    async with LocalListener(ANY) as listener:
        with pytest.raises(ConfigError, match=f"cannot listen on {listener.address}: address already in use"):
            async with LocalListener(listener.address):
                pass


async def test_as_many_as_there_may_be(monkeypatch):
    monkeypatch.setattr(local_listener, "LOCAL_CONNECTIONS", 2)
    crowded = []
    async with LocalListener(ANY, crowded=lambda: crowded.append(1)) as listener, listener.serving(shout):
        host, port = listener.address.host, listener.address.port
        first = await asyncio.open_connection(host, port)
        second = await asyncio.open_connection(host, port)
        with pytest.raises(ConnectionResetError):
            await say(listener.address, b"one too many")
        assert crowded == [1]
        first[1].write_eof()
        assert await first[0].read() == b""
        assert await say(listener.address, b"again") == b"AGAIN"
        for _, writer in (first, second):
            writer.close()
    assert crowded == [1]


async def test_what_is_open_at_the_end_is_broken_off():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hold(reader, writer):
        begun.set()
        try:
            await reader.read()
        finally:
            ended.set()

    async with asyncio.timeout(PATIENCE), LocalListener(ANY) as listener:
        async with listener.serving(hold):
            reader, writer = await asyncio.open_connection(listener.address.host, listener.address.port)
            await begun.wait()
        assert ended.is_set()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_fault_in_serving_is_seen_and_costs_one_connection():
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))

    async def serve(reader, writer):
        if await reader.read(1) == b"x":
            raise ZeroDivisionError
        writer.write(b"fine")

    async with LocalListener(ANY) as listener, listener.serving(serve):
        with pytest.raises(ConnectionResetError):
            await say(listener.address, b"x")
        assert await say(listener.address, b"y") == b"fine"
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_ipv6_is_there_to_be_tested():
    """Where a machine has none, the test above fails, and this one says why."""
    assert socket.has_ipv6
