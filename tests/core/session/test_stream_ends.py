import pytest

from onionrelay.base.errors import UsageError
from onionrelay.base.limits import (
    INITIAL_STREAM_WINDOW,
    SESSION_WINDOW,
    STREAM_WINDOW,
    STREAMS_PER_SESSION,
)
from onionrelay.core.session import events
from onionrelay.wire.frames import RefusalReason, StreamCode
from tests.core.session.pair import Pair


@pytest.fixture
def pair():
    return Pair()


def test_refusal_discards_what_was_sent_and_frees_the_stream_at_both_ends(pair):
    pair.target.reads = False
    stream = pair.client.session.open_stream(80)
    pair.client.session.write(stream, bytes(100_000))
    pair.run()
    assert pair.target.session.memory == INITIAL_STREAM_WINDOW
    pair.target.session.refuse(stream, RefusalReason.CONNECT_FAILED)
    assert pair.target.session.memory == 0
    pair.client.session.write(stream, b"under way")
    pair.run()
    assert pair.client.saw(events.StreamRefused) == [events.StreamRefused(stream, RefusalReason.CONNECT_FAILED)]
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0
    assert pair.client.session.memory == 0
    assert not pair.target.saw(events.StreamReset)


def test_only_what_is_asked_can_be_refused_and_only_once(pair):
    asked = pair.client.session.open_stream(80)
    pair.run()
    pair.target.session.refuse(asked, RefusalReason.BUSY)
    pair.target.session.refuse(asked, RefusalReason.BUSY)
    Pair.one_way(pair.target, pair.client)
    pair.target.session.accept(asked)
    assert not pair.target.session.has_output
    pair.run()
    assert len(pair.client.saw(events.StreamRefused)) == 1
    stream = pair.stream()
    pair.target.session.refuse(stream, RefusalReason.BUSY)
    pair.client.session.refuse(stream, RefusalReason.BUSY)
    pair.run()
    assert len(pair.client.saw(events.StreamRefused)) == 1


def test_reset_drops_the_queue_and_tells_the_peer(pair):
    stream = pair.stream()
    pair.client.session.write(stream, b"abc")
    pair.run()
    pair.client.session.write(stream, b"never sent")
    pair.client.session.reset(stream, StreamCode.CANCELLED)
    pair.run()
    assert pair.target.data[stream] == b"abc"
    assert pair.target.saw(events.StreamReset) == [events.StreamReset(stream, StreamCode.CANCELLED)]
    pair.target.session.write(stream, b"the other direction goes on")
    pair.target.session.finish(stream)
    pair.run()
    assert pair.client.data[stream] == b"the other direction goes on"
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0


def test_reset_frees_what_the_receiver_had_not_read(pair):
    pair.target.reads = False
    stream = pair.stream()
    pair.client.session.write(stream, bytes(50_000))
    pair.run()
    assert pair.target.session.memory == 50_000
    pair.client.session.reset(stream, StreamCode.CANCELLED)
    pair.run()
    assert pair.target.session.memory == 0


def test_stop_makes_the_sender_reset(pair):
    stream = pair.stream()
    pair.target.session.write(stream, bytes(5_000_000))
    Pair.one_way(pair.target, pair.client)
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    lost = pair.target.session.queued(stream)
    pair.run()
    assert pair.target.saw(events.StreamStopped) == [events.StreamStopped(stream, StreamCode.CANCELLED, lost)]
    assert lost > 0
    assert pair.target.session.queued(stream) == 0
    assert not pair.client.saw(events.StreamReset)
    with pytest.raises(UsageError):
        pair.target.session.write(stream, b"more")


def test_after_stop_what_still_comes_is_thrown_away_and_window_given_back(pair):
    pair.client.reads = False
    stream = pair.stream()
    pair.target.session.write(stream, bytes(STREAM_WINDOW))
    packets = list(pair.target.packets())
    for packet in packets[:50]:
        pair.client.take(packet)
    assert pair.client.session.memory > 0
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    assert pair.client.session.memory == 0
    seen = len(pair.client.saw(events.DataArrived))
    for packet in packets[50:]:
        pair.client.take(packet)
    assert len(pair.client.saw(events.DataArrived)) == seen
    assert pair.client.session.memory == 0
    pair.run()
    other = pair.stream()
    pair.client.reads = True
    pair.target.session.write(other, bytes(2 * SESSION_WINDOW))
    pair.run()
    assert len(pair.client.data[other]) == 2 * SESSION_WINDOW


def test_stop_after_the_end_only_frees(pair):
    pair.client.reads = False
    stream = pair.stream()
    pair.target.session.write(stream, bytes(1000))
    pair.target.session.finish(stream)
    pair.run()
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    assert pair.client.session.memory == 0
    assert not pair.client.session.has_output


