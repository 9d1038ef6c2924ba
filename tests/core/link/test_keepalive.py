import pytest

from onionrelay.base.errors import ProtocolViolation
from onionrelay.core.link.keepalive import KeepAlive


def test_the_first_ping_is_due_at_once_and_measures():
    keepalive = KeepAlive(0.0, behind_nat=False)
    assert keepalive.deadline == 0.0
    assert keepalive.wants_ping(0.0)
    keepalive.ping(5, 0.0)
    assert not keepalive.wants_ping(100.0)
    keepalive.pong(5, 0.1)
    assert keepalive.round_trip == pytest.approx(0.1)
    assert keepalive.deadline == 60.0
    keepalive.ping(6, 60.0)
    keepalive.pong(6, 60.5)
    assert keepalive.round_trip == pytest.approx(0.2)


def test_a_late_answer_cannot_stretch_timers():
    """A peer that keeps its PONG back, and the link alive with other cells, is not an hour away."""
    keepalive = KeepAlive(0.0, behind_nat=False)
    keepalive.ping(5, 0.0)
    keepalive.heard(3600.0)
    keepalive.pong(5, 3600.0)
    assert keepalive.round_trip == 30.0


@pytest.mark.parametrize(("behind_nat", "interval", "dead_at"), [(True, 15.0, 45.0), (False, 60.0, 90.0)])
def test_a_silent_peer_is_dead(behind_nat, interval, dead_at):
    keepalive = KeepAlive(0.0, behind_nat=behind_nat)
    keepalive.ping(1, 0.0)
    keepalive.heard(0.0)
    keepalive.pong(1, 0.0)
    assert keepalive.deadline == interval
    keepalive.ping(2, interval)
    assert keepalive.deadline == dead_at
    assert not keepalive.is_dead(dead_at - 0.1)
    assert keepalive.is_dead(dead_at)


def test_any_cell_is_a_sign_of_life():
    keepalive = KeepAlive(0.0, behind_nat=True)
    keepalive.ping(1, 0.0)
    keepalive.heard(29.0)
    assert not keepalive.is_dead(58.0)
    assert keepalive.is_dead(59.0)


@pytest.mark.parametrize("token", [1, 3])
def test_an_answer_nobody_asked_for_is_a_violation(token):
    keepalive = KeepAlive(0.0, behind_nat=True)
    keepalive.ping(1, 0.0)
    keepalive.pong(1, 0.1)
    with pytest.raises(ProtocolViolation):
        keepalive.pong(token, 0.2)
