"""A target's attachments: which final hops it holds, when one is replaced, when its record is published.

specs/05-attach-and-reach.md, "At the target". The driver dials, carries messages and publishes; every input returns the
effects to carry out. `now` is monotonic, `unix_now` unix time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from onionrelay.base.errors import ProtocolViolation
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import ATTACHMENTS, FINAL_AVOIDED, PUBLISH_GATHER, REATTACH_RETRY
from onionrelay.base.seams import Rng
from onionrelay.core.attach.attachment import Attachment, AttachState
from onionrelay.core.attach.schedule import PublishSchedule
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.path.anonymity import clash
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.groups import Side
from onionrelay.wire.attach import Attach, AttachAccepted, AttachRefused, Detach, VoucherRequest
from onionrelay.wire.reach import FinalEntry


@dataclass(frozen=True, slots=True)
class Dial:
    """Make a link of its own to `attachment.final`; then `on_link_up` or `on_link_lost`."""

    attachment: Attachment


@dataclass(frozen=True, slots=True)
class SendAttach:
    """Send a message on the attachment's link."""

    attachment: Attachment
    message: Attach | VoucherRequest | Detach


@dataclass(frozen=True, slots=True)
class CloseAttachment:
    """Close the attachment's link, or give up dialling it; nothing more will be asked of it."""

    attachment: Attachment
    why: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a record with these final hops for each of `periods`; then `on_published`."""

    finals: tuple[FinalEntry, ...]
    periods: tuple[int, ...]


TargetEffect: TypeAlias = Dial | SendAttach | CloseAttachment | Publish


class AttachmentSet:
    """Keeps `count` attachments up and the record true. Begin with `on_candidates`."""

    def __init__(self, rng: Rng, count: int = ATTACHMENTS) -> None:
        self._rng = rng
        self._count = count
        self._candidates: Candidates | None = None
        self._attachments: list[Attachment] = []
        self._failed: dict[RelayId, float] = {}
        self._schedule = PublishSchedule(rng)
        self._published: frozenset[Attachment] = frozenset()
        self._publishing: Publish | None = None
        self._gather_until: float | None = None
        self._effects: list[TargetEffect] = []
        self._deadline: float | None = None

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Those that are being made or are up."""
        return tuple(self._attachments)

    @property
    def deadline(self) -> float | None:
        """When to call `on_timeout`."""
        return self._deadline

    def on_candidates(self, candidates: Candidates, now: float, unix_now: int) -> list[TargetEffect]:
        """The relay table is there, or has changed."""
        self._candidates = candidates
        return self._advance(now, unix_now)

    def on_link_up(self, attachment: Attachment, transcript: bytes, now: float, unix_now: int) -> list[TargetEffect]:
        """The link that Dial asked for is up; `transcript` is that of its handshake."""
        if attachment in self._attachments:
            self._effects.append(SendAttach(attachment, attachment.attach(transcript)))
        return self._advance(now, unix_now)

    def on_message(
        self, attachment: Attachment, message: AttachAccepted | AttachRefused, now: float, unix_now: int
    ) -> list[TargetEffect]:
        """The final hop answered. What it must not say costs it the attachment."""
        if attachment not in self._attachments or self._candidates is None:
            return []
        if isinstance(message, AttachRefused):
            self._give_up(attachment, f"refused: {message.reason.name.lower().replace('_', ' ')}", now)
            return self._advance(now, unix_now)
        try:
            final = self._candidates.table.get(attachment.final.relay_id) or attachment.final
            attachment.accept(message, final, unix_now)
        except ProtocolViolation as exc:
            self._give_up(attachment, str(exc), now)
        return self._advance(now, unix_now)

    def on_link_lost(self, attachment: Attachment, now: float, unix_now: int) -> list[TargetEffect]:
        """The link is gone, or could not be made."""
        if attachment in self._attachments:
            self._forget(attachment)
            self._failed[attachment.final.relay_id] = now
        return self._advance(now, unix_now)

    def on_published(self, *, stored: bool, now: float, unix_now: int) -> list[TargetEffect]:
        """What Publish asked for is done; `stored`: at least one storer took the record."""
        if self._publishing is not None:
            self._schedule.on_published(self._publishing.periods, now, stored=stored)
            self._publishing = None
        return self._advance(now, unix_now)

    def on_timeout(self, now: float, unix_now: int) -> list[TargetEffect]:
        """The deadline has come."""
        for attachment in [each for each in self._attachments if each.is_overdue(now)]:
            if attachment.is_up and attachment.is_retiring(now):
                self._retire(attachment, "its time is over")
            else:
                self._give_up(attachment, "no answer", now)
        return self._advance(now, unix_now)

    def stop(self) -> list[TargetEffect]:
        """Ends every attachment."""
        for attachment in list(self._attachments):
            self._retire(attachment, "the target stops")
        self._candidates, self._deadline = None, None
        return self._take_effects()

    def _advance(self, now: float, unix_now: int) -> list[TargetEffect]:
        if self._candidates is None:
            return self._take_effects()
        self._fill(self._candidates, now)
        self._publish(now, unix_now)
        self._deadline = self._next_event(now, unix_now)
        return self._take_effects()

    def _take_effects(self) -> list[TargetEffect]:
        effects, self._effects = self._effects, []
        return effects

    # Attachments

    def _staying(self, now: float) -> list[Attachment]:
        return [each for each in self._attachments if not each.is_retiring(now)]

    def _fill(self, candidates: Candidates, now: float) -> None:
        self._failed = {relay: at for relay, at in self._failed.items() if now - at < FINAL_AVOIDED}
        while len(self._staying(now)) < self._count and (final := self._pick(candidates, now)):
            attachment = Attachment(final, candidates.policy, self._rng, now)
            self._attachments.append(attachment)
            self._effects.append(Dial(attachment))

    def _pick(self, candidates: Candidates, now: float) -> RelayEntry | None:
        """A final hop apart from those held: on the far side if any can be had, and not one that failed just now."""
        rules, own, finals = candidates.rules, candidates.policy.own_relay, candidates.finals
        held = [each.final for each in self._attachments]

        def fits(entry: RelayEntry) -> bool:
            return entry.relay_id != own and not any(clash(entry, other, rules) for other in held)

        def draw(further: Callable[[RelayEntry], bool]) -> RelayEntry | None:
            far = finals.draw(self._rng, lambda entry: entry.side is Side.FAR and fits(entry) and further(entry))
            return far or finals.draw(self._rng, lambda entry: fits(entry) and further(entry))

        def rested(entry: RelayEntry) -> bool:
            return now - self._failed.get(entry.relay_id, now - REATTACH_RETRY) >= REATTACH_RETRY

        return draw(lambda entry: entry.relay_id not in self._failed) or draw(rested)

    def _give_up(self, attachment: Attachment, why: str, now: float) -> None:
        self._forget(attachment)
        self._failed[attachment.final.relay_id] = now
        self._effects.append(CloseAttachment(attachment, why))

    def _retire(self, attachment: Attachment, why: str) -> None:
        if attachment.is_up:
            self._effects.append(SendAttach(attachment, Detach()))
        self._forget(attachment)
        self._effects.append(CloseAttachment(attachment, why))

    def _forget(self, attachment: Attachment) -> None:
        attachment.end()
        self._attachments.remove(attachment)

    # Publication

    def _is_outdated(self, now: float) -> bool:
        """Whether the last record misleads: fewer than all but one of its final hops are left, and it would change."""
        ready = frozenset(each for each in self._staying(now) if each.is_up)
        return len(self._published & ready) < self._count - 1 and ready not in {self._published, frozenset()}

    def _publish(self, now: float, unix_now: int) -> None:
        ready = [each for each in self._staying(now) if each.is_up] or [e for e in self._attachments if e.is_up]
        wanted = self._schedule.wants(now, unix_now, outdated=self._is_outdated(now))
        if self._publishing is not None or not ready or not wanted:
            return
        if not self._is_gathered(len(ready), now):
            return
        stale = [each for each in ready if not each.has_fresh_voucher(unix_now)]
        for attachment in stale:
            if attachment.state is AttachState.ATTACHED:
                self._effects.append(SendAttach(attachment, attachment.renew(now)))
        if not stale:
            entries = tuple(entry for each in ready if (entry := each.entry))
            self._publishing = Publish(entries, self._schedule.periods(unix_now))
            self._published, self._gather_until = frozenset(ready), None
            self._effects.append(self._publishing)

    def _is_gathered(self, ready: int, now: float) -> bool:
        """Whether to wait no longer for attachments that are still being made."""
        if self._gather_until is None:
            self._gather_until = now + PUBLISH_GATHER
        return ready >= self._count or now >= self._gather_until

    def _next_event(self, now: float, unix_now: int) -> float:
        events = [each.next_event(now) for each in self._attachments]
        if len(self._staying(now)) < self._count:
            events.append(now + REATTACH_RETRY)
        states = {each.state for each in self._attachments}
        if self._publishing is None and AttachState.ATTACHED in states and AttachState.RENEWING not in states:
            moment = self._schedule.next_event(now, unix_now, outdated=self._is_outdated(now))
            gathering = self._gather_until is not None and self._gather_until > now
            events.append(max(moment, self._gather_until or moment) if gathering else moment)
        return min(events, default=now + REATTACH_RETRY)
