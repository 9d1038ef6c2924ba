import pytest

from onionrelay.base.errors import MalformedMessage, ProtocolViolation
from onionrelay.core.directory.placement import reach_keys
from onionrelay.core.directory.reach_store import ReachStore
from onionrelay.core.directory.service import DirectoryService
from onionrelay.core.directory.table import RelayTable
from onionrelay.wire.directory import (
    DhtAnswer,
    DhtGet,
    DhtPut,
    DhtReceipt,
    DirData,
    DirGet,
    DirPut,
    DirReceipt,
    StoreResult,
    from_relay,
    to_relay,
)
from onionrelay.wire.relay import RelayCmd
from tests.core.reaching import PERIOD, Node
from tests.core.relays import NOW, TESTNET, Relay, local_relays, table_of

RELAYS = local_relays(5)
NODE = Node()
KEY = reach_keys(NODE.node_id, PERIOD)[0]
RECORD = NODE.record(NODE.final(RELAYS[0]))


def service(store=True):
    return DirectoryService(table_of(*RELAYS), ReachStore(TESTNET, bytes(32)) if store else None)


def test_everybody_gets_the_whole_table():
    served = service()
    page = served.answer(DirGet(0), NOW)
    assert isinstance(page, DirData)
    copy = RelayTable(TESTNET)
    assert all(copy.add(raw, NOW).changed for raw in page.descriptors)
    assert [entry.raw for entry in copy] == [entry.raw for entry in served.table]


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        (Relay("new", "127.0.0.1:1").describe(), StoreResult.STORED),
        (RELAYS[0].describe(seq=2), StoreResult.STORED),
        (RELAYS[0].describe(), StoreResult.STALE),
        (RELAYS[0].describe(bandwidth=3), StoreResult.INVALID),
        (b"junk", StoreResult.INVALID),
    ],
)
def test_a_descriptor_is_taken_or_not(raw, result):
    assert service().answer(DirPut(raw), NOW) == DirReceipt(result)


def test_a_record_is_put_and_got():
    served = service()
    assert served.answer(DhtGet(KEY), NOW) == DhtAnswer(())
    assert served.answer(DhtPut(KEY, RECORD), NOW) == DhtReceipt(StoreResult.STORED)
    assert served.answer(DhtGet(KEY), NOW) == DhtAnswer((RECORD,))


def test_a_relay_without_a_store_says_so():
    served = service(store=False)
    assert served.answer(DhtPut(KEY, RECORD), NOW) == DhtReceipt(StoreResult.FULL)
    assert served.answer(DhtGet(KEY), NOW) == DhtAnswer(())


def test_questions_come_through_circuits():
    served = service()
    cmd, receipt = served.answer_relay(*to_relay(DhtPut(KEY, RECORD)), NOW)
    assert (cmd, from_relay(cmd, receipt)) == (RelayCmd.DHT_ANSWER, DhtReceipt(StoreResult.STORED))
    assert from_relay(*served.answer_relay(*to_relay(DhtGet(KEY)), NOW)) == DhtAnswer((RECORD,))
    assert from_relay(*served.answer_relay(*to_relay(DirGet(0)), NOW)) == served.answer(DirGet(0), NOW)


def test_descriptors_do_not():
    served = service()
    with pytest.raises(ProtocolViolation, match="through a circuit"):
        served.answer_relay(*to_relay(DirPut(Relay("new", "127.0.0.1:1").describe())), NOW)
    assert len(served.table) == len(RELAYS)


@pytest.mark.parametrize(
    "answer", [DirData(256, ()), DirReceipt(StoreResult.STORED), DhtAnswer(()), DhtReceipt(StoreResult.BUSY)]
)
def test_an_answer_is_no_question(answer):
    with pytest.raises(MalformedMessage):
        service().answer_relay(*to_relay(answer), NOW)


@pytest.mark.parametrize("data", [b"", b"\1", b"\11" + bytes(32), b"\1" + bytes(33)])
def test_bytes_that_are_no_question_are_a_typed_error(data):
    with pytest.raises(MalformedMessage):
        service().answer_relay(RelayCmd.DHT_QUERY, data, NOW)
