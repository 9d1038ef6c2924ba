from dataclasses import replace

import pytest

from onionrelay.base.errors import BadSignature
from onionrelay.base.ids import HandleKey
from onionrelay.base.limits import (
    ATTACHMENT_LIFE,
    ATTACHMENTS_PER_ADDRESS_GROUP,
    CIRCUITS_PER_CLIENT_LINK,
    RING_BURST,
    RING_RATE,
    VOUCHER_LIFE,
)
from onionrelay.core.attach import final as final_module
from onionrelay.core.attach.final import FinalTable
from onionrelay.core.attach.voucher import verify_voucher
from onionrelay.crypto.signing import SigningSecret
from onionrelay.crypto.ticket import build_ticket
from onionrelay.wire.address import Address
from onionrelay.wire.attach import Attach, AttachAccepted, AttachRefusal, AttachRefused
from onionrelay.wire.build import BuildStatus
from tests.core.relays import NOW, POLICY, TESTNET, Relay, table_of

FINAL, OTHER = Relay("final", "9.9.9.9:443"), Relay("other", "8.8.8.8:443")
ENTRY = table_of(FINAL).get(FINAL.relay_id)
HOME = Address("203.0.113.5", 50_000)
X = bytes(range(32))


def attach(number=1, *, transcript=None, relay=FINAL, **changes):
    secret = SigningSecret(number.to_bytes(32))
    fields = {"ttl": 13 * 3600, "max_circuits": 10, "builds_per_minute": 0, "pow_effort": 0}
    fields |= {"k_ticket": bytes([number % 256]) * 32}
    unsigned = Attach(handle=HandleKey(secret.public), signature=b"", **fields | changes)
    signed = unsigned.signed_part(relay.relay_id, transcript or link(number))
    return replace(unsigned, signature=secret.sign("attach", signed))


def link(number):
    return bytes([7]) * 24 + number.to_bytes(8)


class Final:
    """A final hop whose clock the test turns."""

    def __init__(self, policy=POLICY):
        self.table = FinalTable(FINAL.relay_id, FINAL.signing, policy)
        self.now = 0.0

    @property
    def unix_now(self):
        return NOW + int(self.now)

    def attach(self, number=1, *, address=HOME, message=None):
        message = message or attach(number)
        return self.table.on_attach(
            f"link {number}", address, message, link(number), unix_now=self.unix_now, now=self.now
        )

    def ring(self, number=1, *, ticket=None, ephemeral=X):
        message = attach(number)
        ticket = ticket or build_ticket(message.k_ticket, X)
        return self.table.authorise(message.handle.raw, ticket, ephemeral, self.now, self.unix_now)


def test_a_handle_is_attached_and_rung():
    final = Final()
    answer = final.attach()
    assert isinstance(answer, AttachAccepted)
    verify_voucher(answer.voucher, ENTRY, NOW, POLICY)
    assert answer.voucher.handle == attach().handle
    assert answer.voucher.max_circuits == 10
    assert answer.voucher.builds_per_minute == 60 * RING_RATE
    assert final.ring() == "link 1"


WRONG_SIGNATURES = {
    "for another link": attach(1, transcript=link(2)),
    "for another final hop": attach(1, relay=OTHER),
    "by another handle": replace(attach(1), handle=attach(2).handle),
    "over another life": replace(attach(1), ttl=1),
    "over another ticket key": replace(attach(1), k_ticket=bytes(32)),
    "forged": replace(attach(1), signature=bytes(64)),
}


@pytest.mark.parametrize("case", WRONG_SIGNATURES)
def test_a_handle_that_did_not_sign_this_attachment_is_a_violation(case):
    final = Final()
    with pytest.raises(BadSignature, match="attach"):
        final.attach(message=WRONG_SIGNATURES[case])
    assert len(final.table) == 0


def test_what_is_asked_for_is_granted_up_to_the_limits():
    final = Final()
    generous = final.attach(1, message=attach(1, ttl=1 << 31, max_circuits=0, builds_per_minute=60_000)).voucher
    modest = final.attach(2, message=attach(2, max_circuits=1, builds_per_minute=6)).voucher
    assert (generous.max_circuits, generous.builds_per_minute) == (CIRCUITS_PER_CLIENT_LINK, 60 * RING_RATE)
    assert (modest.max_circuits, modest.builds_per_minute) == (1, 6)
    final.now = ATTACHMENT_LIFE[1]
    assert set(final.table.expire(final.unix_now)) == {"link 1", "link 2"}


def test_a_life_of_nothing_is_ten_minutes():
    final = Final()
    voucher = final.attach(message=attach(1, ttl=0)).voucher
    assert voucher.not_after - voucher.not_before == 600


def test_a_stranger_cannot_ring():
    final = Final()
    assert final.ring() is BuildStatus.NO_SUCH_HANDLE
    final.attach()
    assert final.ring(ticket=bytes(16)) is BuildStatus.TICKET
    assert final.ring(ephemeral=bytes(32)) is BuildStatus.TICKET
    assert final.ring(ticket=build_ticket(attach(2).k_ticket, X)) is BuildStatus.TICKET
    assert final.ring(2) is BuildStatus.NO_SUCH_HANDLE


