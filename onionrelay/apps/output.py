"""What commands print: events, one JSON object a line with --json, else one readable line each."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, TextIO


class Output:
    """Prints events to standard output, or to standard error for a command whose standard output carries data."""

    def __init__(self, *, as_json: bool, to_stderr: bool = False) -> None:
        self.as_json = as_json
        self._to_stderr = to_stderr

    @property
    def stream(self) -> TextIO | None:
        """Where this output goes; looked up at each use, so that a caller may redirect it."""
        return sys.stderr if self._to_stderr else sys.stdout

    def event(self, name: str, text: str | None = None, /, **fields: object) -> None:
        """Print event `name` with `fields` as JSON, or `text` (None: nothing) for a person."""
        if self.as_json:
            self._print(json.dumps({"event": name, **fields}))
        elif text is not None:
            self._print(text)

    def pass_on(self, event: Mapping[str, Any]) -> None:
        """Print an event that a node tells about; a person sees those that are meant for people ("text")."""
        if self.as_json:
            self._print(json.dumps(event))
        elif "text" in event:
            self._print(str(event["text"]))

    def error(self, kind: str, message: str, exit_code: int) -> None:
        """Print the one sentence or event that a failing command ends with."""
        if self.as_json:
            self.event("error", error=kind, message=message, exit_code=exit_code)
        else:
            tell(message)

    def notice(self, text: str) -> None:
        """Print what a person should know besides: to standard error always, for events are about what was asked."""
        tell(json.dumps({"event": "notice", "text": text}) if self.as_json else text, prefix=not self.as_json)

    def _print(self, line: str) -> None:
        if self.stream is None:  # it was closed when the process began
            return
        try:
            print(line, file=self.stream, flush=True)
        except BrokenPipeError:
            # Whoever read our events has left. The events come from callbacks all over the node, where an exception
            # would be somebody else's problem; so end as if asked to, and let what is still printed go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            os.kill(os.getpid(), signal.SIGTERM)


def tell(line: str, *, prefix: bool = True) -> None:
    """Print a line to standard error, in the program's name, unless that is closed or nobody reads it any more."""
    if sys.stderr is not None:  # print would take standard output instead
        with contextlib.suppress(BrokenPipeError):
            print(f"onionrelay: {line}" if prefix else line, file=sys.stderr, flush=True)
