import pytest
from msgspec.structs import replace

from onionrelay.base.errors import BadRecord
from onionrelay.base.ids import HandleKey
from onionrelay.base.limits import CLOCK_SKEW_REFUSED, VOUCHER_LIFE
from onionrelay.core.attach.voucher import issue_voucher, verify_voucher
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.attach import Voucher
from tests.core.relays import DAY, NET, NOW, TESTNET, Relay, table_of

FINAL, OTHER = Relay("final", "127.0.0.1:1"), Relay("other", "127.0.0.1:2")
TABLE = table_of(FINAL, OTHER)
HANDLE, ANOTHER = (HandleKey(SigningSecret(bytes([n]) * 32).public) for n in (1, 2))


def voucher(relay=FINAL, **changes):
    settings = {
        "net_id": NET,
        "final": relay.relay_id,
        "handle": HANDLE,
        "unix_now": NOW + 599,
        "until": NOW + DAY,
        "max_circuits": 64,
        "builds_per_minute": 120,
    }
    return issue_voucher(relay.signing, **settings | changes)


def check(given, unix_now=NOW + 599, policy=TESTNET, relay=FINAL, table=TABLE):
    verify_voucher(given, table.get(relay.relay_id), unix_now, policy)


def test_a_voucher_holds_for_three_hours_from_the_last_ten_minutes():
    given = voucher()
    assert (given.not_before, given.not_after) == (NOW, NOW + VOUCHER_LIFE)
    assert Voucher.decode(given.encode()) == given
    check(given)
    check(given, NOW + VOUCHER_LIFE - 1)
    check(given, NOW - CLOCK_SKEW_REFUSED)


def test_a_voucher_ends_with_the_attachment():
    assert voucher(until=NOW + 2 * 3600 + 100).not_after == NOW + 2 * 3600
    assert voucher(until=NOW + 599) is None
    assert voucher(until=NOW + 600).not_after == NOW + 600


WRONG = {
    "expired": (voucher(), {"unix_now": NOW + VOUCHER_LIFE}, "voucher expired"),
    "from the future": (voucher(), {"unix_now": NOW - CLOCK_SKEW_REFUSED - 1}, "voucher from the future"),
    "forged": (replace(voucher(), signature=bytes(64)), {}, "not signed by this relay"),
    "another handle": (replace(voucher(), handle=ANOTHER), {}, "not signed by this relay"),
    "longer": (replace(voucher(until=NOW + 3600), not_after=NOW + 7200), {}, "not signed by this relay"),
    "more circuits": (replace(voucher(), max_circuits=65), {}, "not signed by this relay"),
    "another final hop's": (voucher(OTHER), {}, "names another relay"),
    "another final hop's with this one's name": (
        replace(voucher(OTHER), final=FINAL.relay_id),
        {},
        "not signed by this relay",
    ),
    "another network's": (voucher(net_id=bytes(8)), {}, "not signed by this relay"),
    "this network's in another one": (voucher(), {"policy": PathPolicy(bytes(8), testnet=True)}, "not signed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_voucher_is_refused_with_the_reason(case):
    given, changes, reason = WRONG[case]
    with pytest.raises(BadRecord, match=reason):
        check(given, **changes)


def test_a_voucher_under_the_previous_signing_key_holds_until_that_keys_certificate_ends():
    relay = Relay("changing", "127.0.0.1:3")
    relay.cert = relay.certify(NOW + 3600)
    table = table_of(relay)
    old = voucher(relay)
    relay.change_signing_key()
    table.add(relay.describe(), NOW)
    check(old, relay=relay, table=table)
    check(voucher(relay), relay=relay, table=table)
    with pytest.raises(BadRecord, match="not signed by this relay"):
        check(old, NOW + 3600, relay=relay, table=table)
    check(voucher(relay), NOW + 3600, relay=relay, table=table)


def test_two_changes_of_the_signing_key_leave_the_first_one_behind():
    relay = Relay("changing", "127.0.0.1:3")
    table = table_of(relay)
    old = voucher(relay)
    for _ in range(2):
        relay.change_signing_key()
        table.add(relay.describe(), NOW)
    with pytest.raises(BadRecord, match="not signed by this relay"):
        check(old, relay=relay, table=table)
