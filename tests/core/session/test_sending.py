from collections import Counter

import pytest

from onionrelay.base.limits import INITIAL_SESSION_WINDOW, LARGE_DATA, SMALL_DATA
from onionrelay.core.session.sending import BULK, CHUNK, Outgoing, SendHalf
from onionrelay.wire import frames
from onionrelay.wire.frames import Packet

FAR = 1 << 40


def a_half(out, stream, data=b""):
    half = SendHalf(stream)
    half.limit = FAR
    out.write(half, data)
    return half


@pytest.fixture
def out():
    outgoing = Outgoing()
    outgoing.limit = FAR
    return outgoing


def next_frames(out, *, large_room=True):
    packet = out.next_packet(large_room=large_room)
    return None if packet is None else Packet.decode(packet).frames


def test_nothing_to_send(out):
    assert not out.has_output
    assert out.next_packet(large_room=True) is None


def test_numbers_count_packets(out):
    half = a_half(out, 1, bytes(5000))
    numbers = []
    while (packet := out.next_packet(large_room=False)) is not None:
        numbers.append(Packet.decode(packet).number)
    assert numbers == list(range(5))
    assert half.sent == 5000


@pytest.mark.parametrize("size", [1, 1060, 1061, BULK - 1])
def test_less_than_a_large_packet_goes_in_small_ones(out, size):
    a_half(out, 1, bytes(size))
    assert len(out.next_packet(large_room=True)) == min(size + 20, SMALL_DATA)


@pytest.mark.parametrize("size", [BULK, BULK + 1, 3 * BULK])
def test_enough_for_a_large_packet_fills_one(out, size):
    a_half(out, 1, bytes(size))
    assert len(out.next_packet(large_room=True)) == LARGE_DATA


def test_control_frames_share_a_large_packet_and_it_is_still_full(out):
    a_half(out, 1, bytes(BULK))
    out.control.append(frames.MaxData(1 << 20).encode())
    packet = out.next_packet(large_room=True)
    assert len(packet) == LARGE_DATA
    first, data = Packet.decode(packet).frames
    assert first == frames.MaxData(1 << 20)
    assert len(data.data) == BULK - 9


def test_a_stream_limit_ends_the_large_packets(out):
    half = a_half(out, 1, bytes(2 * BULK))
    half.limit = BULK + 100
    assert len(next_frames(out)[0].data) == BULK
    assert len(next_frames(out)[0].data) == 100
    assert not out.has_output
    half.limit = FAR
    out.settle(half)
    assert out.has_output


def test_the_session_limit_holds_for_all_streams_together():
    out = Outgoing()
    halves = [a_half(out, stream, bytes(100_000)) for stream in (1, 3, 5)]
    while out.next_packet(large_room=True) is not None:
        pass
    assert sum(half.sent for half in halves) == INITIAL_SESSION_WINDOW == out.sent
    assert not out.has_output
    out.limit = FAR
    assert out.has_output


def test_an_end_needs_no_window():
    out = Outgoing()
    out.limit = 0
    half = SendHalf(1)
    half.limit = 0
    half.ending = True
    out.settle(half)
    assert out.has_output
    assert next_frames(out) == (frames.StreamData(1, 0, b"", fin=True),)
    assert half.done
    assert not out.has_output


def test_control_frames_go_first_in_order_and_hold_data_back_until_all_are_sent(out):
    a_half(out, 1, bytes(3 * BULK))
    opens = [frames.StreamOpen(stream, 80, bytes(600)) for stream in (3, 5, 7)]
    out.control.extend(frame.encode() for frame in opens)
    assert next_frames(out) == (opens[0],)
    assert next_frames(out) == (opens[1],)
    last = next_frames(out)
    assert last[0] == opens[2]
    assert isinstance(last[1], frames.StreamData)


