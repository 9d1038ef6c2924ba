"""What a test network that runs leaves on the disk for other commands to find it: which processes it is made of.

A process id alone proves nothing, for the system uses ids again; together with the time at which the process began it
names one process for good.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from onionrelay.base.errors import ConfigError
from onionrelay.base.limits import TESTNET_POLL, TESTNET_STATE_FILE
from onionrelay.node.folder import Folder, trying

STATE = "testnet.json"
PS = "/bin/ps"  # where there is no /proc


class ProcessMark(msgspec.Struct, frozen=True):
    """One process. `began` is the system's own notation; it is compared, never read."""

    pid: int
    began: str

    @classmethod
    def of(cls, pid: int) -> "ProcessMark":
        """The process that has this id now; one that has ended already gets a mark that no process has."""
        return cls(pid, beginning(pid) or "")

    @property
    def is_running(self) -> bool:
        """Whether this very process runs. A zombie does not."""
        return beginning(self.pid) == self.began != ""

    def signal(self, which: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, which)


class RunningRelay(msgspec.Struct, frozen=True):
    """A relay of the network."""

    relay_id: str
    address: str
    seed: bool
    process: ProcessMark


class NetworkState(msgspec.Struct, frozen=True):
    """A test network. Before it is ready it is only a process."""

    process: ProcessMark
    network: str = ""
    node_id: str = ""
    target: ProcessMark | None = None
    relays: tuple[RunningRelay, ...] = ()

    @property
    def processes(self) -> list[ProcessMark]:
        """All of its processes, the one that runs the others first."""
        targets = [self.target] if self.target else []
        return [self.process, *targets, *(relay.process for relay in self.relays)]


class StateFile:
    """The state of the test network in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._files = Folder(self.folder)

    def running(self) -> NetworkState | None:
        """The network that runs here; None when none does, whatever a network that was killed has left behind."""
        state = self._read()
        return state if state and state.process.is_running else None

    @contextlib.contextmanager
    def claim(self) -> Iterator[NetworkState]:
        """Makes this process the test network of the folder. ConfigError, with the other's process id, if one runs."""
        with self._files.exclusive("lock"):  # of two that start at once, the second must see the first
            other = self.running()
            if other is not None:
                raise ConfigError(
                    f"a test network runs in {self.folder} already, process {other.process.pid}: "
                    f"`onionrelay testnet down --dir {shlex.quote(str(self.folder))}` ends it, or use another --dir"
                )
            state = NetworkState(ProcessMark.of(os.getpid()))
            self.write(state)
        try:
            yield state
        finally:
            self._remove()

    def write(self, state: NetworkState) -> None:
        """Replaces what is known of it."""
        self._files.write(STATE, msgspec.json.encode(state))

    def remove_stale(self) -> None:
        """Removes what a network that was killed has left behind."""
        if (self.folder / STATE).exists():  # else there may be no folder, and looking must not make one
            with self._files.exclusive("lock"):
                if self.running() is None:
                    self._remove()

    def _remove(self) -> None:
        path = self.folder / STATE
        trying("remove", path, lambda: path.unlink(missing_ok=True))

    def _read(self) -> NetworkState | None:
        data = self._files.read_secret(STATE, TESTNET_STATE_FILE)  # from others it could name any process to end
        try:
            return None if data is None else msgspec.json.decode(data, type=NetworkState)
        except msgspec.MsgspecError as error:
            path = self.folder / STATE
            raise ConfigError(f"{path} is not the state of a test network ({error}): remove it") from error


def all_gone(processes: Iterable[ProcessMark], seconds: float) -> bool:
    """Waits so long for these processes to end; whether they all have."""
    deadline = time.monotonic() + seconds
    while any(process.is_running for process in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(TESTNET_POLL)
    return True


def beginning(pid: int) -> str | None:
    """When the process of this id began; None when there is none, or only a zombie."""
    return _beginning_in_proc(pid) if sys.platform == "linux" else _beginning_by_ps(pid)


def _beginning_in_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, *fields = stat.rpartition(b")")[2].split()  # what stands before is the program's name and may hold anything
    return None if state in {b"Z", b"X"} else fields[18].decode()


def _beginning_by_ps(pid: int) -> str | None:
    command = [PS, "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, text=True, check=False)  # noqa: S603
    state, _, began = told.stdout.strip().partition(" ")
    return None if state.startswith("Z") or not began else began.strip()


def default_folder() -> Path:
    """Where the test network is unless a folder is named."""
    from platformdirs import user_state_path  # noqa: PLC0415 - takes a while

    return user_state_path("onionrelay", appauthor=False) / "testnet"
