"""Blinded keys: a node id turned into a different, unlinkable key for each period. specs/01-identity.md.

Storers see and verify ordinary Ed25519 keys and signatures. Whoever knows the node id computes the blinded key too;
and whoever knows the node id *and* a blinded secret has the identity secret, so a blinded secret exists only inside
one call of `blind_sign`.
"""

import hashlib

from nacl import bindings

from onionrelay.base.ids import BlindedKey, NodeId
from onionrelay.base.limits import BLIND_PERIOD, BLIND_PERIOD_START
from onionrelay.crypto.signing import SigningSecret, signed_message, verify


def period_at(unix: int) -> int:
    """The period a moment falls into; negative before 1970-01-01 12:00 UTC."""
    return (unix - BLIND_PERIOD_START) // BLIND_PERIOD


def blind_public(node_id: NodeId, period: int) -> BlindedKey:
    """The key under which the node's reach records of `period` are stored."""
    return BlindedKey(bindings.crypto_scalarmult_ed25519_noclamp(_factor(node_id.raw, period), node_id.raw))


def blind_sign(node_secret: SigningSecret, period: int, thing: str, body: bytes) -> tuple[BlindedKey, bytes]:
    """Signs with the blinded key of `period`. The nonce depends on secret, period and message only.

    The signature is verified before it is handed out: a faulty one would give the secret away.
    """
    digest = hashlib.sha512(node_secret.seed).digest()
    factor = _factor(node_secret.public, period)
    secret = bindings.crypto_core_ed25519_scalar_mul(_clamped(digest[:32]), factor)
    public = bindings.crypto_scalarmult_ed25519_base_noclamp(secret)
    message = signed_message(thing, body)
    prefix = hashlib.sha512(b"onionrelay/blind/1/nonce\0" + digest[32:] + factor).digest()[:32]
    nonce = _scalar(prefix + message)
    commitment = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = _scalar(commitment + public + message)
    response = bindings.crypto_core_ed25519_scalar_add(
        nonce, bindings.crypto_core_ed25519_scalar_mul(challenge, secret)
    )
    key, signature = BlindedKey(public), commitment + response
    verify(key, thing, body, signature)
    return key, signature


def _factor(node_id: bytes, period: int) -> bytes:
    return _scalar(b"onionrelay/blind/1\0" + node_id + period.to_bytes(8, "big"))


def _scalar(data: bytes) -> bytes:
    """SHA-512 of `data` modulo the group's order."""
    return bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(data).digest())


def _clamped(half: bytes) -> bytes:
    """Ed25519's secret scalar from the first half of the hashed seed, reduced modulo the group's order."""
    scalar = bytearray(half)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 63 | 64
    return bindings.crypto_core_ed25519_scalar_reduce(bytes(scalar) + bytes(32))
