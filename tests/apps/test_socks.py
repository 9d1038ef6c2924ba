"""`onionrelay socks`: what is wrong before anything runs, and the proxy with programs on one side and a network on the other."""

import asyncio
import socket

import pytest

from onionrelay.apps import passages, proxy
from onionrelay.apps.proxy import refusal
from onionrelay.apps.proxy_request import Refusal
from onionrelay.apps.targets import node_of
from onionrelay.base.errors import (
    CircuitFailed,
    CircuitLost,
    InvalidId,
    MalformedMessage,
    NodeNotFound,
    NoNetwork,
    NoPath,
    StreamRefused,
    TimedOut,
)
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.testing.overlay import until
from tests.apps.local_programs import (
    ASKED,
    BLOB,
    BREAK,
    DEAD,
    ECHO,
    FLOOD,
    MUTE,
    PATIENCE,
    Refused,
    break_connection,
    converse,
    events,
    http,
    proxying,
    socks,
)
from tests.apps.test_cli import KEY, NODE

FACES = pytest.mark.parametrize("face", [socks, http])
in_the_network = pytest.mark.asyncio(loop_scope="module")


# The command


@pytest.mark.parametrize(
    "words",
    [
        "socks more --network {network}",
        "socks --bind --network {network}",
        "socks --bind nonsense --network {network}",
        "socks --bind 65536 --network {network}",
        "socks --bind 127.0.0.1 --network {network}",
        "socks --bind ::1:9190 --network {network}",
        "socks --bind example.com:9190 --network {network}",
        "socks --bind 0.0.0.0:9190 --network {network}",
        "socks --bind [::]:9190 --network {network}",
        "socks --bind {taken} --network {network}",
    ],
)
def test_usage_errors_end_with_2(run, network, words):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = f"127.0.0.1:{listening.getsockname()[1]}"
        ran = run(*words.format(network=network, taken=taken).split(" "))
    assert ran.code == 2
    assert ran.sentence
    assert ran.out == ""


def test_without_a_network_it_says_how_to_get_one(run):
    ran = run("socks", "--bind", "0")
    assert ran.code == 3
    assert "onionrelay network join" in ran.sentence


def test_help_teaches(run):
    shown = run("socks", "--help").out
    for word in ("socks5h://", "Example:", "127.0.0.1:9190", ".onionrelay.alt", "--allow-remote"):
        assert word in shown


# Names


@pytest.mark.parametrize("name", ["{}.onionrelay", "{}.onionrelay.alt", "{}.OnionRelay.", "{}.onionrelay.ALT."])
def test_names_of_nodes(name):
    for text in (NODE, NODE.upper()):
        assert node_of(name.format(text)) == NodeId(KEY)


FOREIGN = [
    *("", ".", "localhost", "127.0.0.1", "::1", "example.com", "onionrelay", "alt", NODE, f"{NODE}.onion", f"{NODE}.alt"),
    *(f"{NODE}onionrelay", f"{NODE}.onionrelay.com", f"{NODE}.onionrelay.alt.alt", f"{NODE}.onionrelay\xad", "\xff"),
]  # fmt: skip
WRONG = [
    *(".onionrelay", ".onionrelay.alt", "www.onionrelay", f"www.{NODE}.onionrelay", f"{NODE}..onionrelay"),
    *(f"{NODE}x.onionrelay", f"{RelayId(KEY)}.onionrelay", f" {NODE}.onionrelay", f"{NODE}.onionrelay.onionrelay"),
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_names_of_others(name):
    assert node_of(name) is None


@pytest.mark.parametrize("name", WRONG)
def test_names_that_should_be_ours_and_are_not(name):
    with pytest.raises(InvalidId):
        node_of(name)


# Reasons


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NodeNotFound("x"), Refusal.NOT_FOUND),
        (NoPath("x"), Refusal.NO_NETWORK),
        (NoNetwork("x"), Refusal.NO_NETWORK),
        (StreamRefused("x"), Refusal.STREAM_REFUSED),
        (TimedOut("x", 1), Refusal.TIMED_OUT),
        (CircuitFailed("x"), Refusal.CIRCUIT_FAILED),
        (CircuitLost("x"), Refusal.CIRCUIT_FAILED),
        (MalformedMessage("x"), Refusal.CIRCUIT_FAILED),
    ],
)
def test_every_error_has_its_refusal(error, why):
    assert refusal(error) is why


# Connections


