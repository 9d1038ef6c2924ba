"""What click's own types let through: a file without a name, and seconds that are no number."""

import math
from typing import Any

import click


class NamedPath(click.Path):
    """A path; the empty one, which an unset variable in a script leaves, is not the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises click.BadParameter."""
        return super().convert(value, param, ctx) if value != "" else self.fail("it is empty", param, ctx)


class Seconds(click.FloatRange):
    """A time; nan is within every range, and nobody waits for inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises click.BadParameter."""
        seconds = super().convert(value, param, ctx)
        return seconds if math.isfinite(seconds) else self.fail(f"{value!r} is no number of seconds", param, ctx)
