import pytest
from msgspec.structs import replace

from onionrelay.base.errors import BadRecord, BadSignature, MalformedMessage, ProtocolViolation
from onionrelay.base.limits import CLOCK_SKEW_REFUSED, REACH_KEPT, REACH_LIFE, VOUCHER_LIFE
from onionrelay.core.directory.placement import period_start
from onionrelay.core.directory.reach import newest_record, next_revision, open_record, verify_record
from onionrelay.core.path.groups import Side
from onionrelay.wire.attach import TICKET_KEY
from onionrelay.wire.descriptor import Roles
from onionrelay.wire.reach import FinalEntry, ReachRecord
from tests.core.reaching import PERIOD, Node
from tests.core.relays import (
    ALL_ROLES,
    DAY,
    NOW,
    POLICY,
    TESTNET,
    Relay,
    bare_table,
    grown_table,
    local_relays,
    public_address,
    table_of,
)

RELAYS = local_relays(4)
TABLE = table_of(*RELAYS)
NODE, OTHER = Node(), Node("other")
GOOD = [NODE.final(relay, number) for number, relay in enumerate(RELAYS[:3])]


def opened(raw, node=NODE, unix_now=NOW, table=TABLE, policy=TESTNET):
    return open_record(raw, node.node_id, table, unix_now, policy)


def test_a_record_leads_to_the_final_hops_of_its_node():
    record = opened(NODE.record(*GOOD, revision=7))
    assert record.version == (PERIOD, 7)
    assert record.expires == NOW + REACH_LIFE
    assert record.rejected == ()
    assert [final.entry.relay_id for final in record.finals] == [relay.relay_id for relay in RELAYS[:3]]
    assert [final.handle for final in record.finals] == [NODE.handle(number) for number in range(3)]
    assert [final.k_ticket for final in record.finals] == [entry.k_ticket for entry in GOOD]
    assert record.contents.node_id == NODE.node_id


def test_secrets_do_not_show():
    raw = NODE.record(*GOOD)
    shown = repr(opened(raw)) + repr(NODE.record_secret())
    for entry in GOOD:
        assert repr(entry.k_ticket) not in shown
    assert len(GOOD[0].k_ticket) == TICKET_KEY


# Records that do not hold


def tampered(raw, at, change=1):
    return raw[:at] + bytes([raw[at] ^ change]) + raw[at + 1 :]


def signed_again(record, secret):
    return replace(record, signature=secret.secret.sign("reach", record.signed_part)).encode()


def stolen_cert():
    """Another node's certificate on a record that the thief signs."""
    secret = OTHER.record_secret()
    record = ReachRecord.decode(OTHER.record(*GOOD, secret=secret))
    return signed_again(replace(record, cert=NODE.record_secret().cert), secret)


def longer_lived():
    secret = NODE.record_secret()
    record = replace(ReachRecord.decode(NODE.record(*GOOD, secret=secret)), expires=NOW + REACH_LIFE + 1800)
    return signed_again(record, secret)


