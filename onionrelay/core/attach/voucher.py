"""Vouchers: a final hop's signed and dated word that it held the link of a handle (specs/05-attach-and-reach.md)."""

import msgspec

from onionrelay.base.errors import BadRecord, BadSignature
from onionrelay.base.ids import HandleKey, RelayId
from onionrelay.base.limits import CLOCK_SKEW_REFUSED, TIME_WINDOW, VOUCHER_LIFE
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.signing import SigningSecret, verify
from onionrelay.wire.attach import Voucher


def issue_voucher(
    signing: SigningSecret,
    *,
    net_id: bytes,
    final: RelayId,
    handle: HandleKey,
    unix_now: int,
    until: int,
    max_circuits: int,
    builds_per_minute: int,
) -> Voucher | None:
    """A voucher from now on for three hours, or up to `until`; None when less than ten minutes are left."""
    not_before = _floor(unix_now)
    not_after = min(not_before + VOUCHER_LIFE, _floor(until))
    if not_after <= not_before:
        return None
    unsigned = Voucher(final, handle, not_before, not_after, max_circuits, builds_per_minute, b"")
    return msgspec.structs.replace(unsigned, signature=signing.sign("voucher", unsigned.signed_part(net_id)))


def verify_voucher(voucher: Voucher, final: RelayEntry, unix_now: int, policy: PathPolicy) -> None:
    """Raises BadRecord with the reason unless `final` says in this voucher that its handle is attached now."""
    if voucher.final != final.relay_id:
        raise BadRecord("voucher names another relay")
    if voucher.not_after <= unix_now:
        raise BadRecord("voucher expired")
    if voucher.not_before > unix_now + CLOCK_SKEW_REFUSED:
        raise BadRecord("voucher from the future")
    signed = voucher.signed_part(policy.net_id)
    for key in final.signing_keys(unix_now):
        try:
            return verify(key, "voucher", signed, voucher.signature)
        except BadSignature:
            continue
    raise BadRecord("voucher not signed by this relay")


def _floor(unix: int) -> int:
    return unix - unix % TIME_WINDOW
