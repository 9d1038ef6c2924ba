"""Reach records: made by the node they lead to, opened by whoever knows its id.

specs/05-attach-and-reach.md. Two parties have to agree before a client believes in a final hop: the node, whose record
names it, and the final hop, whose voucher names the handle.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import msgspec

from onionrelay.base.errors import BadRecord, ProtocolViolation
from onionrelay.base.ids import BlindedKey, HandleKey, NodeId, RecordKey, RelayId
from onionrelay.base.limits import CLOCK_SKEW_REFUSED, REACH_LIFE, TIME_WINDOW
from onionrelay.base.seams import Rng
from onionrelay.core.attach.voucher import verify_voucher
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.placement import is_storable, period_start
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.anonymity import rules_for
from onionrelay.core.path.groups import Side
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.blind import blind_public, blind_sign
from onionrelay.crypto.onion_keys import OnionPublic
from onionrelay.crypto.reach import open_reach, seal_reach
from onionrelay.crypto.signing import SigningSecret, verify
from onionrelay.wire.attach import Voucher
from onionrelay.wire.descriptor import Roles
from onionrelay.wire.reach import SALT, FinalEntry, ReachContents, ReachRecord

_COUNTER = 1 << 16


@dataclass(frozen=True, slots=True)
class RecordSecret:
    """What signs a node's records of one period. Made with the node key, used without it, kept for the period."""

    node_id: NodeId
    net_id: bytes
    period: int
    blinded: BlindedKey
    cert: bytes
    secret: SigningSecret = field(repr=False)

    @classmethod
    def certify(cls, node_secret: SigningSecret, net_id: bytes, period: int, rng: Rng) -> Self:
        """A new record key for `period`, certified by the blinded node key."""
        secret = SigningSecret.generate(rng)
        blinded = blind_public(NodeId(node_secret.public), period)
        unsigned = ReachRecord(
            net_id=net_id,
            period=period,
            revision=0,
            expires=0,
            blinded=blinded,
            record_key=RecordKey(secret.public),
        )
        _, cert = blind_sign(node_secret, period, "reach-cert", unsigned.cert_part)
        return cls(NodeId(node_secret.public), net_id, period, blinded, cert, secret)


def next_revision(period: int, unix_now: int, last: int | None = None, *, step: int = TIME_WINDOW) -> int:
    """A revision above `last`, the highest one published before: steps of seconds since the period's start, then n."""
    since = max(0, unix_now - period_start(period))
    fresh = (since - since % step) * _COUNTER
    return fresh if last is None else max(fresh, last + 1)


def publish(secret: RecordSecret, contents: ReachContents, revision: int, unix_now: int, rng: Rng) -> bytes:
    """A reach record that is valid for three hours. `revision` is higher than that of every earlier one."""
    bare = ReachRecord(
        net_id=secret.net_id,
        period=secret.period,
        revision=revision,
        expires=unix_now - unix_now % TIME_WINDOW + REACH_LIFE,
        blinded=secret.blinded,
        record_key=RecordKey(secret.secret.public),
        cert=secret.cert,
        salt=rng.token(SALT),
    )
    sealed = seal_reach(contents.encode(), secret.node_id, secret.blinded, secret.period, salt=bare.salt, aad=bare.aad)
    record = msgspec.structs.replace(bare, ciphertext=sealed)
    return msgspec.structs.replace(record, signature=secret.secret.sign("reach", record.signed_part)).encode()


def verify_record(raw: bytes, unix_now: int, policy: PathPolicy) -> ReachRecord:
    """All that can be checked without the node id: what a storer checks before it stores.

    Raises MalformedMessage, BadSignature, or BadRecord with the reason.
    """
    record = ReachRecord.decode(raw)
    if record.net_id != policy.net_id:
        raise BadRecord("record of another network")
    if not is_storable(record.period, unix_now):
        raise BadRecord("record of another period")
    if record.expires <= unix_now:
        raise BadRecord("record expired")
    if record.expires > unix_now + REACH_LIFE + CLOCK_SKEW_REFUSED:
        raise BadRecord("record valid for too long")
    verify(record.blinded, "reach-cert", record.cert_part, record.cert)
    verify(record.record_key, "reach", record.signed_part, record.signature)
    return record


