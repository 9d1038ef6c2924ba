"""Programs that know nothing of onionrelay reach a node through `socks` and `forward`, each a process of its own."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

import onionrelay
from onionrelay.apps.settings import TESTNET
from onionrelay.node.child import ChildProcess
from onionrelay.testing.overlay import until
from tests.apps.local_programs import PATIENCE, Refused, converse, get, http, proxying, socks
from tests.e2e.conftest import ECHO, run

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARALLEL = 50
BLOB = os.urandom(300_000)
DIGEST = hashlib.sha256(BLOB).hexdigest()
README = "cloned through a circuit\n"


# What there is to reach


async def git(*words, cwd):
    """Runs git, without anybody's configuration."""
    environment = {
        **os.environ, "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{who}_{what}": "someone" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip
    return await output("git", *words, cwd=cwd, env=environment)


async def output(*words, **settings):
    """Runs a program and returns what it prints; its failure is the test's."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **settings,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out


async def make_repository(folder):
    """A repository as plain files, which any web server can serve."""
    work = folder / "work"
    work.mkdir()
    (work / "README").write_text(README)
    await git("init", "--quiet", ".", cwd=work)
    await git("add", "README", cwd=work)
    await git("commit", "--quiet", "-m", "first", cwd=work)
    await git("clone", "--quiet", "--bare", "work", "public/project.git", cwd=folder)
    await git("update-server-info", cwd=folder / "public" / "project.git")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shop(world, tmp_path_factory):
    """The host name of a target that serves a blob and, where there is git, a repository."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "public").mkdir()
    (folder / "public" / "blob").write_bytes(BLOB)
    if shutil.which("git"):
        await make_repository(folder)
    target = await world.network.start_target("--serve-folder", f"80={folder / 'public'}", name="shop")
    await target.event("reachable")
    yield f"{(await target.event('ready'))['node_id']}.onionrelay"
    await target.stop()


# The commands


@dataclass
class Running:
    """A command that listens on a port here, and what it has told so far."""

    process: ChildProcess
    port: int
    told: list[dict] = field(default_factory=list)

    async def opened(self, count):
        """The connections that it has begun to carry since the last time, which are so many."""

        def opened():
            return [event for event in self.told if event["event"] == "opened"]

        await until(lambda: len(opened()) >= count)
        told = opened()
        assert len(told) == count
        self.told.clear()
        return told


@contextlib.asynccontextmanager
async def running(world, *words):
    """Runs `socks` or `forward` until the block ends, and sees it end well."""
    name = f"{words[0]}-{os.urandom(4).hex()}"
    home = ["--home", str(world.network.home(name)), "--network", str(world.network.network_path)]
    told = []
    process = await ChildProcess.start(name, [*words, *home], world.network.folder, told.append)
    try:
        yield Running(process, (await process.event("ready"))["port"], told)
        process.signal(signal.SIGTERM)
        assert await process.wait() == 0
        told_on_stderr = (world.network.folder / f"{name}.stderr").read_text().splitlines()
        assert [json.loads(line) for line in told_on_stderr] == [{"event": "notice", "text": TESTNET}]
    finally:
        await process.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def proxy(world):
    async with running(world, "socks", "--bind", "127.0.0.1:0") as proxy:
        yield proxy


# The programs: each fetches a URL's body, and says which proxy to use in its own way


async def curl(*words, url):
    return await output("curl", "--silent", "--show-error", "--fail", "--noproxy", "", *words, url)


def user(words):
    return f"{words[0].decode()}:{words[1].decode()}@" if words else ""


async def curl_socks5h(port, host, path, words=None):
    return await curl("--proxy", f"socks5h://{user(words)}127.0.0.1:{port}", url=f"http://{host}{path}")


async def curl_connect(port, host, path, words=None):
    proxy = f"http://{user(words)}127.0.0.1:{port}"
    return await curl("--proxy", proxy, "--proxytunnel", url=f"http://{host}{path}")


async def raw_socks(port, host, path, words=None):
    return await get(await socks(port, host, 80, words), host, path)


async def raw_connect(port, host, path, words=None):
    return await get(await http(port, host, 80, words), host, path)


PROGRAMS = [raw_socks, raw_connect, *([curl_socks5h, curl_connect] if shutil.which("curl") else [])]
EVERY = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


@EVERY
async def test_a_program_fetches_through_the_proxy(proxy, shop, program):
    for host in (shop, f"{shop}.alt", shop.upper()):
        assert hashlib.sha256(await program(proxy.port, host, "/blob")).hexdigest() == DIGEST
    assert {event["target"] for event in await proxy.opened(3)} == {shop.partition(".")[0]}


async def test_many_at_once(proxy, shop):
    fetching = (PROGRAMS[at % len(PROGRAMS)](proxy.port, shop, "/blob") for at in range(PARALLEL))
    bodies = await asyncio.gather(*fetching)
    assert {hashlib.sha256(body).hexdigest() for body in bodies} == {DIGEST}
    assert len(bodies) == PARALLEL
    assert len({event["circuit"] for event in await proxy.opened(PARALLEL)}) == 1


@EVERY
async def test_user_names_never_share_a_circuit_and_one_alone_does(proxy, shop, program):
    users = [None, (b"me", b"x"), (b"you", b"x"), (b"me", b"y")]
    circuits = []
    for words in (*users, *users):
        await program(proxy.port, shop, "/blob", words)
        (opened,) = await proxy.opened(1)
        circuits.append(opened["circuit"])
    assert circuits[:4] == circuits[4:]
    assert len(set(circuits)) == 4


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here; the programs above take the same way")
async def test_git_clones(proxy, shop, tmp_path):
    where = ("-c", f"http.proxy=socks5h://127.0.0.1:{proxy.port}")
    await git(*where, "clone", "--quiet", f"http://{shop}/project.git", cwd=tmp_path)
    assert (tmp_path / "project" / "README").read_text() == README


async def test_a_program_that_does_not_tunnel_is_told_what_to_do(proxy, shop):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(f"GET http://{shop}/blob HTTP/1.1\r\nHost: {shop}\r\n\r\n".encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"socks5h://" in answer
    writer.close()


# Nothing but relays is ever dialled


OUTSIDE = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo", "socket.sendto",
           "socket.sendmsg")  # fmt: skip


class Watch:
    """What this process does to reach others, while it is on: an audit hook cannot be taken back."""

    def __init__(self):
        self.is_on = False
        self.asked = []
        self.dialled = set()
        sys.addaudithook(self._see)

    def _see(self, event, arguments):
        if not self.is_on:
            return
        if event in OUTSIDE:
            self.asked.append((event, *arguments[1:]))
        elif event == "socket.connect":
            host, port, *_ = arguments[1]
            self.dialled.add(f"{host}:{port}")

    @contextlib.contextmanager
    def on(self):
        self.asked, self.dialled = [], set()
        self.is_on = True
        try:
            yield self
        finally:
            self.is_on = False


@pytest.fixture(scope="session")
def watch():
    return Watch()


async def test_the_watch_sees_what_it_should(watch):
    with watch.on(), socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket() as stream:
        socket.getaddrinfo("127.0.0.1", 80)
        socket.gethostbyname("127.0.0.1")
        sock.sendto(b"", ("127.0.0.1", 9))
        with pytest.raises(ConnectionRefusedError):
            stream.connect(("127.0.0.1", 1))
    assert [event for event, *_ in watch.asked] == ["socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"]
    assert watch.dialled == {"127.0.0.1:1"}


FOREIGN = ["example.com", "localhost", "192.0.2.1", "127.0.0.1", "2001:db8::1", "::1", "example.onion", "x.onionrelay"]


async def test_a_foreign_name_is_neither_looked_up_nor_dialled(world, shop, watch, tmp_path):
    """Seen from inside the process; a name of ours, which works, shows that all else is as it should be."""
    relays = {relay.address for relay in world.network.relays}
    async with onionrelay.Node(world.network.network, home=tmp_path / "home") as node, proxying(node) as port:
        with watch.on():
            for name in FOREIGN:
                for face, codes in ((socks, (2, 4)), (http, (403,))):
                    for words in (None, (b"me", b"x")):
                        with pytest.raises(Refused) as refused:
                            await face(port, name, 80, words)
                        assert refused.value.code in codes
            assert not node._sessions
        assert watch.asked == []
        assert watch.dialled == {f"127.0.0.1:{port}"}  # by this test
        with watch.on():
            assert await raw_socks(port, shop, "/blob") == BLOB
        assert watch.asked == []
        assert watch.dialled - {f"127.0.0.1:{port}"} <= relays


# A port here for a port there


@pytest.mark.parametrize("bind", ["0", "127.0.0.1:0", "[::1]:0"])
async def test_forward(world, bind):
    async with running(world, "forward", bind, f"{world.node_id}:{ECHO}") as forward:
        host = "::1" if bind.startswith("[") else "127.0.0.1"
        connections = [await asyncio.open_connection(host, forward.port) for _ in range(10)]
        await asyncio.gather(*(converse(each, bytes([at]) * 5000) for at, each in enumerate(connections)))
        opened = await forward.opened(10)
    assert {event["circuit"] for event in opened} == {1}


async def test_forward_says_where_it_listens_and_where_that_leads(world):
    process = await world.start("forward", "0", f"{world.node_id}.onionrelay:{ECHO}")
    line = (await process.stdout.readline()).decode()
    address, leads, to, target = line.split()
    assert (leads, to, target) == ("leads", "to", f"{world.node_id}:{ECHO}")
    host, port = address.split(":")
    await converse(await asyncio.open_connection(host, int(port)))
    refused = await run("forward", address, f"{world.node_id}:{ECHO}", *world.options)
    assert refused.code == 2
    assert refused.err.decode() == f"onionrelay: cannot listen on {address}: address already in use\n"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_a_connection_that_fails_is_one_line_and_the_next_one_is_served(world):
    process = await world.start("socks", "--bind", "0")
    port = int((await process.stdout.readline()).split()[2].rstrip(b":").rpartition(b":")[2])
    with pytest.raises(Refused):
        await socks(port, f"{world.node_id}.onionrelay", 4711)
    await converse(await socks(port, f"{world.node_id}.onionrelay", ECHO))
    with pytest.raises(Refused):
        await http(port, "example.com", 443)
    process.terminate()
    out, err = await process.communicate()
    assert process.returncode == 0
    assert out == b""
    notice, first, second = err.decode().splitlines()
    assert notice == f"onionrelay: {TESTNET}"
    assert first.startswith(f"onionrelay: {world.node_id[:12]}...:4711: ")
    assert second.startswith("onionrelay: a connection is refused: ")


async def test_a_stopped_proxy_breaks_off_what_it_carries(world):
    async with running(world, "socks", "--bind", "127.0.0.1:0") as proxy:
        reader, writer = await socks(proxy.port, f"{world.node_id}.onionrelay", ECHO, early=b"x")
        assert await reader.readexactly(1) == b"x"
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionResetError):
            await reader.read()
    writer.close()


