"""The commands against a network of real processes."""

import hashlib
import json
import os
import signal

import pytest

from onionrelay.base.ids import NodeId, RelayId
from onionrelay.crypto.signing import SigningSecret
from onionrelay.node.localnet import LocalNetwork, free_ports
from tests.e2e.conftest import HELLO, run

pytestmark = pytest.mark.asyncio(loop_scope="session")
TESTNET = b"onionrelay: testnet: this is a test network, which protects nobody\n"
STRANGER = str(NodeId(SigningSecret(bytes(range(32))).public))


async def test_circuit_names_the_hops_and_their_times(world):
    ran = await world.run("circuit", world.node_id, "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["event"] == "circuit"
    assert told["anonymity"] == "testnet"
    assert told["build_ms"] > 0
    assert [hop["role"] for hop in told["hops"]] == ["guard", "vanguard", "middle", "final", "target"]
    relays = {str(relay.invite.relay_id): relay.address for relay in world.network.relays}
    for position, hop in enumerate(told["hops"], 1):
        assert hop["position"] == position
        assert hop["median_ms"] > 0
        assert hop["error_ms"] >= 0
        assert {"added_ms", "samples"} <= hop.keys()
        if hop["role"] == "target":
            assert hop["address"] is None
        else:
            assert relays[hop["relay_id"]] == hop["address"]
    assert len({hop["relay_id"] for hop in told["hops"]}) == 5


@pytest.mark.parametrize("hops", [3, 5])
async def test_circuit_with_other_lengths(world, hops):
    ran = await world.run("circuit", f"{world.node_id.upper()}.OnionRelay", "--hops", str(hops))
    assert ran.code == 0, ran.err
    first, _, *rows = ran.out.decode().splitlines()
    assert first.startswith(f"{hops} relays, built in ")
    assert len(rows) == hops + 1


async def test_circuit_is_held_for_a_while(world):
    ran = await world.run("circuit", world.node_id, "--for", "1.5", "--json")
    assert ran.code == 0, ran.err
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["event"] for event in events] == ["ready", "circuit", "ping"]
    assert len(events[2]["hops"]) == 5


async def test_circuit_is_held_until_interrupted(world):
    process = await world.start("circuit", world.node_id, "--hold", "--json")
    while json.loads(await process.stdout.readline())["event"] != "ping":
        pass
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    assert await process.stderr.read() == b""


async def test_a_node_that_nobody_knows(world):
    ran = await world.run("circuit", STRANGER)
    assert ran.code == 4
    assert ran.err.startswith(b"onionrelay: ")
    assert ran.err.count(b"\n") == 1


async def test_a_target_that_is_gone(world):
    """Its record lives on, but no final hop has a link to it any more: nothing is ever reported open."""
    target = await world.network.start_target("--service", "7=127.0.0.1:1", name="short-lived")
    await target.event("reachable")
    await target.stop(grace=0)
    ran = await world.run("circuit", (await target.event("ready"))["node_id"], "--json")
    assert ran.code == 6
    error = json.loads(ran.out)
    assert error["error"] == "CircuitFailed"
    assert "final" in error["message"]
    assert any(relay.address in error["message"] for relay in world.network.relays)


async def test_too_few_relays(world, tmp_path):
    async with LocalNetwork(2, seeds=1) as small:
        options = ["--home", str(tmp_path), "--network", str(small.network_path)]
        ran = await run("circuit", world.node_id, *options)
    assert ran.code == 5
    assert ran.err.count(b"\n") == 1


async def test_bytes_go_both_ways(world):
    data = os.urandom(3_000_000)
    ran = await world.run("connect", f"{world.node_id}:7", data=data)
    assert ran.code == 0, ran.err
    assert hashlib.sha256(ran.out).digest() == hashlib.sha256(data).digest()
    assert ran.err == TESTNET


async def test_each_direction_ends_on_its_own(world):
    """Answers come while nothing has ended, and what was sent before the end is answered after it."""
    process = await world.start("connect", f"{world.node_id}.onionrelay", "7")
    for word in (b"one", b"two"):
        process.stdin.write(word)
        assert await process.stdout.readexactly(3) == word
    process.stdin.write(b"last")
    process.stdin.close()
    assert await process.stdout.read() == b"last"
    assert await process.wait() == 0


async def test_the_far_end_can_end_first(world):
    process = await world.start("connect", f"{world.node_id}:80")
    process.stdin.write(b"GET /hello.txt HTTP/1.0\r\n\r\n")
    answer = await process.stdout.read()
    assert answer.endswith(HELLO)
    assert process.returncode is None  # our direction is open still
    process.stdin.close()
    assert await process.wait() == 0


async def test_a_reader_that_leaves_is_no_error(world):
    process = await world.start("connect", f"{world.node_id}:80")
    process.stdin.write(b"GET /hello.txt HTTP/1.1\r\n\r\n" * 20)
    await process.stdout.readexactly(100)
    process._transport.get_pipe_transport(1).close()
    assert await process.wait() == 0
    assert await process.stderr.read() == TESTNET


async def test_a_port_that_nobody_serves(world):
    ran = await world.run("connect", f"{world.node_id}:4711", data=b"x")
    assert ran.code == 7
    assert ran.out == b""


async def test_a_service_that_is_down(world):
    assert (await world.run("connect", f"{world.node_id}:9")).code == 7


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGHUP])
async def test_connect_ends_silently_when_told_to(world, which):
    """As ssh tells its ProxyCommand at the end of every session."""
    process = await world.start("connect", f"{world.node_id}:7")
    process.stdin.write(b"x")
    await process.stdout.readexactly(1)
    process.send_signal(which)
    assert await process.wait() == 130
    assert await process.stderr.read() == TESTNET


async def test_a_second_listen_of_one_home_is_refused(world):
    home = ["--home", str(world.network.folder / "target"), "--network", str(world.network.network_path)]
    again = await run("listen", "--service", "1=127.0.0.1:1", *home)
    assert again.code == 3
    assert again.out.decode() == f"node {world.node_id}\n"
    assert again.err.count(b"\n") == 1


async def test_a_dead_seed(world, tmp_path):
    port = free_ports(1)[0]
    invite = f"{RelayId(SigningSecret(bytes(32)).public)}@tls://127.0.0.1:{port}"
    file, home = str(tmp_path / "dead.toml"), ["--home", str(tmp_path / "home")]
    assert (await run("network", "new", "--name", "dead", "--testnet", "--seed", invite, "-o", file)).code == 0
    for words in (["circuit", world.node_id], ["connect", f"{world.node_id}:7"]):
        ran = await run(*words, *home, "--network", file)
        assert ran.code == 3
        assert f"127.0.0.1:{port}".encode() in ran.err
        assert ran.err.count(b"\n") == 1


async def test_a_port_in_use(world, tmp_path):
    taken, home = world.network.relays[0].address, ["--home", str(tmp_path)]
    assert (await run("relay", "init", "--listen", f"tls://{taken}", *home)).code == 0
    ran = await run("relay", "run", *home, "--network", str(world.network.network_path))
    assert ran.code == 2
    assert taken.encode() in ran.err
    assert ran.err.count(b"\n") == 1
