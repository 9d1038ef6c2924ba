"""A whole network on this machine: relays and targets, each a process of its own, on 127.0.0.1 and in one folder.

The demo, the benchmarks and the end-to-end tests run on it. The processes are ordinary `onionrelay relay run` and
`onionrelay listen` commands; nothing in them is simulated.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from onionrelay.base.errors import ConfigError
from onionrelay.base.limits import CHILD_READY, DEMO_RELAYS, DEMO_SEEDS, LEFTOVER_AGE, LOCAL_PORTS
from onionrelay.base.seams import shuffle
from onionrelay.net.system import SystemRng
from onionrelay.node.child import ChildProcess, Event
from onionrelay.node.home import Home
from onionrelay.node.network_file import NetworkFile
from onionrelay.wire.invite import Invite

PREFIX = "onionrelay-local-"


@dataclass(frozen=True, slots=True)
class LocalRelay:
    """A relay of a local network and its process."""

    invite: Invite
    is_seed: bool
    process: ChildProcess

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.invite.endpoint.addresses[0])


class LocalNetwork:
    """`async with LocalNetwork() as network:` runs relays until the block ends, however it ends.

    `on_relay` is called with each relay as it becomes ready. Everything is in `folder`, which goes when the block ends;
    it is made in `parent`, or where temporary files are.
    """

    def __init__(
        self,
        relays: int = DEMO_RELAYS,
        *,
        seeds: int = DEMO_SEEDS,
        on_relay: Callable[[LocalRelay], None] = lambda _: None,
        parent: Path | None = None,
    ) -> None:
        if not 0 < seeds <= relays:
            raise ConfigError(f"{seeds} of {relays} relays cannot be seeds")
        self.relays: list[LocalRelay] = []
        self.folder: Path
        self.network: NetworkFile
        self._count = relays
        self._seeds = seeds
        self._on_relay = on_relay
        self._parent = parent
        self._children: list[ChildProcess] = []
        self._cleanup = contextlib.ExitStack()

    @property
    def network_path(self) -> Path:
        """The network's file."""
        return self.folder / "network.toml"

    async def __aenter__(self) -> Self:
        self.folder = self._cleanup.enter_context(temporary_folder(self._parent))
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def home(self, name: str) -> Path:
        """Where the home of this name is."""
        return self.folder / name

    async def start_target(
        self, *options: str, name: str = "target", on_event: Callable[[Event], None] = lambda _: None
    ) -> ChildProcess:
        """Start `onionrelay listen` with these options. Its event "reachable" comes some time after "ready"."""
        command = ["listen", "--home", str(self.home(name)), "--network", str(self.network_path), *options]
        return await self._spawn(name, command, on_event)

    async def start_relay(self, index: int, *, seconds: float = CHILD_READY) -> LocalRelay:
        """Start, or start again, the relay of this index; returns when it is ready."""
        name = f"relay-{index}"
        home = self.home(name)
        command = ["relay", "run", "--home", str(home), "--network", str(self.network_path)]
        process = await self._spawn(name, command)
        event = await process.event("ready", seconds=seconds)
        relay = LocalRelay(Invite.parse(event["invite"]), index < self._seeds, process)
        self._on_relay(relay)
        return relay

    async def _start(self) -> None:
        rng = SystemRng()
        invites = [
            Home(self.home(f"relay-{index}")).init_relay([f"tls://127.0.0.1:{port}"], [], rng)
            for index, port in enumerate(free_ports(self._count))
        ]
        self.network = NetworkFile.create("local", tuple(invites[: self._seeds]), testnet=True, rng=rng)
        self.network.write(self.network_path)
        starting = [asyncio.ensure_future(self.start_relay(index)) for index in range(self._count)]
        try:
            self.relays = list(await asyncio.gather(*starting))
        finally:  # the first that fails is the news; what the others would say comes from their being stopped
            for start in starting:
                start.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

    async def _spawn(
        self, name: str, command: Sequence[str], on_event: Callable[[Event], None] = lambda _: None
    ) -> ChildProcess:
        child = await ChildProcess.start(name, command, self.folder, on_event)
        self._children.append(child)
        return child

    async def _stop(self) -> None:
        try:
            await asyncio.gather(*(child.stop() for child in self._children))
        finally:
            self._cleanup.close()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all free at the same time.

    Taken from below the range that outgoing connections draw from: one that a relay opens while others still start
    would now and then take a port that was free a moment ago.
    """
    candidates = list(range(*LOCAL_PORTS))
    shuffle(SystemRng(), candidates)
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in candidates:
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise ConfigError(f"there are no {count} free ports between {LOCAL_PORTS[0]} and {LOCAL_PORTS[1]}")


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is removed at the end, or by a later call when this process never gets there (SIGKILL)."""
    parent = parent or Path(tempfile.gettempdir())
    for leftover in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            _remove_if_abandoned(leftover)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_if_abandoned(folder: Path) -> None:
    """Raises OSError when it is in use or somebody else's."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(lock)
        if status.st_uid == os.getuid() and time.time() - status.st_mtime > LEFTOVER_AGE:  # a new one is not locked yet
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