# The way there


async def test_ping(world):
    ran = await world.run("ping", world.node_id, "-c", "3", "--interval", "0.1", "--json")
    assert ran.code == 0, ran.err
    ready, *rounds, statistics = (json.loads(line) for line in ran.out.splitlines())
    assert (ready["event"], ready["target"]) == ("ready", world.node_id)
    assert [each["round"] for each in rounds] == [1, 2, 3]
    assert [hop["role"] for hop in statistics["hops"]] == ["guard", "vanguard", "middle", "final", "target"]
    for hop in statistics["hops"]:
        assert 0 < hop["min_ms"] <= hop["median_ms"] <= hop["p90_ms"]
        assert (hop["samples"], hop["lost"]) == (3, 0)


async def test_ping_for_people_until_interrupted(world):
    process = await world.start("ping", f"{world.node_id}.onionrelay", "--hops", "3", "--interval", "0.1")
    assert (await process.stdout.readline()).startswith(b"3 relays, built in ")
    assert (await process.stdout.readline()).startswith(b"1:  1: ")
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130
    assert err == b""  # Ctrl-C is how it ends
    header, *hops = out.decode().splitlines()[-5:]
    assert header.split() == ["hop", "role", "address", "min", "median", "p90", "lost"]
    assert [line.split()[1] for line in hops] == ["guard", "middle", "final", "target"]
