"""The reach records that this relay keeps for others (specs/07-directory-and-paths.md, "The store of a relay").

A storer sees blinded keys and ciphertext only. It verifies before it stores, keeps the highest revision, and bounds
what it keeps: when it is full, what lies farthest from its own position goes first.
"""

from dataclasses import dataclass

from sortedcontainers import SortedDict, SortedSet

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.limits import REACH_REPLICAS, STORE_BYTES, STORED_OVERHEAD
from onionrelay.core.directory.placement import distance, is_storable, replica_key
from onionrelay.core.directory.reach import verify_record
from onionrelay.core.path.policy import PathPolicy
from onionrelay.wire.directory import StoreResult


@dataclass(frozen=True, slots=True)
class _Stored:
    raw: bytes
    period: int
    revision: int
    expires: int

    @property
    def cost(self) -> int:
        return len(self.raw) + STORED_OVERHEAD


class ReachStore:
    """Records by key. `position` (32) is this relay's own; `capacity` counts bytes with what holding them costs."""

    def __init__(self, policy: PathPolicy, position: bytes, capacity: int = STORE_BYTES) -> None:
        self._policy = policy
        self._position = position
        self._capacity = capacity
        self._used = 0
        self._by_distance: SortedDict[int, tuple[bytes, _Stored]] = SortedDict()
        self._by_expiry: SortedSet[tuple[int, int]] = SortedSet()  # (expires, distance)

    def __len__(self) -> int:
        return len(self._by_distance)

    @property
    def used(self) -> int:
        """Bytes held, with overhead; never above the capacity."""
        return self._used

    def put(self, key: bytes, raw: bytes, unix_now: int) -> StoreResult:
        """Keeps a record if it holds, belongs under `key` and is newer than the one there. Never raises for bytes."""
        try:
            record = verify_record(raw, unix_now, self._policy)
        except ProtocolViolation:
            return StoreResult.INVALID
        keys = [replica_key(record.blinded, record.period, replica) for replica in range(REACH_REPLICAS)]
        if key not in keys:
            return StoreResult.INVALID
        return self._keep(key, _Stored(raw, record.period, record.revision, record.expires), unix_now)

    def _keep(self, key: bytes, new: _Stored, unix_now: int) -> StoreResult:
        self.expire(unix_now)
        at = distance(self._position, key)
        if held := self._by_distance.get(at):
            _, old = held
            if new.raw == old.raw:
                return StoreResult.STORED
            if new.revision <= old.revision:
                return StoreResult.STALE
            self._drop(at)
        while self._used + new.cost > self._capacity:
            if not self._by_distance or self._by_distance.peekitem()[0] < at:
                return StoreResult.FULL
            self._drop(self._by_distance.peekitem()[0])
        self._by_distance[at] = (key, new)
        self._by_expiry.add((new.expires, at))
        self._used += new.cost
        return StoreResult.STORED

    def get(self, key: bytes, unix_now: int) -> tuple[bytes, ...]:
        """The record under `key`, or none."""
        held = self._by_distance.get(distance(self._position, key))
        if held is None:
            return ()
        _, stored = held
        alive = stored.expires > unix_now and is_storable(stored.period, unix_now)
        return (stored.raw,) if alive else ()

    def expire(self, unix_now: int) -> None:
        """Drops the records that have expired."""
        while self._by_expiry and self._by_expiry[0][0] <= unix_now:
            self._drop(self._by_expiry[0][1])

    def _drop(self, at: int) -> None:
        _, stored = self._by_distance.pop(at)
        self._by_expiry.remove((stored.expires, at))
        self._used -= stored.cost
