"""`onionrelay forward`: a port of a node as a port of this machine."""

from typing import TYPE_CHECKING

import click

from onionrelay.apps.local_options import allow_remote_option, serve_locally
from onionrelay.apps.run import lifeline_option, run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.apps.targets import parse_target
from onionrelay.base.errors import OnionRelayError

if TYPE_CHECKING:
    import asyncio

    from onionrelay.apps.local_listener import Serve
    from onionrelay.apps.passages import Passages, Reports
    from onionrelay.base.ids import NodeId


@click.command(
    short_help="A port of a node as a port of this machine.",
    epilog=example(
        "onionrelay forward 8080 onr1q...:80",
        "onionrelay forward [::1]:0 onr1q...:22",
    ),
)
@click.argument("local", metavar="[ADDRESS:]PORT")
@click.argument("target")
@allow_remote_option
@lifeline_option
@shared_options
@click.pass_obj
def forward(settings: Settings, local: str, target: str, allow_remote: bool) -> None:
    """Listen on a port of this machine, and carry each connection to a port of a node: TARGET is <node-id>:<port>.

    The address is 127.0.0.1 unless one is given (IPv6 in brackets); port 0 takes any, and the line that says it is
    ready names it. All connections share a circuit; one that fails leaves the others alone. Runs until it is told to
    stop.
    """
    from onionrelay.apps.local_listener import parse_bind  # noqa: PLC0415 - --help must be quick

    address = parse_bind(local, remote=allow_remote)
    node, port = parse_target(target)
    member = settings.open_member()

    def make(passages: "Passages", _: "Reports") -> "Serve":
        return forwarding(passages, node, port)

    run(
        settings,
        serve_locally(settings, member, address, make, lambda at: f"{at} leads to {node}:{port}"),
        service=True,
    )


def forwarding(passages: "Passages", node: "NodeId", port: int) -> "Serve":
    """Serves connections by joining each to a stream of its own; one that cannot be had is broken off."""
    from onionrelay.apps.local_listener import reset  # noqa: PLC0415 - --help must be quick

    async def serve(reader: "asyncio.StreamReader", writer: "asyncio.StreamWriter") -> None:
        try:
            passage = await passages.open(node, port)
        except OnionRelayError:  # told about by then
            reset(writer)
            return
        await passage.carry((reader, writer))

    return serve
