import itertools

from onionrelay.base.limits import CLOCK_SKEW_REFUSED, PUBLISH_PAUSE, REACH_EARLY, REPUBLISH
from onionrelay.core.attach.schedule import PublishSchedule
from onionrelay.core.directory.placement import period_start
from onionrelay.crypto.blind import period_at
from tests.core.relays import DAY, NOW
from tests.seeded import SeededRng

PERIOD = period_at(NOW)
MORNING = period_start(PERIOD) + 9 * 3600  # far from a change


class Clock:
    """A schedule on a day that begins at `unix` when `now` is 0, published whenever it says so."""

    def __init__(self, unix, seed=1):
        self.schedule = PublishSchedule(SeededRng(seed))
        self.start = unix
        self.now = 0.0
        self.published = []

    @property
    def unix(self):
        return self.start + int(self.now)

    def run(self, until, *, stored=True):
        steps = 0
        while self.now < until:
            if self.schedule.wants(self.now, self.unix, outdated=False):
                periods = self.schedule.periods(self.unix)
                self.published.append((self.now, periods))
                self.schedule.on_published(periods, self.now, stored=stored)
            upcoming = self.schedule.next_event(self.now, self.unix, outdated=False)
            assert upcoming > self.now
            self.now = upcoming + 1e-3
            steps += 1
            assert steps < 400
        return self.published


def test_the_first_record_is_published_at_once_and_then_about_every_hour():
    times = [now for now, _ in Clock(MORNING).run(10 * 3600)]
    assert times[0] == 0
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(0.8 * REPUBLISH <= gap <= 1.2 * REPUBLISH + 1 for gap in gaps)
    assert len(set(gaps)) == len(gaps)


def test_nothing_is_published_twice_within_the_pause_even_if_it_is_outdated():
    clock = Clock(MORNING)
    clock.schedule.on_published((PERIOD,), 0, stored=True)
    assert not clock.schedule.wants(PUBLISH_PAUSE - 1, MORNING, outdated=True)
    assert clock.schedule.wants(PUBLISH_PAUSE, MORNING, outdated=True)
    assert not clock.schedule.wants(PUBLISH_PAUSE, MORNING, outdated=False)
    assert clock.schedule.next_event(1, MORNING + 1, outdated=True) == PUBLISH_PAUSE


def test_a_failed_publication_is_tried_again_ever_more_slowly():
    times = [now for now, _ in Clock(MORNING).run(6 * 3600, stored=False)]
    gaps = [round(after - before) for before, after in itertools.pairwise(times)]
    assert gaps[:4] == [10, 20, 40, 80]
    assert max(gaps) == REPUBLISH
    assert gaps == sorted(gaps)


def test_the_next_period_is_published_before_it_begins_and_the_moment_differs_by_node():
    change = period_start(PERIOD + 1)
    moments = set()
    for seed in range(30):
        clock = Clock(MORNING, seed)
        clock.run(change - MORNING + DAY // 2)
        first = next(now for now, periods in clock.published if PERIOD + 1 in periods)
        lead = change - (MORNING + first)
        assert 0 <= lead <= REACH_EARLY + 1
        moments.add(round(lead))
        for now, periods in clock.published:
            assert period_at(MORNING + int(now)) in periods
            assert PERIOD - 1 not in periods
            late = MORNING + now - change
            assert (PERIOD in periods) == (late < CLOCK_SKEW_REFUSED)
    assert len(moments) > 25
    assert max(moments) > 0.7 * REACH_EARLY
    assert min(moments) < 0.3 * REACH_EARLY
