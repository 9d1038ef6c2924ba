"""Connections of local programs carried through circuits: opened, spliced, ended, and told about, each on its own."""

import asyncio
import itertools
from collections.abc import Hashable
from weakref import WeakKeyDictionary

from onionrelay.apps.local_listener import close, reset
from onionrelay.apps.output import Output, tell
from onionrelay.base.errors import OnionRelayError, TimedOut
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import LOCAL_CONNECTIONS, LOCAL_OPEN
from onionrelay.node.api import Node
from onionrelay.node.circuit import Circuit
from onionrelay.node.splice import splice
from onionrelay.node.stream_transport import StreamTransport

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reports:
    """What a person or a script is told about single connections: events with --json, else one line for what fails."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def event(self, name: str, **fields: object) -> None:
        """For scripts only."""
        self._output.event(name, None, **fields)

    def failed(self, what: str, error: Exception, **fields: object) -> None:
        """One connection is over; the others go on."""
        self._fail("failed", f"{what}: {error}", error=type(error).__name__, message=str(error), **fields)

    def refused(self, why: str, **fields: object) -> None:
        """One program asks for what it cannot have."""
        self._fail("refused", f"a connection is refused: {why}", message=why, **fields)

    def crowded(self) -> None:
        """One connection too many."""
        self.refused(f"{LOCAL_CONNECTIONS} are open already")

    def _fail(self, name: str, line: str, **fields: object) -> None:
        if self._output.as_json:
            self._output.event(name, **fields)
        else:
            tell(" ".join(line.split()))


class Passages:
    """Opens passages through one node, and numbers them and their circuits, so that a script can tell them apart."""

    def __init__(self, node: Node, reports: Reports) -> None:
        self._node = node
        self._reports = reports
        self._numbers = itertools.count(1)
        self._circuit_numbers = itertools.count(1)
        self._circuits: WeakKeyDictionary[Circuit, int] = WeakKeyDictionary()

    async def open(self, target: NodeId, port: int, *, isolation: Hashable = None, **fields: object) -> "Passage":
        """A way to a port of a node; `fields` are told with it.

        Raises what Node.connect raises, or TimedOut, after having told about it.
        """
        fields = {"connection": next(self._numbers), "target": str(target), "port": port, **fields}
        try:
            remote = await self._open(target, port, isolation)
        except OnionRelayError as error:
            self._reports.failed(_name(target, port), error, **fields)
            raise
        passage = Passage(remote, _name(target, port), fields["connection"], self._reports)
        self._reports.event("opened", **fields, circuit=self._number(passage.circuit))
        return passage

    async def _open(self, target: NodeId, port: int, isolation: Hashable) -> Pair:
        try:
            async with asyncio.timeout(LOCAL_OPEN) as limit:
                return await self._node.open_connection(target, port, isolation=isolation)
        except TimeoutError:
            if limit.expired():
                raise TimedOut("the way there", LOCAL_OPEN) from None
            raise

    def _number(self, circuit: Circuit) -> int:
        if circuit not in self._circuits:
            self._circuits[circuit] = next(self._circuit_numbers)
        return self._circuits[circuit]


class Passage:
    """A stream that waits for a program's connection to be joined to it: `carry` it, or `abort`."""

    def __init__(self, remote: Pair, name: str, number: object, reports: Reports) -> None:
        self._reader, self._writer = remote
        self._name = name
        self._number = number
        self._reports = reports

    @property
    def circuit(self) -> Circuit:
        """The circuit it runs over."""
        circuit: Circuit = self._writer.get_extra_info("circuit")
        return circuit

    def abort(self) -> None:
        """Gives it up; the target sees a reset."""
        self._writer.transport.abort()

    async def carry(self, local: Pair, early: bytes = b"") -> None:
        """Sends `early`, then passes bytes both ways until both directions have ended, and closes both ends.

        When one end breaks off, so does the other, and what broke on the way there is told about. A program that hangs
        up is its own business. Raises neither NetworkError nor OSError.
        """
        out, back = _Counted(local[0], len(early)), _Counted(self._reader)
        try:
            if early:
                self._writer.write(early)
            await splice((out, local[1]), (back, self._writer))
            await close(local[1])
            self._writer.close()
            await self._writer.wait_closed()  # an error now means that the rest did not get there
        except OSError as error:  # a CircuitLost is one, too
            reset(local[1])
            self._tell(error)
        finally:
            self.abort()  # nothing, if all went well
            self._reports.event("closed", connection=self._number, sent=out.count, received=back.count)

    def _tell(self, error: OSError) -> None:
        transport = self._writer.transport
        lost = transport.lost if isinstance(transport, StreamTransport) else None
        if lost is not None or isinstance(error, OnionRelayError):
            self._reports.failed(self._name, lost or error, connection=self._number)


class _Counted:
    """A reader that counts."""

    def __init__(self, reader: asyncio.StreamReader, begun: int = 0) -> None:
        self.count = begun
        self._reader = reader

    async def read(self, n: int = -1) -> bytes:
        data = await self._reader.read(n)
        self.count += len(data)
        return data


def _name(target: NodeId, port: int) -> str:
    return f"{str(target)[:12]}...:{port}"
