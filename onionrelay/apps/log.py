"""Where the logs go: standard error, warnings only unless -v asks for more.

The library itself only hands its messages to `logging`, under "onionrelay"; a program that embeds it decides.
"""

import logging
import sys

import msgspec

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _JsonLines(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(verbose: int, *, as_json: bool) -> None:
    """Show the log from the level that `verbose` -v's ask for, as lines or as JSON."""
    level = _LEVELS[min(verbose, len(_LEVELS) - 1)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
