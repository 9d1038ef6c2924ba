"""`onionrelay listen`: be reachable; `onionrelay id`: under which name."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onionrelay.apps.run import lifeline_option, run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.apps.targets import parse_folder, parse_service
from onionrelay.base.errors import UsageError

if TYPE_CHECKING:
    from onionrelay.node.home import Home
    from onionrelay.node.network_file import NetworkFile

Services = list[tuple[int, str, int]]
Folders = list[tuple[int, Path]]


@click.command(
    short_help="Be reachable.",
    epilog=example(
        "onionrelay listen --service 22=127.0.0.1:22 --service 80=[::1]:8000",
        "onionrelay listen --serve-folder 80=public",
    ),
)
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="PORT=HOST:PORT",
    help="Forward a port of the node to this address (repeatable).",
)
@click.option(
    "--serve-folder",
    "folders",
    multiple=True,
    metavar="PORT=DIR",
    help="Serve a folder over HTTP on a port of the node (repeatable).",
)
@lifeline_option
@shared_options
@click.pass_obj
def listen(settings: Settings, services: tuple[str, ...], folders: tuple[str, ...]) -> None:
    """Be reachable under this home's node id, behind whatever NAT: only outgoing connections are made.

    Prints the node id at once, and a line when the node can be reached. Runs until it is told to stop.
    """
    forwards, served = list(map(parse_service, services)), list(map(parse_folder, folders))
    ports = [port for port, *_ in (*forwards, *served)]
    if not ports:
        raise UsageError("there is nothing to reach: name a --service or a --serve-folder")
    twice = next((port for port in ports if ports.count(port) > 1), None)
    if twice is not None:
        raise UsageError(f"port {twice} of the node is given twice")
    home, network = settings.open_member()
    name = _node_id(home)
    settings.output.event("ready", f"node {name}", node_id=name)
    run(settings, _listen(settings, home, network, forwards, served), service=True)


async def _listen(
    settings: Settings, home: "Home", network: "NetworkFile", forwards: Services, served: Folders
) -> None:
    import asyncio  # noqa: PLC0415 - --help must be quick

    from onionrelay import Node  # noqa: PLC0415
    from onionrelay.apps.fileserver import FileServer  # noqa: PLC0415

    async with Node(network, home=home, on_event=settings.output.pass_on) as node:
        for port, host, host_port in forwards:
            await node.add_service(port, host, host_port)
        for port, folder in served:
            await node.start_server(FileServer(folder).handle, port)
        settings.say_testnet(network)
        await node.wait_reachable()
        settings.output.event("reachable", "reachable", node_id=str(node.node_id))
        await asyncio.Event().wait()


@click.command("id", short_help="Print the node id.", epilog=example("onionrelay id --home server"))
@shared_options
@click.pass_obj
def node_id(settings: Settings) -> None:
    """Print the node id of this home; a home without one gets a new one."""
    name = _node_id(settings.open_home())
    settings.output.event("id", name, node_id=name)


def _node_id(home: "Home") -> str:
    from onionrelay.base.ids import NodeId  # noqa: PLC0415 - --help must be quick
    from onionrelay.net.system import SystemRng  # noqa: PLC0415

    return str(NodeId(home.make_node_secret(SystemRng()).public))
