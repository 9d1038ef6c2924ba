import pytest
from msgspec.structs import replace

from onionrelay.base.errors import BadRecord, BadSignature, MalformedMessage
from onionrelay.base.limits import CLOCK_SKEW_REFUSED, DESCRIPTOR_LIFE
from onionrelay.core.directory.descriptor import verify_descriptor
from onionrelay.core.path.groups import Side
from onionrelay.wire.descriptor import RelayDescriptor, Roles
from tests.core.relays import DAY, NET, NOW, ONION, POLICY, TESTNET, Relay, bare, endpoint

PUBLIC = "9.9.9.9:443"


def test_a_descriptor_gives_the_relay_it_describes():
    relay = Relay("a", PUBLIC, changes={"bandwidth": 20, "next_onion_digest": bytes([7]) * 32})
    raw = relay.describe()
    entry = verify_descriptor(raw, NOW, POLICY)
    assert (entry.relay_id, entry.raw, entry.first_seen) == (relay.relay_id, raw, NOW)
    assert entry.onion == ONION
    assert entry.bandwidth == 1 << 20
    assert entry.descriptor.next_onion_digest == bytes([7]) * 32
    assert entry.has(Roles.GUARD | Roles.FINAL)
    assert not entry.has(Roles.GUARD | Roles.STUN)
    assert entry.group == bytes([9, 9])
    assert entry.side in Side
    assert entry.descriptor.expires == NOW + DESCRIPTOR_LIFE
    assert entry.is_valid(NOW + DESCRIPTOR_LIFE - 1)
    assert not entry.is_valid(NOW + DESCRIPTOR_LIFE)


def test_a_descriptor_ends_with_its_certificate():
    relay = Relay("a", PUBLIC)
    relay.cert = relay.certify(NOW + 5000)
    assert RelayDescriptor.decode(relay.describe()).expires == NOW + 4800


REFUSED = {
    "another network": ({"net_id": bytes(8)}, NOW, "another network"),
    "an address that is not public": ({"endpoints": (endpoint("10.0.0.1:443"),)}, NOW, "not public"),
    "one address of two that is not public": ({"endpoints": (endpoint(PUBLIC, "[fd00::1]:443"),)}, NOW, "not public"),
    "a second endpoint that is not public": (
        {"endpoints": (endpoint(PUBLIC), endpoint("127.0.0.1:443"))},
        NOW,
        "not public",
    ),
    "expired": ({}, NOW + DESCRIPTOR_LIFE, "descriptor expired"),
    "from the future": ({}, NOW - CLOCK_SKEW_REFUSED - 1, "in the future"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_hold_is_refused_with_the_reason(case):
    changes, when, reason = REFUSED[case]
    with pytest.raises(BadRecord, match=reason):
        verify_descriptor(Relay("a", PUBLIC).describe(**changes), when, POLICY)


@pytest.mark.parametrize(("life", "reason"), [(600, "certificate expired"), (31 * DAY, "longer than allowed")])
def test_the_certificate_has_to_be_in_force(life, reason):
    relay = Relay("a", PUBLIC)
    unsigned = replace(RelayDescriptor.decode(relay.describe()), signing_cert=relay.certify(NOW + life))
    raw = replace(unsigned, signature=relay.signing.sign("relay", unsigned.signed_part)).encode()
    with pytest.raises(BadRecord, match=reason):
        verify_descriptor(raw, NOW + 600, POLICY)


def test_a_skewed_clock_is_no_reason_to_refuse():
    verify_descriptor(Relay("a", PUBLIC).describe(), NOW - CLOCK_SKEW_REFUSED, POLICY)


def test_a_certificate_of_another_relay_is_refused():
    relay, other = Relay("a", PUBLIC), Relay("b", PUBLIC)
    relay.cert = other.cert
    with pytest.raises(BadSignature, match="signing-cert"):
        verify_descriptor(relay.describe(), NOW, POLICY)


def test_a_signature_of_another_key_is_refused():
    relay, other = Relay("a", PUBLIC), Relay("b", PUBLIC)
    relay.signing = other.signing
    with pytest.raises(BadSignature, match="relay signature"):
        verify_descriptor(relay.describe(), NOW, POLICY)


def test_every_byte_is_covered_by_a_signature_or_a_check():
    raw = Relay("a", PUBLIC).describe()
    for at in [*range(0, 190, 7), *range(190, len(raw), 97), len(raw) - 1]:
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises((BadRecord, BadSignature, MalformedMessage)):
            verify_descriptor(bytes(changed), NOW, POLICY)


def test_a_test_network_takes_private_addresses_and_tells_them_apart_by_port():
    one, two = (
        verify_descriptor(Relay(name, address).describe(), NOW, TESTNET)
        for name, address in (("a", "127.0.0.1:1"), ("b", "127.0.0.1:2"))
    )
    assert one.group != two.group
    assert not one.groups & two.groups
    assert not one.subnets & two.subnets


def test_groups_come_from_all_addresses_and_the_position_from_the_first():
    entry = bare("a", "[2620:1::1]:443", "9.9.9.9:443")
    assert entry.group == bytes([9, 9])
    assert entry.groups == {bytes([9, 9]), bytes.fromhex("26200001")}
    assert entry.subnets == {bytes([9, 9, 9]), bytes.fromhex("262000010000")}
    assert entry.position == bare("a", "9.9.9.200:1").position
    assert entry.position[:8] == bare("b", "9.9.9.200:1").position[:8]
    assert entry.position[8:] != bare("b", "9.9.9.200:1").position[8:]
    assert entry.position[:8] != bare("a", "9.9.8.9:443").position[:8]
    assert entry.position[:8] != bare("a", "9.9.9.9:443", dht_slot=1).position[:8]


def test_vouchers_are_signed_by_the_current_or_the_previous_key_while_their_certificates_last():
    relay = Relay("a", PUBLIC)
    entry = verify_descriptor(relay.describe(), NOW, POLICY)
    assert entry.signing_keys(NOW) == (relay.cert.signing_key,)
    assert entry.signing_keys(relay.cert.not_after) == ()


def test_a_representation_shows_no_more_than_the_beginning_of_an_id():
    entry = verify_descriptor(Relay("a", PUBLIC).describe(), NOW, POLICY)
    assert str(entry.relay_id) not in repr(entry)
    assert NET.hex() not in repr(entry)
