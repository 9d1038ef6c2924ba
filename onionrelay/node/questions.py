"""Circuits that end at a relay: questions about records and relays come over them."""

from onionrelay.base.errors import DestroyReason, ProtocolViolation
from onionrelay.base.limits import PUTS_PER_CIRCUIT
from onionrelay.core.circuit.hop import Hop
from onionrelay.core.directory.service import DirectoryService
from onionrelay.node.driver import CircuitListener, Driver
from onionrelay.wire.directory import DhtGet, DhtPut, DirGet, from_relay, to_relay


class Questions(CircuitListener):
    """One such circuit. Who asks is not known, so it is no descriptor to be taken, and a few records only."""

    def __init__(self, driver: Driver, directory: DirectoryService, hop: Hop) -> None:
        self._driver = driver
        self._directory = directory
        self._hop = hop
        self._puts = 0

    def on_message(self, hop: int, cmd: int, rid: int, data: bytes) -> None:  # noqa: ARG002
        """See CircuitListener."""
        try:
            question = from_relay(cmd, data)
        except ProtocolViolation:
            question = None
        self._puts += isinstance(question, DhtPut)
        if isinstance(question, DirGet | DhtGet | DhtPut) and self._puts <= PUTS_PER_CIRCUIT:
            answer, reply = to_relay(self._directory.answer(question, self._driver.unix_now()))
            self._hop.send(answer, reply, rid=rid)
            self._driver.settle()
        else:
            self._driver.close_circuit(self._hop, DestroyReason.PROTOCOL)

    def on_room(self) -> None:
        """See CircuitListener."""

    def on_ended(self, why: str) -> None:
        """See CircuitListener."""
