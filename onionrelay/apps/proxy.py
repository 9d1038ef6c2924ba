"""The local proxy: each program's connection from its first byte to its last, over SOCKS5 or HTTP CONNECT.

Only names of nodes lead anywhere. Nothing here resolves a name or dials an address, so nothing can leak that way.
"""

import asyncio
import contextlib

from onionrelay.apps.negotiation import Negotiation
from onionrelay.apps.passages import Pair, Passage, Passages, Reports
from onionrelay.apps.proxy_request import Refusal, Request
from onionrelay.apps.targets import DOMAINS, node_of
from onionrelay.base.errors import (
    InvalidId,
    NetworkError,
    NodeNotFound,
    NoNetwork,
    NoPath,
    OnionRelayError,
    StreamRefused,
    TimedOut,
)
from onionrelay.base.limits import PROXY_CHUNK, PROXY_LINGER, PROXY_NEGOTIATION

FOREIGN = f"only names that end in {' or '.join(DOMAINS)} are reached through this proxy"
NO_CIRCUIT = "there is no circuit to the node; why not is in the proxy's own output"  # it would name the guard

_BY_ERROR: tuple[tuple[type[OnionRelayError], Refusal], ...] = (
    (NodeNotFound, Refusal.NOT_FOUND),
    (NoPath, Refusal.NO_NETWORK),
    (NoNetwork, Refusal.NO_NETWORK),
    (StreamRefused, Refusal.STREAM_REFUSED),
    (TimedOut, Refusal.TIMED_OUT),
    (NetworkError, Refusal.CIRCUIT_FAILED),
)


def refusal(error: OnionRelayError) -> Refusal:
    """What a program is told about `error`."""
    return next((why for kind, why in _BY_ERROR if isinstance(error, kind)), Refusal.CIRCUIT_FAILED)


class Proxy:
    """Serves programs; `serve` is what a LocalListener wants."""

    def __init__(self, passages: Passages, reports: Reports) -> None:
        self._passages = passages
        self._reports = reports

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One program's connection. What it asks for in vain is answered, told about, and over."""
        with contextlib.suppress(OSError):  # it hung up while it was being answered
            negotiation = await self._negotiate((reader, writer))
            if negotiation is None or negotiation.request is None:
                return
            face = negotiation.request.face
            outcome = await self._reach(negotiation.request)
            if isinstance(outcome, Passage):
                writer.write(face.granted())
                await outcome.carry((reader, writer), negotiation.early)
            else:
                writer.write(face.refused(*outcome))
                await _part((reader, writer))

    async def _negotiate(self, program: Pair) -> Negotiation | None:
        """None when it left, or said nothing for too long."""
        reader, writer = program
        negotiation = Negotiation()
        try:
            async with asyncio.timeout(PROXY_NEGOTIATION):
                while not negotiation.is_over:
                    data = await reader.read(PROXY_CHUNK)
                    if not data:
                        return None
                    writer.write(negotiation.receive(data))
                    await writer.drain()
        except TimeoutError:
            self._reports.refused(f"it did not say within {PROXY_NEGOTIATION:g} s where to")
            return None
        if negotiation.refused is not None:
            self._reports.refused(negotiation.refused)
            await _part(program)
        return negotiation

    async def _reach(self, request: Request) -> Passage | tuple[Refusal, str]:
        face, isolated = request.face.name, request.credentials is not None
        try:
            target = node_of(request.host)
        except InvalidId as error:
            self._reports.refused(str(error), face=face)
            return Refusal.NO_SUCH_NAME, str(error)
        if target is None:
            self._reports.refused(FOREIGN, face=face)  # without the name: where else people go is not ours to keep
            return Refusal.FOREIGN, FOREIGN
        try:
            return await self._passages.open(
                target, request.port, isolation=request.credentials, face=face, isolated=isolated
            )
        except OnionRelayError as error:
            why = refusal(error)
            return why, NO_CIRCUIT if why is Refusal.CIRCUIT_FAILED else str(error)


async def _part(program: Pair) -> None:
    """Lets the program read the answer: closing while it still sends would take the answer back."""
    reader, writer = program
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PROXY_LINGER):
            while await reader.read(PROXY_CHUNK):
                pass