@FACES
@in_the_network
async def test_bytes_go_both_ways_and_each_direction_ends_on_its_own(served, face, capsys):
    async with proxying(served.node) as port:
        await converse(await face(port, served.name, ECHO), b"hello" * 1000)
        await converse(await face(port, f"{served.name}.alt".upper(), ECHO))
    told = events(capsys)
    assert [event["event"] for event in told] == ["opened", "closed"] * 2
    opened, closed, *_ = told
    assert opened["target"] == str(served.target.node_id)
    assert (opened["port"], opened["isolated"], opened["connection"]) == (ECHO, False, closed["connection"])
    assert opened["face"] == {socks: "socks5", http: "http"}[face]
    assert (closed["sent"], closed["received"]) == (5000, 5000)


@FACES
@in_the_network
async def test_what_a_program_says_before_it_hears_is_not_lost(served, face, capsys):
    async with proxying(served.node) as port:
        reader, writer = await face(port, served.name, ECHO, early=b"early")
        assert await reader.readexactly(5) == b"early"
        await converse((reader, writer))
    assert events(capsys, "closed")[0]["sent"] == 10


@FACES
@in_the_network
async def test_all_of_a_blob_arrives(served, face):
    async with proxying(served.node) as port:
        reader, writer = await face(port, served.name, FLOOD)
        assert await reader.read() == BLOB
        writer.close()


@in_the_network
async def test_circuits_are_shared_within_a_user_name_and_a_password_and_never_beyond(served, capsys):
    users = [None, (b"me", b"a"), (b"me", b"b"), (b"you", b"a"), (b"", b""), (b"mea", b"")]
    async with served.overlay.node() as node, proxying(node) as port:
        everything = [(user, face) for user in (*users, *users) for face in (socks, http)]
        connections = await asyncio.gather(*(face(port, served.name, ECHO, user) for user, face in everything))
        assert len(node._sessions) == len(users)
        assert len({carrier._circuit for carrier in node._sessions.values()}) == len(users)
        for connection in connections:
            await converse(connection)
    opened = events(capsys, "opened")
    assert len(opened) == len(everything)
    assert len({event["circuit"] for event in opened}) == len(users)


@in_the_network
async def test_a_connections_circuit_is_its_users(served, capsys):
    async with proxying(served.node) as port:
        seen = {}
        for user in (None, (b"me", b"a"), (b"you", b"a"), None, (b"me", b"a"), (b"you", b"a")):
            await converse(await socks(port, served.name, ECHO, user))
            (event,) = events(capsys, "opened")
            assert seen.setdefault(user, event["circuit"]) == event["circuit"]
            assert event["isolated"] == (user is not None)
        assert len(set(seen.values())) == len(seen)


# Refusals


@pytest.mark.parametrize("name", [*FOREIGN, *WRONG])
@in_the_network
async def test_a_name_that_is_no_nodes_is_refused(served, name, capsys):
    async with proxying(served.node) as port:
        with pytest.raises(Refused) as over_socks:
            await socks(port, name, 80)
        assert over_socks.value.code == (4 if name in WRONG else 2)
        told = events(capsys)
        assert [event["event"] for event in told] == ["refused"]
        assert name in WRONG or told[0]["message"] == proxy.FOREIGN
        if " " not in name:
            with pytest.raises(Refused) as over_http:
                await http(port, name, 80)
            assert over_http.value.code == 403
            assert over_http.value.text == f"onionrelay: {told[0]['message']}\n"


@pytest.mark.parametrize(
    ("service", "over_socks", "over_http"), [(4711, 5, 502), (DEAD, 5, 502)], ids=["no such port", "a dead service"]
)
@in_the_network
async def test_what_the_target_refuses(served, service, over_socks, over_http, capsys):
    async with proxying(served.node) as port:
        for face, code in ((socks, over_socks), (http, over_http)):
            with pytest.raises(Refused) as refused:
                await face(port, served.name, service)
            assert refused.value.code == code
            (failed,) = events(capsys)
            assert (failed["event"], failed["error"]) == ("failed", "StreamRefused")
            assert failed["message"] in refused.value.text or face is socks


@in_the_network
async def test_a_node_that_nobody_knows(served, capsys):
    async with proxying(served.node) as port:
        for face, code in ((socks, 4), (http, 404)):
            with pytest.raises(Refused) as refused:
                await face(port, f"{NODE}.onionrelay", 80)
            assert refused.value.code == code
    assert {event["error"] for event in events(capsys)} == {"NodeNotFound"}


