from onionrelay.core.timers import Timers


def pop_all(timers, now):
    popped = []
    while (key := timers.pop_due(now)) is not None:
        popped.append(key)
    return popped


def test_soonest_first_and_first_set_first_among_equals():
    timers = Timers()
    for key, when in (("late", 9.0), ("b", 2.0), ("c", 2.0), ("a", 1.0)):
        timers.set(key, when)
    assert timers.next == 1.0
    assert pop_all(timers, 2.0) == ["a", "b", "c"]
    assert timers.next == 9.0
    assert len(timers) == 1


def test_setting_again_moves_and_cancelling_forgets():
    timers = Timers()
    timers.set("x", 1.0)
    timers.set("x", 5.0)
    timers.set("y", 2.0)
    timers.cancel("y")
    timers.cancel("never set")
    assert pop_all(timers, 4.9) == []
    assert pop_all(timers, 5.0) == ["x"]
    assert timers.next is None


def test_what_is_woken_may_set_itself_again():
    timers = Timers()
    timers.set("x", 1.0)
    assert timers.pop_due(1.0) == "x"
    timers.set("x", 2.0)
    assert timers.pop_due(1.0) is None
    assert timers.next == 2.0
