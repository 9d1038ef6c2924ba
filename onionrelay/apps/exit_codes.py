"""The exit codes of the command line, and which error ends with which: the one table.

They are part of the interface: scripts branch on them, so a code never changes its meaning.
"""

from enum import IntEnum

import click

from onionrelay.base.errors import (
    CircuitFailed,
    CircuitLost,
    HomeError,
    NetworkError,
    NodeNotFound,
    NoNetwork,
    NoPath,
    StreamRefused,
    TimedOut,
    UsageError,
)


class ExitCode(IntEnum):
    """What a command ends with."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NO_NETWORK = 3
    NODE_NOT_FOUND = 4
    NO_PATH = 5
    CIRCUIT_FAILED = 6
    REFUSED = 7
    TIMED_OUT = 8
    INTERRUPTED = 130


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done as asked",
    ExitCode.UNEXPECTED: "an error nobody foresaw (-v shows where)",
    ExitCode.USAGE: "a wrong option, id, invite, address or file",
    ExitCode.NO_NETWORK: "no network file or none of its seeds answers, or the home cannot be used",
    ExitCode.NODE_NOT_FOUND: "no relay knows the node: it is not listening, or the id is another's",
    ExitCode.NO_PATH: "no path through the relays there are, or anonymity below the minimum",
    ExitCode.CIRCUIT_FAILED: "a circuit could not be built, or was lost",
    ExitCode.REFUSED: "the node was reached and has no such service",
    ExitCode.TIMED_OUT: "something took too long",
    ExitCode.INTERRUPTED: "interrupted",
}

_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (NoNetwork, ExitCode.NO_NETWORK),
    (HomeError, ExitCode.NO_NETWORK),
    (NodeNotFound, ExitCode.NODE_NOT_FOUND),
    (NoPath, ExitCode.NO_PATH),
    (CircuitFailed, ExitCode.CIRCUIT_FAILED),
    (CircuitLost, ExitCode.CIRCUIT_FAILED),
    (StreamRefused, ExitCode.REFUSED),
    (TimedOut, ExitCode.TIMED_OUT),
    (NetworkError, ExitCode.CIRCUIT_FAILED),  # a link refused, a clock that is wrong: no circuit comes of it
    (click.Abort, ExitCode.INTERRUPTED),  # also what click makes of a KeyboardInterrupt
)


def exit_code(error: BaseException) -> ExitCode:
    """The code that `error` ends a command with; UNEXPECTED for whatever the table does not name."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.UNEXPECTED)
