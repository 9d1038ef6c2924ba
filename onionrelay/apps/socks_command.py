"""`onionrelay socks`: a proxy through which any program reaches nodes by name."""

from typing import TYPE_CHECKING

import click

from onionrelay.apps.local_options import allow_remote_option, serve_locally
from onionrelay.apps.run import lifeline_option, run
from onionrelay.apps.settings import Settings, example, shared_options

if TYPE_CHECKING:
    from onionrelay.apps.local_listener import Serve
    from onionrelay.apps.passages import Passages, Reports

ADDRESS = "127.0.0.1:9190"


@click.command(
    short_help="A proxy for every program that speaks SOCKS5 or HTTP CONNECT.",
    epilog=example(
        "onionrelay socks",
        "curl --proxy socks5h://127.0.0.1:9190 http://onr1q....onionrelay/",
        "curl --proxy socks5h://work:x@127.0.0.1:9190 http://onr1q....onionrelay/",
        "git -c http.proxy=socks5h://127.0.0.1:9190 clone http://onr1q....onionrelay/project.git",
        "onionrelay socks --bind [::1]:0",
    ),
)
@click.option(
    "--bind", default=ADDRESS, show_default=True, metavar="[ADDRESS:]PORT", help="Where to listen; port 0 takes any."
)
@allow_remote_option
@lifeline_option
@shared_options
@click.pass_obj
def socks(settings: Settings, bind: str, allow_remote: bool) -> None:
    """A proxy on this machine, SOCKS5 and HTTP CONNECT on one port, for browsers, curl, git, ssh and the like.

    It leads to <node-id>.onionrelay and <node-id>.onionrelay.alt. Every other name or address is refused, and never
    looked up: let the program pass names on instead of resolving them (socks5h:// in curl and git, "proxy DNS" in
    browsers).

    No password is needed; any user name and password isolate: what is done under different ones never shares a
    circuit. Runs until it is told to stop.
    """
    from onionrelay.apps.local_listener import parse_bind  # noqa: PLC0415 - --help must be quick

    address = parse_bind(bind, remote=allow_remote)
    member = settings.open_member()
    run(settings, serve_locally(settings, member, address, _proxy, _ready), service=True)


def _proxy(passages: "Passages", reports: "Reports") -> "Serve":
    from onionrelay.apps.proxy import Proxy  # noqa: PLC0415 - --help must be quick

    return Proxy(passages, reports).serve


def _ready(address: str) -> str:
    return f"proxy on {address}: socks5h://{address} or http://{address}"