@dataclass(frozen=True, slots=True)
class UsableFinal:
    """A final hop through which the node can be reached now, as far as node and final hop say."""

    entry: RelayEntry
    voucher: Voucher
    k_ticket: bytes = field(repr=False)

    @property
    def handle(self) -> HandleKey:
        """The node's name at this final hop."""
        return self.voucher.handle


@dataclass(frozen=True, slots=True)
class OpenedRecord:
    """A record that holds. `version` (period, revision) orders the records of one node."""

    version: tuple[int, int]
    expires: int
    contents: ReachContents
    onion: OnionPublic
    finals: tuple[UsableFinal, ...]
    rejected: tuple[tuple[RelayId, str], ...]


def open_record(raw: bytes, node_id: NodeId, table: RelayTable, unix_now: int, policy: PathPolicy) -> OpenedRecord:
    """Checks and reads a record that a storer handed out for `node_id`.

    What is wrong with one final hop leaves the others usable: see `rejected`. Raises MalformedMessage, BadSignature,
    or BadRecord with the reason when the record itself does not hold.
    """
    record = verify_record(raw, unix_now, policy)
    if record.blinded != blind_public(node_id, record.period):
        raise BadRecord("record of another node")
    plaintext = open_reach(record.ciphertext, node_id, record.blinded, record.period, salt=record.salt, aad=record.aad)
    contents = ReachContents.decode(plaintext)
    if contents.node_id != node_id:
        raise BadRecord("record names another node inside")
    onion = OnionPublic.decode(contents.onion_x25519, contents.onion_mlkem)
    usable, rejected = _sort_finals(contents.finals, table, unix_now, policy)
    return OpenedRecord((record.period, record.revision), record.expires, contents, onion, usable, rejected)


def newest_record(
    values: Iterable[bytes],
    node_id: NodeId,
    table: RelayTable,
    unix_now: int,
    policy: PathPolicy,
    *,
    known: tuple[int, int] | None = None,
) -> tuple[OpenedRecord | None, tuple[str, ...]]:
    """The record of the highest version among what several storers answered, and why the others were not taken.

    `known` is the version of a record that was opened before: an older one is a replay.
    """
    best: OpenedRecord | None = None
    refused: list[str] = []
    for raw in dict.fromkeys(values):
        try:
            opened = open_record(raw, node_id, table, unix_now, policy)
        except ProtocolViolation as exc:
            refused.append(str(exc))
            continue
        if known is not None and opened.version < known:
            refused.append("record older than one seen before")
        elif best is None or opened.version > best.version:
            best = opened
    return best, tuple(refused)


def _sort_finals(
    entries: tuple[FinalEntry, ...], table: RelayTable, unix_now: int, policy: PathPolicy
) -> tuple[tuple[UsableFinal, ...], tuple[tuple[RelayId, str], ...]]:
    sides = rules_for(table, policy, unix_now).sides
    usable: list[UsableFinal] = []
    rejected: list[tuple[RelayId, str]] = []
    for entry in entries:
        try:
            _require_new(entry.voucher, usable)
            final = _known_final(entry.voucher.final, table, unix_now, sides=sides)
            verify_voucher(entry.voucher, final, unix_now, policy)
            usable.append(UsableFinal(final, entry.voucher, entry.k_ticket))
        except BadRecord as exc:
            rejected.append((entry.voucher.final, str(exc)))
    return tuple(usable), tuple(rejected)


def _require_new(voucher: Voucher, earlier: list[UsableFinal]) -> None:
    if any(voucher.final == each.voucher.final or voucher.handle == each.handle for each in earlier):
        raise BadRecord("final hop or handle listed twice")


def _known_final(relay_id: RelayId, table: RelayTable, unix_now: int, *, sides: bool) -> RelayEntry:
    final = table.get(relay_id)
    if final is None:
        raise BadRecord("relay not known")
    if not final.is_valid(unix_now):
        raise BadRecord("relay's descriptor expired")
    if not final.has(Roles.FINAL):
        raise BadRecord("relay is no final hop")
    if sides and final.side is not Side.FAR:
        raise BadRecord("relay is on the near side")
    return final
