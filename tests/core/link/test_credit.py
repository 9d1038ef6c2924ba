import pytest

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import INITIAL_ALLOWANCE, LARGE_CELL, MAX_ALLOWANCE, SMALL_CELL, WINDOW_FLOOR
from onionrelay.core.link.credit import ReceiveWindow, raised
from tests.seeded import SeededRng


def use_up(window, now, *, round_trip=0.0, hold=False):
    """Takes a whole window of large cells; grants whenever one is due. Returns the credit given."""
    given = 0
    for _ in range(window.size // LARGE_CELL):
        if window.take(LARGE_CELL):
            given += window.grant(now, round_trip)
    return given


def test_credit_is_added_up_to_the_maximum_and_ignored_beyond():
    assert raised(10, 5) == 15
    assert raised(MAX_ALLOWANCE - 5, 5) == MAX_ALLOWANCE
    assert raised(MAX_ALLOWANCE - 5, 6) == MAX_ALLOWANCE - 5


def test_the_initial_allowance_may_be_used_and_not_a_byte_more():
    window = ReceiveWindow(0.0)
    for _ in range(INITIAL_ALLOWANCE // LARGE_CELL):
        window.take(LARGE_CELL)
    assert window.left == 0
    with pytest.raises(ProtocolViolation):
        window.take(SMALL_CELL)


def test_nothing_is_granted_before_it_is_worth_a_cell():
    window = ReceiveWindow(0.0)
    for _ in range(LARGE_CELL // SMALL_CELL):
        assert not window.take(SMALL_CELL)
        assert window.grant(0.0, 0.0) == 0
    assert window.take(SMALL_CELL)
    assert window.grant(9.0, 0.0) == (LARGE_CELL // SMALL_CELL + 1) * SMALL_CELL
    assert window.left == INITIAL_ALLOWANCE


def test_what_waits_in_a_queue_is_not_granted():
    window = ReceiveWindow(0.0)
    for _ in range(4):
        window.take(LARGE_CELL)
        window.hold(LARGE_CELL)
    assert window.grant(9.0, 0.0) == 0
    window.release(LARGE_CELL)
    assert window.grant(9.0, 0.0) == LARGE_CELL
    assert window.left == INITIAL_ALLOWANCE - 3 * LARGE_CELL


def test_a_window_used_up_within_a_round_trip_doubles_up_to_the_maximum():
    window = ReceiveWindow(0.0)
    sizes = []
    for now in range(8):
        use_up(window, now * 0.3, round_trip=0.4)
        sizes.append(window.size)
    assert sizes == [INITIAL_ALLOWANCE << n for n in range(1, 6)] + [MAX_ALLOWANCE] * 3


def test_a_grown_window_is_granted_beyond_what_was_used():
    window = ReceiveWindow(0.0)
    assert use_up(window, 0.0) == 2 * INITIAL_ALLOWANCE
    assert window.left == 2 * INITIAL_ALLOWANCE


def test_a_window_used_up_slowly_stays():
    window = ReceiveWindow(0.0)
    for now in range(5):
        use_up(window, now * 0.7, round_trip=0.3)
    assert window.size == 2 * INITIAL_ALLOWANCE  # the first one began and ended at 0
    assert window.left == window.size


def test_a_window_that_stays_half_queued_shrinks_to_the_floor_by_withholding():
    window = ReceiveWindow(0.0)
    for now in range(40):
        while window.left >= LARGE_CELL:
            window.take(LARGE_CELL)
            window.hold(LARGE_CELL)
        window.release(LARGE_CELL)
        before = window.left
        granted = window.grant(float(now), 0.0)
        assert window.left == before + granted
    assert window.size == WINDOW_FLOOR
    assert window.left + window.held <= WINDOW_FLOOR


@pytest.mark.parametrize("seed", range(5))
def test_the_peer_never_has_more_than_a_window_under_way(seed):
    rng = SeededRng(seed)
    window = ReceiveWindow(0.0)
    sent = granted = now = 0
    queue = []
    for _ in range(3000):
        now += rng.uniform(0, 0.05)
        size = (SMALL_CELL, LARGE_CELL)[rng.below(2)]
        if rng.below(2) and window.left >= size:
            window.take(size)
            sent += size
            if rng.below(3):
                window.hold(size)
                queue.append(size)
        elif queue:
            window.release(queue.pop(0))
        granted += window.grant(now, 0.01)
        assert window.left == INITIAL_ALLOWANCE + granted - sent >= 0
        assert window.held == sum(queue)
        assert window.left + window.held <= MAX_ALLOWANCE