RAW = NODE.record(*GOOD)
WRONG = {
    "cut short": (RAW[:-1], {}, MalformedMessage, "wrong length"),
    "another version": (b"\2" + RAW[1:], {}, MalformedMessage, "version"),
    "another network": (NODE.record(*GOOD, net_id=bytes(8)), {}, BadRecord, "another network"),
    "an earlier period": (NODE.record(*GOOD, period=PERIOD - 2), {}, BadRecord, "another period"),
    "a later period": (NODE.record(*GOOD, period=PERIOD + 2), {}, BadRecord, "another period"),
    "expired": (RAW, {"unix_now": NOW + REACH_LIFE}, BadRecord, "record expired"),
    "valid for too long": (longer_lived(), {}, BadRecord, "too long"),
    "another node": (OTHER.record(*GOOD), {}, BadRecord, "another node"),
    "another node inside": (
        NODE.record(contents=OTHER.contents(*GOOD)),
        {},
        BadRecord,
        "another node inside",
    ),
    "forged signature": (tampered(RAW, len(RAW) - 1), {}, BadSignature, "reach signature"),
    "changed revision": (tampered(RAW, 24), {}, BadSignature, "reach signature"),
    "changed ciphertext": (tampered(RAW, 2000), {}, BadSignature, "reach signature"),
    "stolen certificate": (stolen_cert(), {}, BadSignature, "reach-cert"),
    "onion keys that are none": (
        NODE.record(contents=NODE.contents(*GOOD, onion_x25519=bytes(32))),
        {},
        MalformedMessage,
        "low order",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_record_that_does_not_hold_is_refused_with_the_reason(case):
    raw, changes, error, reason = WRONG[case]
    with pytest.raises(error, match=reason):
        opened(raw, **changes)


def test_a_storer_notices_all_of_that_but_what_only_the_node_id_shows():
    hidden = {"another node", "another node inside", "onion keys that are none"}
    for case, (raw, changes, _, _) in WRONG.items():
        if case in hidden:
            verify_record(raw, NOW, TESTNET)
        else:
            with pytest.raises(ProtocolViolation):
                verify_record(raw, changes.get("unix_now", NOW), TESTNET)


def test_a_record_of_the_last_period_is_good_until_it_is_no_longer_kept():
    end = period_start(PERIOD + 1)
    late = NODE.record(NODE.final(RELAYS[0], unix_now=end), unix_now=end + 3600)
    entry = opened(late, unix_now=end + REACH_KEPT - 1)
    assert entry.version[0] == PERIOD
    with pytest.raises(BadRecord, match="another period"):
        opened(late, unix_now=end + REACH_KEPT)


def test_every_byte_of_a_record_counts():
    for at in [*range(0, 260, 5), *range(260, len(RAW), 131)]:
        with pytest.raises(ProtocolViolation):
            opened(tampered(RAW, at))


# Final hops that do not hold


def voucher_of(entry, **changes):
    return FinalEntry(replace(entry.voucher, **changes), entry.k_ticket)


STRANGER = Relay("stranger", "127.0.0.1:1")
NO_FINAL = Relay("no final hop", "127.0.0.1:2", roles=ALL_ROLES & ~Roles.FINAL)
WRONG_FINALS = {
    "expired": (NODE.final(RELAYS[0], unix_now=NOW - VOUCHER_LIFE), "voucher expired"),
    "from the future": (NODE.final(RELAYS[0], unix_now=NOW + CLOCK_SKEW_REFUSED + 600), "voucher from the future"),
    "forged": (voucher_of(GOOD[0], signature=bytes(64)), "voucher not signed by this relay"),
    "of another handle": (voucher_of(GOOD[0], handle=NODE.handle(9)), "voucher not signed by this relay"),
    "of another final hop": (voucher_of(GOOD[0], final=RELAYS[3].relay_id), "voucher not signed by this relay"),
    "of another network": (NODE.final(RELAYS[0], net_id=bytes(8)), "voucher not signed by this relay"),
    "unknown relay": (NODE.final(STRANGER), "relay not known"),
    "no final hop": (NODE.final(NO_FINAL), "relay is no final hop"),
}


@pytest.mark.parametrize("case", WRONG_FINALS)
def test_a_wrong_final_hop_is_left_out_with_the_reason_and_the_others_stay(case):
    entry, reason = WRONG_FINALS[case]
    table = table_of(*RELAYS, NO_FINAL)
    record = opened(NODE.record(entry, *GOOD[1:]), table=table)
    assert record.rejected == ((entry.voucher.final, reason),)
    assert [final.voucher for final in record.finals] == [good.voucher for good in GOOD[1:]]


def test_a_record_with_wrong_final_hops_only_is_opened_and_leads_nowhere():
    record = opened(NODE.record(NODE.final(RELAYS[0], unix_now=NOW - VOUCHER_LIFE)))
    assert record.finals == ()
    assert [reason for _, reason in record.rejected] == ["voucher expired"]


def test_a_final_hop_or_handle_counts_once():
    twice = NODE.final(RELAYS[0], 5)
    same_handle = NODE.final(RELAYS[3], 1)
    record = opened(NODE.record(*GOOD[:2], twice, same_handle))
    assert len(record.finals) == 2
    assert [reason for _, reason in record.rejected] == ["final hop or handle listed twice"] * 2


def test_a_final_hop_whose_descriptor_has_expired_is_left_out():
    late = NOW + 27 * 3600
    node = Node("late")
    period = PERIOD + 1
    raw = node.record(node.final(RELAYS[0], unix_now=late), unix_now=late, period=period)
    assert opened(raw, node, late).rejected == ((RELAYS[0].relay_id, "relay's descriptor expired"),)


def test_a_final_hop_on_the_near_side_is_invalid_for_everybody_where_sides_are_kept_apart():
    sides = {}
    for group in range(400):
        relay = Relay(f"final {group}", public_address(group))
        sides.setdefault(table_of(relay, policy=POLICY).get(relay.relay_id).side, relay)
    near, far = sides[Side.NEAR], sides[Side.FAR]
    raw = NODE.record(NODE.final(near, 1), NODE.final(far, 2))
    large = bare_table([*grown_table(60), *table_of(near, far, policy=POLICY)])
    record = opened(raw, table=large, policy=POLICY)
    assert record.rejected == ((near.relay_id, "relay is on the near side"),)
    assert [final.entry.relay_id for final in record.finals] == [far.relay_id]
    small = table_of(near, far, policy=POLICY)
    assert opened(raw, table=small, policy=POLICY).rejected == ()


# Several answers


def newest(*values, known=None):
    return newest_record(values, NODE.node_id, TABLE, NOW, TESTNET, known=known)


def test_the_highest_revision_of_what_holds_is_taken():
    old, new = NODE.record(*GOOD, revision=3), NODE.record(*GOOD[:1], revision=4)
    record, refused = newest(old, b"junk", new, OTHER.record(*GOOD, revision=9), old)
    assert record.version == (PERIOD, 4)
    assert len(refused) == 2
    assert refused[1] == "record of another node"


def test_a_replayed_older_revision_is_refused_with_the_reason():
    record, refused = newest(NODE.record(*GOOD, revision=3), known=(PERIOD, 4))
    assert record is None
    assert refused == ("record older than one seen before",)
    assert newest(NODE.record(*GOOD, revision=4), known=(PERIOD, 4))[0] is not None
    assert newest(NODE.record(*GOOD, revision=1), known=(PERIOD - 1, 4))[0] is not None


def test_nothing_found_is_nothing():
    assert newest() == (None, ())


def test_revisions_rise_and_tell_no_more_than_ten_minutes():
    start = period_start(PERIOD)
    first = next_revision(PERIOD, start + 1234)
    assert first == 1200 << 16
    assert next_revision(PERIOD, start + 1799, first) == first + 1
    assert next_revision(PERIOD, start + 1800, first + 1) == 1800 << 16
    assert next_revision(PERIOD, start - 1000) == 0
    assert next_revision(PERIOD, start - 1000, 5) == 6
    assert next_revision(PERIOD, start, 99 << 16) == (99 << 16) + 1
    assert DAY << 16 < 1 << 64
