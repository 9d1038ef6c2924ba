import pytest

from onionrelay.base.limits import BUILD_HISTORY, BUILD_TIMEOUT, BUILD_TIMEOUT_CAP, BUILD_TIMEOUT_FLOOR, BUILDS_KNOWN
from onionrelay.core.circuit.build_times import BuildTimes


def after(*seconds):
    times = BuildTimes()
    for each in seconds:
        times.add(each)
    return times.timeout


def test_nothing_is_concluded_from_few_builds():
    assert after() == BUILD_TIMEOUT
    assert after(*[3.0] * (BUILDS_KNOWN - 1)) == BUILD_TIMEOUT
    assert after(*[3.0] * BUILDS_KNOWN) == 3.0


@pytest.mark.parametrize(("seconds", "timeout"), [(0.01, BUILD_TIMEOUT_FLOOR), (500.0, BUILD_TIMEOUT_CAP)])
def test_the_percentile_has_bounds(seconds, timeout):
    assert after(*[seconds] * 50) == timeout


def test_four_builds_of_five_are_within_it():
    assert after(*[n / 10 for n in range(100)]) == 8.0


def test_only_the_latest_builds_count():
    assert after(*[15.0] * BUILD_HISTORY, *[3.0] * BUILD_HISTORY) == 3.0
