"""Ports and who serves them: over two carriers in memory, and real TCP services."""

import asyncio
import socket
import struct

import pytest

from onionrelay.base.errors import CircuitLost, StreamRefused, UsageError
from onionrelay.node import services as services_module
from onionrelay.node.services import Services, forward_to
from tests.node.memory_circuit import Joined, in_virtual_time


async def shout(reader, writer):
    writer.write((await reader.read()).upper())


async def serve_tcp(handler):
    """A TCP service on a port of its own."""

    async def serve(reader, writer):
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


# Ports


@in_virtual_time
async def test_a_handler_gets_a_pair_and_the_stream_is_closed_when_it_returns():
    services = Services()
    services.add(80, Services.calling(shout))
    async with Joined(services.on_stream) as pair:
        stream = await pair.client.open_stream(80)
        stream.write(b"hello")
        stream.write_eof()
        assert await stream.read() == b"HELLO"
        await stream.aclose()


@in_virtual_time
async def test_a_port_that_nobody_serves_is_refused():
    services = Services()
    async with Joined(services.on_stream) as pair:
        with pytest.raises(StreamRefused, match="serves nothing on port 80"):
            await pair.client.open_stream(80)


@in_virtual_time
async def test_a_service_that_is_closed_takes_nobody_and_those_it_has_go_on():
    services = Services()
    service = services.add(80, Services.calling(shout))
    async with Joined(services.on_stream) as pair:
        stream = await pair.client.open_stream(80)
        service.close()
        with pytest.raises(StreamRefused, match="serves nothing on port 80"):
            await pair.client.open_stream(80)
        stream.write(b"still here")
        stream.write_eof()
        assert await stream.read() == b"STILL HERE"
        await stream.aclose()


def test_a_port_is_served_once():
    services = Services()
    services.add(80, Services.calling(shout))
    with pytest.raises(UsageError, match="port 80 is served already"):
        services.add(80, Services.calling(shout))
    services.add(81, Services.calling(shout))


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_is_a_number_that_streams_can_name(port):
    with pytest.raises(UsageError, match="no port"):
        Services().add(port, Services.calling(shout))


@in_virtual_time
async def test_closing_a_service_twice_does_not_close_the_next_one_on_its_port():
    services = Services()
    first = services.add(80, Services.calling(shout))
    first.close()
    services.add(80, Services.calling(shout))
    first.close()
    async with Joined(services.on_stream) as pair:
        await (await pair.client.open_stream(80)).aclose()


# Forwarding, in real time: TCP sockets


async def test_bytes_pass_to_the_tcp_service_and_back_with_both_ends_of_file():
    async def service(reader, writer):
        writer.write(b"greeting, ")
        writer.write((await reader.read()).upper())

    server, port = await serve_tcp(service)
    services = Services()
    services.add(80, forward_to("127.0.0.1", port))
    async with server, Joined(services.on_stream) as pair:
        stream = await pair.client.open_stream(80)
        assert await stream.readexactly(10) == b"greeting, "
        stream.write(b"question")
        stream.write_eof()
        assert await stream.read() == b"QUESTION"
        await stream.aclose()


async def test_a_service_that_is_down_refuses():
    server, port = await serve_tcp(shout)
    server.close()
    await server.wait_closed()
    services = Services()
    services.add(80, forward_to("127.0.0.1", port))
    async with Joined(services.on_stream) as pair:
        with pytest.raises(StreamRefused, match="service on port 80 does not answer"):
            await pair.client.open_stream(80)


async def test_a_service_that_does_not_answer_in_time_refuses(monkeypatch):
    monkeypatch.setattr(services_module, "SERVICE_CONNECT_TIMEOUT", 0.0)
    server, port = await serve_tcp(shout)
    services = Services()
    services.add(80, forward_to("127.0.0.1", port))
    async with server, Joined(services.on_stream) as pair:
        with pytest.raises(StreamRefused, match="service on port 80 does not answer"):
            await pair.client.open_stream(80)


async def test_a_circuit_that_is_lost_ends_the_tcp_connection():
    arrived, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def service(reader, writer):
        assert await reader.readexactly(7) == b"half a "
        arrived.set()
        ended.set_result(await reader.read())

    server, port = await serve_tcp(service)
    services = Services()
    services.add(80, forward_to("127.0.0.1", port))
    async with server, Joined(services.on_stream) as pair:
        stream = await pair.client.open_stream(80)
        stream.write(b"half a ")
        async with asyncio.timeout(5):
            await arrived.wait()
            pair.lose("a relay died")
            assert await ended == b""
            with pytest.raises(CircuitLost, match="a relay died"):
                await stream.read()
        await stream.aclose()


async def test_a_tcp_connection_that_breaks_ends_the_stream():
    async def service(reader, writer):
        await reader.readexactly(1)
        linger_not = struct.pack("ii", 1, 0)  # closing then resets the connection
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)

    server, port = await serve_tcp(service)
    services = Services()
    services.add(80, forward_to("127.0.0.1", port))
    async with server, Joined(services.on_stream) as pair:
        stream = await pair.client.open_stream(80)
        stream.write(b"x")
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionResetError):
                await stream.read()
        await stream.aclose()
