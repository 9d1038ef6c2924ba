import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.wire.build import BuildRecord, BuildStatus, Extend, ReplyBody, Role
from tests.wire.samples import ENDPOINT, HANDLE, PAD, RELAY

FORWARD = BuildRecord(role=Role.FORWARD, window=1, lifetime=600, next_id=RELAY, endpoint=ENDPOINT)
TICKET = bytes(range(16))


def test_the_padding_is_no_part_of_a_record():
    one, other = FORWARD.encode(PAD), FORWARD.encode(bytes(range(44)))
    assert one[108:] == PAD
    assert one[:108] == other[:108]
    assert BuildRecord.decode(one) == BuildRecord.decode(other) == FORWARD


def test_extensions_take_the_place_of_padding():
    record = BuildRecord(role=Role.ENDPOINT, window=1, lifetime=600, extensions=((1, bytes(40)),))
    assert BuildRecord.decode(record.encode(b"")) == record
    assert len(record.encode(PAD)) == 152
    with pytest.raises(UsageError):
        BuildRecord(role=Role.ENDPOINT, window=1, lifetime=600, extensions=((1, bytes(41)),)).encode(PAD)


def test_too_little_padding_is_noticed():
    with pytest.raises(UsageError):
        FORWARD.encode(bytes(43))


def test_lifetimes_are_tens_of_seconds():
    assert FORWARD.encode(PAD)[65:67] == (60).to_bytes(2)
    with pytest.raises(UsageError, match="605 s is not a multiple of 10 s"):
        BuildRecord(role=Role.ENDPOINT, window=1, lifetime=605).encode(PAD)
    with pytest.raises(OverflowError):
        BuildRecord(role=Role.ENDPOINT, window=1, lifetime=655_360).encode(PAD)


def test_the_role_decides_what_kind_of_key_comes_next():
    assert BuildRecord.decode(FORWARD.encode(PAD)).next_id == RELAY
    handle = BuildRecord(role=Role.HANDLE, window=1, lifetime=0, next_id=HANDLE, ticket=TICKET)
    assert BuildRecord.decode(handle.encode(PAD)).next_id == HANDLE
    assert BuildRecord.decode(BuildRecord(role=Role.ENDPOINT, window=1, lifetime=0).encode(PAD)).next_id is None


def test_a_ticket_is_not_shown():
    shown = repr(BuildRecord(role=Role.HANDLE, window=1, lifetime=0, next_id=HANDLE, ticket=TICKET))
    assert repr(TICKET) not in shown
    assert "ticket" not in shown


def test_status_codes_are_fixed():
    names = (
        "OK CLOCK OVERLOADED POW_NEEDED BAD_RECORD NEXT_UNREACHABLE NEXT_ID_MISMATCH NEXT_SILENT NO_SUCH_HANDLE "
        "TARGET_REFUSED TICKET POLICY LIFETIME NEXT_REFUSED"
    )
    assert " ".join(status.name for status in BuildStatus) == names
    assert [status.value for status in BuildStatus] == list(range(14))


def test_a_reply_has_room_for_101_bytes():
    assert len(ReplyBody(BuildStatus.OK, 0, bytes(101)).encode()) == 104
    with pytest.raises(UsageError):
        ReplyBody(BuildStatus.OK, 0, bytes(102)).encode()


def test_the_status_is_the_first_byte_of_a_reply():
    for status in BuildStatus:
        assert ReplyBody(status).encode()[0] == status


def test_extend_is_as_long_as_it_says():
    assert len(Extend(RELAY, ENDPOINT, bytes(7728)).encode()) == Extend.SIZE == 7785
    with pytest.raises(MalformedMessage):
        Extend.decode(bytes(7785))
