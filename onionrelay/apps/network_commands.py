"""`onionrelay network new` and `onionrelay network join`."""

from pathlib import Path

import click

from onionrelay.apps.option_types import NamedPath
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.base.errors import UsageError


@click.group(epilog=example("onionrelay network join network.toml"))
@shared_options
def network() -> None:
    """Make a network, or join one by its file."""


@network.command(
    epilog=example("onionrelay network new --name home --seed onrr1q...@tls://192.0.2.1:443 -o network.toml")
)
@click.option("--name", required=True, metavar="N", help="What people call the network.")
@click.option("--seed", "seeds", multiple=True, required=True, metavar="INVITE", help="A first relay (repeatable).")
@click.option(
    "--testnet", is_flag=True, help="For trying out: accepts relays on private addresses, and is NOT private."
)
@click.option("-o", "--output", required=True, metavar="FILE", type=NamedPath(path_type=Path), help="The file to make.")
@shared_options
@click.pass_obj
def new(settings: Settings, name: str, seeds: tuple[str, ...], testnet: bool, output: Path) -> None:
    """Make the file of a new network, with a secret of its own.

    Whoever has the file can join. Seeds are the relays that newcomers ask first: `onionrelay relay init` prints the
    invite of one.
    """
    from onionrelay.net.system import SystemRng  # noqa: PLC0415 - --help must be quick
    from onionrelay.node.network_file import NetworkFile  # noqa: PLC0415
    from onionrelay.wire.invite import Invite  # noqa: PLC0415

    made = NetworkFile.create(name, tuple(map(Invite.parse, seeds)), testnet, SystemRng())
    made.write(output)
    settings.output.event(
        "network_created",
        f"made {output}: give it to those who shall join; they run `onionrelay network join {output.name}`",
        file=str(output),
        name=name,
        net_id=made.net_id.hex(),
        testnet=testnet,
    )
    settings.say_testnet(made)


@network.command(epilog=example("onionrelay network join network.toml"))
@click.argument("file", required=False, type=NamedPath(path_type=Path))
@shared_options
@click.pass_obj
def join(settings: Settings, file: Path | None) -> None:
    """Keep FILE in the home, as the network that commands use from now on."""
    from onionrelay.node.network_file import NetworkFile  # noqa: PLC0415 - --help must be quick

    path = file or settings.network
    if path is None:
        raise UsageError("which network? write onionrelay network join FILE")
    joined = NetworkFile.load(path)
    home = settings.open_home()
    home.join(joined)
    settings.output.event(
        "joined", f"joined {joined.name}", name=joined.name, net_id=joined.net_id.hex(), home=home.where
    )
    settings.say_testnet(joined)
