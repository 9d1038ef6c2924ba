"""Reach records of other nodes, looked up and stored through circuits. specs/05-attach-and-reach.md.

Whoever is asked learns a blinded key and the middle of the circuit, not who asks and not for whom.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from onionrelay.base.errors import NetworkError, NodeNotFound, NoPath, ProtocolViolation
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import LOOKUPS_AT_ONCE
from onionrelay.base.seams import shuffle
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.placement import periods_to_ask, reach_keys, storers
from onionrelay.core.directory.reach import OpenedRecord, newest_record
from onionrelay.node.client import Client
from onionrelay.wire.directory import Answer, DhtAnswer, DhtGet, DhtPut, DhtReceipt, Question, StoreResult

log = logging.getLogger("onionrelay.records")

Place = tuple[RelayEntry, bytes]
"""A relay to ask, and the key to ask it for."""


@dataclass(slots=True)
class _Outcome:
    """What came of a search besides a record."""

    answered: int = 0
    failures: list[NetworkError] = field(default_factory=list)
    not_asked: list[NoPath] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def error(self) -> NetworkError:
        if not self.answered and (self.failures or self.not_asked):
            return [*self.failures, *self.not_asked][0]
        if self.refused:
            reasons = "; ".join(dict.fromkeys(self.refused))
            return NodeNotFound(f"no relay has a record of the node that holds: {reasons}")
        silent = f" ({len(self.failures)} more did not answer)" if self.failures else ""
        return NodeNotFound(
            f"none of the {self.answered} relays asked knows the node{silent}: is it running, and is the id right?"
        )


class Records:
    """The records that were found, for as long as they hold."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[NodeId, OpenedRecord] = {}

    async def find(self, node_id: NodeId, *, fresh: bool = False) -> OpenedRecord:
        """The newest valid reach record of a node, from memory unless it is old or `fresh` is asked for.

        Raises NodeNotFound when nobody holds one, CircuitFailed or NoPath when nobody could be asked.
        """
        now = self._client.driver.unix_now()
        self._known = {node: record for node, record in self._known.items() if record.expires > now}
        known = self._known.get(node_id)
        if known is not None and not fresh:
            return known
        record, outcome = await self._search(node_id, known)
        # A node may have attached to relays that are newer than our table.
        if (record is None or record.rejected) and await self._client.refresh_if_stale():
            again, outcome = await self._search(node_id, known)
            record = again or record
        if record is None:
            raise outcome.error()
        self._known[node_id] = record
        return record

    async def _search(self, node_id: NodeId, known: OpenedRecord | None) -> tuple[OpenedRecord | None, _Outcome]:
        now, outcome = self._client.driver.unix_now(), _Outcome()
        version = known.version if known else None
        for period in periods_to_ask(now):
            places = self._places(node_id, period)
            while places:
                values = await self._ask_some(places, outcome)
                record, refused = newest_record(
                    values, node_id, self._client.table, now, self._client.policy, known=version
                )
                outcome.refused += refused
                if record is not None:
                    return record, outcome
        return None, outcome

    def _places(self, node_id: NodeId, period: int) -> list[Place]:
        """The storers of a period, in random order."""
        now = self._client.driver.unix_now()
        keys = reach_keys(node_id, period)
        order = list(
            {entry.relay_id: (entry, key) for key in keys for entry in storers(key, self._client.table, now)}.values()
        )
        shuffle(self._client.rng, order)
        return order

    async def _ask_some(self, places: list[Place], outcome: _Outcome) -> list[bytes]:
        """What two of `places` hold, taken from the list. Two, because one may keep back the newest record."""
        values: list[bytes] = []
        asking = (self._ask_next(places, outcome) for _ in range(LOOKUPS_AT_ONCE))
        for result in await asyncio.gather(*asking, return_exceptions=True):
            match result:
                case None:
                    pass  # nobody was left
                case DhtAnswer():
                    values += result.values
                    outcome.answered += 1
                case NetworkError():
                    outcome.failures.append(result)
                case ProtocolViolation():
                    log.info("a relay gave no answer that can be read: %s", result)
                case BaseException():
                    raise result
        return values

    async def _ask_next(self, places: list[Place], outcome: _Outcome) -> Answer | None:
        """The answer of the next place that can be asked. Our guard cannot, nor can a storer that no path leads to."""
        while places:
            storer, key = places.pop()
            try:
                return await self._ask(storer, DhtGet(key))
            except NoPath as error:
                outcome.not_asked.append(error)
        return None

    async def put(self, key: bytes, record: bytes, storer: RelayEntry) -> StoreResult:
        """Hands a record to one of its storers. Raises NetworkError or ProtocolViolation."""
        receipt = await self._ask(storer, DhtPut(key, record))
        if not isinstance(receipt, DhtReceipt):
            raise ProtocolViolation("no receipt for a record")
        return receipt.result

    async def _ask(self, storer: RelayEntry, question: Question) -> Answer:
        circuit = await self._client.open_to_storer(storer)
        try:
            return await circuit.ask(question)
        finally:
            circuit.close()
