import pytest

from onionrelay.base.errors import UsageError
from onionrelay.wire.attach import Attach, Voucher
from tests.wire.samples import EXTRA, HANDLE, NET, NONCE, RELAY, SIG, VOUCHER

KEY = bytes(range(100, 132))
ATTACH = Attach(
    handle=HANDLE,
    ttl=600,
    max_circuits=1,
    builds_per_minute=2,
    pow_effort=3,
    k_ticket=KEY,
    signature=SIG,
    extensions=EXTRA,
)


def test_what_a_voucher_signs():
    assert VOUCHER.signed_part(NET) == NET + VOUCHER.encode()[:-64]
    assert len(VOUCHER.encode()) == Voucher.SIZE == 145
    with pytest.raises(UsageError):
        VOUCHER.signed_part(b"short")


def test_what_a_handle_signs():
    assert ATTACH.signed_part(RELAY, NONCE) == RELAY.raw + NONCE + ATTACH.encode()[:-64]
    with pytest.raises(UsageError):
        ATTACH.signed_part(RELAY, NONCE[:-1])


def test_the_ticket_key_is_not_shown():
    assert Attach.decode(ATTACH.encode()).k_ticket == KEY
    assert "k_ticket" not in repr(ATTACH)
    assert repr(KEY) not in repr(ATTACH)
