"""What commands that listen on this machine have in common: an option, and the run from the bound port to the end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onionrelay.apps.settings import Settings

if TYPE_CHECKING:
    from onionrelay.apps.local_listener import Serve
    from onionrelay.apps.passages import Passages, Reports
    from onionrelay.node.home import Home
    from onionrelay.node.network_file import NetworkFile
    from onionrelay.wire.address import Address

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def allow_remote_option(command: Decorated) -> Decorated:
    """Add --allow-remote."""
    return click.option(
        "--allow-remote",
        is_flag=True,
        help="Listen on an address that other machines reach, too: whoever does can use this node.",
    )(command)


async def serve_locally(
    settings: Settings,
    member: "tuple[Home, NetworkFile]",
    address: "Address",
    make: "Callable[[Passages, Reports], Serve]",
    ready: Callable[[str], str],
) -> None:
    """Binds `address`, joins the network, and serves each connection by what `make` makes, until cancelled.

    `ready(address)` is the line that says what to do with it.
    """
    import asyncio  # noqa: PLC0415 - --help must be quick

    from onionrelay import Node  # noqa: PLC0415
    from onionrelay.apps.local_listener import LocalListener  # noqa: PLC0415
    from onionrelay.apps.passages import Passages, Reports  # noqa: PLC0415

    home, network = member
    reports = Reports(settings.output)
    async with (
        LocalListener(address, crowded=reports.crowded) as listener,
        Node(network, home=home) as node,
        listener.serving(make(Passages(node, reports), reports)),
    ):
        chosen = listener.address
        settings.output.event("ready", ready(str(chosen)), address=str(chosen), port=chosen.port)
        settings.say_testnet(network)
        await asyncio.Event().wait()
