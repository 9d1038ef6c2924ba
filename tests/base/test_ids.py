import itertools

import pytest
from nacl import bindings

from onionrelay.base import bech32m
from onionrelay.base.errors import InvalidId, UsageError
from onionrelay.base.ids import BlindedKey, Ed25519Point, HandleKey, NodeId, RecordKey, RelayId, SigningKey

KINDS = [NodeId, RelayId, SigningKey, HandleKey, BlindedKey, RecordKey]
RAW = bindings.crypto_sign_seed_keypair(bytes(32))[0]
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
P = 2**255 - 19


def little(number):
    return number.to_bytes(32, "little")


BAD_POINTS = {
    "identity": little(1),
    "order 2": little(P - 1),
    "order 4": little(0),
    "order 8": ORDER_8,
    "not canonical: y = p + 3": little(P + 3),
    "identity, not canonical": little(P + 1),
    "identity with a sign": little(1 | 1 << 255),
    "mixed order": bindings.crypto_core_ed25519_add(RAW, ORDER_8),
    "mixed order, by 2": bindings.crypto_core_ed25519_add(RAW, little(P - 1)),
    "not on the curve": little(2),
    "all ones": b"\xff" * 32,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_point_decodes_from_bytes_and_from_a_view(kind):
    assert kind.decode(RAW) == kind.decode(memoryview(RAW)) == kind(RAW)
    assert bytes(kind(RAW)) == kind(RAW).raw == RAW


@pytest.mark.parametrize("name", BAD_POINTS)
def test_a_bad_point_is_refused(name):
    for kind in KINDS:
        with pytest.raises(InvalidId, match=f"no {kind.kind()}"):
            kind.decode(BAD_POINTS[name])


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_wrong_length_is_refused_even_by_the_trusting_constructor(size):
    for make in (NodeId, NodeId.decode):
        with pytest.raises(InvalidId, match=f"32 bytes, not {size}"):
            make(bytes(size))


def test_kinds_are_never_interchangeable():
    for one, other in itertools.permutations(KINDS, 2):
        assert one(RAW) != other(RAW)
        with pytest.raises(TypeError):
            assert one(RAW) < other(RAW)
    assert len({kind(RAW) for kind in KINDS}) == len(KINDS)


def test_ids_are_frozen_values_ordered_by_their_bytes():
    low, high = RelayId(bytes(32)), RelayId(b"\1" + bytes(31))
    assert sorted([high, low]) == [low, high]
    with pytest.raises(AttributeError):
        low.raw = RAW
    with pytest.raises((AttributeError, TypeError)):
        low.nickname = "relay"


def test_text_forms():
    node, relay = str(NodeId(RAW)), str(RelayId(RAW))
    assert (len(node), node[:5]) == (63, "onr1q")
    assert (len(relay), relay[:6]) == (64, "onrr1q")
    assert NodeId.parse(node) == NodeId.parse(node.upper()) == NodeId(RAW)
    assert RelayId.parse(relay) == RelayId(RAW)


def test_repr_is_short_and_names_the_kind():
    assert repr(NodeId(RAW)) == f"NodeId({str(NodeId(RAW))[:12]}...)"
    assert repr(SigningKey(RAW)) == f"SigningKey({RAW.hex()[:8]}...)"


def text(hrp, version, data, spare=0):
    symbols = bech32m.to_symbols(data)
    symbols[-1] |= spare
    return bech32m.encode(hrp, [version, *symbols])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (str(RelayId(RAW)), "begins with onr1, this text with onrr1, it is a relay id"),
        (text("tor", 0, RAW), "begins with onr1, this text with tor1$"),
        (text("onr", 1, RAW), "version"),
        (text("onr", 31, RAW), "version"),
        (bech32m.encode("onr", []), "version"),
        (text("onr", 0, RAW, spare=1), "fill the last character"),
        (text("onr", 0, RAW[:31]), "too short or too long"),
        (text("onr", 0, RAW + b"\0"), "too short or too long"),
        (text("onr", 0, BAD_POINTS["mixed order"]), "prime-order"),
        (str(NodeId(RAW))[:-1], "checksum"),
        (str(NodeId(RAW))[:30] + str(NodeId(RAW))[30:].upper(), "upper and lower"),
        (" " + str(NodeId(RAW)), "printable"),
    ],
)
def test_each_fault_of_an_id_has_its_own_words(wrong, says):
    with pytest.raises(InvalidId, match=says):
        NodeId.parse(wrong)


def test_a_bad_id_is_the_callers_fault():
    with pytest.raises(UsageError):
        Ed25519Point.decode(bytes(32))
