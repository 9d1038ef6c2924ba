"""Child processes that run onionrelay commands, tell what happens as JSON lines, and end with their parent."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onionrelay.base.errors import NetworkError, TimedOut
from onionrelay.base.limits import CHILD_EVENT_LINE, CHILD_READY, CHILD_STOP

Event = dict[str, Any]
LAST_WORDS = 2000  # how much of a dead child's standard error is shown


class ChildDied(NetworkError):
    """A child process ended that should be running; the message holds the last it said."""


class ChildProcess:
    """One running child. Its standard input is its lifeline: this process holds the other end and never writes."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, stderr: Path, on_event: Callable[[Event], None]
    ) -> None:
        """Use `start`."""
        self.name = name
        self._process = process
        self._stderr = stderr
        self._on_event = on_event
        self._first: dict[str, Event] = {}
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._reading = asyncio.create_task(self._read_events())

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], folder: Path, on_event: Callable[[Event], None] = lambda _: None
    ) -> "ChildProcess":
        """Start `python -m onionrelay COMMAND`, which must take --lifeline. Its standard error goes to `folder`."""
        program = [sys.executable, "-m", "onionrelay", *command, "--json", "--lifeline", "0"]
        return await cls.start_program(name, program, folder, on_event)

    @classmethod
    async def start_program(
        cls, name: str, program: Sequence[str], folder: Path, on_event: Callable[[Event], None] = lambda _: None
    ) -> "ChildProcess":
        """Start any program that prints JSON lines and ends when its standard input does."""
        stderr = folder / f"{name}.stderr"
        with stderr.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                limit=CHILD_EVENT_LINE,
                start_new_session=True,  # a Ctrl-C is for the parent alone, which then ends its children in order
            )
        return cls(name, process, stderr, on_event)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def event(self, name: str, *, seconds: float = CHILD_READY) -> Event:
        """The first event of this name, past or to come. Raises ChildDied or TimedOut."""
        if name not in self._first and not self._reading.done():
            awaited = self._awaited.setdefault(name, asyncio.get_running_loop().create_future())
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.shield(awaited)
            except TimeoutError:
                raise TimedOut(f"waiting for {self.name} to be {name}", seconds) from None
        if name not in self._first:
            code = await self._process.wait()
            raise ChildDied(f"{self.name} ended with code {code} before it was {name}{self._last_words()}")
        return self._first[name]

    async def wait(self) -> int:
        """Its exit code, once it has ended; minus the signal's number when one ended it."""
        return await self._process.wait()

    def signal(self, which: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(which)

    async def stop(self, *, grace: float = CHILD_STOP) -> None:
        """End it: SIGTERM, and after `grace` seconds, or at once when cancelled, SIGKILL. Returns when it is gone."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self.signal(signal.SIGKILL)
        await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _last_words(self) -> str:
        with self._stderr.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS))
            words = file.read().decode(errors="replace").strip()
        if "error" in self._first:
            words = f"{self._first['error'].get('message')}\n{words}".strip()
        return f": {words}" if words else ""

    async def _read_events(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it was opened as a pipe
        try:
            while line := await stdout.readline():
                self._take(line)
        finally:
            for awaited in self._awaited.values():
                if not awaited.done():
                    awaited.set_result(None)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            name = event["event"]
        except (ValueError, TypeError, KeyError):  # not everything a child prints has to be an event
            return
        self._first.setdefault(name, event)
        if (awaited := self._awaited.get(name)) is not None and not awaited.done():
            awaited.set_result(None)
        self._on_event(event)
