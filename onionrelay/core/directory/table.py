"""The relay table: every relay of the network, at every client and every relay.

specs/07-directory-and-paths.md, "The relay table". Nobody learns from what is fetched which relays will be used,
because everything is. The table is bounded, and when it is full the crowded address groups give way first.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from sortedcontainers import SortedDict

from onionrelay.base.errors import ConfigError, ProtocolViolation
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import FIRST_SEEN_KEPT, FOUNDING_SPAN, MAX_RELAYS
from onionrelay.core.directory.descriptor import RelayEntry, place, verify_descriptor
from onionrelay.core.path.policy import PathPolicy
from onionrelay.wire.codec import Reader, Writer
from onionrelay.wire.descriptor import RelayDescriptor
from onionrelay.wire.directory import BUCKETS, DirData, room_left
from onionrelay.wire.link import SigningCert

UNKNOWN_AGE = 1 << 40  # seconds; older than any rule asks for
_MAGIC = b"onionrelay table 1\n"
_CHECKSUM = 32


class Outcome(Enum):
    """What became of a descriptor offered to the table."""

    NEW = "new"
    NEWER = "newer"
    OLD = "old"  # this one, or one with a higher sequence number, is held already
    FULL = "full"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Added:
    """`why` is for people, and empty unless the outcome is FULL or REFUSED. `entry` is what the table holds now."""

    outcome: Outcome
    why: str = ""
    entry: RelayEntry | None = None

    @property
    def changed(self) -> bool:
        """Whether the table is different now."""
        return self.outcome in {Outcome.NEW, Outcome.NEWER}


class RelayTable:
    """Entries by relay id, in ascending order of the id's bytes. `version` changes with every change of the table."""

    def __init__(self, policy: PathPolicy) -> None:
        self.policy = policy
        self.version = 0
        self.founded = 0  # when the first relay was met
        self._entries: SortedDict[RelayId, RelayEntry] = SortedDict()
        self._digests: dict[bytes, RelayId] = {}
        self._absent: dict[RelayId, tuple[int, int]] = {}  # first seen, dropped; the first dropped first

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[RelayEntry]:
        return iter(self._entries.values())

    def get(self, relay_id: RelayId) -> RelayEntry | None:
        """The relay of this id, if it is known."""
        found: RelayEntry | None = self._entries.get(relay_id)
        return found

    def age(self, entry: RelayEntry, unix_now: int) -> int:
        """For how many seconds this process has known the relay.

        Nothing can be known about the age of relays that were there when the table was begun: they count as old.
        """
        return UNKNOWN_AGE if entry.first_seen <= self.founded + FOUNDING_SPAN else unix_now - entry.first_seen

    def add(self, raw: bytes, unix_now: int) -> Added:
        """Takes a descriptor from outside, if it holds and is newer than what is known. Never raises for its bytes."""
        known = self._digests.get(hashlib.sha256(raw).digest())
        if known is not None:
            return Added(Outcome.OLD, entry=self._entries[known])
        try:
            entry = verify_descriptor(raw, unix_now, self.policy)
        except ProtocolViolation as exc:
            return Added(Outcome.REFUSED, str(exc))
        return self._offer(entry, unix_now)

    def _offer(self, entry: RelayEntry, unix_now: int) -> Added:
        held = self._entries.get(entry.relay_id)
        if held is None:
            return self._admit(self._with_memory(entry), None, unix_now)
        if entry.descriptor.seq < held.descriptor.seq:
            return Added(Outcome.OLD, entry=held)
        if entry.descriptor.seq == held.descriptor.seq:
            return Added(Outcome.REFUSED, "another descriptor with the same sequence number", held)
        return self._admit(_succeeding(entry, held), held, unix_now)

    def _with_memory(self, entry: RelayEntry) -> RelayEntry:
        first_seen, _ = self._absent.get(entry.relay_id, (entry.first_seen, 0))
        return replace(entry, first_seen=first_seen)

    def _admit(self, entry: RelayEntry, held: RelayEntry | None, unix_now: int) -> Added:
        victims = self._victims(entry, held)
        if victims is None:
            return Added(Outcome.FULL, "the relay table is full", held)
        if held is not None:
            self._remove(held)
        for victim in victims:
            self._retire(victim, unix_now)
        if not self.founded:
            self.founded = unix_now
        self._insert(entry)
        self._absent.pop(entry.relay_id, None)
        return Added(Outcome.NEWER if held else Outcome.NEW, entry=entry)

    def _victims(self, entry: RelayEntry, held: RelayEntry | None) -> list[RelayEntry] | None:
        """Whom to drop so that `entry` fits in the place of `held`, always from the largest group; None: it cannot fit.

        A bucket of relay ids has to fit one message, so ids ground to fall into one bucket crowd each other first.
        """
        victims: list[RelayEntry] = []
        bucket = [each for each in self._bucket(entry.relay_id.raw[0]) if each is not held]
        while not _fits(bucket, entry):
            victim = _crowded_out(bucket, entry)
            if victim is None:
                return None
            bucket.remove(victim)
            victims.append(victim)
        if held is None and not victims and len(self) >= MAX_RELAYS:
            victim = _crowded_out(self, entry)
            if victim is None:
                return None
            victims.append(victim)
        return victims

    def _insert(self, entry: RelayEntry) -> None:
        self._entries[entry.relay_id] = entry
        self._digests[entry.digest] = entry.relay_id
        self.version += 1

    def _remove(self, entry: RelayEntry) -> None:
        del self._entries[entry.relay_id]
        del self._digests[entry.digest]
        self.version += 1

    def _retire(self, entry: RelayEntry, unix_now: int) -> None:
        """Drops a relay, but not its age."""
        self._remove(entry)
        self._absent.pop(entry.relay_id, None)
        self._absent[entry.relay_id] = (entry.first_seen, unix_now)
        if len(self._absent) > MAX_RELAYS:
            del self._absent[next(iter(self._absent))]

    def expire(self, unix_now: int) -> tuple[RelayEntry, ...]:
        """Drops the relays whose descriptors have expired, and returns them. An absent relay keeps its age for days."""
        expired = tuple(entry for entry in self if not entry.is_valid(unix_now))
        for entry in expired:
            self._retire(entry, unix_now)
        for relay_id, (_, left) in list(self._absent.items()):
            if left + FIRST_SEEN_KEPT > unix_now and len(self._absent) <= MAX_RELAYS:
                break
            del self._absent[relay_id]
        return expired

    def _bucket(self, first: int) -> Iterator[RelayEntry]:
        start, end = RelayId(bytes([first]) + bytes(31)), RelayId(bytes([first]) + b"\xff" * 31)
        return (self._entries[relay_id] for relay_id in self._entries.irange(start, end))

    def page(self, first_bucket: int) -> DirData:
        """The descriptors from one bucket on, as many whole buckets as one message carries, at least one."""
        items: list[bytes] = []
        for bucket in range(first_bucket, BUCKETS):
            more = [entry.raw for entry in self._bucket(bucket)]
            if bucket > first_bucket and room_left(items + more) < 0:
                return DirData(bucket, tuple(items))
            items += more
        return DirData(BUCKETS, tuple(items))

    def dump(self) -> bytes:
        """The table as a file for `load`."""
        writer = Writer().raw(_MAGIC).u32(self.founded).u32(len(self._entries))
        for entry in self:
            writer.u32(entry.first_seen).u8(entry.previous_cert is not None)
            writer.raw(entry.previous_cert.encode() if entry.previous_cert else b"")
            writer.u16(len(entry.raw)).raw(entry.raw)
        writer.u32(len(self._absent))
        for relay_id, (first_seen, left) in self._absent.items():
            writer.key(relay_id).u32(first_seen).u32(left)
        body = writer.done()
        return body + hashlib.sha256(body).digest()

    @classmethod
    def load(cls, data: bytes, policy: PathPolicy, unix_now: int) -> "RelayTable":
        """The table that `dump` wrote, without what has expired since. Raises ConfigError for a damaged file.

        Signatures were verified when the descriptors came in; the file is protected by its checksum and its place.
        """
        body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
        if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != checksum:
            raise ConfigError("the saved relay table is damaged")
        table = cls(policy)
        try:
            table._read(Reader(body[len(_MAGIC) :], "saved relay table"))
        except ProtocolViolation as exc:
            raise ConfigError(f"the saved relay table cannot be used: {exc}") from exc
        table.expire(unix_now)
        return table

    def _read(self, reader: Reader) -> None:
        self.founded = reader.u32()
        for _ in range(reader.u32()):
            first_seen = reader.u32()
            cert = SigningCert.decode(reader.take(SigningCert.SIZE)) if reader.u8() else None
            raw = reader.take(reader.u16())
            descriptor = RelayDescriptor.decode(raw)
            self._insert(place(descriptor, raw, self.policy, first_seen=first_seen, previous_cert=cert))
        for _ in range(reader.u32()):
            relay_id, first_seen, left = reader.key(RelayId), reader.u32(), reader.u32()
            self._absent[relay_id] = (first_seen, left)
        reader.done()


def _succeeding(entry: RelayEntry, held: RelayEntry) -> RelayEntry:
    """The newer entry with what the older one remembers."""
    old, new = held.descriptor.signing_cert, entry.descriptor.signing_cert
    previous = held.previous_cert if old.signing_key == new.signing_key else old
    return replace(entry, first_seen=held.first_seen, previous_cert=previous)


def _fits(bucket: list[RelayEntry], entry: RelayEntry) -> bool:
    return room_left([each.raw for each in bucket]) >= len(entry.raw)


def _crowded_out(relays: Iterable[RelayEntry], entry: RelayEntry) -> RelayEntry | None:
    """Whom to drop for `entry`: the youngest relay of the largest group; None if that would not even things out."""
    relays = list(relays)
    counts = Counter(each.group for each in relays)
    if not relays or max(counts.values()) <= counts[entry.group] + 1:
        return None
    largest = max(counts.values())
    crowd = [each for each in relays if counts[each.group] == largest]
    return max(crowd, key=lambda each: (each.first_seen, each.relay_id))
