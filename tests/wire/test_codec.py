import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.wire.codec import Reader, Writer, is_zero
from onionrelay.wire.link import HelloRefusal
from tests.wire.samples import POINTS


def refused(match):
    return pytest.raises(MalformedMessage, match=match)


def test_integers_are_big_endian():
    body = Writer().u8(1).u16(0x0203).u32(0x04050607).u64(0x08090A0B0C0D0E0F).done()
    assert body == bytes(range(1, 16))
    reader = Reader(body, "numbers")
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (1, 0x0203, 0x04050607, 0x08090A0B0C0D0E0F)
    reader.done()


@pytest.mark.parametrize(("field", "size"), [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)])
def test_a_number_needs_all_its_bytes(field, size):
    with refused(f"short: {size} bytes expected, {size - 1} left"):
        getattr(Reader(bytes(size - 1), "short"), field)()
    getattr(Reader(bytes(size), "enough"), field)()


@pytest.mark.parametrize(("field", "value"), [("u8", 256), ("u16", 1 << 16), ("u32", 1 << 32), ("u64", -1)])
def test_a_number_that_does_not_fit_is_not_written(field, value):
    with pytest.raises(OverflowError):
        getattr(Writer(), field)(value)


def test_a_reader_keeps_no_view_of_the_buffer():
    buffer = bytearray(b"abcd")
    reader = Reader(memoryview(buffer), "copy")
    buffer[:] = b"wxyz"
    assert reader.rest() == b"abcd"


def test_done_wants_nothing_left():
    reader = Reader(b"ab", "pair")
    reader.take(1)
    assert reader.left == 1
    with refused("1 trailing bytes"):
        reader.done()


def test_keys_are_checked_at_decode():
    assert Reader(POINTS[0], "key").key(RelayId) == RelayId(POINTS[0])
    assert type(Reader(POINTS[0], "key").key(NodeId)) is NodeId
    with refused("HELLO: not a valid RelayId"):
        Reader(b"\1" + bytes(31), "HELLO").key(RelayId)
    with refused("32 bytes expected"):
        Reader(bytes(31), "key").key(RelayId)


def test_closed_sets_refuse_other_values():
    assert Reader(b"", "code").enum(HelloRefusal, 3) is HelloRefusal.BUSY
    with refused("9 is no HelloRefusal"):
        Reader(b"", "code").enum(HelloRefusal, 9)


def test_reserved_bytes_and_padding_are_zero():
    reader = Reader(bytes(4), "zeros")
    reader.zeros(2)
    reader.padding()
    with refused("reserved"):
        Reader(b"\0\1", "zeros").zeros(2)
    with refused("padding"):
        Reader(b"\0\1", "zeros").padding()
    assert is_zero(b"")
    assert is_zero(memoryview(bytes(2000)))
    assert not is_zero(bytes(1999) + b"\1")


@pytest.mark.parametrize("extensions", [(), ((0, b""),), ((1, b"a"), (2, b""), (0x7FFF, b"xyz"))])
def test_extensions(extensions):
    body = Writer().extensions(extensions).done()
    assert Reader(body, "list").extensions() == extensions
    assert Reader(body + b"tail", "list").extensions(keep=4) == extensions
    counted = Writer().counted_extensions(extensions).raw(b"tail").done()
    reader = Reader(counted, "list")
    assert reader.counted_extensions() == extensions
    assert reader.rest() == b"tail"


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("80000000", "unknown critical extension 32768"),
        ("0002000000010000", "ascending"),
        ("0001000000010000", "ascending"),
        ("0001000161" + "00", "2 bytes expected"),
        ("0001000261", "overruns"),
        ("0001ffff61", "overruns"),
        ("00010000" * 2, "ascending"),
    ],
)
def test_bad_extensions(body, match):
    with refused(match):
        Reader(bytes.fromhex(body), "list").extensions()


@pytest.mark.parametrize("size", [1, 5, 65_535])
def test_a_counted_list_ends_inside_its_structure(size):
    body = size.to_bytes(2) + bytes(size - 1 if size < 6 else 9)
    with refused("the extension list overruns the structure"):
        Reader(body, "list").counted_extensions()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_extensions_do_not_reach_into_what_follows(cut):
    body = bytes.fromhex("00010001aa")[: 5 - cut] + bytes(8)
    with refused("overruns"):
        Reader(body, "signed").extensions(keep=8)


def test_lists_of_numbers():
    assert Reader(b"\2\0\1\0\5", "list").numbers(most=2) == (1, 5)
    for body in (b"\0", b"\3\0\1\0\2\0\3", b"\2\0\5\0\1", b"\2\0\1\0\1", b"\2\0\1"):
        with pytest.raises(MalformedMessage):
            Reader(body, "list").numbers(most=2)


def test_a_field_of_the_wrong_size_is_not_written():
    with pytest.raises(UsageError, match="a field of 4 bytes was given 3"):
        Writer().fixed(b"abc", 4)
    with pytest.raises(UsageError):
        Writer().raw(b"abc").padded(2)
    with pytest.raises(UsageError):
        Writer().raw(b"abc").exactly(4)
    assert Writer().raw(b"abc").padded(5) == b"abc\0\0"
    assert Writer().raw(b"abc").exactly(3) == b"abc"
