"""`onionrelay connect`: one stream on standard input and output, for ssh and whatever else speaks through a pipe."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.apps.targets import parse_target

if TYPE_CHECKING:
    from onionrelay.base.ids import NodeId
    from onionrelay.node.home import Home
    from onionrelay.node.network_file import NetworkFile


@click.command(
    short_help="Standard input and output to a port of a node.",
    epilog=example(
        "echo hello | onionrelay connect onr1q...:7",
        "ssh -o ProxyCommand='onionrelay connect %h %p' user@onr1q....onionrelay",
    ),
)
@click.argument("target")
@click.argument("port", required=False)
@shared_options
@click.pass_obj
def connect(settings: Settings, target: str, port: str | None) -> None:
    """Connect standard input and output to a port of a node.

    TARGET is <node-id>:<port> or <node-id>.onionrelay:<port>; the port may also follow as a word of its own. Standard
    output carries the data and nothing else.
    """
    settings.stdout_is_data = True
    node, number = parse_target(target, port)
    home, network = settings.open_member()
    run(settings, _connect(home, network, node, number))


async def _connect(home: "Home", network: "NetworkFile", target: "NodeId", port: int) -> None:
    from onionrelay import Node  # noqa: PLC0415 - --help must be quick
    from onionrelay.apps.stdio import FileReader, FileWriter, ReaderGone  # noqa: PLC0415
    from onionrelay.node.splice import splice  # noqa: PLC0415

    async with Node(network, home=Path(home.where)) as node:
        reader, writer = await node.open_connection(target, port)
        try:
            with FileWriter(sys.stdout.fileno()) as stdout:
                await splice((FileReader(sys.stdin.fileno()), stdout), (reader, writer))
        except BaseException as error:
            writer.transport.abort()  # whoever stopped us does not wait for what is still on its way
            if not isinstance(error, ReaderGone):
                raise
        else:
            writer.close()
