"""`onionrelay forward`: what is wrong before anything runs, and a port here that is a node's port."""

import asyncio
import socket

import pytest

from onionrelay.apps.forward_command import forwarding
from onionrelay.apps.passages import Passages
from onionrelay.testing.overlay import until
from tests.apps.local_programs import (
    ASKED,
    BLOB,
    BREAK,
    DEAD,
    ECHO,
    FLOOD,
    break_connection,
    converse,
    events,
    listening,
)
from tests.apps.test_cli import NODE

in_the_network = pytest.mark.asyncio(loop_scope="module")


# The command


@pytest.mark.parametrize(
    "words",
    [
        "forward --network {network}",
        "forward 0 --network {network}",
        "forward 0 {node} --network {network}",
        "forward 0 {node}:0 --network {network}",
        "forward 0 {node}:ssh --network {network}",
        "forward 0 {node}x:22 --network {network}",
        "forward 0 example.com:22 --network {network}",
        "forward 0 {node}:22 more --network {network}",
        "forward {node}:22 0 --network {network}",
        "forward 65536 {node}:22 --network {network}",
        "forward 127.0.0.1 {node}:22 --network {network}",
        "forward ::1:80 {node}:22 --network {network}",
        "forward 0.0.0.0:0 {node}:22 --network {network}",
        "forward {taken} {node}:22 --network {network}",
    ],
)
def test_usage_errors_end_with_2(run, network, words):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = f"127.0.0.1:{listening.getsockname()[1]}"
        ran = run(*words.format(network=network, taken=taken, node=NODE).split(" "))
    assert ran.code == 2
    assert ran.sentence
    assert ran.out == ""


def test_without_a_network_it_says_how_to_get_one(run):
    ran = run("forward", "0", f"{NODE}:22")
    assert ran.code == 3
    assert "onionrelay network join" in ran.sentence


def test_help_teaches(run):
    shown = run("forward", "--help").out
    for word in ("Example:", "8080", "[::1]:0", "127.0.0.1", "--allow-remote"):
        assert word in shown


# Connections


def forward(served, port, node=None, **settings):
    """Forwards a port here to a port of the target; yields the former."""
    return listening(
        lambda reports: forwarding(Passages(node or served.node, reports), served.target.node_id, port), **settings
    )


def connect(port, host="127.0.0.1"):
    return asyncio.open_connection(host, port)


@in_the_network
async def test_many_connections_share_a_circuit_and_each_ends_by_halves(served, capsys):
    async with forward(served, ECHO) as port:
        connections = [await connect(port) for _ in range(20)]
        await asyncio.gather(*(converse(each, bytes([at]) * 1000) for at, each in enumerate(connections)))
    opened = events(capsys, "opened")
    assert len(opened) == 20
    assert {event["circuit"] for event in opened} == {1}


@in_the_network
async def test_a_program_that_ends_its_direction_first_is_heard_out(served):
    async with forward(served, FLOOD) as port:
        reader, writer = await connect(port)
        writer.write_eof()
        assert await reader.read() == BLOB
        writer.close()


@in_the_network
async def test_over_ipv6(served):
    async with forward(served, ECHO, bind="[::1]:0") as port:
        await converse(await connect(port, "::1"))


@pytest.mark.parametrize("service", [DEAD, 4711])
@in_the_network
async def test_what_the_target_refuses_is_broken_off_and_told(served, service, capsys):
    async with forward(served, service, as_json=False) as port:
        for _ in range(2):
            reader, writer = await connect(port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"onionrelay: {str(served.target.node_id)[:12]}...:{service}: ")


@in_the_network
async def test_a_break_costs_one_connection_and_is_told(served, capsys):
    async with forward(served, ECHO) as good, forward(served, BREAK, as_json=False) as bad:
        other = await connect(good)
        reader, writer = await connect(bad)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await converse(other)
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert '"failed"' not in told.out


@in_the_network
async def test_a_program_that_is_killed_breaks_its_stream_and_is_no_news(served, capsys):
    async with forward(served, ASKED) as port:
        _, writer = await connect(port)
        reader, _ = await served.connections.get()
        break_connection(writer)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: (told := capsys.readouterr().out) and "closed" in told and "failed" not in told)


@in_the_network
async def test_after_a_lost_circuit_the_next_connection_gets_another(served, capsys):
    async with served.overlay.node() as node, forward(served, ECHO, node) as port:
        reader, writer = await connect(port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        (carrier,) = node._sessions.values()
        carrier._circuit.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await converse(await connect(port))
    assert [event["circuit"] for event in events(capsys, "opened")] == [1, 2]


@in_the_network
async def test_a_slow_program_holds_back_its_service_and_nobody_else(served):
    async with forward(served, FLOOD) as flood, forward(served, ECHO) as port:
        slow, slow_writer = await connect(flood)
        await converse(await connect(port), bytes(300_000))
        assert await slow.read() == BLOB
        slow_writer.close()
