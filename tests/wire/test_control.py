import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.limits import MAX_CONTROL_MESSAGE, SMALL_CELL
from onionrelay.wire import cell
from onionrelay.wire.cell import Cmd
from onionrelay.wire.control import Assembler, ControlMessage, control_limit, fragment


def bodies(cells):
    return [memoryview(cells)[at + 8 : at + SMALL_CELL] for at in range(0, len(cells), SMALL_CELL)]


@pytest.mark.parametrize(("size", "cells"), [(0, 1), (1098, 1), (1099, 2), (2202, 2), (2203, 3), (65_536, 60)])
def test_how_many_cells_a_message_takes(size, cells):
    raw = fragment(Cmd.DHT, 7, bytes(size))
    assert len(raw) == cells * SMALL_CELL
    for at in range(0, len(raw), SMALL_CELL):
        assert cell.HEADER.unpack_from(raw, at) == (0, Cmd.DHT, 0, 0)


def test_limits():
    assert control_limit(Cmd.HELLO) == control_limit(Cmd.AUTH) == 4096
    assert control_limit(Cmd.ATTACH) == control_limit(Cmd.DIR) == control_limit(Cmd.REACH) == 65_536
    fragment(Cmd.AUTH, 1, bytes(4096))
    for cmd, size in ((Cmd.AUTH, 4097), (Cmd.DIR, 65_537)):
        with pytest.raises(UsageError):
            fragment(cmd, 1, bytes(size))


def test_messages_follow_one_another():
    assembler = Assembler(MAX_CONTROL_MESSAGE)
    for kind, body in ((1, b""), (2, bytes(range(256)) * 20), (1, b"x" * 1098), (3, b"last")):
        *early, last = bodies(fragment(Cmd.DIR, kind, body))
        assert [assembler.feed(part) for part in early] == [None] * len(early)
        assert assembler.feed(last) == ControlMessage(kind, body)


def test_an_announcement_beyond_the_limit_is_refused_on_its_first_cell():
    long = fragment(Cmd.DIR, 1, bytes(5000))
    Assembler(5000).feed(bodies(long)[0])
    with pytest.raises(MalformedMessage, match="5000 bytes announced, at most 4999"):
        Assembler(4999).feed(bodies(long)[0])


def test_an_assembler_keeps_its_own_copy():
    cells = bytearray(fragment(Cmd.DIR, 1, b"a" * 1098 + b"b"))
    assembler = Assembler(MAX_CONTROL_MESSAGE)
    first, second = bodies(cells)
    assembler.feed(first)
    cells[8:SMALL_CELL] = bytes(SMALL_CELL - 8)
    assert assembler.feed(second) == ControlMessage(1, b"a" * 1098 + b"b")


def test_a_body_shorter_than_the_header():
    with pytest.raises(MalformedMessage):
        Assembler(10).feed(b"\0\1\0\0\0")
