import pytest
from nacl import bindings

from onionrelay.base.errors import BadSignature, ProtocolViolation, UsageError
from onionrelay.base.ids import Ed25519Point, RelayId, SigningKey
from onionrelay.crypto.signing import SigningSecret, verify
from tests.seeded import SeededRng

SECRET = SigningSecret(bytes(range(32)))
KEY = RelayId(SECRET.public)
BODY = b"the body"
GOOD = SECRET.sign("relay", BODY)
L = 2**252 + 27742317777372353535851937790883648493
IDENTITY = (1).to_bytes(32, "little")


def test_a_signature_verifies_and_is_plain_ed25519_over_the_labelled_body():
    verify(KEY, "relay", BODY, GOOD)
    verify(SigningKey(SECRET.public), "relay", BODY, GOOD)
    assert bindings.crypto_sign_open(GOOD + b"onionrelay/relay/1\0the body", SECRET.public)


def test_every_flipped_bit_is_noticed():
    for bit in range(64 * 8):
        bad = bytearray(GOOD)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            verify(KEY, "relay", BODY, bytes(bad))


@pytest.mark.parametrize(
    ("thing", "body"),
    [("relay", b"the bodz"), ("relay", b""), ("reach", BODY), ("relay/1\0the", b"body"), ("rela", b"y/1\0the body")],
)
def test_a_signature_speaks_for_one_thing_and_body(thing, body):
    with pytest.raises(BadSignature, match="does not verify"):
        verify(KEY, thing, body, GOOD)


def test_another_key_is_refused():
    with pytest.raises(BadSignature):
        verify(RelayId(SigningSecret(bytes(32)).public), "relay", BODY, GOOD)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_wrong_length_is_refused(size):
    with pytest.raises(BadSignature, match=f"{size} bytes long"):
        verify(KEY, "relay", BODY, (GOOD * 2)[:size])


def test_a_scalar_beyond_the_groups_order_is_refused():
    scalar = int.from_bytes(GOOD[32:], "little") + L
    with pytest.raises(BadSignature):
        verify(KEY, "relay", BODY, GOOD[:32] + scalar.to_bytes(32, "little"))


def test_the_identity_as_key_and_commitment_forges_nothing():
    """A = R = 1, S = 0 satisfies the equation for every message; some verifiers accept it."""
    with pytest.raises(BadSignature):
        verify(Ed25519Point(IDENTITY), "relay", BODY, IDENTITY + bytes(32))


def test_a_violation_by_the_peer():
    assert issubclass(BadSignature, ProtocolViolation)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_of_the_wrong_length_is_the_callers_fault(size):
    with pytest.raises(UsageError, match=f"not {size}"):
        SigningSecret(bytes(size))


def test_generate_draws_from_the_rng_and_repr_keeps_the_secret():
    secret = SigningSecret.generate(SeededRng(1))
    assert secret.seed == SeededRng(1).token(32)
    assert secret.seed.hex()[:8] not in repr(secret)
    assert secret.public.hex()[:8] in repr(secret)
