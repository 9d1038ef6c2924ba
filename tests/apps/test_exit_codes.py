import click
import pytest

from onionrelay.apps.exit_codes import MEANING, ExitCode, exit_code
from onionrelay.base import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.InvalidId("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.HomeError("x"), 3),
        (errors.NoNetwork("x"), 3),
        (errors.NodeNotFound("x"), 4),
        (errors.NoPath("x"), 5),
        (errors.CircuitFailed("x"), 6),
        (errors.CircuitLost("x"), 6),
        (errors.StreamRefused("x"), 7),
        (errors.TimedOut("x", 1), 8),
        (click.Abort(), 130),
        (errors.ProtocolViolation("x"), 1),
        (errors.NetworkError("x"), 6),
        (errors.LinkRefused("x"), 6),
        (errors.StreamReset("x"), 6),
        (ValueError("x"), 1),
        (TimeoutError("x"), 1),
    ],
)
def test_every_error_has_its_code(error, code):
    assert exit_code(error) == code


def test_every_code_is_explained():
    assert set(MEANING) == set(ExitCode)
