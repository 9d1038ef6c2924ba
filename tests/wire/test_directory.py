import pytest

from onionrelay.base.errors import MalformedMessage
from onionrelay.base.limits import MAX_CONTROL_MESSAGE, MESSAGE_LIMIT
from onionrelay.wire.cell import Cmd
from onionrelay.wire.directory import (
    CARRIER,
    DhtAnswer,
    DirData,
    DirGet,
    StoreResult,
    from_control,
    from_relay,
    room_left,
    to_control,
    to_relay,
)
from onionrelay.wire.relay import RelayCmd
from tests.wire.samples import SAMPLES

MESSAGES = [value for value in SAMPLES if type(value) in CARRIER]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_both_carriers(message):
    cmd, kind, body = to_control(message, 0xFFFF_FFFF)
    assert (cmd, kind) == (message.FAMILY, message.KIND)
    assert from_control(cmd, kind, body) == (0xFFFF_FFFF, message)
    relay_cmd, data = to_relay(message)
    assert from_relay(relay_cmd, data) == message
    assert body[4:] == data[1:] == message.encode()
    for other in {RelayCmd.DIR_GET, RelayCmd.DIR_DATA, RelayCmd.DHT_QUERY, RelayCmd.DHT_ANSWER} - {relay_cmd}:
        with pytest.raises(MalformedMessage):
            assert type(from_relay(other, data)) is not type(message)
            raise MalformedMessage("another message of the same kind number")


def test_all_messages_were_tried():
    assert {type(message) for message in MESSAGES} == set(CARRIER)


@pytest.mark.parametrize(("cmd", "kind"), [(Cmd.DIR, 0), (Cmd.DIR, 5), (Cmd.DHT, 65_535), (Cmd.ATTACH, 1)])
def test_unknown_kinds(cmd, kind):
    with pytest.raises(MalformedMessage):
        from_control(cmd, kind, to_control(DirGet(0), 1)[2])


def test_an_answer_that_fills_its_carriers():
    items = [bytes(4000)] * 16
    room = room_left(items)
    full = DirData(256, (*items, bytes(room)))
    assert len(to_control(full, 1)[2]) == MAX_CONTROL_MESSAGE
    assert len(to_relay(full)[1]) <= MESSAGE_LIMIT
    assert len(to_control(DhtAnswer((*items, bytes(room))), 1)[2]) <= MAX_CONTROL_MESSAGE
    assert from_control(*to_control(full, 1)) == (1, full)


def test_result_codes_are_fixed():
    assert [result.name for result in StoreResult] == ["STORED", "STALE", "INVALID", "FULL", "BUSY", "UNREACHABLE"]
    assert [result.value for result in StoreResult] == list(range(6))
