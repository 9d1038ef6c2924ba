import msgspec
import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.ids import RelayId
from onionrelay.wire.address import Endpoint
from onionrelay.wire.descriptor import NatClass, RelayDescriptor, Roles
from tests.wire.samples import ENDPOINT, POINTS, SAMPLES, point

SAMPLE = next(value for value in SAMPLES if isinstance(value, RelayDescriptor))
FAMILY = tuple(RelayId(raw) for raw in sorted(POINTS))
TOO_LARGE = tuple(RelayId(raw) for raw in sorted(map(point, range(1, 10))))


def changed(**fields):
    return msgspec.structs.replace(SAMPLE, **fields)


def test_everything_but_the_signature_is_signed():
    assert SAMPLE.encode() == SAMPLE.signed_part + SAMPLE.signature


def test_the_first_endpoint_is_the_one_for_build_records():
    assert SAMPLE.endpoint == ENDPOINT


def test_role_bits_are_fixed():
    assert [role.name for role in Roles] == ["GUARD", "MIDDLE", "FINAL", "DHT", "STUN", "SIGNAL", "PLAIN_RELAY"]
    assert [role.value for role in Roles] == [1, 2, 4, 8, 16, 32, 64]
    assert [nat.name for nat in NatClass] == ["UNKNOWN", "PUBLIC", "EIM_OPEN", "EIM", "SYMMETRIC", "UDP_BLOCKED"]


def test_unknown_roles_are_kept():
    assert RelayDescriptor.decode(changed(roles=Roles(0x8000)).encode()).roles == 0x8000


def test_the_largest_descriptor():
    full = changed(endpoints=(ENDPOINT, ENDPOINT), family=FAMILY, versions=tuple(range(16)), extensions=())
    room = 4096 - len(full.encode()) - 4
    assert RelayDescriptor.decode(msgspec.structs.replace(full, extensions=((1, bytes(room)),)).encode())
    with pytest.raises(MalformedMessage, match="too long"):
        RelayDescriptor.decode(msgspec.structs.replace(full, extensions=((1, bytes(room + 1)),)).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"published": SAMPLE.published + 1},
        {"expires": SAMPLE.published},
        {"expires": SAMPLE.published + 26 * 3600 + 600},
        {"endpoints": ()},
        {"endpoints": (Endpoint(),)},
        {"endpoints": (ENDPOINT,) * 3},
        {"family": TOO_LARGE},
        {"family": FAMILY[::-1]},
        {"family": (FAMILY[0], FAMILY[0])},
        {"versions": ()},
        {"versions": tuple(range(17))},
        {"dht_slot": 4},
    ],
)
def test_rules_of_a_descriptor(fields):
    with pytest.raises(MalformedMessage):
        RelayDescriptor.decode(changed(**fields).encode())


@pytest.mark.parametrize(
    "fields", [{"onion_mlkem": bytes(1183)}, {"max_hold": 605}, {"net_id": bytes(7)}, {"pow_seed": b""}]
)
def test_what_is_not_written(fields):
    with pytest.raises(UsageError):
        changed(**fields).encode()
