"""`onionrelay demo`: the command. What it does is in onionrelay.apps.demo."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings, example, shared_options

if TYPE_CHECKING:
    from onionrelay.apps.demo import Show


@click.command(short_help="See it work, on this machine alone.", epilog=example("onionrelay demo"))
@shared_options
@click.pass_obj
def demo(settings: Settings) -> None:
    """Show a private connection on this machine: a network of relays, a circuit through it, a file fetched over it.

    Every relay is a process of its own, and so is the target, which serves a folder over HTTP and only dials out.
    Nothing leaves this machine and nothing stays on it; --home and --network do not matter here.
    """
    run(settings, _demo(settings))


async def _demo(settings: Settings) -> None:
    from onionrelay.apps.demo import run_demo  # noqa: PLC0415 - --help must be quick

    with _screen(settings) as show:
        await run_demo(show)


def _screen(settings: Settings) -> "AbstractContextManager[Show]":
    if settings.json:
        from onionrelay.apps.demo import documented  # noqa: PLC0415

        return nullcontext(documented(settings.output.pass_on))
    if sys.stdout.isatty():
        from onionrelay.apps.render import DemoScreen  # noqa: PLC0415 - only a terminal needs rich

        return DemoScreen()
    from onionrelay.apps.demo_lines import demo_lines  # noqa: PLC0415

    def show_lines(event: dict[str, object]) -> None:
        for line in demo_lines(event):
            settings.output.event("line", line)

    return nullcontext(show_lines)
