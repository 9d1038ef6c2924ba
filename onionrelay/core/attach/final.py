"""The handles that are attached to this relay as a final hop (specs/05-attach-and-reach.md, "At the final hop").

A final hop forwards a build to a handle only while the handle's link is up, its voucher is good, and the caller proves
with a ticket that it has read the target's record.
"""

import hmac
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from onionrelay.base.ids import HandleKey, RelayId
from onionrelay.base.limits import (
    ATTACHMENT_LIFE,
    ATTACHMENTS_HELD,
    ATTACHMENTS_PER_ADDRESS_GROUP,
    CIRCUITS_PER_CLIENT_LINK,
    RING_BURST,
    RING_RATE,
    TIME_WINDOW,
)
from onionrelay.core.attach.voucher import issue_voucher
from onionrelay.core.path.groups import address_group
from onionrelay.core.path.policy import PathPolicy
from onionrelay.core.token_bucket import TokenBucket
from onionrelay.crypto.signing import SigningSecret, verify
from onionrelay.crypto.ticket import build_ticket
from onionrelay.wire.address import Address
from onionrelay.wire.attach import Attach, AttachAccepted, AttachRefusal, AttachRefused, Voucher
from onionrelay.wire.build import BuildStatus

C = TypeVar("C", bound=Hashable)
_BUILDS_PER_MINUTE = int(60 * RING_RATE)


@dataclass(slots=True)
class _Held(Generic[C]):
    channel: C
    handle: HandleKey
    group: bytes
    until: int
    k_ticket: bytes = field(repr=False)
    max_circuits: int
    builds_per_minute: int
    rings: TokenBucket
    voucher: Voucher


class FinalTable(Generic[C]):
    """Attachments by handle and by link. A channel is whatever the caller knows a link by."""

    def __init__(self, relay_id: RelayId, signing: SigningSecret, policy: PathPolicy) -> None:
        self.signing = signing  # to be replaced when the relay's signing key is
        self._relay_id = relay_id
        self._policy = policy
        self._by_handle: dict[bytes, _Held[C]] = {}
        self._by_channel: dict[C, _Held[C]] = {}
        self._groups: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._by_handle)

    def on_attach(
        self, channel: C, address: Address, message: Attach, transcript: bytes, *, unix_now: int, now: float
    ) -> AttachAccepted | AttachRefused:
        """The answer to an ATTACH from `address`; `transcript` is that of the link's handshake.

        Raises BadSignature when the handle did not sign for this relay and this link: the link is closed then.
        """
        verify(message.handle, "attach", message.signed_part(self._relay_id, transcript), message.signature)
        group = address_group(address, self._policy)
        if refusal := self._refusal(channel, message.handle, group):
            return AttachRefused(refusal)
        life = min(max(message.ttl, TIME_WINDOW), ATTACHMENT_LIFE[1])
        circuits = min(message.max_circuits or CIRCUITS_PER_CLIENT_LINK, CIRCUITS_PER_CLIENT_LINK)
        builds = min(message.builds_per_minute or _BUILDS_PER_MINUTE, _BUILDS_PER_MINUTE)
        voucher = self._issue(message.handle, unix_now, unix_now + life, circuits, builds)
        if voucher is None:
            return AttachRefused(AttachRefusal.BUSY)
        held = _Held(
            channel=channel,
            handle=message.handle,
            group=group,
            until=unix_now + life,
            k_ticket=message.k_ticket,
            max_circuits=circuits,
            builds_per_minute=builds,
            rings=TokenBucket(builds / 60, RING_BURST, now),
            voucher=voucher,
        )
        self._by_handle[message.handle.raw] = self._by_channel[channel] = held
        self._groups[group] += 1
        return AttachAccepted(voucher)

    def _refusal(self, channel: C, handle: HandleKey, group: bytes) -> AttachRefusal | None:
        if channel in self._by_channel or handle.raw in self._by_handle:
            return AttachRefusal.HANDLE_TAKEN
        if not self._policy.testnet and self._groups[group] >= ATTACHMENTS_PER_ADDRESS_GROUP:
            return AttachRefusal.TOO_MANY
        return AttachRefusal.BUSY if len(self._by_handle) >= ATTACHMENTS_HELD else None

    def on_renew(self, channel: C, unix_now: int) -> AttachAccepted | AttachRefused:
        """The answer to a VoucherRequest."""
        held = self._by_channel.get(channel)
        if held is None:
            return AttachRefused(AttachRefusal.UNKNOWN_HANDLE)
        voucher = self._issue(held.handle, unix_now, held.until, held.max_circuits, held.builds_per_minute)
        if voucher is None:
            self.on_link_lost(channel)
            return AttachRefused(AttachRefusal.UNKNOWN_HANDLE)
        held.voucher = voucher
        return AttachAccepted(voucher)

    def on_link_lost(self, channel: C) -> None:
        """The link is gone, or a Detach came on it."""
        held = self._by_channel.pop(channel, None)
        if held is not None:
            del self._by_handle[held.handle.raw]
            self._groups[held.group] -= 1
            if not self._groups[held.group]:
                del self._groups[held.group]

    def authorise(self, handle: bytes, ticket: bytes, ephemeral: bytes, now: float, unix_now: int) -> C | BuildStatus:
        """The link to pass a build on over, or the status that refuses it.

        `ephemeral` is the X25519 key of this relay's own record in the build, which the ticket is bound to. The rate is
        counted after the ticket, so that strangers cannot use a handle's rate up.
        """
        held = self._by_handle.get(handle)
        if held is None or held.voucher.not_after <= unix_now:
            return BuildStatus.NO_SUCH_HANDLE
        if not hmac.compare_digest(build_ticket(held.k_ticket, ephemeral), ticket):
            return BuildStatus.TICKET
        return held.channel if held.rings.take(now) else BuildStatus.OVERLOADED

    def expire(self, unix_now: int) -> tuple[C, ...]:
        """Forgets the attachments whose time is over, and returns their links, which nobody needs any more."""
        over = tuple(held.channel for held in self._by_handle.values() if held.until <= unix_now)
        for channel in over:
            self.on_link_lost(channel)
        return over

    def _issue(
        self, handle: HandleKey, unix_now: int, until: int, max_circuits: int, builds_per_minute: int
    ) -> Voucher | None:
        return issue_voucher(
            self.signing,
            net_id=self._policy.net_id,
            final=self._relay_id,
            handle=handle,
            unix_now=unix_now,
            until=until,
            max_circuits=max_circuits,
            builds_per_minute=builds_per_minute,
        )
