import hashlib

import pytest

from onionrelay.core.circuit import keyring
from onionrelay.core.circuit.keyring import Admittance, KeySet, OnionKeyRing
from tests.seeded import SeededRng

DAY = 24 * 3600
IDENTITY = b"i" * 32
OFFSET = int.from_bytes(hashlib.sha256(IDENTITY).digest()) % DAY
NOON = 1_800_000_000 // DAY * DAY + OFFSET + DAY // 2  # half a period into one
WINDOW = NOON // 600


def make(unix_now=NOON):
    return OnionKeyRing(IDENTITY, SeededRng(1), unix_now)


def tag(number):
    return number.to_bytes(16, "little")


def test_keys_turn_every_day_at_the_identitys_own_hour():
    ring = make()
    first, digest = ring.public, ring.next_digest
    assert ring.rotates_at == NOON + DAY // 2
    assert (ring.rotates_at - OFFSET) % DAY == 0
    assert not ring.rotate(ring.rotates_at - 1)
    assert ring.rotate(ring.rotates_at)
    second = ring.public
    assert second != first
    assert hashlib.sha256(second.x25519 + second.mlkem).digest() == digest
    assert [secret.public for secret in ring.secrets] == [second, first]


def test_different_identities_turn_at_different_hours():
    hours = {OnionKeyRing(bytes([n]) * 32, SeededRng(n), NOON).rotates_at for n in range(5)}
    assert len(hours) == 5


def test_a_key_is_erased_ten_minutes_after_it_stops_being_accepted():
    ring = make()
    first = ring.secrets[0]
    for _ in range(2):
        ring.rotate(ring.rotates_at)
        ring.rotate(ring.rotates_at)
    begins = NOON - DAY // 2
    ring = make()
    first = ring.secrets[0]
    ring.rotate(begins + 2 * DAY)
    assert first not in ring.secrets
    assert first in [key.secret for key in ring._keys.values()]
    assert ring.rotates_at == begins + 2 * DAY + 600
    assert not ring.rotate(ring.rotates_at)
    assert first not in [key.secret for key in ring._keys.values()]
    assert len(ring._keys) == 3


def test_there_are_always_two_keys_to_try():
    ring = make()
    assert len(set(map(id, ring.secrets))) == 2
    assert len(KeySet.decoy(SeededRng(2), NOON).ring.secrets) == 2


def test_a_record_is_used_once_per_key_and_window():
    ring = make()
    assert ring.admit(0, tag(1), WINDOW, NOON) is Admittance.FRESH
    assert ring.admit(0, tag(1), WINDOW, NOON) is Admittance.REPLAYED
    assert ring.admit(0, tag(2), WINDOW, NOON) is Admittance.FRESH
    assert ring.admit(1, tag(1), WINDOW, NOON) is Admittance.FRESH
    ring.rotate(ring.rotates_at)
    assert ring.admit(1, tag(1), WINDOW + 72, NOON + DAY // 2) is Admittance.FRESH


@pytest.mark.parametrize("off", [-3, -2, -1, 0, 1, 2, 3])
def test_only_the_window_and_its_neighbours_are_taken(off):
    expected = Admittance.FRESH if abs(off) <= 1 else Admittance.CLOCK
    assert make().admit(0, tag(1), WINDOW + off, NOON) is expected


def test_a_tag_is_remembered_as_long_as_its_window_is_taken():
    ring = make()
    ring.admit(0, tag(1), WINDOW + 1, NOON)
    for later in (600, 1200):
        assert ring.admit(0, tag(1), WINDOW + 1, NOON + later) is Admittance.REPLAYED
    assert ring.admit(0, tag(1), WINDOW + 1, NOON + 1800) is Admittance.CLOCK
    ring.admit(0, tag(2), WINDOW + 3, NOON + 1800)
    assert sum(len(tags) for tags in ring._keys[ring._period].seen.values()) == 1


def test_the_memory_of_a_window_is_bounded(monkeypatch):
    monkeypatch.setattr(keyring, "REPLAY_TAGS_PER_WINDOW", 3)
    ring = make()
    assert [ring.admit(0, tag(n), WINDOW, NOON) for n in range(4)] == [Admittance.FRESH] * 3 + [Admittance.FULL]
    assert ring.admit(0, tag(1), WINDOW, NOON) is Admittance.REPLAYED
    assert ring.admit(0, tag(9), WINDOW + 1, NOON) is Admittance.FRESH


def test_a_clock_that_is_set_back_cannot_reopen_a_window():
    ring = make()
    ring.admit(0, tag(1), WINDOW, NOON)
    ring.admit(0, tag(2), WINDOW + 6, NOON + 3600)  # forgets the first window
    assert ring.admit(0, tag(1), WINDOW, NOON) is Admittance.CLOCK
    before = ring.public
    assert ring.rotate(NOON)
    assert ring.public != before
    assert ring.admit(0, tag(1), WINDOW, NOON) is Admittance.FRESH


def test_a_clock_that_is_set_back_a_little_changes_nothing():
    ring = make()
    assert not ring.rotate(NOON - 500)


def test_a_clock_that_steps_back_over_a_windows_edge_reopens_nothing():
    """A step small enough to keep the keys must keep what is known to be over, too."""
    ring = make()
    assert ring.admit(0, tag(1), WINDOW, NOON) is Admittance.FRESH
    assert ring.admit(0, tag(2), WINDOW + 2, NOON + 1200) is Admittance.FRESH  # and the first window is forgotten
    ring.rotate(NOON + 600)
    assert ring.admit(0, tag(1), WINDOW, NOON + 600) is Admittance.CLOCK


def test_secrets_do_not_show():
    ring = make()
    assert repr(ring) == f"OnionKeyRing(period={ring._period})"
    assert "secret" not in repr(KeySet(IDENTITY, ring, is_node=True)).lower()
