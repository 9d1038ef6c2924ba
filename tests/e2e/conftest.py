"""One local network for all end-to-end tests, each relay a process; and commands run as a person runs them."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from onionrelay.node.child import ChildProcess
from onionrelay.node.localnet import LocalNetwork

ECHO, FILES = 7, 80
HELLO = b"hello from a folder\n" * 1000


@dataclass
class Command:
    """A finished command."""

    code: int
    out: bytes
    err: bytes


@dataclass
class World:
    """A local network with a target: port 7 is a TCP echo in the test's process, port 80 a folder."""

    network: LocalNetwork
    target: ChildProcess
    node_id: str
    echoes: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def options(self) -> list[str]:
        """What names the network and a home to a command."""
        return ["--home", str(self.network.folder / "client"), "--network", str(self.network.network_path)]

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """A command in this network, with all its standard streams on pipes."""
        return await start(*words, *self.options)

    async def run(self, *words: str, data: bytes = b"") -> Command:
        """A command in this network, from start to end."""
        return await run(*words, *self.options, data=data)


async def start(*words: str) -> asyncio.subprocess.Process:
    """A command with all its standard streams on pipes."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "onionrelay", *words, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )


async def run(*words: str, data: bytes = b"") -> Command:
    """A command from start to end."""
    process = await start(*words)
    out, err = await process.communicate(data)
    return Command(process.returncode, out, err)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("public")
    (folder / "hello.txt").write_bytes(HELLO)
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server, LocalNetwork() as network:
        port = server.sockets[0].getsockname()[1]
        target = await network.start_target(
            "--service", f"{ECHO}=127.0.0.1:{port}", "--service", "9=127.0.0.1:1", "--serve-folder", f"{FILES}={folder}"
        )
        await target.event("reachable")
        yield World(network, target, (await target.event("ready"))["node_id"])
