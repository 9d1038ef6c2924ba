"""Tickets: proof to a final hop that the asker has read the target's record. specs/05-attach-and-reach.md."""

import hmac

from onionrelay.base.limits import TICKET


def build_ticket(k_ticket: bytes, ephemeral: bytes) -> bytes:
    """The ticket (16) in the final hop's build record, over that record's ephemeral key X."""
    return _ticket(k_ticket, b"onionrelay/ticket-build/1\0", ephemeral)


def live_ticket(k_ticket: bytes, nonce: bytes) -> bytes:
    """The ticket (16) in a query for a proof of life, over its 32-byte nonce."""
    return _ticket(k_ticket, b"onionrelay/ticket-live/1\0", nonce)


def _ticket(k_ticket: bytes, label: bytes, subject: bytes) -> bytes:
    return hmac.digest(k_ticket, label + subject, "sha256")[:TICKET]
