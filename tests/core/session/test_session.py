import pytest

from onionrelay.base.errors import DestroyReason, ProtocolViolation, UsageError
from onionrelay.base.limits import (
    INITIAL_STREAM_WINDOW,
    SESSION_CONTROL_FRAMES,
    SESSION_WINDOW,
    STREAM_METADATA,
    STREAM_SEND_BUFFER,
    STREAMS_PER_SESSION,
)
from onionrelay.core.session import events
from onionrelay.wire import frames
from onionrelay.wire.frames import CloseCode, Packet, RefusalReason, StreamCode
from tests.core.session.pair import End, Pair


@pytest.fixture
def pair():
    return Pair()


def test_both_ends_learn_the_session_id(pair):
    pair.run()
    (at_client,) = pair.client.events
    (at_target,) = pair.target.events
    assert at_client == at_target
    assert isinstance(at_client, events.SessionOpened)
    assert len(at_client.session_id) == 16


def test_the_first_packet_opens_session_and_stream_and_carries_data(pair):
    stream = pair.client.session.open_stream(22, b"who")
    pair.client.session.write(stream, b"SSH-2.0-x\r\n")
    (packet,) = pair.client.packets()
    kinds = [type(frame) for frame in Packet.decode(packet).frames]
    assert kinds == [
        frames.OpenSession,
        frames.MaxData,
        frames.StreamOpen,
        frames.MaxStreamData,
        frames.StreamData,
    ]
    pair.target.take(packet)
    assert pair.target.events[1:] == [
        events.StreamOpened(stream, 22, b"who"),
        events.DataArrived(stream, b"SSH-2.0-x\r\n"),
    ]


def test_ids_are_odd_from_the_client_and_even_from_the_target(pair):
    pair.run()
    assert [pair.client.session.open_stream(1) for _ in range(3)] == [1, 3, 5]
    assert [pair.target.session.open_stream(1) for _ in range(3)] == [2, 4, 6]
    pair.run()
    assert [event.stream for event in pair.target.saw(events.StreamOpened)] == [1, 3, 5]
    assert [event.stream for event in pair.client.saw(events.StreamOpened)] == [2, 4, 6]


def test_the_target_opens_nothing_before_the_session_is_open(pair):
    assert not pair.target.session.can_open
    with pytest.raises(UsageError):
        pair.target.session.open_stream(1)


def test_data_both_ways_and_half_close(pair):
    stream = pair.stream()
    pair.client.session.write(stream, b"question")
    pair.client.session.finish(stream)
    pair.run()
    assert pair.target.saw(events.StreamFinished) == [events.StreamFinished(stream)]
    pair.target.session.write(stream, b"answer")
    pair.target.session.finish(stream)
    pair.run()
    assert pair.target.data[stream] == b"question"
    assert pair.client.data[stream] == b"answer"
    assert pair.client.saw(events.StreamFinished) == [events.StreamFinished(stream)]
    assert pair.client.session.has_sent_all(stream)


def test_an_end_without_data_arrives(pair):
    stream = pair.stream()
    pair.client.session.finish(stream)
    pair.run()
    assert pair.target.saw(events.StreamFinished)
    assert not pair.target.saw(events.DataArrived)


def test_a_large_transfer_is_exact_and_in_large_packets(pair):
    stream = pair.stream()
    sent = bytes(range(256)) * 40_000  # 10 MB, more than any window
    pair.client.sizes.clear()
    for start in range(0, len(sent), 100_000):
        pair.client.session.write(stream, sent[start : start + 100_000])
    pair.client.session.finish(stream)
    pair.run()
    assert pair.target.data[stream] == sent
    assert pair.client.sizes.count(16_352) > 0.9 * len(pair.client.sizes)
    assert all(size <= 1080 or size == 16_352 for size in pair.client.sizes)


def test_without_room_for_large_cells_all_goes_in_small_ones(pair):
    stream = pair.client.session.open_stream(80)
    pair.client.session.write(stream, bytes(INITIAL_STREAM_WINDOW))
    for packet in pair.client.packets(large_room=False):
        pair.target.take(packet)
    assert len(pair.target.data[stream]) == INITIAL_STREAM_WINDOW


