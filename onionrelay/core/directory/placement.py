"""Where reach records are kept, and for which periods (specs/07-directory-and-paths.md, "Where records are kept").

Until there is a distributed hash table, everybody works the storers out from the complete relay table.
"""

import hashlib

from onionrelay.base.ids import BlindedKey, NodeId
from onionrelay.base.limits import (
    BLIND_PERIOD,
    BLIND_PERIOD_START,
    CLOCK_SKEW_REFUSED,
    REACH_EARLY,
    REACH_KEPT,
    REACH_REPLICAS,
    REACH_STORERS,
)
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.groups import Side
from onionrelay.crypto.blind import blind_public, period_at
from onionrelay.wire.descriptor import Roles


def replica_key(blinded: BlindedKey, period: int, replica: int) -> bytes:
    """One of the keys (32) under which a blinded key's record of a period is stored."""
    place = blinded.raw + period.to_bytes(8, "big") + bytes([replica])
    return hashlib.sha256(b"onionrelay/kd/reach/1\0" + place).digest()


def reach_keys(node_id: NodeId, period: int) -> tuple[bytes, ...]:
    """All keys under which a node's record of a period is looked for."""
    blinded = blind_public(node_id, period)
    return tuple(replica_key(blinded, period, replica) for replica in range(REACH_REPLICAS))


def distance(position: bytes, key: bytes) -> int:
    """How far a relay at `position` is from `key`: the XOR of the two, as a number."""
    return int.from_bytes(position) ^ int.from_bytes(key)


def storers(key: bytes, table: RelayTable, unix_now: int, count: int = REACH_STORERS) -> tuple[RelayEntry, ...]:
    """The relays that keep the record of `key`, closest first: far-side DHT relays, one of an address group.

    Near-side relays follow only where the far side has too few: a publisher that leaves out a storer because it is
    its own guard gives its guard away to that storer.
    """
    ranked = sorted(
        (entry for entry in table if entry.has(Roles.DHT) and entry.is_valid(unix_now)),
        key=lambda entry: (entry.side is not Side.FAR, distance(entry.position, key)),
    )
    chosen: dict[bytes, RelayEntry] = {}
    for entry in ranked:
        if len(chosen) < count:
            chosen.setdefault(entry.group, entry)
    return tuple(chosen.values())


def period_start(period: int) -> int:
    """The unix time at which a period begins."""
    return period * BLIND_PERIOD + BLIND_PERIOD_START


def is_storable(period: int, unix_now: int) -> bool:
    """Whether records of `period` are taken and served now: early by 3 h and late by 3 h, and skew at the early end."""
    start = period_start(period)
    return start - REACH_EARLY - CLOCK_SKEW_REFUSED <= unix_now < start + BLIND_PERIOD + REACH_KEPT


def periods_to_ask(unix_now: int) -> tuple[int, ...]:
    """The periods to look a node up under: the current one, then a neighbour if a skewed clock may be in it."""
    current = period_at(unix_now)
    near = {period_at(unix_now - CLOCK_SKEW_REFUSED), period_at(unix_now + CLOCK_SKEW_REFUSED)}
    return (current, *sorted(near - {current}))


def periods_to_publish(unix_now: int, early: float) -> tuple[int, ...]:
    """The periods a record is published for: the current one, and the next once its start is less than `early` away.

    `early` is drawn once for each change of period, uniformly from 0 to REACH_EARLY seconds. Just after a change the
    last period is served too, for clients whose clocks are behind.
    """
    current = period_at(unix_now)
    wanted = {current, period_at(unix_now - CLOCK_SKEW_REFUSED)}
    if unix_now + early >= period_start(current + 1):
        wanted.add(current + 1)
    return tuple(sorted(wanted))
