import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.limits import LARGE_DATA, SMALL_DATA
from onionrelay.wire.relay import (
    LONGEST_MESSAGE,
    MessageAssembler,
    RelayCmd,
    RelayPayload,
    pack_payload,
    parse_payload,
    split_message,
)


def assemble(payloads):
    assembler = MessageAssembler()
    return [assembler.feed(parse_payload(payload)) for payload in payloads]


def test_command_codes_are_fixed():
    codes = {name: code for name, code in vars(RelayCmd).items() if name.isupper()}
    assert sorted(codes.values()) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    assert (codes["SESS"], codes["EXTEND"], codes["DHT_QUERY"], codes["ECHOED"]) == (1, 2, 7, 19)


@pytest.mark.parametrize("room", [SMALL_DATA, LARGE_DATA])
def test_a_payload_of_either_size(room):
    for size in (0, 1, room):
        raw = pack_payload(RelayCmd.SESS, 0, bytes([7]) * size, room=room)
        assert len(raw) == 8 + room
        assert parse_payload(memoryview(raw)) == RelayPayload(RelayCmd.SESS, more=False, rid=0, data=bytes([7]) * size)
    with pytest.raises(UsageError):
        pack_payload(RelayCmd.SESS, 0, bytes(room + 1), room=room)


def test_only_a_full_payload_says_more():
    assert parse_payload(pack_payload(RelayCmd.EXTEND, 1, bytes(SMALL_DATA), more=True)).more
    with pytest.raises(UsageError):
        pack_payload(RelayCmd.EXTEND, 1, bytes(SMALL_DATA - 1), more=True)


@pytest.mark.parametrize("cmd", LONGEST_MESSAGE)
def test_each_command_has_its_longest_message(cmd):
    longest = LONGEST_MESSAGE[cmd]
    if cmd == RelayCmd.SESS:
        packet = pack_payload(cmd, 0, bytes(longest), room=LARGE_DATA)
        assert assemble([packet])[-1].data == bytes(longest)
        return
    payloads = split_message(cmd, 9, bytes(longest))
    assert len(payloads) == max(1, -(-longest // SMALL_DATA))
    *early, last = assemble(payloads)
    assert early == [None] * len(early)
    assert last == RelayPayload(cmd, more=False, rid=9, data=bytes(longest))
    with pytest.raises(UsageError):
        split_message(cmd, 9, bytes(longest + 1))
    full, rest = divmod(longest + 1, SMALL_DATA)
    parts = [pack_payload(cmd, 9, bytes(SMALL_DATA), more=True)] * full + [pack_payload(cmd, 9, bytes(rest))]
    with pytest.raises(MalformedMessage):
        assemble(parts)


@pytest.mark.parametrize("cmd", sorted(set(range(256)) - set(LONGEST_MESSAGE)))
def test_other_commands_do_not_exist(cmd):
    with pytest.raises(MalformedMessage, match=f"unknown relay command {cmd}"):
        assemble([pack_payload(cmd, 0, b"")])


def test_messages_follow_one_another():
    first, second = split_message(RelayCmd.DHT_ANSWER, 1, b"a" * 2000), split_message(RelayCmd.ECHOED, 2, b"12345678")
    assert [message.rid for message in assemble([*first, *second, *first]) if message] == [1, 2, 1]


@pytest.mark.parametrize(("cmd", "rid"), [(RelayCmd.DHT_ANSWER, 2), (RelayCmd.DIR_DATA, 1), (RelayCmd.ECHOED, 1)])
def test_messages_are_not_interleaved(cmd, rid):
    first = split_message(RelayCmd.DHT_ANSWER, 1, bytes(2000))
    with pytest.raises(MalformedMessage, match="inside another"):
        assemble([first[0], pack_payload(cmd, rid, b"")])


def test_a_session_packet_is_one_payload():
    for payload in (pack_payload(RelayCmd.SESS, 1, b""), pack_payload(RelayCmd.SESS, 0, bytes(SMALL_DATA), more=True)):
        with pytest.raises(MalformedMessage, match="SESS"):
            assemble([payload])


@pytest.mark.parametrize("size", [0, 1087, 1089, 1104, 16_359, 16_376])
def test_a_payload_has_one_of_two_sizes(size):
    with pytest.raises(MalformedMessage):
        parse_payload(bytes(size))
