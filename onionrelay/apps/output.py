"""What commands print: events, one JSON object a line with --json, else one readable line each."""

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
    def stream(self) -> TextIO:
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
            print(f"onionrelay: {message}", file=sys.stderr, flush=True)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self.stream, flush=True)
        except BrokenPipeError:
            # Whoever read our events has left. The events come from callbacks all over the node, where an exception
            # would be somebody else's problem; so end as if asked to, and let what is still printed go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            os.kill(os.getpid(), signal.SIGTERM)