def test_the_opener_may_send_a_first_window_before_acceptance(pair):
    stream = pair.client.session.open_stream(80)
    pair.client.session.write(stream, bytes(100_000))
    pair.run()
    assert len(pair.target.data[stream]) == INITIAL_STREAM_WINDOW
    assert not pair.client.saw(events.StreamAccepted)
    pair.target.session.accept(stream)
    pair.run()
    assert pair.client.saw(events.StreamAccepted) == [events.StreamAccepted(stream)]
    assert len(pair.target.data[stream]) == 100_000


@pytest.mark.parametrize("stream", [0, 1, 2, 3, 2**32])
def test_a_stream_that_never_was_is_the_callers_mistake(pair, stream):
    pair.run()
    for call in (
        lambda session: session.write(stream, b"x"),
        lambda session: session.finish(stream),
        lambda session: session.consumed(stream, 1),
        lambda session: session.stop(stream, StreamCode.CANCELLED),
        lambda session: session.queued(stream),
    ):
        with pytest.raises(UsageError):
            call(pair.client.session)


def test_a_stream_that_is_asked_for_is_answered_first(pair):
    stream = pair.client.session.open_stream(80)
    pair.run()
    for call in (
        lambda session: session.write(stream, b"x"),
        lambda session: session.finish(stream),
        lambda session: session.reset(stream, StreamCode.CANCELLED),
        lambda session: session.stop(stream, StreamCode.CANCELLED),
    ):
        with pytest.raises(UsageError):
            call(pair.target.session)


def test_what_does_not_fit_stream_open_is_the_callers_mistake(pair):
    for port, metadata in ((-1, b""), (65_536, b""), (1, bytes(STREAM_METADATA + 1))):
        with pytest.raises(UsageError):
            pair.client.session.open_stream(port, metadata)
    assert pair.client.session.stream_count == 0
    assert pair.client.session.open_stream(65_535, bytes(STREAM_METADATA)) == 1
    pair.run()
    assert pair.target.saw(events.StreamOpened)[0].metadata == bytes(STREAM_METADATA)


def test_nothing_is_written_after_the_end(pair):
    stream = pair.stream()
    pair.client.session.finish(stream)
    with pytest.raises(UsageError):
        pair.client.session.write(stream, b"x")


def test_written_data_may_change_afterwards(pair):
    stream = pair.stream()
    for size in (10, 100_000):
        buffer = bytearray(b"a" * size)
        pair.client.session.write(stream, buffer)
        pair.client.session.write(stream, memoryview(buffer))
        buffer[:] = b"b" * size
    pair.run()
    assert pair.target.data[stream] == b"a" * 200_020


def test_an_end_opens_as_many_streams_as_the_protocol_allows(pair):
    streams = [pair.client.session.open_stream(80) for _ in range(STREAMS_PER_SESSION)]
    assert not pair.client.session.can_open
    with pytest.raises(UsageError):
        pair.client.session.open_stream(80)
    pair.run()
    assert len(pair.target.saw(events.StreamOpened)) == STREAMS_PER_SESSION
    pair.target.session.refuse(streams[7], RefusalReason.NO_SUCH_PORT)
    pair.run()
    pair.client.session.open_stream(80)
    pair.run()
    assert len(pair.target.saw(events.StreamOpened)) == STREAMS_PER_SESSION + 1


def test_no_more_is_consumed_than_is_held(pair):
    pair.target.reads = False
    stream = pair.stream()
    pair.client.session.write(stream, bytes(1000))
    pair.run()
    pair.target.session.consumed(stream, 5000)
    assert pair.target.session.memory == 0
    pair.client.session.write(stream, bytes(1000))
    pair.run()
    assert pair.target.session.memory == 1000
    pair.target.session.stop(stream, StreamCode.CANCELLED)
    pair.target.session.consumed(stream, 1000)
    assert pair.target.session.memory == 0


def test_streams_that_wait_for_an_answer_count_as_promised(pair):
    streams = [pair.client.session.open_stream(80) for _ in range(101)]
    pair.run()
    pair.target.session.accept(streams[0])
    (packet,) = pair.target.packets()
    (frame,) = Packet.decode(packet).frames
    assert frame.limit == (SESSION_WINDOW - 100 * INITIAL_STREAM_WINDOW) // 2


