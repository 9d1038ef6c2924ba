import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from onionrelay.base.errors import BadSignature
from onionrelay.base.ids import BlindedKey, NodeId
from onionrelay.crypto.blind import blind_public, blind_sign, period_at
from onionrelay.crypto.signing import SigningSecret, verify
from tests.seeded import SeededRng

SECRETS = [SigningSecret.generate(SeededRng(seed)) for seed in range(20)]


def test_who_knows_the_id_finds_the_key_that_signs():
    for period, secret in enumerate(SECRETS):
        key, signature = blind_sign(secret, period, "reach-cert", b"body")
        assert key == blind_public(NodeId(secret.public), period)
        verify(BlindedKey.decode(key.raw), "reach-cert", b"body", signature)


def test_a_stock_verifier_accepts_it():
    key, signature = blind_sign(SECRETS[0], 20_000, "reach-cert", b"body")
    Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, b"onionrelay/reach-cert/1\0body")


def test_keys_differ_by_node_and_period_and_from_the_id():
    keys = {blind_public(NodeId(secret.public), period).raw for secret in SECRETS for period in range(5)}
    assert len(keys) == 100
    assert not keys & {secret.public for secret in SECRETS}


def test_a_signature_is_of_one_period_and_body():
    key, signature = blind_sign(SECRETS[0], 7, "reach-cert", b"body")
    for other_key, body in ((blind_public(NodeId(SECRETS[0].public), 8), b"body"), (key, b"another")):
        with pytest.raises(BadSignature):
            verify(other_key, "reach-cert", body, signature)


def test_signing_is_deterministic_and_its_nonce_never_repeats_over_bodies_or_periods():
    signatures = {
        blind_sign(SECRETS[0], period, "reach-cert", bytes([body])) for period in range(4) for body in range(4)
    }
    assert len({signature[:32] for _, signature in signatures}) == 16
    assert blind_sign(SECRETS[0], 3, "reach-cert", b"\0") in signatures


def test_periods_change_at_noon_for_everybody():
    noon = 1_750_000_000 // 86_400 * 86_400 + 43_200
    assert period_at(noon) == period_at(noon - 1) + 1 == period_at(noon + 86_399)
    assert period_at(43_200) == 0
