"""`onionrelay testnet up`, `status` and `down`: a network on this machine to try things on."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.base.errors import NoNetwork, TimedOut
from onionrelay.base.limits import DEMO_RELAYS, MAX_HOPS, TESTNET_RELAYS, TESTNET_STOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from onionrelay.node.testnet_state import NetworkState, StateFile

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")


def dir_option(command: Decorated) -> Decorated:
    """Add --dir, which says which of several test networks is meant."""
    return click.option(
        "--dir",
        "folder",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the test network is kept (else a folder in your state directory).",
    )(command)


@click.group(short_help="Run a network on this machine.", epilog=example("onionrelay testnet up"))
@shared_options
def testnet() -> None:
    """Run a network on this machine, to try everything on. It protects nobody; nothing leaves this machine."""


@testnet.command(
    short_help="Start it.", epilog=example("onionrelay testnet up", "onionrelay testnet up --relays 20 --dir lab")
)
@click.option(
    "--relays",
    type=click.IntRange(MAX_HOPS, TESTNET_RELAYS),
    default=DEMO_RELAYS,
    show_default=True,
    metavar="N",
    help="How many relays; each is a process.",
)
@dir_option
@shared_options
@click.pass_obj
def up(settings: Settings, relays: int, folder: Path | None) -> None:
    """Start relays and a target that serves a folder over HTTP, each a process of its own, and say what to type next.

    Runs until Ctrl-C or `onionrelay testnet down`. Then everything ends and the network's files go: the next network
    is a new one.
    """
    run(settings, _up(settings, relays, _state_file(folder)), service=True)


async def _up(settings: Settings, relays: int, file: "StateFile") -> None:
    from onionrelay.apps.testnet import run_testnet  # noqa: PLC0415 - --help must be quick

    await run_testnet(settings.output, relays, file)


@testnet.command(short_help="Show what runs.", epilog=example("onionrelay testnet status --json"))
@dir_option
@shared_options
@click.pass_obj
def status(settings: Settings, folder: Path | None) -> None:
    """Show the test network and its processes. Ends with exit code 3 when none runs."""
    file = _state_file(folder)
    state = file.running()
    if state is None:
        settings.output.event("status", running=False, dir=str(file.folder))
        raise NoNetwork(f"no test network runs in {file.folder}: `onionrelay testnet up` starts one")
    from onionrelay.apps.testnet import status_fields, status_lines  # noqa: PLC0415 - --help must be quick

    fields = status_fields(file.folder, state)
    settings.output.event("status", "\n".join(status_lines(fields)), **fields)


@testnet.command(short_help="End it.", epilog=example("onionrelay testnet down"))
@dir_option
@shared_options
@click.pass_obj
def down(settings: Settings, folder: Path | None) -> None:
    """End the test network, whichever terminal it runs in, and wait until all of its processes are gone."""
    file = _state_file(folder)
    state = file.running()
    if state is None:
        file.remove_stale()
        settings.output.event("down", f"no test network runs in {file.folder}", was_running=False, pid=None)
        return
    _end(state)
    file.remove_stale()  # if it was killed meanwhile, it did not get to that
    pid = state.process.pid
    settings.output.event("down", f"the test network has ended, process {pid}", was_running=True, pid=pid)


def _end(state: "NetworkState") -> None:
    from onionrelay.node.testnet_state import all_gone  # noqa: PLC0415 - --help must be quick

    state.process.signal(signal.SIGTERM)
    if not all_gone(state.processes, TESTNET_STOP):
        left = ", ".join(str(process.pid) for process in state.processes if process.is_running)
        raise TimedOut(f"waiting for the test network to end (still running: {left})", TESTNET_STOP)


def _state_file(folder: Path | None) -> "StateFile":
    from onionrelay.node.testnet_state import StateFile, default_folder  # noqa: PLC0415 - --help must be quick

    return StateFile(folder or default_folder())