def test_room_shrinks_as_the_queues_of_a_session_grow(pair):
    session = pair.client.session
    streams = [session.open_stream(80) for _ in range(40)]
    assert session.room(streams[0]) == STREAM_SEND_BUFFER
    written = 0
    for stream in streams:
        while session.room(stream) > 0:
            written = max(written, session.write(stream, bytes(10_000)))
    assert session.memory < SESSION_WINDOW + 10_000
    assert written < STREAM_SEND_BUFFER + 10_000


def test_room_to_write_is_told_when_data_leave(pair):
    stream = pair.stream()
    pair.client.session.write(stream, bytes(3000))
    pair.client.events.clear()
    pair.client.session.take_events()
    pair.client.session.next_packet(large_room=True)
    assert pair.client.session.take_events() == [events.RoomToWrite(stream)]
    assert pair.client.session.take_events() == []


def test_ping(pair):
    pair.run()
    pair.client.session.ping()
    pair.client.session.ping()
    pair.run()
    assert pair.client.saw(events.PingAnswered) == [events.PingAnswered()]
    pair.client.session.ping()
    pair.run()
    assert len(pair.client.saw(events.PingAnswered)) == 2
    pair.target.session.ping()
    pair.run()
    assert len(pair.target.saw(events.PingAnswered)) == 1


def test_a_target_has_nothing_to_say_before_the_client(pair):
    pair.target.session.ping()
    assert not pair.target.session.has_output
    assert pair.target.session.next_packet(large_room=True) is None
    pair.run()
    assert pair.target.saw(events.PingAnswered)


def test_a_peer_that_provokes_answers_and_does_not_take_them_is_dropped(pair):
    pair.run()
    pings = tuple(frames.Ping(token) for token in range(100))
    for number in range(2, 2 + SESSION_CONTROL_FRAMES // 100):
        pair.target.session.on_packet(Packet(number - 1, pings).encode())
    with pytest.raises(ProtocolViolation) as caught:
        pair.target.session.on_packet(Packet(number, pings).encode())
    assert caught.value.reason is DestroyReason.RESOURCES


@pytest.mark.parametrize("closer", ["client", "target"])
def test_close_ends_everything_at_both_ends(pair, closer):
    first, second = (pair.client, pair.target) if closer == "client" else (pair.target, pair.client)
    second.reads = False
    stream = pair.stream()
    first.session.write(stream, bytes(100_000))
    pair.run()
    first.session.write(stream, bytes(100_000))
    second.session.write(stream, b"crosses the CLOSE")
    crossing = list(second.packets())
    first.session.close(CloseCode.SHUTDOWN)
    first.session.close(CloseCode.FINISHED)
    pair.run()
    for packet in crossing:
        first.take(packet)
    assert second.events[-1] == events.SessionClosed(CloseCode.SHUTDOWN)
    for end in (first, second):
        assert end.session.closed is CloseCode.SHUTDOWN
        assert end.session.memory == 0
        assert end.session.stream_count == 0
        assert not end.session.can_open
        assert not end.session.has_output
        assert end.session.next_packet(large_room=True) is None
        end.session.ping()
        end.session.consumed(stream, 5)
        end.session.reset(stream, StreamCode.CANCELLED)
        assert not end.session.has_output
    assert not first.saw(events.DataArrived)


def test_a_target_may_answer_the_opening_by_close():
    client, target = End(is_opener=True), End(is_opener=False)
    target.session.close(CloseCode.BUSY)
    Pair.one_way(target, client)
    assert client.events == [events.SessionClosed(CloseCode.BUSY)]


def test_closing_at_once_says_nothing_but_close():
    client, target = End(is_opener=True), End(is_opener=False)
    client.session.close(CloseCode.FINISHED)
    (packet,) = client.packets()
    assert Packet.decode(packet).frames == (frames.Close(CloseCode.FINISHED),)
    target.take(packet)
    assert target.session.closed is CloseCode.FINISHED
