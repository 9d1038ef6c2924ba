"""Answers questions about relays and records (specs/07-directory-and-paths.md, "Messages").

A question says nothing about who asks, and the answer depends on the question alone.
"""

from typing import assert_never

from onionrelay.base.errors import MalformedMessage, ProtocolViolation
from onionrelay.core.directory.reach_store import ReachStore
from onionrelay.core.directory.table import Outcome, RelayTable
from onionrelay.wire.directory import (
    Answer,
    DhtAnswer,
    DhtGet,
    DhtPut,
    DhtReceipt,
    DirGet,
    DirPut,
    DirReceipt,
    Question,
    StoreResult,
    from_relay,
    to_relay,
)

RESULTS = {
    Outcome.NEW: StoreResult.STORED,
    Outcome.NEWER: StoreResult.STORED,
    Outcome.OLD: StoreResult.STALE,
    Outcome.FULL: StoreResult.FULL,
    Outcome.REFUSED: StoreResult.INVALID,
}


class DirectoryService:
    """One relay's directory. `store` is None at a relay that keeps no records."""

    def __init__(self, table: RelayTable, store: ReachStore | None) -> None:
        self.table = table
        self.store = store

    def answer(self, question: Question, unix_now: int) -> Answer:
        """The answer to one question."""
        match question:
            case DirGet(first_bucket):
                return self.table.page(first_bucket)
            case DirPut(descriptor):
                return DirReceipt(RESULTS[self.table.add(descriptor, unix_now).outcome])
            case DhtGet(key):
                return DhtAnswer(self.store.get(key, unix_now) if self.store is not None else ())
            case DhtPut(key, record):
                if self.store is None:
                    return DhtReceipt(StoreResult.FULL)
                return DhtReceipt(self.store.put(key, record, unix_now))
            case _:
                assert_never(question)

    def answer_relay(self, cmd: int, data: bytes, unix_now: int) -> tuple[int, bytes]:
        """(command, data) to send back for a relay message DIR_GET or DHT_QUERY.

        Raises MalformedMessage, and ProtocolViolation for a descriptor: those are taken from relays over their links,
        where they can be slowed down.
        """
        question = _question(from_relay(cmd, data))
        if isinstance(question, DirPut):
            raise ProtocolViolation("a descriptor offered through a circuit")
        return to_relay(self.answer(question, unix_now))


def _question(message: Question | Answer) -> Question:
    if isinstance(message, DirGet | DirPut | DhtGet | DhtPut):
        return message
    raise MalformedMessage("an answer where a question belongs")
