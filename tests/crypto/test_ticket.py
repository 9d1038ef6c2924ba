import hashlib
import hmac

from onionrelay.crypto.ticket import build_ticket, live_ticket

KEY, SUBJECT = bytes(range(32)), bytes(32)


def test_tickets_are_labelled_macs():
    for ticket, label in ((build_ticket, b"onionrelay/ticket-build/1\0"), (live_ticket, b"onionrelay/ticket-live/1\0")):
        assert ticket(KEY, SUBJECT) == hmac.new(KEY, label + SUBJECT, hashlib.sha256).digest()[:16]


def test_a_ticket_serves_one_purpose_key_and_subject():
    tickets = {
        build_ticket(KEY, SUBJECT),
        live_ticket(KEY, SUBJECT),
        build_ticket(bytes(32), SUBJECT),
        build_ticket(KEY, b"\1" + SUBJECT[1:]),
    }
    assert len(tickets) == 4
