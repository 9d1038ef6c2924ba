"""The command line's root: which commands there are, and how whatever goes wrong becomes one sentence and a code."""

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from onionrelay.apps.circuit_command import circuit
from onionrelay.apps.connect_command import connect
from onionrelay.apps.demo_command import demo
from onionrelay.apps.exit_codes import MEANING, ExitCode, exit_code
from onionrelay.apps.forward_command import forward
from onionrelay.apps.listen_commands import listen, node_id
from onionrelay.apps.network_commands import network
from onionrelay.apps.ping_command import ping
from onionrelay.apps.relay_commands import relay
from onionrelay.apps.run import QuietEnd
from onionrelay.apps.settings import Settings, shared_options
from onionrelay.apps.socks_command import socks
from onionrelay.apps.testnet_command import testnet
from onionrelay.base.errors import OnionRelayError, UsageError

UNSUPPORTED = "onionrelay runs on Linux and macOS; on Windows, run it inside WSL 2"


class Application(click.Group):
    """The root group. Its `main` never shows a traceback unless it is asked to, and always exits with a code."""

    def main(  # type: ignore[override]  # click's overloads are about standalone_mode, which is off here
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the command that `args` name, and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        settings = Settings(json="--json" in arguments)  # in case parsing them fails before it gets there
        extra["standalone_mode"] = False
        code = ExitCode.OK
        try:
            require_platform(sys.platform)
            require_stdout()
            super().main(arguments, prog_name or "onionrelay", obj=settings, **extra)
        except Exception as error:  # noqa: BLE001 - this is where every error ends
            code = _report(error, settings)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a Ctrl-C while it is being imported is like any other."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The exit codes, from the table that decides them."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANING.items()])


EXAMPLES = """\b
Example:
  See it work, on this machine alone:    onionrelay demo
  Join a network:                        onionrelay network join network.toml
  Be reachable:                          onionrelay listen --service 22=127.0.0.1:22
  Look at a circuit to a node:           onionrelay circuit onr1q...
  Reach it with any program:             onionrelay socks
  ssh through it, in ~/.ssh/config:      Host *.onionrelay
                                           ProxyCommand onionrelay connect %h %p"""


@click.group(cls=Application, epilog=EXAMPLES)
@shared_options
@click.version_option(package_name="onionrelay", message="%(prog)s %(version)s")
def cli() -> None:
    """Reach any node behind any NAT through a circuit of relays, so that nobody in between learns who talks to whom.

    Every command has its own --help, and takes --home, --network, -v and --json before or after its name.
    """


for command in (demo, circuit, connect, forward, listen, node_id, network, ping, relay, socks, testnet):
    cli.add_command(command)


def main() -> NoReturn:
    """The entry point."""
    cli.main()


def require_platform(platform: str) -> None:
    """Raises OnionRelayError where signals, locks and readiness of pipes are not what this program needs."""
    if platform not in {"linux", "darwin"} and "bsd" not in platform:
        raise OnionRelayError(UNSUPPORTED)


def require_stdout() -> None:
    """Raises UsageError when it was closed: files and sockets that are opened later would take its number."""
    if sys.stdout is None:
        raise UsageError("standard output is closed: let it go to /dev/null")


def _report(error: Exception, settings: Settings) -> ExitCode:
    """Say what went wrong; returns what to exit with."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return ExitCode.USAGE
        case click.ClickException():
            hint = (
                f"; {error.ctx.command_path} --help says more"
                if isinstance(error, click.UsageError) and error.ctx
                else ""
            )
            code, message = ExitCode.USAGE, error.format_message().removesuffix(".") + hint
        case QuietEnd():
            return exit_code(error)
        case click.Abort():
            code, message = exit_code(error), "interrupted"
        case OnionRelayError():
            code, message = exit_code(error), str(error)
        case _:
            code = ExitCode.UNEXPECTED
            message = f"unexpected {type(error).__name__}: {error}; run with -v for the traceback"
    if settings.verbose and code is ExitCode.UNEXPECTED:
        traceback.print_exception(error)
    settings.output.error(type(error).__name__, " ".join(message.split()), code)
    return code
