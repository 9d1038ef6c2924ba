"""`onionrelay relay init` and `onionrelay relay run`."""

from typing import TYPE_CHECKING

import click

from onionrelay.apps.run import lifeline_option, run
from onionrelay.apps.settings import Settings, example, shared_options

if TYPE_CHECKING:
    from onionrelay.node.home import Home
    from onionrelay.node.network_file import NetworkFile


@click.group(
    short_help="Be a relay.",
    epilog=example(
        "onionrelay relay init --home relay --listen tls://0.0.0.0:443 --advertise tls://192.0.2.1:443",
        "onionrelay relay run --home relay",
    ),
)
@shared_options
def relay() -> None:
    """Be a relay: carry other people's circuits, on an address that others can reach."""


@relay.command(epilog=example("onionrelay relay init --home relay --listen tls://192.0.2.1:443"))
@click.option("--listen", multiple=True, required=True, metavar="tls://A:P", help="Where to listen (repeatable).")
@click.option(
    "--advertise", multiple=True, metavar="tls://A:P", help="Where others find it, if that differs (repeatable)."
)
@shared_options
@click.pass_obj
def init(settings: Settings, listen: tuple[str, ...], advertise: tuple[str, ...]) -> None:
    """Make a relay's keys in its home and print its invite.

    The invite is for whoever makes the network: onionrelay network new --seed INVITE. A relay that listens on all
    addresses of the machine (0.0.0.0 or [::]) must say with --advertise where others find it.
    """
    from onionrelay.net.system import SystemRng  # noqa: PLC0415 - --help must be quick

    home = settings.open_home()
    invite = home.init_relay(listen, advertise, SystemRng())
    settings.output.event(
        "initialised", str(invite), relay_id=str(invite.relay_id), invite=str(invite), home=home.where
    )


@relay.command("run", epilog=example("onionrelay relay run --home relay --network network.toml"))
@lifeline_option
@shared_options
@click.pass_obj
def run_relay(settings: Settings) -> None:
    """Run the relay of this home until it is told to stop (Ctrl-C, SIGTERM)."""
    home, network = settings.open_member()
    run(settings, _serve(settings, home, network), service=True)


async def _serve(settings: Settings, home: "Home", network: "NetworkFile") -> None:
    from onionrelay.node.relay import RelayNode  # noqa: PLC0415 - --help must be quick

    async with RelayNode(home, network, on_event=settings.output.pass_on) as node:
        settings.output.event(
            "ready",
            f"relay {node.invite}",
            relay_id=str(node.relay_id),
            invite=str(node.invite),
            addresses=[str(address) for address in node.addresses],
        )
        settings.say_testnet(network)
        await node.wait_stopped()