@in_the_network
async def test_a_node_that_is_gone(served, capsys):
    async with served.overlay.node() as gone:
        await gone.start_server(None, 80)
        await gone.wait_reachable(PATIENCE)
        name = f"{gone.node_id}.onionrelay"
    relays = [str(relay.addresses[0]) for relay in served.overlay.relays.values()]
    async with proxying(served.node) as port:
        for face, code in ((socks, 1), (http, 502)):
            with pytest.raises(Refused) as refused:
                await face(port, name, 80)
            assert refused.value.code == code
            assert not any(relay in refused.value.text for relay in relays)
            assert face is socks or "proxy's own output" in refused.value.text
    told = events(capsys)
    assert {event["error"] for event in told} == {"CircuitFailed"}
    assert all(any(relay in event["message"] for relay in relays) for event in told)


@in_the_network
async def test_a_target_that_does_not_answer(served, capsys, monkeypatch):
    monkeypatch.setattr(passages, "LOCAL_OPEN", 0.2)
    async with proxying(served.node) as port:
        for face, code in ((socks, 6), (http, 504)):
            with pytest.raises(Refused) as refused:
                await face(port, served.name, MUTE)
            assert refused.value.code == code
    assert {event["error"] for event in events(capsys)} == {"TimedOut"}


@in_the_network
async def test_a_program_that_does_not_say_what_it_wants(served, capsys, monkeypatch):
    monkeypatch.setattr(proxy, "PROXY_NEGOTIATION", 0.2)
    async with proxying(served.node) as port:
        for words in (b"", b"\x05\x01\x00", b"CONNECT "):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == (b"\x05\x00" if words.startswith(b"\x05") else b"")
            writer.close()
    assert [event["event"] for event in events(capsys)] == ["refused"] * 3


@in_the_network
async def test_a_program_that_goes_on_talking_hears_why_it_is_refused(served, monkeypatch):
    monkeypatch.setattr(proxy, "PROXY_LINGER", 0.2)
    async with proxying(served.node) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET http://example.com/ HTTP/1.1\r\nX: y\r\n\r\n" + bytes(100_000))
        await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
        writer.close()


@in_the_network
async def test_a_program_that_looks_in_and_leaves_is_no_news(served, capsys):
    async with proxying(served.node) as port:
        for words in (b"", b"\x05"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        break_connection(writer)
        await converse(await socks(port, served.name, ECHO))
    assert [event["event"] for event in events(capsys)] == ["opened", "closed"]


# Ends


@in_the_network
async def test_a_break_at_the_service_reaches_the_program_and_no_other(served, capsys):
    async with proxying(served.node) as port:
        other = await socks(port, served.name, ECHO)
        reader, writer = await socks(port, served.name, BREAK)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await converse(other)
    (failed,) = events(capsys, "failed")
    assert "broke off" in failed["message"]


@in_the_network
async def test_a_program_that_is_killed_is_no_news_and_the_service_sees_a_break(served, capsys):
    async with proxying(served.node) as port:
        _, writer = await socks(port, served.name, ASKED, early=b"x")
        reader, _ = await served.connections.get()
        assert await reader.readexactly(1) == b"x"
        break_connection(writer)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: (told := capsys.readouterr().out) and "closed" in told and "failed" not in told)


@in_the_network
async def test_a_circuit_that_dies_breaks_its_connections_and_the_next_one_gets_another(served, capsys):
    async with served.overlay.node() as node, proxying(node) as port:
        reader, writer = await socks(port, served.name, ECHO)
        (carrier,) = node._sessions.values()
        carrier._circuit.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await converse(await socks(port, served.name, ECHO))
    told = events(capsys)
    assert [event["circuit"] for event in told if event["event"] == "opened"] == [1, 2]
    assert [event["error"] for event in told if event["event"] == "failed"] == ["CircuitLost"]


@in_the_network
async def test_the_end_of_the_proxy_is_the_end_of_its_connections(served):
    async with proxying(served.node) as port:
        reader, writer = await socks(port, served.name, ASKED)
        far, _ = await served.connections.get()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(ConnectionResetError):
        await far.read()
    writer.close()


@in_the_network
async def test_a_person_reads_one_line_for_what_fails_and_no_foreign_name(served, capsys):
    async with proxying(served.node, as_json=False) as port:
        await converse(await socks(port, served.name, ECHO))
        with pytest.raises(Refused):
            await socks(port, "secret.example", 80)
        with pytest.raises(Refused):
            await socks(port, served.name, 4711)
    told = capsys.readouterr()
    assert told.out == ""
    foreign, refused = told.err.splitlines()
    assert foreign.startswith("onionrelay: a connection is refused: only names that end in .onionrelay")
    assert "secret" not in told.err
    assert refused.startswith(f"onionrelay: {str(served.target.node_id)[:12]}...:4711: ")