def test_streams_with_much_to_send_take_turns(out):
    for stream in range(1, 41, 2):
        a_half(out, stream, bytes(10 * BULK))
    order = [next_frames(out)[0].stream for _ in range(60)]
    assert order == list(range(1, 41, 2)) * 3


def test_bytes_are_shared_evenly_whatever_the_packets(out):
    """Half of the streams always have enough for large packets, the others are refilled with less."""
    halves = [a_half(out, stream, bytes(20 * BULK)) for stream in range(1, 9)]
    light = [a_half(out, stream) for stream in range(9, 17)]
    for _ in range(500):
        for half in light:
            if not half.queued:
                out.write(half, bytes(BULK - 1))
        out.next_packet(large_room=True)
    sent = [half.sent for half in halves + light]
    assert max(sent) - min(sent) <= 2 * BULK
    assert min(sent) > 0


def test_small_streams_share_a_packet(out):
    for stream in (1, 3, 5):
        a_half(out, stream, b"x" * 100)
    assert [frame.stream for frame in next_frames(out)] == [1, 3, 5]
    assert out.take_moved() == [1, 3, 5]
    assert out.take_moved() == []


def test_bulk_waits_for_large_room_and_lets_others_pass(out):
    a_half(out, 1, bytes(5 * BULK))
    assert len(out.next_packet(large_room=True)) == LARGE_DATA
    a_half(out, 3, b"key stroke")
    assert [frame.stream for frame in next_frames(out, large_room=False)] == [3]
    assert next_frames(out, large_room=False) is None
    assert out.has_output
    assert len(out.next_packet(large_room=True)) == LARGE_DATA


def test_bulk_does_not_wait_on_a_circuit_that_never_had_large_room(out):
    half = a_half(out, 1, bytes(5 * BULK))
    while out.next_packet(large_room=False) is not None:
        pass
    assert half.sent == 5 * BULK


def test_giving_up_frees_the_queue(out):
    half = a_half(out, 1, bytes(100_000))
    out.write(half, b"small")
    other = a_half(out, 3, b"other")
    out.give_up(half)
    assert (half.queued, out.queued) == (0, 5)
    assert next_frames(out) == (frames.StreamData(3, 0, b"other"),)
    assert other.sent == 5
    assert not out.has_output


def test_clear_forgets_everything(out):
    a_half(out, 1, bytes(1000))
    out.control.append(frames.Ping(1).encode())
    out.clear()
    assert not out.has_output
    assert out.queued == 0


def test_order_is_kept_between_small_and_long_writes():
    half = SendHalf(1)
    expected = b""
    for index, size in enumerate([1, 2, CHUNK, 3, CHUNK - 1, 5, CHUNK + 1, 1, 40_000, 7]):
        data = bytes([index]) * size
        half.write(data)
        expected += data
    taken = b""
    while half.queued:
        taken += b"".join(half.take(min(half.queued, 4999)))
    assert taken == expected


def test_many_small_writes_are_gathered(out):
    half = a_half(out, 1)
    for _ in range(3 * CHUNK):
        out.write(half, b"x")
    assert half.queued == 3 * CHUNK
    pieces = half.take(half.queued)
    assert len(pieces) == 3


def test_long_bytes_are_not_copied():
    data = bytes(1_000_000)
    half = SendHalf(1)
    half.write(data)
    assert all(piece.obj is data for piece in half.take(100_000))


def test_work_per_packet_does_not_grow_with_the_queue(out):
    """Counts what a packet touches: with one long write, many short ones and many streams alike."""
    half = a_half(out, 1, bytes(20_000_000))
    touched = Counter()
    real = SendHalf.take

    def counting(self, size):
        pieces = real(self, size)
        touched[len(pieces)] += 1
        return pieces

    SendHalf.take = counting
    try:
        while out.next_packet(large_room=True) is not None:
            pass
    finally:
        SendHalf.take = real
    assert set(touched) == {1}
    assert half.sent == 20_000_000
