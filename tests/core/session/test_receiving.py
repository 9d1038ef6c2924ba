import pytest

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import (
    INITIAL_SESSION_WINDOW,
    INITIAL_STREAM_WINDOW,
    SESSION_MEMORY,
    SESSION_WINDOW,
    SESSIONS_PER_TARGET,
    STREAM_WINDOW,
    STREAMS_PER_SESSION,
)
from onionrelay.core.session.receiving import Incoming, ReceiveHalf


def opened(incoming):
    half = ReceiveHalf()
    incoming.settle(half)
    incoming.widen(half, at_once=True)
    return half


def fill(incoming, half):
    """The peer sends all it may."""
    size = min(half.granted - half.received, incoming.granted - incoming.received)
    if size:
        incoming.arrive(half, half.received, size, fin=False)
        incoming.widen_session()
    return size


@pytest.fixture
def incoming():
    found = Incoming()
    found.widen_session()
    return found


def test_the_first_windows_add_up_to_the_bounds():
    assert INITIAL_SESSION_WINDOW * SESSIONS_PER_TARGET == SESSION_MEMORY
    assert INITIAL_STREAM_WINDOW * STREAMS_PER_SESSION == SESSION_WINDOW
    assert min(SESSION_WINDOW, STREAM_WINDOW) >= 2 * 1024 * 1024


def test_one_stream_gets_the_whole_stream_window(incoming):
    assert opened(incoming).granted == STREAM_WINDOW


def read(incoming, half):
    """The peer sends all it may, and the application takes it."""
    size = fill(incoming, half)
    incoming.consume(half, half.held)
    incoming.widen(half)
    incoming.widen_session()
    return size


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_streams_that_nobody_ever_read_leave_room_for_one_more(incoming, count):
    stuck = [opened(incoming) for _ in range(count)]
    while any(fill(incoming, half) for half in stuck):
        pass
    assert incoming.held < SESSION_WINDOW
    other = opened(incoming)
    assert all(read(incoming, other) for _ in range(1000))


@pytest.mark.parametrize("count", [2, 5, 40, STREAMS_PER_SESSION - 2])
def test_busy_streams_share_the_window_and_do_not_stop_each_other(incoming, count):
    halves = [opened(incoming) for _ in range(count)]
    for _ in range(50):
        for half in halves:
            read(incoming, half)
    promised = [half.promised for half in halves]
    assert max(promised) <= 4 * min(promised)
    assert sum(promised) == incoming.promised <= SESSION_WINDOW
    last, *stuck = halves
    while any(fill(incoming, half) for half in stuck):
        pass
    assert incoming.held < SESSION_WINDOW
    assert all(read(incoming, last) for _ in range(1000))


def test_when_the_window_is_full_a_little_room_is_announced_at_once(incoming):
    first, second = opened(incoming), opened(incoming)
    second.granted = 2 * SESSION_WINDOW
    fill(incoming, first)
    fill(incoming, second)
    assert incoming.held == SESSION_WINDOW
    incoming.consume(second, 100)
    assert incoming.widen_session() == SESSION_WINDOW + 100
    assert incoming.widen_session() is None


def test_a_limit_is_not_announced_for_every_byte(incoming):
    half = opened(incoming)
    announced = 0
    for _ in range(STREAM_WINDOW // 1024):
        incoming.arrive(half, half.received, 1024, fin=False)
        incoming.consume(half, 1024)
        announced += incoming.widen(half) is not None
    assert announced == 4


def test_the_sender_is_never_left_without_window_when_all_is_read(incoming):
    halves = [opened(incoming) for _ in range(50)]
    for size in (1, 7, 4096, 16_332):
        for half in halves:
            for _ in range(20):
                size_now = min(size, half.granted - half.received)
                assert size_now
                incoming.arrive(half, half.received, size_now, fin=False)
                incoming.consume(half, size_now)
                incoming.widen(half)
                incoming.widen_session()


def test_an_ended_stream_promises_only_what_is_held(incoming):
    half = opened(incoming)
    incoming.arrive(half, 0, 1000, fin=True)
    assert incoming.promised == half.promised == 1000
    incoming.consume(half, 1000)
    assert incoming.promised == 0


def test_a_stream_that_is_thrown_away_promises_nothing(incoming):
    half = opened(incoming)
    incoming.arrive(half, 0, 1000, fin=False)
    half.discarding = True
    incoming.consume(half, half.held)
    assert incoming.promised == incoming.held == 0
    incoming.arrive(half, 1000, 500, fin=True)
    assert incoming.promised == incoming.held == 0
    assert incoming.consumed == 1500


def test_data_beyond_a_window_or_out_of_order_are_violations(incoming):
    half = opened(incoming)
    for offset, size in ((0, STREAM_WINDOW + 1), (1, 1), (1 << 63, 1)):
        with pytest.raises(ProtocolViolation):
            incoming.arrive(half, offset, size, fin=False)
    incoming.arrive(half, 0, STREAM_WINDOW, fin=True)
    with pytest.raises(ProtocolViolation):
        incoming.arrive(half, STREAM_WINDOW, 0, fin=True)


def test_the_session_window_holds_for_all_streams_together():
    incoming = Incoming()
    first, second = opened(incoming), opened(incoming)
    incoming.arrive(first, 0, INITIAL_SESSION_WINDOW - 10, fin=False)
    incoming.arrive(second, 0, 10, fin=False)
    with pytest.raises(ProtocolViolation):
        incoming.arrive(second, 10, 1, fin=False)
