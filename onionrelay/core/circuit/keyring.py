"""A relay's or node's onion keys over time, and the memory that keeps a build record from being used twice.

specs/03-build.md, "Onion keys over time" and "Replay". Secrets live in memory only: a restart makes new ones, which is
also why no replay memory has to survive it.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum

from onionrelay.base.limits import (
    ONION_KEY_ACCEPTED,
    ONION_KEY_ERASED,
    ONION_KEY_PERIOD,
    REPLAY_TAGS_PER_WINDOW,
    TIME_WINDOW,
)
from onionrelay.base.seams import Rng
from onionrelay.crypto.onion_keys import OnionPublic, OnionSecret

_PREFIX = 8  # bytes kept of a replay tag: a chance hit costs one honest client one retry


class Admittance(Enum):
    """What the replay memory says of an authentic record."""

    FRESH = "fresh"
    CLOCK = "clock"  # its window is neither this one nor a neighbour
    REPLAYED = "replayed"
    FULL = "full"  # more builds in this window than can be remembered


class _PeriodKey:
    """The key pair of one period, with the replay tags seen under it by window."""

    __slots__ = ("secret", "seen")

    def __init__(self, rng: Rng) -> None:
        self.secret = OnionSecret.generate(rng)
        self.seen: dict[int, set[bytes]] = {}


class OnionKeyRing:
    """The keys of the current, the previous and the next period.

    A period lasts 24 h and begins at an offset into the UTC day that follows from the identity, so that not all relays
    change keys at once. The previous period's key is accepted too: for 48 h from its beginning, that is. It is erased
    10 min later. The next one exists early because a descriptor announces its digest.

    There is always a previous key, made up when the ring is new: whoever times a refusal must not learn how long this
    process has been running.
    """

    def __init__(self, identity: bytes, rng: Rng, unix_now: int) -> None:
        self._rng = rng
        self._offset = int.from_bytes(hashlib.sha256(identity).digest()) % ONION_KEY_PERIOD
        self._keys: dict[int, _PeriodKey] = {}
        self._latest_window = 0
        self._period = 0
        self._turn(unix_now)

    def __repr__(self) -> str:
        return f"OnionKeyRing(period={self._period})"

    @property
    def public(self) -> OnionPublic:
        """The current public keys: what a descriptor or reach record carries."""
        return self._keys[self._period].secret.public

    @property
    def next_digest(self) -> bytes:
        """SHA-256 of the next period's two public keys (32)."""
        key = self._keys[self._period + 1].secret.public
        return hashlib.sha256(key.x25519 + key.mlkem).digest()

    @property
    def secrets(self) -> tuple[OnionSecret, OnionSecret]:
        """What a build message is tried with, in this order: current and previous."""
        return self._keys[self._period].secret, self._keys[self._period - 1].secret

    @property
    def rotates_at(self) -> int:
        """Unix time at which to call `rotate` next: a key comes into use, or one is to be erased."""
        return min(self._begins(self._period + 1), *(self._begins(p) + ONION_KEY_ERASED for p in self._keys))

    def rotate(self, unix_now: int) -> bool:
        """Brings the keys up to date; True when `public` is another one now and has to be published."""
        before = self.public
        self._turn(unix_now)
        return self.public != before

    def admit(self, secret_index: int, replay_tag: bytes, window: int, unix_now: int) -> Admittance:
        """Checks an authentic record, opened by `secrets[secret_index]`, and remembers it when it is fresh."""
        now = unix_now // TIME_WINDOW
        self._latest_window = max(now, self._latest_window)
        if abs(window - now) > 1 or window < self._latest_window - 1:
            return Admittance.CLOCK
        seen = self._keys[self._period - secret_index].seen
        for old in [w for w in seen if w < self._latest_window - 1]:
            del seen[old]
        tags = seen.setdefault(window, set())
        prefix = replay_tag[:_PREFIX]
        if prefix in tags:
            return Admittance.REPLAYED
        if len(tags) >= REPLAY_TAGS_PER_WINDOW:
            return Admittance.FULL
        tags.add(prefix)
        return Admittance.FRESH

    def _begins(self, period: int) -> int:
        return period * ONION_KEY_PERIOD + self._offset

    def _turn(self, unix_now: int) -> None:
        window = unix_now // TIME_WINDOW
        if window < self._latest_window - 1:
            # The clock was set back, and the tags of these windows are forgotten: new keys make old records worthless.
            self._keys.clear()
            self._latest_window = window
        self._latest_window = max(window, self._latest_window)
        self._period = period = (unix_now - self._offset) // ONION_KEY_PERIOD
        for erased in [p for p in self._keys if unix_now >= self._begins(p) + ONION_KEY_ERASED or p > period + 1]:
            del self._keys[erased]
        for wanted in (period - 1, period, period + 1):
            if wanted not in self._keys:
                self._keys[wanted] = _PeriodKey(self._rng)


assert ONION_KEY_ACCEPTED == 2 * ONION_KEY_PERIOD, "current and previous"  # noqa: S101 - a relation between constants


@dataclass(frozen=True, slots=True)
class KeySet:
    """Who is addressed by a BUILD that arrives on a link: a relay under its relay id, or a node under its node id."""

    identity: bytes
    ring: OnionKeyRing
    is_node: bool

    @classmethod
    def decoy(cls, rng: Rng, unix_now: int) -> "KeySet":
        """Keys nobody knows, for links on which nothing is addressed: a refusal then takes as long as any other."""
        identity = rng.token(32)
        return cls(identity, OnionKeyRing(identity, rng, unix_now), is_node=True)