def test_a_handle_is_rung_no_faster_than_its_rate_and_strangers_do_not_use_it_up():
    final = Final()
    final.attach()
    for _ in range(5 * RING_BURST):
        assert final.ring(ticket=bytes(16)) is BuildStatus.TICKET
    rings = [final.ring() for _ in range(RING_BURST + 1)]
    assert rings == ["link 1"] * RING_BURST + [BuildStatus.OVERLOADED]
    final.now += 1 / RING_RATE
    assert final.ring() == "link 1"
    assert final.ring() is BuildStatus.OVERLOADED


def test_the_granted_rate_is_the_one_that_holds():
    final = Final()
    final.attach(message=attach(1, builds_per_minute=6))
    while final.ring() == "link 1":
        pass
    final.now += 9
    assert final.ring() is BuildStatus.OVERLOADED
    final.now += 1.01
    assert final.ring() == "link 1"


def test_an_attachment_whose_voucher_has_ended_is_not_rung_until_it_gets_a_new_one():
    final = Final()
    final.attach()
    final.now = VOUCHER_LIFE
    assert final.ring() is BuildStatus.NO_SUCH_HANDLE
    renewed = final.table.on_renew("link 1", final.unix_now)
    assert renewed.voucher.not_before == NOW + VOUCHER_LIFE
    assert final.ring() == "link 1"


def test_a_voucher_never_outlives_the_attachment():
    final = Final()
    final.attach(message=attach(1, ttl=4 * 3600))
    final.now = 3.5 * 3600
    assert final.table.on_renew("link 1", final.unix_now).voucher.not_after == NOW + 4 * 3600
    final.now = 4 * 3600
    assert final.table.on_renew("link 1", final.unix_now) == AttachRefused(AttachRefusal.UNKNOWN_HANDLE)
    assert len(final.table) == 0


def test_a_lost_link_takes_its_handle_along():
    final = Final()
    final.attach()
    final.table.on_link_lost("link 1")
    final.table.on_link_lost("link 1")
    assert final.ring() is BuildStatus.NO_SUCH_HANDLE
    assert final.table.on_renew("link 1", NOW) == AttachRefused(AttachRefusal.UNKNOWN_HANDLE)
    assert isinstance(final.attach(), AttachAccepted)


def test_one_link_has_one_handle_and_one_handle_one_link():
    final = Final()
    final.attach(1)
    again = final.table.on_attach("link 1", HOME, attach(2, transcript=link(1)), link(1), unix_now=NOW, now=0)
    elsewhere = final.table.on_attach("link 2", HOME, attach(1, transcript=link(2)), link(2), unix_now=NOW, now=0)
    assert again == elsewhere == AttachRefused(AttachRefusal.HANDLE_TAKEN)
    assert len(final.table) == 1


def test_an_address_group_has_so_many_attachments_and_no_more():
    final = Final()
    neighbours = [Address(f"203.0.{n}.1", 40_000 + n) for n in range(ATTACHMENTS_PER_ADDRESS_GROUP + 1)]
    answers = [final.attach(n, address=address) for n, address in enumerate(neighbours)]
    assert [isinstance(answer, AttachAccepted) for answer in answers] == [True] * 8 + [False]
    assert answers[-1] == AttachRefused(AttachRefusal.TOO_MANY)
    assert isinstance(final.attach(99, address=Address("198.51.100.1", 1)), AttachAccepted)
    final.table.on_link_lost("link 0")
    assert isinstance(final.attach(8, address=neighbours[8]), AttachAccepted)


def test_a_test_network_has_no_such_limit():
    final = Final(TESTNET)
    local = Address("127.0.0.1", 5000)
    assert all(isinstance(final.attach(n, address=local), AttachAccepted) for n in range(20))


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(final_module, "ATTACHMENTS_HELD", 5)
    final = Final(TESTNET)
    answers = [final.attach(n) for n in range(8)]
    assert answers[5:] == [AttachRefused(AttachRefusal.BUSY)] * 3
    assert len(final.table) == 5


def test_attachments_end_with_their_life():
    final = Final()
    final.attach(1, message=attach(1, ttl=3600))
    final.attach(2, message=attach(2, ttl=7200))
    final.now = 3600
    assert final.table.expire(final.unix_now) == ("link 1",)
    assert final.ring(1) is BuildStatus.NO_SUCH_HANDLE
    assert final.ring(2) == "link 2"
    assert len(final.table) == 1


def test_a_new_signing_key_signs_the_next_vouchers():
    final, relay = Final(), Relay("final", "9.9.9.9:443")
    final.attach()
    relay.change_signing_key()
    final.table.signing = relay.signing
    table = table_of(relay)
    verify_voucher(final.table.on_renew("link 1", NOW).voucher, table.get(relay.relay_id), NOW, POLICY)


def test_a_ticket_key_does_not_show():
    final = Final()
    final.attach()
    assert repr(attach().k_ticket) not in repr(final.table._by_channel)
