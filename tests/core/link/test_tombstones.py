import pytest

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import SMALL_CELL, TOMBSTONE, TOMBSTONES_PER_LINK, UNKNOWN_CIRCUIT_LIMIT
from onionrelay.core.link.tombstones import Tombstones


def test_a_buried_circuit_takes_what_its_allowance_was_and_no_more():
    tombstones = Tombstones()
    tombstones.bury(7, 2 * SMALL_CELL, 0.0)
    tombstones.charge(7, SMALL_CELL)
    tombstones.charge(7, SMALL_CELL)
    with pytest.raises(ProtocolViolation):
        tombstones.charge(7, SMALL_CELL)


def test_it_is_forgotten_after_a_minute():
    tombstones = Tombstones()
    tombstones.bury(1, 0, 0.0)
    tombstones.bury(2, 0, TOMBSTONE - 1)
    assert 1 in tombstones
    tombstones.bury(3, 0, TOMBSTONE)
    assert 1 not in tombstones
    assert 2 in tombstones


def test_there_is_a_bound():
    tombstones = Tombstones()
    for circ_id in range(TOMBSTONES_PER_LINK + 10):
        tombstones.bury(circ_id, 0, 0.0)
    assert 9 not in tombstones
    assert 10 in tombstones


def test_strays_are_counted_by_window():
    tombstones = Tombstones()
    for _ in range(UNKNOWN_CIRCUIT_LIMIT):
        tombstones.stray(5.0)
    for _ in range(UNKNOWN_CIRCUIT_LIMIT):
        tombstones.stray(16.0)
    with pytest.raises(ProtocolViolation):
        tombstones.stray(17.0)
