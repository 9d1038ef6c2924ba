import pytest

from onionrelay.base.errors import NetworkError
from onionrelay.core.directory.clock import clock_offset, network_window, require_clock
from tests.core.relays import NOW

WINDOW = NOW // 600


def test_the_network_says_the_median_of_at_least_three():
    assert network_window([]) is None
    assert network_window([WINDOW, WINDOW]) is None
    assert network_window([WINDOW + 9999, WINDOW, WINDOW]) == WINDOW
    assert network_window([0, WINDOW, WINDOW + 1, 1 << 31]) == WINDOW


@pytest.mark.parametrize(
    ("unix_now", "offset"), [(NOW, 0), (NOW + 599, 0), (NOW + 600, 1), (NOW - 1, -1), (NOW + 7199, 6600)]
)
def test_an_offset_counts_from_the_edge_of_the_window(unix_now, offset):
    assert clock_offset(WINDOW, unix_now) == offset


def test_a_clock_more_than_twenty_minutes_off_is_refused():
    windows = [WINDOW] * 3
    for good in (NOW, NOW - 1200, NOW + 599 + 1200):
        require_clock(windows, good)
    with pytest.raises(NetworkError, match="ahead"):
        require_clock(windows, NOW + 599 + 1201)
    with pytest.raises(NetworkError, match="20 minutes behind"):
        require_clock(windows, NOW - 1201)


def test_one_liar_of_three_does_not_stop_us_and_two_relays_are_no_judge():
    require_clock([WINDOW, WINDOW, 0], NOW)
    require_clock([0, 0], NOW)
