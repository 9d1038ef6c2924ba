"""One attachment of a target to one final hop, from the dial to its end (specs/05-attach-and-reach.md)."""

from dataclasses import replace
from enum import Enum

from onionrelay.base.errors import BadRecord, ProtocolViolation
from onionrelay.base.ids import HandleKey
from onionrelay.base.limits import ATTACH_TIMEOUT, ATTACHMENT_LIFE, RETIRE_BEFORE, SESSIONS_PER_TARGET, VOUCHER_FRESH
from onionrelay.base.seams import Rng
from onionrelay.core.attach.voucher import verify_voucher
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.attach import TICKET_KEY, Attach, AttachAccepted, Voucher, VoucherRequest
from onionrelay.wire.reach import FinalEntry


class AttachState(Enum):
    """Where an attachment stands. Every state but ATTACHED and ENDED has a time limit."""

    DIALLING = "dialling"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    RENEWING = "renewing"  # attached, and a fresh voucher has been asked for
    ENDED = "ended"


class Attachment:
    """A handle at one final hop. Its secrets, a signing key and a ticket key, are made for it and die with it.

    `until` (monotonic) is when it retires: another takes its place then, and it is kept up for those who still hold an
    older record, to its end RETIRE_BEFORE seconds later.
    """

    def __init__(self, final: RelayEntry, policy: PathPolicy, rng: Rng, now: float) -> None:
        self.final = final
        self.state = AttachState.DIALLING
        self.voucher: Voucher | None = None
        self._policy = policy
        self._secret = SigningSecret.generate(rng)
        self._k_ticket = rng.token(TICKET_KEY)
        self._life = rng.uniform(*ATTACHMENT_LIFE)
        self._vouched = 0
        self._limit: float | None = now + ATTACH_TIMEOUT
        self.until = now + self._life - RETIRE_BEFORE

    @property
    def handle(self) -> HandleKey:
        """Our name at this final hop."""
        return HandleKey(self._secret.public)

    @property
    def is_up(self) -> bool:
        """Whether the final hop forwards to us."""
        return self.state in {AttachState.ATTACHED, AttachState.RENEWING}

    def is_retiring(self, now: float) -> bool:
        """Whether another attachment should take its place."""
        return now >= self.until

    @property
    def entry(self) -> FinalEntry | None:
        """What the reach record says of it."""
        return FinalEntry(self.voucher, self._k_ticket) if self.voucher and self.is_up else None

    def next_event(self, now: float) -> float:
        """When an answer is overdue, or the attachment retires, or ends."""
        if self._limit is not None:
            return self._limit
        return self.until + (RETIRE_BEFORE if self.is_retiring(now) else 0)

    def is_overdue(self, now: float) -> bool:
        """Whether the final hop has taken too long to answer, or the attachment's life is over."""
        return (self._limit is not None and now >= self._limit) or now >= self.until + RETIRE_BEFORE

    def attach(self, transcript: bytes) -> Attach:
        """The link is up: what to send. `transcript` is that of its handshake."""
        self.state = AttachState.ATTACHING
        unsigned = Attach(
            handle=self.handle,
            ttl=int(self._life),
            max_circuits=SESSIONS_PER_TARGET,
            builds_per_minute=0,
            pow_effort=0,
            k_ticket=self._k_ticket,
            signature=b"",
        )
        signature = self._secret.sign("attach", unsigned.signed_part(self.final.relay_id, transcript))
        return replace(unsigned, signature=signature)

    def renew(self, now: float) -> VoucherRequest:
        """What to send for a fresh voucher."""
        self.state = AttachState.RENEWING
        self._limit = now + ATTACH_TIMEOUT
        return VoucherRequest()

    def accept(self, message: AttachAccepted, final: RelayEntry, unix_now: int) -> None:
        """Takes the voucher; `final` is the final hop as it is known now.

        Raises BadRecord when the voucher does not hold, and ProtocolViolation when none was asked for.
        """
        if self.state not in {AttachState.ATTACHING, AttachState.RENEWING}:
            raise ProtocolViolation("a voucher that was not asked for")
        if message.voucher.handle != self.handle:
            raise BadRecord("voucher for another handle")
        verify_voucher(message.voucher, final, unix_now, self._policy)
        self.voucher, self._vouched = message.voucher, unix_now
        self.state, self._limit = AttachState.ATTACHED, None

    def has_fresh_voucher(self, unix_now: int) -> bool:
        """Whether the voucher is young enough to be published as it is."""
        return self.voucher is not None and 0 <= unix_now - self._vouched <= VOUCHER_FRESH

    def end(self) -> None:
        """The link is gone, or is about to be."""
        self.state = AttachState.ENDED

    def __repr__(self) -> str:
        return f"Attachment({self.final.relay_id!r}, {self.state.value})"
