import hashlib
from dataclasses import replace

import pytest

from onionrelay.core.path.groups import Side, address_group, addresses, kad_position, side_of, subnet
from onionrelay.wire.address import Address
from tests.core.relays import POLICY, TESTNET, Relay, endpoint

RELAY_ID = Relay("a", "127.0.0.1:1").relay_id


@pytest.mark.parametrize(
    ("text", "group", "block"),
    [("9.8.7.6:5", "0908", "090807"), ("[2001:db8:1:2::3]:5", "20010db8", "20010db80001")],
)
def test_groups_and_subnets(text, group, block):
    address = Address.parse(text)
    assert address_group(address, POLICY).hex() == group
    assert subnet(address, POLICY).hex() == block
    assert address_group(address, TESTNET) == subnet(address, TESTNET) == address.packed + b"\0\5"


def test_ipv4_comes_before_ipv6_among_all_addresses():
    found = addresses((endpoint("[2620::1]:1", "9.9.9.9:2"), endpoint("8.8.8.8:3")))
    assert [str(address) for address in found] == ["9.9.9.9:2", "8.8.8.8:3", "[2620::1]:1"]


def test_the_side_is_the_lowest_bit_of_the_hashed_group():
    for group in (b"\t\x08", b" \x01\r\xb8", bytes(6)):
        assert side_of(group).value == hashlib.sha256(b"onionrelay/role/1\0" + group).digest()[0] % 2


def test_about_half_of_all_groups_are_on_each_side():
    """All 65,536 IPv4 groups; within 3.9 standard deviations of a fair coin."""
    far = sum(side_of(number.to_bytes(2)) is Side.FAR for number in range(65_536))
    assert abs(far - 32_768) < 3.9 * 128


def test_a_position_is_of_the_block_and_of_the_relay():
    address = Address.parse("9.8.7.6:5")
    block = hashlib.sha256(b"onionrelay/kad/1\0\x09\x08\x07\2").digest()[:8]
    own = hashlib.sha256(RELAY_ID.raw).digest()
    assert kad_position(RELAY_ID, address, 2, POLICY) == block + own[:24]
    assert kad_position(RELAY_ID, address, 2, TESTNET) == own
    assert replace(POLICY, testnet=True) == TESTNET
