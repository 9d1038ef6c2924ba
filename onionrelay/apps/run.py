"""Runs a command's coroutine and ends it gracefully on Ctrl-C, SIGTERM, SIGHUP and the parent's end."""

import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from onionrelay.apps.exit_codes import ExitCode
from onionrelay.apps.settings import Settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class QuietEnd(click.Abort):
    """Ended by a signal that nobody needs to be told about: the exit code says it."""


def run(
    settings: Settings, command: Coroutine[Any, Any, None], *, service: bool = False, endless: bool = False
) -> None:
    """Run `command` to its end. A signal cancels it and raises click.Abort once it has cleaned up.

    `endless`: Ctrl-C is how people end the command, and QuietEnd; so is every other signal, for whoever sends one is
    not at the keyboard. `service`: `endless`, and SIGTERM is its normal end and raises nothing.
    A second signal ends the process on the spot; children see that by their lifeline.
    """
    with contextlib.closing(command):  # if it is interrupted before it begins
        received = _run(settings, command)
    if received and not (service and received[0] is signal.SIGTERM):
        raise click.Abort if received[0] is signal.SIGINT and not (endless or service) else QuietEnd


def _run(settings: Settings, command: Coroutine[Any, Any, None]) -> list[signal.Signals]:
    """The signals that came, at most one."""
    import asyncio  # noqa: PLC0415 - --help must be quick

    from onionrelay.apps.log import configure_logging  # noqa: PLC0415

    configure_logging(settings.verbose, as_json=settings.json)
    received: list[signal.Signals] = []
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(command)

        def on_signal(which: signal.Signals) -> None:
            if received:
                os._exit(ExitCode.INTERRUPTED)
            received.append(which)
            task.cancel()

        for which in _SIGNALS:
            loop.add_signal_handler(which, on_signal, which)
        try:
            loop.run_until_complete(task)
        except (Exception, asyncio.CancelledError):
            if not received:  # what goes wrong while ending early is no news to whoever ended it
                raise
        finally:
            for which in _SIGNALS:
                loop.remove_signal_handler(which)
    return received


def lifeline_option(command: Decorated) -> Decorated:
    """Add the hidden --lifeline FD: the process ends when that pipe does. See onionrelay.node.lifeline."""

    def hold(_context: click.Context, _parameter: click.Parameter, fd: int | None) -> None:
        if fd is not None:
            from onionrelay.node.lifeline import hold_lifeline  # noqa: PLC0415 - few commands are children

            hold_lifeline(fd)

    return click.option("--lifeline", type=int, hidden=True, expose_value=False, is_eager=True, callback=hold)(command)
