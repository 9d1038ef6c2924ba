import hashlib

from onionrelay.wire.link import Auth, Feature, HelloClient, HelloServer, LinkRole, PaddingPolicy, SigningCert
from tests.wire.samples import CERT, EXTRA, IPV6, NET, NONCE, RELAY, SIG, SIGNING, TIME

HELLO = HelloServer(NET, 1, 15, NONCE, RELAY, CERT, IPV6, 3_000_000, SIG, EXTRA)


def test_what_a_certificate_signs():
    assert CERT.signed_part == SIGNING.raw + TIME.to_bytes(4)
    assert CERT.encode() == CERT.signed_part + SIG
    assert len(CERT.encode()) == SigningCert.SIZE == 100


def test_everything_but_the_signature_of_hello_s_is_signed():
    assert HELLO.signed_part == HELLO.encode()[:-64]
    assert EXTRA[0][1] in HELLO.signed_part
    other = HelloServer.decode(HELLO.signed_part + bytes(64))
    assert other.signed_part == HELLO.signed_part


def test_unknown_feature_bits_survive():
    """The transcript hashes what was sent, so nothing may be dropped on the way."""
    hello = HelloClient(NET, (1,), (1 << 63) | Feature.CIRCUITS, NONCE, LinkRole.CLIENT, PaddingPolicy.OFF)
    again = HelloClient.decode(hello.encode())
    assert again.features == (1 << 63) | 1
    assert hashlib.sha256(again.encode()).digest() == hashlib.sha256(hello.encode()).digest()


def test_feature_bits_are_fixed():
    assert [(feature.name, feature.value) for feature in Feature] == [
        ("CIRCUITS", 1),
        ("ATTACH", 2),
        ("DHT", 4),
        ("DIR", 8),
    ]


def test_the_smallest_auth():
    assert len(Auth(RELAY, CERT, SIG).encode()) == 196
