"""The options that every command takes, before or after its name: --home, --network, -v, --json."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onionrelay.apps.option_types import NamedPath
from onionrelay.apps.output import Output

if TYPE_CHECKING:  # these take 0.1 s, which --help does not need
    from onionrelay.node.home import Home
    from onionrelay.node.network_file import NetworkFile

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)

TESTNET = "testnet: this is a test network, which protects nobody"


@dataclass(slots=True)
class Settings:
    """What the shared options said. One object travels through the click contexts; the last word wins."""

    home: Path | None = None
    network: Path | None = None
    verbose: int = 0
    json: bool = False
    stdout_is_data: bool = False

    @property
    def output(self) -> Output:
        """Where the command's events go."""
        return Output(as_json=self.json, to_stderr=self.stdout_is_data)

    def open_home(self) -> "Home":
        """The home asked for, else ONIONRELAY_HOME, else the platform's data folder."""
        from onionrelay.node.home import Home, home_path  # noqa: PLC0415 - see TYPE_CHECKING above

        return Home(home_path(self.home, os.environ), self.output.notice)

    def open_member(self) -> "tuple[Home, NetworkFile]":
        """The home, and the network asked for, else ONIONRELAY_NETWORK, else the one joined in the home.

        Raises NoNetwork, which says how to get one.
        """
        from onionrelay.node.home import resolve_network  # noqa: PLC0415 - see TYPE_CHECKING above

        home = self.open_home()
        return home, resolve_network(self.network, os.environ, home)

    def say_testnet(self, network: "NetworkFile") -> None:
        """What everybody in a test network should be told once."""
        if network.testnet:
            self.output.notice(TESTNET)


def shared_options(command: Decorated) -> Decorated:
    """Add the shared options; they are kept in the context's Settings instead of being passed as arguments."""
    for flags, attributes in reversed(_OPTIONS):
        command = click.option(*flags, expose_value=False, callback=_keep, **attributes)(command)
    return command


def example(*lines: str) -> str:
    """The end of a command's help: lines to type, as they are."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        setattr(context.ensure_object(Settings), str(parameter.name), value)


_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--home",),
        {
            "metavar": "DIR",
            "type": NamedPath(path_type=Path),
            "help": "Where keys, guard and network file are kept (else ONIONRELAY_HOME, else your data directory).",
        },
    ),
    (
        ("--network",),
        {
            "metavar": "FILE",
            "type": NamedPath(path_type=Path),
            "help": "The network file (else ONIONRELAY_NETWORK, else the one joined).",
        },
    ),
    (("-v", "--verbose"), {"count": True, "help": "Log to standard error; twice: everything."}),
    (("--json",), {"is_flag": True, "help": "Print JSON, one event a line."}),
)
