"""Address groups: what a relay's position on a path is bound to, because address blocks cost more than keys.

A group is the IPv4 /16 or IPv6 /32 of an address; on a test network it is one address and port. Groups decide the side
a relay may stand on, which relays clash, and how candidates are weighed (specs/07-directory-and-paths.md).
"""

import hashlib
from enum import Enum

from onionrelay.base.ids import RelayId
from onionrelay.core.path.policy import PathPolicy
from onionrelay.wire.address import Address, Endpoint


class Side(Enum):
    """Which half of a path a group may stand on: near is guard and vanguard, far is middle, final hop and storer."""

    NEAR = 0
    FAR = 1


def address_group(address: Address, policy: PathPolicy) -> bytes:
    """The group of one address: 2 bytes (IPv4 /16), 4 (IPv6 /32), or address and port on a test network."""
    return _address_and_port(address) if policy.testnet else address.group16()


def subnet(address: Address, policy: PathPolicy) -> bytes:
    """The finer block that small networks tell relays apart by: IPv4 /24, IPv6 /48."""
    return _address_and_port(address) if policy.testnet else address.group24()


def _address_and_port(address: Address) -> bytes:
    return address.packed + address.port.to_bytes(2, "big")


def addresses(endpoints: tuple[Endpoint, ...]) -> tuple[Address, ...]:
    """All addresses, every IPv4 one before every IPv6 one: the first is the one that places a relay."""
    v4 = tuple(each.ipv4 for each in endpoints if each.ipv4 is not None)
    v6 = tuple(each.ipv6 for each in endpoints if each.ipv6 is not None)
    return v4 + v6


def side_of(group: bytes) -> Side:
    """The side of a group: the lowest bit of the first byte of SHA256("onionrelay/role/1" 00 | group)."""
    return Side(hashlib.sha256(b"onionrelay/role/1\0" + group).digest()[0] & 1)


def kad_position(relay_id: RelayId, address: Address, slot: int, policy: PathPolicy) -> bytes:
    """The 32-byte DHT position of a relay: its address block and slot say where, its key hardly anything.

    SHA256("onionrelay/kad/1" 00 | IPv4 /24 or IPv6 /48 | slot)[:8] | SHA256(relay id)[:24]; on a test network
    SHA256(relay id).
    """
    own = hashlib.sha256(relay_id.raw).digest()
    if policy.testnet:
        return own
    return hashlib.sha256(b"onionrelay/kad/1\0" + address.group24() + bytes([slot])).digest()[:8] + own[:24]