def test_stop_and_end_may_cross(pair):
    stream = pair.stream()
    pair.target.session.write(stream, b"last words")
    pair.target.session.finish(stream)
    under_way = list(pair.target.packets())
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    pair.client.session.finish(stream)
    pair.run()
    for packet in under_way:
        pair.client.take(packet)
    pair.run()
    assert not pair.target.saw(events.StreamStopped)
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0


@pytest.mark.parametrize("answer", ["accept", "refuse"])
def test_an_opener_may_cancel_before_the_answer(pair, answer):
    stream = pair.client.session.open_stream(80)
    pair.client.session.write(stream, b"x")
    pair.run()
    pair.client.session.reset(stream, StreamCode.CANCELLED)
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    pair.run()
    assert pair.target.saw(events.StreamReset)
    assert pair.target.saw(events.StreamStopped)
    assert not pair.target.session.has_output
    if answer == "accept":
        pair.target.session.accept(stream)  # its service was reached too late
        with pytest.raises(UsageError):
            pair.target.session.write(stream, b"x")
    else:
        pair.target.session.refuse(stream, RefusalReason.CONNECT_FAILED)
    pair.run()
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0
    assert not pair.client.saw(events.StreamRefused)


@pytest.mark.parametrize("answer", ["accept", "refuse"])
def test_cancelling_and_the_answer_may_cross(pair, answer):
    stream = pair.client.session.open_stream(80)
    pair.run()
    if answer == "accept":
        pair.target.session.accept(stream)
    else:
        pair.target.session.refuse(stream, RefusalReason.BUSY)
    under_way = list(pair.target.packets())
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    pair.client.session.reset(stream, StreamCode.CANCELLED)
    Pair.one_way(pair.client, pair.target)
    for packet in under_way:
        pair.client.take(packet)
    pair.run()
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0
    assert not pair.client.saw(events.StreamRefused)


def test_refusal_is_told_to_one_who_only_stopped_reading(pair):
    stream = pair.client.session.open_stream(80)
    pair.client.session.write(stream, b"still talking")
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    pair.run()
    pair.target.session.refuse(stream, RefusalReason.BUSY)
    pair.run()
    assert pair.client.saw(events.StreamRefused) == [events.StreamRefused(stream, RefusalReason.BUSY)]
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0


def test_one_who_only_stopped_reading_before_the_answer_may_go_on_writing(pair):
    stream = pair.client.session.open_stream(80)
    pair.client.session.stop(stream, StreamCode.CANCELLED)
    pair.client.session.write(stream, bytes(100_000))
    pair.client.session.finish(stream)
    pair.run()
    pair.target.session.accept(stream)
    pair.run()
    assert len(pair.target.data[stream]) == 100_000
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0


def test_calls_about_an_ended_stream_do_nothing(pair):
    stream = pair.stream()
    for end in (pair.client, pair.target):
        end.session.finish(stream)
    pair.run()
    session = pair.client.session
    assert session.stream_count == 0
    session.finish(stream)
    session.reset(stream, StreamCode.CANCELLED)
    session.stop(stream, StreamCode.CANCELLED)
    session.consumed(stream, 10)
    session.accept(stream)
    session.refuse(stream, RefusalReason.BUSY)
    assert session.queued(stream) == 0
    assert session.has_sent_all(stream)
    assert not session.has_output
    with pytest.raises(UsageError):
        session.write(stream, b"x")


def test_streams_end_and_leave_room_for_others(pair):
    for _ in range(3 * STREAMS_PER_SESSION):
        stream = pair.stream()
        pair.client.session.finish(stream)
        pair.target.session.finish(stream)
        pair.run()
    assert pair.client.session.stream_count == pair.target.session.stream_count == 0


def test_ended_streams_that_nobody_reads_make_new_ones_refused(pair):
    pair.target.reads = False
    refused = 0
    for _ in range(4 * STREAMS_PER_SESSION):
        stream = pair.client.session.open_stream(80)
        pair.client.session.write(stream, b"x")
        pair.client.session.finish(stream)
        pair.run()
        if pair.client.saw(events.StreamRefused):
            refused += 1
            pair.client.events.clear()
            continue
        pair.target.session.accept(stream)
        pair.target.session.finish(stream)
        pair.run()
    assert refused >= STREAMS_PER_SESSION - 1
    assert pair.target.session.stream_count <= 3 * STREAMS_PER_SESSION + 1
    assert pair.client.session.stream_count == 0


def test_a_stream_that_ended_gives_its_place_back_once(pair):
    pair.client.reads = False
    stream = pair.stream()
    pair.target.session.write(stream, bytes(10))
    for end in (pair.client, pair.target):
        end.session.finish(stream)
    pair.run()
    assert pair.target.session.stream_count == 0
    for left in range(9, -1, -1):
        assert pair.client.session.stream_count == 1
        pair.client.session.consumed(stream, 1)
        assert pair.client.session.memory == left
    assert pair.client.session.stream_count == 0
    opened = 0
    while pair.client.session.can_open:
        pair.client.session.open_stream(80)
        opened += 1
    assert opened == STREAMS_PER_SESSION
